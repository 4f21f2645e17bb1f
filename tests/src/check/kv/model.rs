//! The model of one key.

use bytes::Bytes;

use super::{Action, Expect, KeyAnswer, KeyHistory, KeyOp, Stamp};
use crate::check::history::Model;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its value.
    pub value: Bytes,
    /// Number of writes since it was created, counted up to one more than any version that somebody looked at.
    pub version: u64,
}

/// What is known of the revision of the last change of a key. The revision is the store's: changes of other keys count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revision {
    /// It is this one.
    Exact(u64),
    /// It is higher than this one.
    Above(u64),
}

impl Revision {
    /// The lowest it can be.
    fn least(self) -> u64 {
        match self {
            Revision::Exact(revision) => revision,
            Revision::Above(revision) => revision.saturating_add(1),
        }
    }

    /// Whether it can be this one.
    fn can_be(self, revision: u64) -> bool {
        match self {
            Revision::Exact(known) => known == revision,
            Revision::Above(least) => revision > least,
        }
    }
}

/// A key, absent or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyState {
    /// What it holds, if there is such a key.
    pub held: Option<Held>,
    /// Of the last change, removals included; `Exact(0)` before the first, and always if the model does not follow them.
    pub revision: Revision,
}

/// The model of one key.
///
/// It counts versions and follows revisions only as far as a history shows any: else two ways to the same value would
/// differ, and the search would be longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyModel {
    /// Higher versions than this one are all the same.
    version_max: u64,
    revisions: bool,
}

impl Default for KeyModel {
    /// Counts and follows everything.
    fn default() -> KeyModel {
        KeyModel {
            version_max: u64::MAX,
            revisions: true,
        }
    }
}

impl KeyModel {
    /// The model that checks every number that this history shows.
    pub fn for_history(history: &KeyHistory) -> KeyModel {
        let mut model = KeyModel {
            version_max: 0,
            revisions: false,
        };
        for operation in history.operations() {
            let stamp = operation.output().map(stamp).unwrap_or_default();
            let looked_at = stamp.version.max(expected_version(&operation.input));
            let distinct = looked_at.map_or(0, |version| version.saturating_add(1));
            model.version_max = model.version_max.max(distinct);
            model.revisions |= stamp.revision.is_some();
        }
        model
    }

    /// The key after a change of its value.
    fn set(self, state: &KeyState, value: Bytes, stamp: Stamp) -> Option<KeyState> {
        let before = state.held.as_ref().map_or(0, |held| held.version);
        let version = before.saturating_add(1).min(self.version_max);
        if stamp.version.is_some_and(|seen| seen != version) {
            return None;
        }
        Some(KeyState {
            held: Some(Held { value, version }),
            revision: self.next_revision(state, stamp)?,
        })
    }

    fn remove(self, state: &KeyState, stamp: Stamp) -> Option<KeyState> {
        Some(KeyState {
            held: None,
            revision: self.next_revision(state, stamp)?,
        })
    }

    fn next_revision(self, state: &KeyState, stamp: Stamp) -> Option<Revision> {
        let least = state.revision.least();
        match stamp.revision {
            Some(seen) => (seen > least).then_some(Revision::Exact(seen)),
            None if self.revisions => Some(Revision::Above(least)),
            None => Some(state.revision),
        }
    }

    fn get(self, state: &KeyState, answer: Option<&KeyAnswer>) -> Option<KeyState> {
        match (&state.held, answer) {
            (_, None) | (None, Some(KeyAnswer::Absent)) => Some(state.clone()),
            (Some(held), Some(KeyAnswer::Value(value, stamp))) => {
                let fits = held.value == value
                    && stamp.version.is_none_or(|seen| seen == held.version)
                    && stamp
                        .revision
                        .is_none_or(|seen| state.revision.can_be(seen));
                fits.then(|| KeyState {
                    held: state.held.clone(),
                    revision: stamp.revision.map_or(state.revision, Revision::Exact),
                })
            }
            (Some(_) | None, Some(_)) => None,
        }
    }

    fn put(self, state: &KeyState, to: &Bytes, answer: Option<&KeyAnswer>) -> Option<KeyState> {
        self.set(state, to.clone(), set_stamp(answer)?)
    }

    fn delete(self, state: &KeyState, answer: Option<&KeyAnswer>) -> Option<KeyState> {
        let removes = state.held.is_some();
        match answer {
            Some(KeyAnswer::Removed(stamp)) if removes => self.remove(state, *stamp),
            None if removes => self.remove(state, Stamp::default()),
            None | Some(KeyAnswer::NothingRemoved) if !removes => Some(state.clone()),
            None | Some(_) => None,
        }
    }

    fn compare_and_set(
        self,
        state: &KeyState,
        (expect, to): (&Expect, &Bytes),
        answer: Option<&KeyAnswer>,
    ) -> Option<KeyState> {
        let holds = match expect {
            Expect::Absent => state.held.is_none(),
            Expect::Value(value) => state.held.as_ref().is_some_and(|held| held.value == value),
            Expect::Version(version) => {
                *version == state.held.as_ref().map_or(0, |held| held.version)
            }
        };
        match answer {
            Some(KeyAnswer::Differs) => (!holds).then(|| state.clone()),
            None if !holds => Some(state.clone()),
            None | Some(_) if holds => self.set(state, to.clone(), set_stamp(answer)?),
            None | Some(_) => None,
        }
    }

