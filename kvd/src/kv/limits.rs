//! What a command may be, and what the store may keep.

use bytes::Bytes;

use super::command::{
    ANSWER_ITEMS_CEILING, Command, KeyRange, Op, RangeQuery, TXN_LIST_CEILING, Test, Txn,
};
use crate::machine::NAME_BYTES_MAX;

/// Bounds of one command.
///
/// A node's configuration holds such limits, and the leader checks them before it proposes. At apply the ceilings are
/// checked again: they are the same in every program that speaks this format, because a limit that differed between two
/// nodes would let their data diverge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLimits {
    /// Most bytes of a key. At least one byte is needed.
    pub key_bytes: usize,
    /// Most bytes of a value.
    pub value_bytes: usize,
    /// Most comparisons, and most steps of each branch, of a transaction.
    pub txn_ops: usize,
}

impl CommandLimits {
    /// No configuration goes beyond these.
    pub const CEILING: CommandLimits = CommandLimits {
        key_bytes: 64 << 10,
        value_bytes: 8 << 20,
        txn_ops: TXN_LIST_CEILING,
    };
}

impl Default for CommandLimits {
    fn default() -> CommandLimits {
        CommandLimits {
            key_bytes: 4 << 10,
            value_bytes: 1 << 20,
            txn_ops: 128,
        }
    }
}

/// Why a command is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A key has no bytes.
    #[error("a key needs at least one byte")]
    EmptyKey,
    /// Something is too large.
    #[error("{what} of {size} is beyond the limit of {limit}")]
    TooLarge {
        /// `key`, `value`, `transaction`, `command` or `name of a state machine`.
        what: &'static str,
        /// Its bytes; of a transaction its steps.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

/// Checks a command. Limits beyond the ceilings count as the ceilings, since the command would be refused there later.
///
/// # Errors
/// Says which limit does not hold.
pub fn check(limits: &CommandLimits, command: &Command) -> Result<(), LimitError> {
    let limits = limits.capped();
    match command {
        Command::Op(op) => limits.check_op(op),
        Command::Txn(txn) => limits.check_txn(txn),
        Command::Custom(custom) => {
            at_most(
                "name of a state machine",
                custom.machine.len(),
                NAME_BYTES_MAX,
            )?;
            at_most("command", custom.command.len(), limits.value_bytes)
        }
        Command::CloseSession
        | Command::KeepAlive
        | Command::Members(_)
        | Command::StateHash(_) => Ok(()),
    }
}

/// Checks a query.
///
/// # Errors
/// Says which limit does not hold.
pub fn check_query(limits: &CommandLimits, query: &RangeQuery) -> Result<(), LimitError> {
    limits.capped().check_query(query)
}

impl CommandLimits {
    fn capped(&self) -> CommandLimits {
        let ceiling = CommandLimits::CEILING;
        CommandLimits {
            key_bytes: self.key_bytes.min(ceiling.key_bytes),
            value_bytes: self.value_bytes.min(ceiling.value_bytes),
            txn_ops: self.txn_ops.min(ceiling.txn_ops),
        }
    }

    fn check_query(&self, query: &RangeQuery) -> Result<(), LimitError> {
        self.check_range(&query.range)?;
        query
            .after
            .as_ref()
            .map_or(Ok(()), |after| self.check_bound(after))
    }

    fn check_txn(&self, txn: &Txn) -> Result<(), LimitError> {
        for steps in [txn.compare.len(), txn.then.len(), txn.otherwise.len()] {
            at_most("transaction", steps, self.txn_ops)?;
        }
        for compare in &txn.compare {
            self.check_key(&compare.key)?;
            if let Test::Value(_, value) = &compare.test {
                self.check_value(value)?;
            }
        }
        txn.then
            .iter()
            .chain(&txn.otherwise)
            .try_for_each(|op| self.check_op(op))
    }

    fn check_op(&self, op: &Op) -> Result<(), LimitError> {
        match op {
            Op::Put { key, value, .. } => {
                self.check_key(key)?;
                self.check_value(value)
            }
            Op::Delete { range, .. } => self.check_range(range),
            Op::Range(query) => self.check_query(query),
            Op::Increment { key, .. } => self.check_key(key),
        }
    }

    fn check_range(&self, range: &KeyRange) -> Result<(), LimitError> {
        match range {
            KeyRange::Key(key) => self.check_key(key),
            KeyRange::Prefix(prefix) => self.check_bound(prefix),
            KeyRange::Between { start, end } => {
                self.check_bound(start)?;
                self.check_bound(end)
            }
            KeyRange::All => Ok(()),
        }
    }

    /// Checks what a state machine writes.
    #[cfg(feature = "server")]
    pub(super) fn check_write(&self, key: &Bytes, value: &Bytes) -> Result<(), LimitError> {
        self.check_key(key)?;
        self.check_value(value)
    }

    fn check_key(&self, key: &Bytes) -> Result<(), LimitError> {
        if key.is_empty() {
            return Err(LimitError::EmptyKey);
        }
        self.check_bound(key)
    }

    /// The end of a range is no key and may be empty.
    fn check_bound(&self, bound: &Bytes) -> Result<(), LimitError> {
        at_most("key", bound.len(), self.key_bytes)
    }

    fn check_value(&self, value: &Bytes) -> Result<(), LimitError> {
        at_most("value", value.len(), self.value_bytes)
    }
}

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), LimitError> {
    if size <= limit {
        return Ok(());
    }
    Err(LimitError::TooLarge {
        what,
        size: size as u64,
        limit: limit as u64,
    })
}

/// Bounds of the store. They decide what is refused and what expires, so they are part of the replicated state: every
/// member of a cluster uses the default, and only tests make others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bounds of a command.
    pub command: CommandLimits,
    /// Most keys in one answer.
    pub answer_items: usize,
    /// Most bytes in one answer; a single item is answered whatever its size.
    pub answer_bytes: usize,
    /// Bounds of the sessions.
    pub sessions: SessionLimits,
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits {
            command: CommandLimits::CEILING,
            answer_items: ANSWER_ITEMS_CEILING,
            answer_bytes: 1 << 20,
            sessions: SessionLimits::default(),
        }
    }
}

/// The widest window of a client: the most results kept for one session.
pub const SESSION_RESULTS_CEILING: usize = 1024;

/// Bounds of the session table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Most sessions. Beyond it the one unused for longest goes.
    pub count: usize,
    /// A session used within this time never goes to make room; a new one is refused instead. For as long a retry by
    /// name is safe, however many other sessions are opened meanwhile.
    pub kept_at_least_ms: u64,
    /// A session unused for this time is expired.
    pub idle_ms: u64,
    /// Most results kept for one session; at most [`SESSION_RESULTS_CEILING`].
    pub results: usize,
    /// Most bytes of results of one session; checked before a command runs, so one result may go beyond.
    pub result_bytes: usize,
    /// Most bytes of results of all sessions.
    pub total_result_bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            count: 65_536,
            kept_at_least_ms: 60_000,
            idle_ms: 3_600_000,
            results: SESSION_RESULTS_CEILING,
            result_bytes: 4 << 20,
            total_result_bytes: 256 << 20,
        }
    }
}
