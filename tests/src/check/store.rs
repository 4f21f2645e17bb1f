//! The whole store of kvd: transactions over many keys, and the plainest possible model of them.
//!
//! The model shares the words of kvd, [`Command`] and [`RangeQuery`], and none of its code. It knows no limits: a command
//! that the store undid with [`OpResult::AnswerTooLarge`] belongs into a history as failed. Pages that a limit of the server
//! ended are accepted as far as they go.

mod describe;
mod model;

use kvd::kv::command::{Command, CommandResult, OpResult, RangeQuery, RangeResult};

use super::history::History;
use super::serial::{self, SerialVerdict};

pub use self::model::{Record, StoreModel, StoreState};

/// A request to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A write: a transaction, or one step.
    Write(Command),
    /// A linearizable read.
    Read(RangeQuery),
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a write.
    Written(CommandResult),
    /// To a read.
    Found(RangeResult),
}

/// Transactions and reads of the whole store.
pub type StoreHistory = History<Request, Answer>;

/// Checks that a history is strictly serializable. It must hold all writes of all clients from the first revision on.
/// `runs_max`: see [`RUNS_MAX_DEFAULT`](serial::RUNS_MAX_DEFAULT).
pub fn check(history: &StoreHistory, runs_max: u64) -> SerialVerdict {
    serial::check(&StoreModel, history, runs_max)
}

/// Whether a step says that it changed something.
pub(crate) fn has_changed(result: &OpResult) -> bool {
    match result {
        OpResult::Put { .. } | OpResult::Incremented { .. } => true,
        OpResult::Deleted { count, .. } => *count > 0,
        OpResult::Range(_)
        | OpResult::NotANumber
        | OpResult::Overflow
        | OpResult::AnswerTooLarge { .. }
        | _ => false,
    }
}
