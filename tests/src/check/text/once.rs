//! The model `once`: values written, and what was applied in the end.

use super::{TextError, TextErrorKind, Words, parse_operations};
use crate::check::once::OnceHistory;

/// The lines that begin with this word say what was applied.
const APPLIED: &str = "applied";

pub(super) fn parse<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> Result<OnceHistory, TextError> {
    let is_applied = |line: &str| line.split_ascii_whitespace().next() == Some(APPLIED);
    let (applied, operations): (Vec<_>, Vec<_>) = lines.partition(|(_, line)| is_applied(line));
    let applied = applied
        .into_iter()
        .flat_map(|(_, line)| line.split_ascii_whitespace().skip(1))
        .map(str::to_owned)
        .collect();
    Ok(OnceHistory {
        writes: parse_operations(operations.into_iter(), parse_write, parse_ok)?,
        applied,
    })
}

fn parse_write(words: &mut Words<'_>) -> Result<String, TextErrorKind> {
    match words.next("'write'")? {
        "write" => Ok(words.next("a value")?.to_owned()),
        _ => Err(TextErrorKind::Expected("'write' or 'applied'")),
    }
}

fn parse_ok(words: &mut Words<'_>) -> Result<(), TextErrorKind> {
    match words.next("'ok'")? {
        "ok" => Ok(()),
        _ => Err(TextErrorKind::Expected("'ok'")),
    }
}
