//! Requests and answers as lines of the text format.
//!
//! What the format has no words for (pages, counts, previous values) is shown as Rust does; that text cannot be read back.

use std::fmt;

use bytes::Bytes;

use kvd::kv::command::{
    CmpOp, Command, CommandResult, Compare, KeyRange, KeyValue, Op, OpResult, RangeQuery,
    RangeResult, Test, Txn,
};

use super::{Answer, Request};
use crate::check::text::{escape_name, escape_word};

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Request::Write(Command::Op(op)) => describe_op(op),
            Request::Write(Command::Txn(txn)) => describe_txn(txn),
            Request::Write(other) => format!("{other:?}"),
            Request::Read(query) => describe_query(query),
        };
        f.write_str(&text)
    }
}

fn describe_txn(txn: &Txn) -> String {
    let mut words = vec!["txn".to_owned()];
    if !txn.compare.is_empty() {
        words.push("if".to_owned());
        words.extend(txn.compare.iter().map(describe_compare));
    }
    words.push("then".to_owned());
    words.extend(txn.then.iter().map(describe_op));
    if !txn.otherwise.is_empty() {
        words.push("else".to_owned());
        words.extend(txn.otherwise.iter().map(describe_op));
    }
    words.join(" ")
}

fn describe_compare(compare: &Compare) -> String {
    let key = escape_name(&compare.key);
    let number = |name: &str, op: &CmpOp, given: &u64| format!("{key}.{name}{}{given}", sign(*op));
    match &compare.test {
        Test::Absent => format!("{key}.absent"),
        Test::Present => format!("{key}.present"),
        Test::Version(op, given) => number("version", op, given),
        Test::CreateRevision(op, given) => number("create", op, given),
        Test::ModRevision(op, given) => number("mod", op, given),
        Test::Value(op, given) => format!("{key}{}{}", sign(*op), escape_word(given)),
    }
}

fn sign(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Equal => "=",
        CmpOp::NotEqual => "!=",
        CmpOp::Less => "<",
        CmpOp::Greater => ">",
    }
}

fn describe_op(op: &Op) -> String {
    match op {
        Op::Put {
            key,
            value,
            want_previous: false,
        } => format!("put {} {}", escape_word(key), escape_word(value)),
        Op::Delete {
            range: KeyRange::Key(key),
            want_previous: false,
        } => format!("del {}", escape_word(key)),
        Op::Put { .. } | Op::Delete { .. } => format!("{op:?}"),
        Op::Range(query) => describe_query(query),
        Op::Increment { key, by } => format!("inc {} {by}", escape_word(key)),
    }
}

fn describe_query(query: &RangeQuery) -> String {
    if *query != RangeQuery::new(query.range.clone()) {
        return format!("{query:?}");
    }
    match &query.range {
        KeyRange::Key(key) => format!("get {}", escape_word(key)),
        KeyRange::Prefix(prefix) => format!("scan {}", escape_word(prefix)),
        KeyRange::All => format!("scan {}", escape_word(&Bytes::new())),
        KeyRange::Between { .. } => format!("{query:?}"),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Answer::Written(result) => describe_result(result),
            Answer::Found(found) => format!("@{} {}", found.revision, describe_found(found)),
        };
        f.write_str(&text)
    }
}

fn describe_result(result: &CommandResult) -> String {
    let word = if result.succeeded { "ok" } else { "no" };
    let mut words = vec![format!("@{} {word}", result.revision)];
    words.extend(result.results.iter().map(describe_step));
    words.join(" ")
}

fn describe_step(result: &OpResult) -> String {
    match result {
        OpResult::Put {
            version,
            previous: None,
        } => format!("v{version}"),
        OpResult::Deleted { count, previous } if previous.is_empty() => format!("del{count}"),
        // The revision at which a step reads follows from that of the command.
        OpResult::Range(found) => describe_found(found),
        OpResult::Incremented { value, version } => format!("n{value}:v{version}"),
        OpResult::NotANumber => "nan".to_owned(),
        OpResult::Overflow => "overflow".to_owned(),
        OpResult::Put { .. } | OpResult::Deleted { .. } | OpResult::AnswerTooLarge { .. } | _ => {
            format!("{result:?}")
        }
    }
}

fn describe_found(found: &RangeResult) -> String {
    if found.more || found.count != found.items.len() as u64 {
        return format!("{found:?}");
    }
    let items: Vec<String> = found.items.iter().map(describe_item).collect();
    format!("[ {} ]", items.join(" ")).replace("  ", " ")
}

fn describe_item(item: &KeyValue) -> String {
    let (key, value) = (escape_name(&item.key), escape_name(&item.value));
    let (version, create) = (item.version, item.create_revision);
    format!("{key}={value}:v{version}:c{create}:m{}", item.mod_revision)
}
