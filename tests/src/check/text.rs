//! Histories as text: one operation per line, to be read by people, kept as test data, and checked again.
//!
//! ```text
//! bad x was 1, then no more
//! model kv
//! # A comment. Process, times of invocation and return, request, answer:
//! c1 0..5 put x 1 -> set
//! c2 3..4 get x -> =1
//! c2 6..9 get x -> none
//! # Of unknown outcome, and refused for good: without an answer.
//! c3 1..? put x 2
//! c3 2..! put x 3
//! ```
//!
//! The first line is `good` or `bad` and why, the second the model; empty lines do not count. Equal times overlap. Keys and
//! values are words: bytes other than printable ASCII, blanks and backslashes are written as escapes of Rust (`\x20`), and
//! no bytes at all as `\e`.
//!
//! | model | requests | answers |
//! |---|---|---|
//! | `kv` | `get KEY` | `=VALUE`, `none` |
//! | | `put KEY VALUE` | `set` |
//! | | `del KEY` | `removed`, `nothing` |
//! | | `cas KEY EXPECT VALUE`, where `EXPECT` is `=VALUE`, `v3` (a version) or `none` | `set`, `differs` |
//! | | `inc KEY NUMBER` | the number now, `nan`, `overflow` |
//!
//! | `store` | `get KEY`, `scan PREFIX` | `@REVISION [ ITEM... ]` |
//! | | `put KEY VALUE`, `del KEY`, `inc KEY NUMBER` | `@REVISION ok RESULT`, `@REVISION no RESULT` |
//! | | `txn if COMPARE... then STEP... else STEP...` (without `if` or without `else`, too) | the same, with a result for each step |
//! | `once` | `write VALUE`; beside the operations `applied VALUE...` | `ok` |
//!
//! In `kv`, the version and the revision that the client saw may stand behind `=VALUE`, `set`, `removed` and a number:
//! `set v2 r17`.
//!
//! In `store`, a `COMPARE` is `x=1`, `x!=1`, `x<1`, `x>1`, `x.absent`, `x.present`, or a number such as `x.version=2`,
//! `x.create<5`, `x.mod>7`; a `STEP` is any request but `txn`; a `RESULT` is `v2` of a put, `del1` of a removal, `n5:v2` of an
//! increment, `nan`, `overflow`, or `[ ITEM... ]` of a read; an `ITEM` is `KEY=VALUE:v2:c5:m7` with version, revision of
//! creation and of the last write.

mod kv;
mod once;
mod store;

use std::fmt;
use std::fmt::Display;

use super::history::{History, HistoryError, Operation, Outcome, Time};
use super::kv::KeyHistory;
use super::once::OnceHistory;
use super::store::StoreHistory;
use bytes::Bytes;

/// A history of known quality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Whether it is right.
    pub is_good: bool,
    /// Why, in a line.
    pub why: String,
    /// What happened.
    pub body: Body,
}

/// A history, by its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Operations on single keys.
    Kv(KeyHistory),
    /// Transactions over the whole store.
    Store(StoreHistory),
    /// Unique values.
    Once(OnceHistory),
}

/// Why a text is no history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub kind: TextErrorKind,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextErrorKind {
    /// Something else belongs here.
    Expected(&'static str),
    /// The line goes on where it should end.
    Trailing(String),
    /// The times contradict each other.
    History(HistoryError),
}

impl Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.kind {
            TextErrorKind::Expected(what) => write!(f, "{what} expected"),
            TextErrorKind::Trailing(rest) => write!(f, "'{rest}' is too much"),
            TextErrorKind::History(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TextError {}

/// The words of a line, or of its half before or behind `->`.
pub(crate) struct Words<'a> {
    words: std::iter::Peekable<std::str::SplitAsciiWhitespace<'a>>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Words<'a> {
        Words {
            words: text.split_ascii_whitespace().peekable(),
        }
    }

    fn next(&mut self, what: &'static str) -> Result<&'a str, TextErrorKind> {
        self.words.next().ok_or(TextErrorKind::Expected(what))
    }

    /// The next word without its mark, if it has it and the rest suits.
    fn next_marked<T>(&mut self, mark: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let found = self.words.peek()?.strip_prefix(mark).and_then(read);
        if found.is_some() {
            self.words.next();
        }
        found
    }

    /// Takes the next word if it is this one.
    fn next_is(&mut self, word: &str) -> bool {
        self.words.next_if_eq(&word).is_some()
    }

    fn is_end(&mut self) -> bool {
        self.words.peek().is_none()
    }

    fn end(mut self) -> Result<(), TextErrorKind> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(TextErrorKind::Trailing(word.to_owned())),
        }
    }
}

