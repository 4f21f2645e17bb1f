//! A configuration as text: `kvd config show` and `kvd config default`.

use std::fmt::Write as _;

use super::Loaded;
use super::key::{KEYS, Key, Kind};
use super::layer::{Setting, Value};
use super::problem::Origin;

/// Column at which the remark behind a value begins.
const REMARK_COLUMN: usize = 34;

impl Loaded {
    /// Every value as TOML that can be read back, with its origin as a remark.
    #[must_use]
    pub fn show(&self) -> String {
        lines(|key| {
            let setting = self.settings.get(&key.path())?;
            let value = toml_of(key, &value_text(setting));
            Some((value, self.origin_text(&setting.origin)))
        })
    }

    fn origin_text(&self, origin: &Origin) -> String {
        match origin {
            Origin::Default => "default".to_owned(),
            Origin::File { line, .. } => match &self.file {
                Some(file) => format!("{}:{line}", file.display()),
                None => format!("line {line}"),
            },
            Origin::Environment(name) => name.clone(),
            Origin::Flag(name) => format!("--{name}"),
        }
    }
}

/// The file with every key at its default, and examples where there is none.
#[must_use]
pub fn default_file() -> String {
    lines(|key| Some((toml_of(key, key.example), key.doc.to_owned())))
}

fn lines(value_and_remark: impl Fn(&Key) -> Option<(String, String)>) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in &KEYS {
        let Some((value, remark)) = value_and_remark(key) else {
            continue;
        };
        if key.section != section {
            section = key.section;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[{section}]");
        }
        let pair = format!("{} = {value}", key.name);
        let _ = writeln!(text, "{pair:REMARK_COLUMN$} # {remark}");
    }
    text
}

/// The value of a setting as a flag would carry it.
fn value_text(setting: &Setting) -> String {
    match &setting.value {
        Value::Text(text) => text.clone(),
        Value::Table(entries) => entries
            .iter()
            .map(|(name, address, _)| format!("{name}={address}"))
            .collect::<Vec<_>>()
            .join(","),
    }
}

fn toml_of(key: &Key, text: &str) -> String {
    match key.kind {
        Kind::Count => text.to_owned(),
        Kind::Members => {
            let pairs: Vec<String> = text
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, address)| format!("{name} = {}", quoted(address)))
                .collect();
            if pairs.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", pairs.join(", "))
            }
        }
        Kind::Bytes if text.bytes().all(|byte| byte.is_ascii_digit()) => text.to_owned(),
        Kind::Text | Kind::Path | Kind::Bytes | Kind::Duration | Kind::Listen => quoted(text),
    }
}

/// A text as a TOML string.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
