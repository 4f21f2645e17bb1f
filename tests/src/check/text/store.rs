//! Requests and answers of the model `store`.

use bytes::Bytes;

use kvd::kv::command::{
    CmpOp, Command, CommandResult, Compare, KeyRange, KeyValue, Op, OpResult, RangeQuery,
    RangeResult, Test, Txn,
};

use super::{TextErrorKind, Words, parse_bytes, parse_number, unescape_word};
use crate::check::store::{Answer, Request};

const REQUEST: &str = "a request: 'get', 'scan', 'put', 'del', 'inc' or 'txn'";
const COMPARE: &str = "a comparison, like 'x=1', 'x.absent', 'x.version>2'";
const RESULT: &str = "a result, like 'v1', 'del1', 'n5:v1', 'nan', 'overflow', '[ x=1:v1:c3:m7 ]'";
const ITEM: &str = "an item, like 'x=1:v1:c3:m7', or ']'";

pub(super) fn parse_request(words: &mut Words<'_>) -> Result<Request, TextErrorKind> {
    let verb = words.next(REQUEST)?;
    if verb == "txn" {
        return Ok(Request::Write(parse_txn(words)?.into()));
    }
    Ok(match parse_op(verb, words)? {
        Op::Range(query) => Request::Read(query),
        op @ (Op::Put { .. } | Op::Delete { .. } | Op::Increment { .. }) => {
            Request::Write(Command::Op(op))
        }
    })
}

fn parse_txn(words: &mut Words<'_>) -> Result<Txn, TextErrorKind> {
    let mut txn = Txn::default();
    if words.next_is("if") {
        while !words.next_is("then") {
            txn.compare.push(parse_compare(words.next(COMPARE)?)?);
        }
    } else if !words.next_is("then") {
        return Err(TextErrorKind::Expected("'if' or 'then'"));
    }
    let mut in_else = false;
    while !words.is_end() {
        if !in_else && words.next_is("else") {
            in_else = true;
            continue;
        }
        let op = parse_op(words.next(REQUEST)?, words)?;
        if in_else {
            txn.otherwise.push(op);
        } else {
            txn.then.push(op);
        }
    }
    Ok(txn)
}

fn parse_compare(word: &str) -> Result<Compare, TextErrorKind> {
    let wrong = || TextErrorKind::Expected(COMPARE);
    let at = word.find(['=', '!', '<', '>']).unwrap_or(word.len());
    let (left, right) = word.split_at(at);
    let (key, field) = left.split_once('.').unwrap_or((left, ""));
    let key: Bytes = unescape_word(key).ok_or_else(wrong)?.into();
    let (op, given) = match right.split_at_checked(1) {
        None => {
            let test = match field {
                "absent" => Test::Absent,
                "present" => Test::Present,
                _ => return Err(wrong()),
            };
            return Ok(Compare { key, test });
        }
        Some(("=", given)) => (CmpOp::Equal, given),
        Some(("<", given)) => (CmpOp::Less, given),
        Some((">", given)) => (CmpOp::Greater, given),
        Some((_, given)) => (CmpOp::NotEqual, given.strip_prefix('=').ok_or_else(wrong)?),
    };
    let number = || given.parse().map_err(|_| wrong());
    let test = match field {
        "" => Test::Value(op, unescape_word(given).ok_or_else(wrong)?.into()),
        "version" => Test::Version(op, number()?),
        "create" => Test::CreateRevision(op, number()?),
        "mod" => Test::ModRevision(op, number()?),
        _ => return Err(wrong()),
    };
    Ok(Compare { key, test })
}

fn parse_op(verb: &str, words: &mut Words<'_>) -> Result<Op, TextErrorKind> {
    let key = parse_bytes(words, "a key")?;
    Ok(match verb {
        "get" => Op::Range(RangeQuery::key(key)),
        "scan" => Op::Range(RangeQuery::new(if key.is_empty() {
            KeyRange::All
        } else {
            KeyRange::Prefix(key)
        })),
        "put" => Op::Put {
            key,
            value: parse_bytes(words, "a value")?,
            want_previous: false,
        },
        "del" => Op::Delete {
            range: KeyRange::Key(key),
            want_previous: false,
        },
        "inc" => Op::Increment {
            key,
            by: parse_number(words, "a number")?,
        },
        _ => return Err(TextErrorKind::Expected(REQUEST)),
    })
}

pub(super) fn parse_answer(words: &mut Words<'_>) -> Result<Answer, TextErrorKind> {
    let revision = words.next_marked("@", |word| word.parse().ok());
    let revision = revision.ok_or(TextErrorKind::Expected("a revision, like '@5'"))?;
    if words.next_is("[") {
        return Ok(Answer::Found(parse_found(words, revision)?));
    }
    let succeeded = match words.next("'ok', 'no' or '['")? {
        "ok" => true,
        "no" => false,
        _ => return Err(TextErrorKind::Expected("'ok', 'no' or '['")),
    };
    let mut results = Vec::new();
    while !words.is_end() {
        results.push(parse_result(words)?);
    }
    set_read_revisions(revision, &mut results);
    Ok(Answer::Written(CommandResult {
        revision,
        succeeded,
        results,
    }))
}

/// A step reads at the revision of its transaction if an earlier step changed something, else at the one before the change.
fn set_read_revisions(revision: u64, results: &mut [OpResult]) {
    let change = results.iter().position(crate::check::store::has_changed);
    for (place, result) in results.iter_mut().enumerate() {
        if let OpResult::Range(found) = result {
            let is_before = change.is_some_and(|change| place < change);
            found.revision = revision.saturating_sub(u64::from(is_before));
        }
    }
}

fn parse_result(words: &mut Words<'_>) -> Result<OpResult, TextErrorKind> {
    if words.next_is("[") {
        return Ok(OpResult::Range(parse_found(words, 0)?));
    }
    if let Some(count) = words.next_marked("del", |word| word.parse().ok()) {
        let previous = Vec::new();
        return Ok(OpResult::Deleted { count, previous });
    }
    if let Some(version) = words.next_marked("v", |word| word.parse().ok()) {
        let previous = None;
        return Ok(OpResult::Put { version, previous });
    }
    let number = |word: &str| {
        let (value, version) = word.split_once(":v")?;
        Some((value.parse().ok()?, version.parse().ok()?))
    };
    if let Some((value, version)) = words.next_marked("n", number) {
        return Ok(OpResult::Incremented { value, version });
    }
    match words.next(RESULT)? {
        "nan" => Ok(OpResult::NotANumber),
        "overflow" => Ok(OpResult::Overflow),
        _ => Err(TextErrorKind::Expected(RESULT)),
    }
}

fn parse_found(words: &mut Words<'_>, revision: u64) -> Result<RangeResult, TextErrorKind> {
    let mut items = Vec::new();
    while !words.next_is("]") {
        let item = parse_item(words.next(ITEM)?);
        items.push(item.ok_or(TextErrorKind::Expected(ITEM))?);
    }
    Ok(RangeResult {
        count: items.len() as u64,
        items,
        more: false,
        revision,
    })
}

fn parse_item(word: &str) -> Option<KeyValue> {
    let (key, rest) = word.split_once('=')?;
    let mut parts = rest.split(':');
    let value = unescape_word(parts.next()?)?.into();
    let mut number = |mark: &str| parts.next()?.strip_prefix(mark)?.parse().ok();
    Some(KeyValue {
        key: unescape_word(key)?.into(),
        value,
        version: number("v")?,
        create_revision: number("c")?,
        mod_revision: number("m")?,
    })
}