/// Reads a history with its verdict.
///
/// # Errors
/// Line and reason, where the text is none.
pub fn parse(text: &str) -> Result<Example, TextError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut header = |what| {
        let missing = TextError {
            line: text.lines().count() + 1,
            kind: TextErrorKind::Expected(what),
        };
        lines.next().ok_or(missing)
    };
    let (line, verdict) = header("'good' or 'bad' and why")?;
    let (is_good, why) = parse_verdict(verdict).map_err(|kind| TextError { line, kind })?;
    let (line, model) = header("'model'")?;
    let body = match model {
        "model kv" => Body::Kv(parse_operations(lines, kv::parse_op, kv::parse_answer)?),
        "model store" => Body::Store(parse_operations(
            lines,
            store::parse_request,
            store::parse_answer,
        )?),
        "model once" => Body::Once(once::parse(lines)?),
        _ => {
            let kind = TextErrorKind::Expected("'model kv', 'model store' or 'model once'");
            return Err(TextError { line, kind });
        }
    };
    Ok(Example { is_good, why, body })
}

fn parse_verdict(line: &str) -> Result<(bool, String), TextErrorKind> {
    let (word, why) = line.split_once(' ').unwrap_or((line, ""));
    let is_good = match word {
        "good" => true,
        "bad" => false,
        _ => return Err(TextErrorKind::Expected("'good' or 'bad'")),
    };
    if why.is_empty() {
        return Err(TextErrorKind::Expected("a reason"));
    }
    Ok((is_good, why.to_owned()))
}

type Read<T> = fn(&mut Words<'_>) -> Result<T, TextErrorKind>;

fn parse_operations<'a, I, O>(
    lines: impl Iterator<Item = (usize, &'a str)>,
    input: Read<I>,
    output: Read<O>,
) -> Result<History<I, O>, TextError> {
    let mut history = History::default();
    for (line, text) in lines {
        parse_operation(text, input, output)
            .and_then(|operation| history.push(operation).map_err(TextErrorKind::History))
            .map_err(|kind| TextError { line, kind })?;
    }
    Ok(history)
}

fn parse_operation<I, O>(
    line: &str,
    read_input: Read<I>,
    read_output: Read<O>,
) -> Result<Operation<I, O>, TextErrorKind> {
    let (request, answer) = match line.split_once("->") {
        Some((request, answer)) => (request, Some(answer)),
        None => (line, None),
    };
    let mut words = Words::new(request);
    let process = words.next_marked("c", |word| word.parse().ok());
    let process = process.ok_or(TextErrorKind::Expected("a process, like 'c1'"))?;
    let (invoked, end) = parse_interval(words.next(INTERVAL)?)?;
    let input = read_input(&mut words)?;
    words.end()?;
    let outcome = match (end, answer) {
        (End::At(at), Some(answer)) => {
            let mut words = Words::new(answer);
            let output = read_output(&mut words)?;
            words.end()?;
            Outcome::Returned { at, output }
        }
        (End::At(_), None) => return Err(TextErrorKind::Expected("'->' and an answer")),
        (End::Unknown | End::Failed, Some(_)) => {
            return Err(TextErrorKind::Expected("a time of return before an answer"));
        }
        (End::Unknown, None) => Outcome::Unknown,
        (End::Failed, None) => Outcome::Failed,
    };
    Ok(Operation {
        process,
        invoked,
        input,
        outcome,
    })
}

const INTERVAL: &str = "an interval, like '0..5', '0..?' or '0..!'";

enum End {
    At(Time),
    Unknown,
    Failed,
}

fn parse_interval(word: &str) -> Result<(Time, End), TextErrorKind> {
    let wrong = || TextErrorKind::Expected(INTERVAL);
    let (invoked, end) = word.split_once("..").ok_or_else(wrong)?;
    let invoked = invoked.parse().map_err(|_| wrong())?;
    let end = match end {
        "?" => End::Unknown,
        "!" => End::Failed,
        at => End::At(at.parse().map_err(|_| wrong())?),
    };
    Ok((invoked, end))
}

/// The operations of a history as lines of the text format, without the two lines at the top.
///
/// For histories of which the recorder shows a failure: put `bad` and a reason before them, and the model.
pub fn render<I: Display, O: Display>(history: &History<I, O>) -> String {
    let mut text = String::new();
    for operation in history.operations() {
        text += &format!("{} {}", operation.interval(), operation.input);
        if let Some(output) = operation.output() {
            text += &format!(" -> {output}");
        }
        text.push('\n');
    }
    text
}

/// A word as bytes: escapes of [`escape_word`] undone.
fn unescape_word(word: &str) -> Option<Vec<u8>> {
    if word == EMPTY {
        return Some(Vec::new());
    }
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'\\' {
            bytes.push(first);
            rest = behind;
            continue;
        }
        let (byte, used) = match behind {
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'x', digits @ ..] => {
                let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, 3)
            }
            [other @ (b'\\' | b'\'' | b'"'), ..] => (*other, 1),
            _ => return None,
        };
        bytes.push(byte);
        rest = &behind[used..];
    }
    Some(bytes)
}