    fn increment(self, state: &KeyState, by: i64, answer: Option<&KeyAnswer>) -> Option<KeyState> {
        let expected = match &state.held {
            None => Ok(by),
            Some(held) => match number(&held.value) {
                None => Err(KeyAnswer::NotANumber),
                Some(number) => number.checked_add(by).ok_or(KeyAnswer::Overflow),
            },
        };
        match (expected, answer) {
            (Ok(sum), Some(KeyAnswer::Number(seen, stamp))) if sum == *seen => {
                self.set(state, sum.to_string().into(), *stamp)
            }
            (Ok(sum), None) => self.set(state, sum.to_string().into(), Stamp::default()),
            (Err(refusal), Some(seen)) if refusal == *seen => Some(state.clone()),
            (Err(_), None) => Some(state.clone()),
            (Ok(_) | Err(_), Some(_)) => None,
        }
    }
}

impl Model for KeyModel {
    type State = KeyState;
    type Input = KeyOp;
    type Output = KeyAnswer;

    fn initial(&self) -> KeyState {
        KeyState {
            held: None,
            revision: Revision::Exact(0),
        }
    }

    fn step(&self, state: &KeyState, op: &KeyOp, answer: Option<&KeyAnswer>) -> Option<KeyState> {
        match &op.action {
            Action::Get => self.get(state, answer),
            Action::Put(value) => self.put(state, value, answer),
            Action::Delete => self.delete(state, answer),
            Action::CompareAndSet { expect, value } => {
                self.compare_and_set(state, (expect, value), answer)
            }
            Action::Increment(by) => self.increment(state, *by, answer),
        }
    }

    fn is_read(&self, op: &KeyOp, answer: Option<&KeyAnswer>) -> bool {
        match answer {
            None => op.action == Action::Get,
            Some(answer) => !is_change(answer),
        }
    }

    /// Revisions only grow.
    fn is_out_of_reach(&self, state: &KeyState, _: &KeyOp, answer: &KeyAnswer) -> bool {
        let least = state.revision.least();
        let seen = stamp(answer).revision;
        seen.is_some_and(|seen| match is_change(answer) {
            true => seen <= least,
            false => seen < least,
        })
    }

    fn describe(&self, op: &KeyOp, answer: Option<&KeyAnswer>) -> String {
        match answer {
            Some(answer) => format!("{op} -> {answer}"),
            None => op.to_string(),
        }
    }

    fn describe_state(&self, state: &KeyState) -> String {
        let mut text = match &state.held {
            None => "none".to_owned(),
            Some(held) => format!("={}", held.value.escape_ascii()),
        };
        if let Some(held) = state.held.as_ref().filter(|_| self.version_max > 0) {
            text += &format!(" v{}", held.version);
        }
        if self.revisions {
            text += &match state.revision {
                Revision::Exact(revision) => format!(" r{revision}"),
                Revision::Above(revision) => format!(" r>{revision}"),
            };
        }
        text
    }
}

/// The numbers of an answer that the key was set; of none, if nobody saw the answer.
fn set_stamp(answer: Option<&KeyAnswer>) -> Option<Stamp> {
    match answer {
        None => Some(Stamp::default()),
        Some(KeyAnswer::Set(stamp)) => Some(*stamp),
        Some(_) => None,
    }
}

/// Whether an answer says that the key was changed.
fn is_change(answer: &KeyAnswer) -> bool {
    match answer {
        KeyAnswer::Set(_) | KeyAnswer::Removed(_) | KeyAnswer::Number(..) => true,
        KeyAnswer::Absent
        | KeyAnswer::Value(..)
        | KeyAnswer::NothingRemoved
        | KeyAnswer::Differs
        | KeyAnswer::NotANumber
        | KeyAnswer::Overflow => false,
    }
}

fn stamp(answer: &KeyAnswer) -> Stamp {
    match answer {
        KeyAnswer::Value(_, stamp)
        | KeyAnswer::Set(stamp)
        | KeyAnswer::Removed(stamp)
        | KeyAnswer::Number(_, stamp) => *stamp,
        KeyAnswer::Absent
        | KeyAnswer::NothingRemoved
        | KeyAnswer::Differs
        | KeyAnswer::NotANumber
        | KeyAnswer::Overflow => Stamp::default(),
    }
}

fn expected_version(op: &KeyOp) -> Option<u64> {
    match &op.action {
        Action::CompareAndSet { expect, .. } => match expect {
            Expect::Version(version) => Some(*version),
            Expect::Absent | Expect::Value(_) => None,
        },
        Action::Get | Action::Put(_) | Action::Delete | Action::Increment(_) => None,
    }
}

/// A decimal 64-bit integer in text: an optional sign and digits, nothing else.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
