//! The layers of settings: flags over environment over file over defaults.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::key::{self, KEYS, Key, Kind};
use super::problem::{Origin, Problem, nearest};

/// A value as it was written, with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What was written, before it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    /// Names and addresses, each with its own origin.
    Table(Vec<(String, String, Origin)>),
}

/// The settings of all layers by `section.name`; a later layer overwrites an earlier one.
pub(crate) type Settings = BTreeMap<String, Setting>;

/// The lowest layer: what holds when nobody says anything.
pub(crate) fn defaults() -> Settings {
    let mut settings = Settings::new();
    for key in &KEYS {
        if let Some(default) = key.default {
            let value = match key.kind {
                Kind::Members => Value::Table(Vec::new()),
                Kind::Text
                | Kind::Path
                | Kind::Bytes
                | Kind::Duration
                | Kind::Count
                | Kind::Listen => Value::Text(default.to_owned()),
            };
            insert(&mut settings, key, value, Origin::Default);
        }
    }
    settings
}

fn insert(settings: &mut Settings, key: &'static Key, value: Value, origin: Origin) {
    let setting = Setting { value, origin };
    settings.insert(key.path(), setting);
}

/// Adds what the file says. Problems are collected, and reading goes on behind each.
pub(crate) fn add_file(settings: &mut Settings, text: &str, problems: &mut Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.push(Problem {
            title: "not valid TOML".to_owned(),
            label: error.message().to_owned(),
            origin: in_file(text, error.span().unwrap_or(0..0)),
            help: None,
        });
    }
    if !errors.is_empty() {
        // What was recovered behind a syntax error is a guess, and guesses breed false alarms.
        return;
    }
    for (name, table) in document.get_ref() {
        let section: &str = name.get_ref();
        match table
            .get_ref()
            .as_table()
            .filter(|_| key::is_section(section))
        {
            Some(keys) => add_section(settings, section, keys, text, problems),
            None => problems.push(unknown_section(section, in_file(text, name.span()))),
        }
    }
}

fn add_section(
    settings: &mut Settings,
    section: &str,
    keys: &DeTable<'_>,
    text: &str,
    problems: &mut Vec<Problem>,
) {
    for (name, value) in keys {
        let Some(key) = key::find(section, name.get_ref()) else {
            problems.push(unknown_key(
                section,
                name.get_ref(),
                in_file(text, name.span()),
            ));
            continue;
        };
        let origin = in_file(text, value.span());
        match read_value(key, value.get_ref(), text) {
            Ok(value) => insert(settings, key, value, origin),
            Err(label) => problems.push(Problem {
                title: format!("{} cannot be used", key.path()),
                label,
                origin,
                help: None,
            }),
        }
    }
}

/// Takes a TOML value of the type that fits the kind of its key.
fn read_value(key: &Key, value: &DeValue<'_>, text: &str) -> Result<Value, String> {
    match (key.kind, value) {
        (Kind::Members, DeValue::Table(members)) => read_members(members, text),
        (
            Kind::Text | Kind::Path | Kind::Listen | Kind::Duration | Kind::Bytes,
            DeValue::String(s),
        ) => Ok(Value::Text(s.to_string())),
        (Kind::Count | Kind::Bytes, DeValue::Integer(number)) if number.radix() == 10 => {
            Ok(Value::Text(number.as_str().to_owned()))
        }
        (kind, other) => Err(format!(
            "expected {}, found {}",
            wanted(kind),
            other.type_str()
        )),
    }
}

fn read_members(members: &DeTable<'_>, text: &str) -> Result<Value, String> {
    let mut entries = Vec::new();
    for (name, address) in members {
        let Some(text_of_address) = address.get_ref().as_str() else {
            return Err(format!(
                "expected the address of {} as a string, found {}",
                name.get_ref(),
                address.get_ref().type_str()
            ));
        };
        let origin = in_file(text, address.span());
        entries.push((
            name.get_ref().to_string(),
            text_of_address.to_owned(),
            origin,
        ));
    }
    Ok(Value::Table(entries))
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a string",
        Kind::Path => "a path in quotes",
        Kind::Bytes => "a size like \"64MiB\"",
        Kind::Duration => "a duration like \"50ms\"",
        Kind::Count => "a whole number",
        Kind::Listen => "an address like \"0.0.0.0:7400\"",
        Kind::Members => "a table like { n1 = \"10.0.0.1:7400\" }",
    }
}

