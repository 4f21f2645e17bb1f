//! `kvctl get`

use std::ffi::OsString;

use bytes::Bytes;
use kvd::client::ReadAnswer;
use kvd::kv::command::{KeyRange, KeyValue, RangeQuery};
use serde_json::{Value, json};

use super::{Answer, argument, mark_local, read_all, shown};
use crate::cli::GetArgs;
use crate::connect::Session;
use crate::fault::Fault;
use crate::json::{bytes_value, key_only, key_value};
use crate::output::{View, record};

pub(super) async fn run(args: GetArgs, session: &Session) -> Result<Answer, Fault> {
    let key = argument(args.key);
    let one = !args.prefix && args.range.is_none();
    let query = RangeQuery {
        keys_only: args.keys,
        count_only: args.count,
        ..RangeQuery::new(range(&key, args.prefix, args.range))
    };
    let client = session.reader(args.node.as_deref()).await?;
    let answer = read_all(&client, query, session.consistency, args.limit).await;
    client.close().await;
    let answer = answer?;
    mark_local(&answer, &session.printer);
    if args.count {
        return Ok(Answer::done(Count::of(&answer)));
    }
    if one && !args.meta && !args.keys {
        return value_of(&key, args.default, answer);
    }
    if one && answer.result.items.is_empty() {
        return Err(absent(&key));
    }
    let fields = Fields {
        values: !args.keys,
        meta: args.meta,
    };
    Ok(Answer::done(Items { answer, fields }))
}

fn range(key: &Bytes, prefix: bool, end: Option<OsString>) -> KeyRange {
    match end {
        Some(end) => KeyRange::Between {
            start: key.clone(),
            end: argument(end),
        },
        None if prefix => KeyRange::Prefix(key.clone()),
        None => KeyRange::Key(key.clone()),
    }
}

fn absent(key: &[u8]) -> Fault {
    Fault::no(format!("there is no key {}", shown(key)))
}

fn value_of(key: &Bytes, default: Option<OsString>, answer: ReadAnswer) -> Result<Answer, Fault> {
    let (revision, local) = (answer.result.revision, answer.local);
    let item = answer.result.items.into_iter().next();
    match (item, default) {
        (Some(item), _) => Ok(Answer::done(OneValue {
            value: item.value.clone(),
            item: Some(item),
            revision,
            local,
        })),
        (None, Some(default)) => Ok(Answer::done(OneValue {
            value: argument(default),
            item: None,
            revision,
            local,
        })),
        (None, None) => Err(absent(key)),
    }
}

/// The value of one key: byte for byte, so that it can be piped.
struct OneValue {
    value: Bytes,
    item: Option<KeyValue>,
    revision: u64,
    local: bool,
}

impl View for OneValue {
    /// On a terminal the prompt begins on a line of its own, and control characters stay out of it.
    fn human(&self) -> Vec<u8> {
        let mut text = match std::str::from_utf8(&self.value) {
            Ok(text) => tame(text),
            Err(_) => tame(&shown(&self.value)),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        self.value.to_vec()
    }

    fn json(&self) -> Value {
        let mut value = match &self.item {
            Some(item) => key_value(item),
            None => json!({ "value": bytes_value(&self.value), "default": true }),
        };
        value["revision"] = json!(self.revision);
        value["local"] = json!(self.local);
        value
    }
}

/// A text without what a terminal would obey instead of showing it.
fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => tamed.push(c),
            c if c.is_ascii_control() => tamed.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => tamed.extend(c.escape_unicode()),
            c => tamed.push(c),
        }
    }
    tamed
}

/// Number of keys.
struct Count {
    count: u64,
    revision: u64,
    local: bool,
}

impl Count {
    fn of(answer: &ReadAnswer) -> Count {
        Count {
            count: answer.result.count,
            revision: answer.result.revision,
            local: answer.local,
        }
    }
}

impl View for Count {
    fn human(&self) -> Vec<u8> {
        format!("{}\n", self.count).into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        self.human()
    }

    fn json(&self) -> Value {
        json!({ "count": self.count, "revision": self.revision, "local": self.local })
    }
}

/// What is shown of each key.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) values: bool,
    pub(super) meta: bool,
}

/// Several keys.
pub(super) struct Items {
    pub(super) answer: ReadAnswer,
    pub(super) fields: Fields,
}

impl Items {
    fn line(&self, item: &KeyValue) -> Vec<u8> {
        let numbers =
            [item.version, item.create_revision, item.mod_revision].map(|n| n.to_string());
        let mut fields: Vec<&[u8]> = vec![&item.key];
        if self.fields.values {
            fields.push(&item.value);
        }
        if self.fields.meta {
            fields.extend(numbers.iter().map(String::as_bytes));
        }
        record(fields)
    }
}

impl View for Items {
    fn human(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.fields.meta {
            let value = if self.fields.values { "\tVALUE" } else { "" };
            text.extend_from_slice(format!("KEY{value}\tVERSION\tCREATED\tMODIFIED\n").as_bytes());
        }
        text.extend(tame(&String::from_utf8_lossy(&self.plain())).into_bytes());
        text
    }

    fn plain(&self) -> Vec<u8> {
        self.answer
            .result
            .items
            .iter()
            .flat_map(|item| self.line(item))
            .collect()
    }

    fn json(&self) -> Value {
        let show = if self.fields.values {
            key_value
        } else {
            key_only
        };
        let items: Vec<Value> = self.answer.result.items.iter().map(show).collect();
        json!({ "items": items, "revision": self.answer.result.revision, "local": self.answer.local })
    }

    /// Unescaped, one after the other: the values, or the keys if only those were asked for.
    fn raw(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for item in &self.answer.result.items {
            bytes.extend_from_slice(if self.fields.values {
                &item.value
            } else {
                &item.key
            });
            bytes.push(b'\n');
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &'static [u8]) -> OneValue {
        OneValue {
            value: Bytes::from_static(bytes),
            item: None,
            revision: 1,
            local: false,
        }
    }

    #[test]
    fn a_piped_value_is_byte_exact_and_on_a_terminal_it_ends_its_line() {
        assert_eq!(value(b"a\tb").plain(), b"a\tb");
        assert_eq!(value(b"\xff\n\x00").raw(), b"\xff\n\x00");
        assert_eq!(value(b"red").human(), b"red\n");
        assert_eq!(value(b"red\n").human(), b"red\n");
        // What would change the terminal's colours is shown in escapes.
        assert_eq!(value(b"\x1b[31m").human(), b"\\x1b[31m\n");
    }
}