/// The word that stands for no bytes.
const EMPTY: &str = "\\e";

/// Bytes as one word.
pub(crate) fn escape_word(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return EMPTY.to_owned();
    }
    // A dash before `>` would end the request, blanks the word.
    let escaped = bytes.escape_ascii().to_string();
    escaped.replace(' ', "\\x20").replace("->", "-\\x3e")
}

/// Bytes as a part of a word, without the characters that separate parts.
pub(crate) fn escape_name(bytes: &[u8]) -> String {
    let mut escaped = escape_word(bytes);
    for separator in ["=", "!", "<", ">", ".", ":"] {
        let code = format!("\\x{:02x}", separator.as_bytes()[0]);
        escaped = escaped.replace(separator, &code);
    }
    escaped
}

fn parse_number(words: &mut Words<'_>, what: &'static str) -> Result<i64, TextErrorKind> {
    let word = words.next(what)?;
    word.parse().map_err(|_| TextErrorKind::Expected(what))
}

fn parse_bytes(words: &mut Words<'_>, what: &'static str) -> Result<Bytes, TextErrorKind> {
    let word = words.next(what)?;
    let bytes = unescape_word(word).ok_or(TextErrorKind::Expected(what))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_whatever_bytes_they_are() {
        for bytes in [
            &b"plain"[..],
            b"",
            b"a b",
            b"->",
            b"--->",
            b"\\x20",
            b"\0\t\n\r\"'\xff",
            b"-1",
        ] {
            let word = escape_word(bytes);
            assert!(
                !word.contains([' ', '\n']) && !word.contains("->"),
                "{word}"
            );
            assert_eq!(unescape_word(&word).as_deref(), Some(bytes), "{word}");
        }
    }

    #[test]
    fn words_with_broken_escapes_are_none() {
        for word in ["\\", "\\x", "\\x2", "\\xzz", "\\q"] {
            assert_eq!(unescape_word(word), None, "{word}");
        }
    }

    #[test]
    fn mistakes_are_told_by_line() {
        for (text, line, part) in [
            ("", 1, "'good' or 'bad'"),
            ("fine it is\nmodel kv", 1, "'good' or 'bad'"),
            ("good\nmodel kv", 1, "a reason"),
            ("good one", 2, "'model'"),
            ("good one\nmodel none", 2, "'model kv'"),
            ("good one\nmodel kv\n\n# so\nx1 0..1 get x", 5, "a process"),
            ("good one\nmodel kv\nc1 0-1 get x", 3, "an interval"),
            (
                "good one\nmodel kv\nc1 5..1 get x -> none",
                3,
                "returned at 1",
            ),
            ("good one\nmodel kv\nc1 0..1 get x", 3, "an answer"),
            (
                "good one\nmodel kv\nc1 0..? get x -> none",
                3,
                "a time of return",
            ),
            (
                "good one\nmodel kv\nc1 0..1 get x y -> none",
                3,
                "'y' is too much",
            ),
            (
                "good one\nmodel kv\nc1 0..1 get x -> none v1",
                3,
                "'v1' is too much",
            ),
            ("good one\nmodel kv\nc1 0..1 got x -> none", 3, "a request"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}