/// Adds what the environment says. A variable of no known key is left alone here: it may be meant for another program.
pub(crate) fn add_environment(
    settings: &mut Settings,
    environment: &[(String, String)],
    problems: &mut Vec<Problem>,
) {
    for key in &KEYS {
        let name = key.variable();
        if let Some((_, text)) = environment.iter().find(|(variable, _)| *variable == name) {
            add_text(settings, key, text, Origin::Environment(name), problems);
        }
    }
}

/// Variables that look like settings and are none, with what was probably meant.
pub(crate) fn unknown_variables(environment: &[(String, String)]) -> Vec<Problem> {
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let looks_like_setting = |name: &str| {
        let rest = name.strip_prefix("KVD_")?;
        let section = rest.split('_').next()?.to_ascii_lowercase();
        key::is_section(&section).then_some(())
    };
    environment
        .iter()
        .filter(|(name, _)| looks_like_setting(name).is_some() && !known.contains(name))
        .map(|(name, _)| Problem {
            title: "unknown setting in the environment".to_owned(),
            label: "is not used by kvd".to_owned(),
            origin: Origin::Environment(name.clone()),
            help: nearest(name, known.iter().map(String::as_str))
                .map(|near| format!("did you mean {near}?")),
        })
        .collect()
}

/// Adds what the flags say.
pub(crate) fn add_flags(
    settings: &mut Settings,
    flags: &[(&'static Key, String)],
    problems: &mut Vec<Problem>,
) {
    for (key, text) in flags {
        add_text(settings, key, text, Origin::Flag(key.flag()), problems);
    }
}

fn add_text(
    settings: &mut Settings,
    key: &'static Key,
    text: &str,
    origin: Origin,
    problems: &mut Vec<Problem>,
) {
    if key.kind != Kind::Members {
        insert(settings, key, Value::Text(text.to_owned()), origin);
        return;
    }
    let mut entries = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        if let Some((name, address)) = part.split_once('=') {
            entries.push((
                name.trim().to_owned(),
                address.trim().to_owned(),
                origin.clone(),
            ));
        } else {
            problems.push(Problem {
                title: format!("{} cannot be used", key.path()),
                label: format!("has `{part}` where NODE=ADDR is expected"),
                origin: origin.clone(),
                help: None,
            });
        }
    }
    insert(settings, key, Value::Table(entries), origin);
}

fn in_file(text: &str, span: Range<usize>) -> Origin {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    Origin::File { span, line }
}

fn unknown_section(section: &str, origin: Origin) -> Problem {
    let home = KEYS.iter().find(|key| key.name == section);
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    let help = match home {
        Some(key) => Some(format!("`{section}` belongs under [{}]", key.section)),
        None => {
            nearest(section, sections.iter().copied()).map(|near| format!("did you mean [{near}]?"))
        }
    };
    Problem {
        title: format!("unknown table `{section}`"),
        label: format!("expected one of {}", sections.join(", ")),
        origin,
        help,
    }
}

fn unknown_key(section: &str, name: &str, origin: Origin) -> Problem {
    let siblings: Vec<&str> = KEYS
        .iter()
        .filter(|key| key.section == section)
        .map(|key| key.name)
        .collect();
    let elsewhere = KEYS.iter().find(|key| key.name == name);
    let help = match nearest(name, siblings.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None => elsewhere.map(|key| format!("`{name}` belongs under [{}]", key.section)),
    };
    Problem {
        title: format!("unknown key `{section}.{name}`"),
        label: format!("expected one of {}", siblings.join(", ")),
        origin,
        help,
    }
}
