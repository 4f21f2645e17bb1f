//! From requests for one key to kvd's requests, and from kvd's answers back.

use std::fmt;

use kvd::kv::command::{
    CmpOp, Command, CommandResult, Compare, KeyRange, KeyValue, Op, OpResult, RangeQuery,
    RangeResult, Test, Txn,
};

use super::{Action, Expect, KeyAnswer, KeyOp, Stamp};

/// An answer that does not belong to the request, whatever the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnexpectedAnswer {
    /// The request.
    pub asked: String,
    /// The answer.
    pub answered: String,
}

impl fmt::Display for UnexpectedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' was answered with {}", self.asked, self.answered)
    }
}

impl std::error::Error for UnexpectedAnswer {}

impl KeyOp {
    /// The command that asks this of kvd; none for a get, see [`query`](KeyOp::query).
    pub fn command(&self) -> Option<Command> {
        let key = self.key.clone();
        Some(match &self.action {
            Action::Get => return None,
            Action::Put(value) => Command::Op(Op::Put {
                key,
                value: value.clone(),
                want_previous: false,
            }),
            Action::Delete => Command::Op(Op::Delete {
                range: KeyRange::Key(key),
                want_previous: false,
            }),
            Action::CompareAndSet { expect, value } => Command::Txn(Txn {
                compare: vec![Compare {
                    key: key.clone(),
                    test: test(expect),
                }],
                then: vec![Op::Put {
                    key,
                    value: value.clone(),
                    want_previous: false,
                }],
                otherwise: Vec::new(),
            }),
            Action::Increment(by) => Command::Op(Op::Increment { key, by: *by }),
        })
    }

    /// The query for this key.
    pub fn query(&self) -> RangeQuery {
        RangeQuery::key(self.key.clone())
    }

    /// What kvd's answer to [`command`](KeyOp::command) says, with all numbers in it.
    ///
    /// # Errors
    /// It is no answer to this.
    pub fn answer(&self, result: &CommandResult) -> Result<KeyAnswer, UnexpectedAnswer> {
        let stamp = |version| Stamp {
            version,
            revision: Some(result.revision),
        };
        let answer = match (&self.action, result.succeeded, &result.results[..]) {
            (Action::CompareAndSet { .. }, false, []) => KeyAnswer::Differs,
            (
                Action::Put(_) | Action::CompareAndSet { .. },
                true,
                [OpResult::Put { version, .. }],
            ) => KeyAnswer::Set(stamp(Some(*version))),
            (Action::Delete, true, [OpResult::Deleted { count: 0, .. }]) => {
                KeyAnswer::NothingRemoved
            }
            (Action::Delete, true, [OpResult::Deleted { count: 1, .. }]) => {
                KeyAnswer::Removed(stamp(None))
            }
            (Action::Increment(_), true, [OpResult::Incremented { value, version }]) => {
                KeyAnswer::Number(*value, stamp(Some(*version)))
            }
            (Action::Increment(_), false, [OpResult::NotANumber]) => KeyAnswer::NotANumber,
            (Action::Increment(_), false, [OpResult::Overflow]) => KeyAnswer::Overflow,
            _ => return Err(self.unexpected(result)),
        };
        Ok(answer)
    }

    /// What kvd's answer to [`query`](KeyOp::query) says, with all numbers in it.
    ///
    /// # Errors
    /// It is no answer to a get of this key.
    pub fn read(&self, result: &RangeResult) -> Result<KeyAnswer, UnexpectedAnswer> {
        match (&self.action, &result.items[..]) {
            (Action::Get, []) => Ok(KeyAnswer::Absent),
            (Action::Get, [item]) if item.key == self.key => Ok(value(item)),
            _ => Err(self.unexpected(result)),
        }
    }

    fn unexpected(&self, answered: &impl fmt::Debug) -> UnexpectedAnswer {
        UnexpectedAnswer {
            asked: self.to_string(),
            answered: format!("{answered:?}"),
        }
    }
}

fn test(expect: &Expect) -> Test {
    match expect {
        Expect::Absent => Test::Absent,
        Expect::Value(value) => Test::Value(CmpOp::Equal, value.clone()),
        Expect::Version(version) => Test::Version(CmpOp::Equal, *version),
    }
}

fn value(item: &KeyValue) -> KeyAnswer {
    KeyAnswer::Value(
        item.value.clone(),
        Stamp {
            version: Some(item.version),
            revision: Some(item.mod_revision),
        },
    )
}
