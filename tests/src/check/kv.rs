//! One key of kvd: what clients ask of it, what it answers, and the model that says which answers are right.
//!
//! Operations on different keys do not touch, so a history is checked key by key:
//! [`check`] is [`check_parts`](super::linearizable::check_parts) with the key as the part. Transactions over many keys are
//! not for this model.
//!
//! Versions and revisions are checked wherever a client looked at them. The model is not told the revisions of other keys:
//! of those of one key it knows that each change has a higher one.

mod convert;
mod model;

use std::fmt;

use bytes::Bytes;

use super::history::History;
use super::linearizable::{self, Verdict};
use super::text::escape_word;

pub use self::convert::UnexpectedAnswer;
pub use self::model::{Held, KeyModel, KeyState, Revision};

/// A condition of a compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expect {
    /// There is no such key.
    Absent,
    /// The key holds these bytes.
    Value(Bytes),
    /// The key has this version: the number of writes since it was created.
    Version(u64),
}

/// What is asked of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// What it holds.
    Get,
    /// Sets it.
    Put(Bytes),
    /// Removes it.
    Delete,
    /// Sets it if the condition holds.
    CompareAndSet {
        /// The condition.
        expect: Expect,
        /// What to set it to.
        value: Bytes,
    },
    /// Adds to a decimal 64-bit integer in text; an absent key counts as 0.
    Increment(i64),
}

/// A request for one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyOp {
    /// The key.
    pub key: Bytes,
    /// What is asked of it.
    pub action: Action,
}

/// Numbers in an answer, as far as the client looked at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Number of writes since the key was created.
    pub version: Option<u64>,
    /// Revision of the last change of the key.
    pub revision: Option<u64>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAnswer {
    /// To a get: there is no such key.
    Absent,
    /// To a get: what it holds.
    Value(Bytes, Stamp),
    /// It was set, by a put or a compare-and-set.
    Set(Stamp),
    /// It was removed. A revision is that of this change.
    Removed(Stamp),
    /// To a delete: there was nothing to remove.
    NothingRemoved,
    /// To a compare-and-set: the condition does not hold.
    Differs,
    /// To an increment: the number now.
    Number(i64, Stamp),
    /// To an increment: the key holds no decimal 64-bit integer.
    NotANumber,
    /// To an increment: the sum does not fit.
    Overflow,
}

/// Operations on single keys and their answers.
pub type KeyHistory = History<KeyOp, KeyAnswer>;

/// Checks that a history is linearizable, key by key. `steps_max`: see
/// [`STEPS_MAX_DEFAULT`](super::linearizable::STEPS_MAX_DEFAULT), per key.
pub fn check(history: &KeyHistory, steps_max: u64) -> Verdict {
    let model = KeyModel::for_history(history);
    linearizable::check_parts(&model, history, steps_max, |op| op.key.clone())
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Absent => f.write_str("none"),
            Expect::Value(value) => write!(f, "={}", escape_word(value)),
            Expect::Version(version) => write!(f, "v{version}"),
        }
    }
}

impl fmt::Display for KeyOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = escape_word(&self.key);
        match &self.action {
            Action::Get => write!(f, "get {key}"),
            Action::Put(value) => write!(f, "put {key} {}", escape_word(value)),
            Action::Delete => write!(f, "del {key}"),
            Action::CompareAndSet { expect, value } => {
                write!(f, "cas {key} {expect} {}", escape_word(value))
            }
            Action::Increment(by) => write!(f, "inc {key} {by}"),
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.version {
            write!(f, " v{version}")?;
        }
        if let Some(revision) = self.revision {
            write!(f, " r{revision}")?;
        }
        Ok(())
    }
}

impl fmt::Display for KeyAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyAnswer::Absent => f.write_str("none"),
            KeyAnswer::Value(value, stamp) => write!(f, "={}{stamp}", escape_word(value)),
            KeyAnswer::Set(stamp) => write!(f, "set{stamp}"),
            KeyAnswer::Removed(stamp) => write!(f, "removed{stamp}"),
            KeyAnswer::NothingRemoved => f.write_str("nothing"),
            KeyAnswer::Differs => f.write_str("differs"),
            KeyAnswer::Number(value, stamp) => write!(f, "{value}{stamp}"),
            KeyAnswer::NotANumber => f.write_str("nan"),
            KeyAnswer::Overflow => f.write_str("overflow"),
        }
    }
}
