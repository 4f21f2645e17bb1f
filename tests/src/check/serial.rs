//! Strict serializability of transactions over a whole store that numbers its changes.
//!
//! Each answer carries the revision of the store: that of its own change, or that at which it read. So the answers name the
//! order themselves, and no search is needed: replay the changes by revision, compare what each transaction and each read
//! answered, and see that none returned before one of a lower place was invoked. That takes linear time after a sort.
//!
//! Revisions are gapless, so one that no answer claims was made by an operation of unknown outcome. Which one, if several
//! could have, is searched for, with a bound on the steps.
//!
//! ```text
//! @7  txn if x=1 then put x 2          changes come first at their revision
//! @7  get y                            then what was read there, in any order
//! @8  ?                                nobody got an answer: one of the unknown ones
//! @9  put y 5
//! ```

mod explain;
mod replay;
mod timeline;

use std::fmt::Debug;
use std::hash::Hash;

use super::history::{History, OpId};

pub use self::explain::{Fault, SerialViolation};
use self::replay::Replay;
use self::timeline::Timeline;

/// Runs of the model that a check may take.
pub const RUNS_MAX_DEFAULT: u64 = 1_000_000;

/// Where an answer says that its operation belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The store's revision after the operation.
    pub revision: u64,
    /// The operation made this revision. Otherwise it changed nothing.
    pub changed: bool,
}

/// A store that numbers its changes: each operation that changes anything raises the revision by one, no other does.
pub trait NumberedStore {
    /// All that it holds, the revision too.
    type State: Clone + Eq + Hash;
    /// What is asked.
    type Input: Eq + Hash + Debug;
    /// What is answered.
    type Output: Debug;

    /// What it holds before the first operation.
    fn initial(&self) -> Self::State;

    /// Runs one operation.
    fn run(&self, state: &mut Self::State, input: &Self::Input) -> Self::Output;

    /// The revision of its last change.
    fn revision(&self, state: &Self::State) -> u64;

    /// Where an answer belongs. It is a claim: the replay shows whether the same answer comes out there.
    fn place(&self, output: &Self::Output) -> Place;

    /// Whether an answer is right where this one was expected.
    fn agrees(&self, expected: &Self::Output, seen: &Self::Output) -> bool;

    /// The operation in explanations.
    fn describe(&self, input: &Self::Input, output: Option<&Self::Output>) -> String {
        match output {
            Some(output) => format!("{input:?} -> {output:?}"),
            None => format!("{input:?}"),
        }
    }

    /// An answer in explanations.
    fn describe_output(&self, output: &Self::Output) -> String {
        format!("{output:?}")
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum SerialVerdict {
    /// The order that the revisions name explains every answer.
    Serializable {
        /// The revisions that no answer claims, each with an operation of unknown outcome that can have made it.
        filled: Vec<(u64, OpId)>,
        /// Runs of the model.
        runs: u64,
    },
    /// It does not.
    Violation(Box<SerialViolation>),
    /// Nobody knows: too many ways to fill the revisions that no answer claims.
    Undecided {
        /// Runs of the model.
        runs: u64,
    },
}

impl SerialVerdict {
    /// Goes on if the history is strictly serializable.
    ///
    /// # Panics
    /// With the explanation, if it is not or if nobody knows.
    pub fn expect_serializable(self) -> Vec<(u64, OpId)> {
        match self {
            SerialVerdict::Serializable { filled, .. } => filled,
            SerialVerdict::Violation(violation) => panic!("{violation}"),
            SerialVerdict::Undecided { runs } => panic!("undecided after {runs} runs"),
        }
    }
}

/// Checks a history that holds every operation of every client of the store, from its first revision on.
///
/// `runs_max` bounds the search: runs of the model beyond those that a history without gaps takes, see [`RUNS_MAX_DEFAULT`].
pub fn check<S: NumberedStore>(
    store: &S,
    history: &History<S::Input, S::Output>,
    runs_max: u64,
) -> SerialVerdict {
    let violation = |fault, before: &[OpId]| {
        let violation = SerialViolation::new(store, history, fault, before);
        SerialVerdict::Violation(Box::new(violation))
    };
    let timeline = match Timeline::new(store, history) {
        Ok(timeline) => timeline,
        Err(fault) => return violation(fault, &[]),
    };
    if let Some(fault) = timeline.find_out_of_order(history) {
        return violation(fault, &[]);
    }
    let mut replay = Replay::new(store, history, &timeline, runs_max);
    match replay.run() {
        replay::End::Explained => SerialVerdict::Serializable {
            filled: replay.filled(),
            runs: replay.runs(),
        },
        replay::End::Fault(fault, before) => violation(fault, &before),
        replay::End::GivenUp => SerialVerdict::Undecided {
            runs: replay.runs(),
        },
    }
}
