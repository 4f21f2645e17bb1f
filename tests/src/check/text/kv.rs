//! Requests and answers of the model `kv`.

use super::{TextErrorKind, Words, parse_bytes, parse_number, unescape_word};
use crate::check::kv::{Action, Expect, KeyAnswer, KeyOp, Stamp};

const ANSWER: &str = "an answer: '=VALUE', 'none', 'set', 'removed', 'nothing', 'differs', a number, 'nan' or 'overflow'";
const EXPECT: &str = "'=VALUE', a version like 'v3', or 'none'";

pub(super) fn parse_op(words: &mut Words<'_>) -> Result<KeyOp, TextErrorKind> {
    const VERBS: &str = "a request: 'get', 'put', 'del', 'cas' or 'inc'";
    let verb = words.next(VERBS)?;
    let key = parse_bytes(words, "a key")?;
    let action = match verb {
        "get" => Action::Get,
        "put" => Action::Put(parse_bytes(words, "a value")?),
        "del" => Action::Delete,
        "cas" => Action::CompareAndSet {
            expect: parse_expect(words)?,
            value: parse_bytes(words, "a value")?,
        },
        "inc" => Action::Increment(parse_number(words, "a number")?),
        _ => return Err(TextErrorKind::Expected(VERBS)),
    };
    Ok(KeyOp { key, action })
}

fn parse_expect(words: &mut Words<'_>) -> Result<Expect, TextErrorKind> {
    if let Some(version) = words.next_marked("v", |word| word.parse().ok()) {
        return Ok(Expect::Version(version));
    }
    if let Some(value) = words.next_marked("=", unescape_word) {
        return Ok(Expect::Value(value.into()));
    }
    match words.next(EXPECT)? {
        "none" => Ok(Expect::Absent),
        _ => Err(TextErrorKind::Expected(EXPECT)),
    }
}

pub(super) fn parse_answer(words: &mut Words<'_>) -> Result<KeyAnswer, TextErrorKind> {
    if let Some(value) = words.next_marked("=", unescape_word) {
        return Ok(KeyAnswer::Value(value.into(), parse_stamp(words)));
    }
    if let Some(number) = words.next_marked("", |word| word.parse().ok()) {
        return Ok(KeyAnswer::Number(number, parse_stamp(words)));
    }
    Ok(match words.next(ANSWER)? {
        "none" => KeyAnswer::Absent,
        "set" => KeyAnswer::Set(parse_stamp(words)),
        "removed" => KeyAnswer::Removed(parse_stamp(words)),
        "nothing" => KeyAnswer::NothingRemoved,
        "differs" => KeyAnswer::Differs,
        "nan" => KeyAnswer::NotANumber,
        "overflow" => KeyAnswer::Overflow,
        _ => return Err(TextErrorKind::Expected(ANSWER)),
    })
}

fn parse_stamp(words: &mut Words<'_>) -> Stamp {
    Stamp {
        version: words.next_marked("v", |word| word.parse().ok()),
        revision: words.next_marked("r", |word| word.parse().ok()),
    }
}
