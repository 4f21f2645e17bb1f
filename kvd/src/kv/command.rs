//! What clients can ask of the store, and what it answers.
//!
//! These types are replicated and travel: one version byte, then postcard. Enums are append-only and structs keep their
//! fields; a change of shape needs a new version beside the old one. The tests hold golden bytes.

use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded::vec_at_most;
use super::codec::{self, DecodeError};
use super::members::MemberUpdate;

#[cfg(test)]
pub(crate) mod tests;

/// Version of the encoding of a [`Command`].
pub const COMMAND_VERSION: u8 = 4;

/// Version of the commands that every program knows. All others are encoded in the version that brought them, so that an
/// older program stops at them by their version instead of passing over them as malformed, which would make two histories.
const FIRST_VERSION: u8 = 1;
/// Version that brought [`Command::Members`].
const MEMBERS_VERSION: u8 = 2;
/// Version that brought [`Command::StateHash`].
pub(crate) const STATE_HASH_VERSION: u8 = 3;
/// Version that brought [`Command::Custom`].
const CUSTOM_VERSION: u8 = 4;

/// The most elements any list of a transaction may have; beyond it the bytes are malformed. The limit that a cluster
/// applies is lower.
pub const TXN_LIST_CEILING: usize = 512;

/// The most keys in one answer; more come in pages.
pub const ANSWER_ITEMS_CEILING: usize = 1024;

// An element is larger in memory than its shortest encoding. With these ceilings no decoder takes much more than eight
// times its input plus 64 KiB in one piece, whoever made the input.
const _: () = {
    let budget_bytes = 64 << 10;
    assert!(TXN_LIST_CEILING * size_of::<Op>() <= budget_bytes);
    assert!(TXN_LIST_CEILING * size_of::<Compare>() <= budget_bytes);
    assert!(TXN_LIST_CEILING * size_of::<OpResult>() <= budget_bytes);
    // Five bytes is the shortest encoding of an item.
    assert!(
        ANSWER_ITEMS_CEILING * size_of::<KeyValue>() <= budget_bytes + 8 * 5 * ANSWER_ITEMS_CEILING
    );
};

/// A set of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyRange {
    /// This key.
    Key(Bytes),
    /// All keys that start with these bytes.
    Prefix(Bytes),
    /// All keys of `start..end`.
    Between {
        /// The first key.
        start: Bytes,
        /// The first key that does not belong any more.
        end: Bytes,
    },
    /// Every key.
    All,
}

impl KeyRange {
    /// The range as bounds. They may be empty or in the wrong order if a client said so: then nothing lies between.
    pub fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        match self {
            KeyRange::Key(key) => (Bound::Included(key.clone()), Bound::Included(key.clone())),
            KeyRange::Prefix(prefix) => (Bound::Included(prefix.clone()), prefix_end(prefix)),
            KeyRange::Between { start, end } => {
                (Bound::Included(start.clone()), Bound::Excluded(end.clone()))
            }
            KeyRange::All => (Bound::Unbounded, Bound::Unbounded),
        }
    }
}

/// The first key after all keys with this prefix: the prefix with its last byte below 0xff raised, the rest cut off.
fn prefix_end(prefix: &[u8]) -> Bound<Bytes> {
    match prefix.iter().rposition(|&byte| byte < 0xff) {
        None => Bound::Unbounded,
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bound::Excluded(end.into())
        }
    }
}

/// A question about data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// Only keys strictly after this one: the last key of the page before.
    pub after: Option<Bytes>,
    /// The most keys in the answer; 0 leaves it to the server, whose limit holds in any case.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count: all keys that match, without regard to any limit.
    pub count_only: bool,
}

impl RangeQuery {
    /// Everything of this range, with values, in pages as large as the server likes.
    pub fn new(range: KeyRange) -> RangeQuery {
        RangeQuery {
            range,
            after: None,
            limit: 0,
            keys_only: false,
            count_only: false,
        }
    }

    /// One key.
    pub fn key(key: impl Into<Bytes>) -> RangeQuery {
        RangeQuery::new(KeyRange::Key(key.into()))
    }
}

/// One step of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Answer with what the key held before.
        want_previous: bool,
    },
    /// Removes keys.
    Delete {
        /// Which keys.
        range: KeyRange,
        /// Answer with what they held.
        want_previous: bool,
    },
    /// Reads, at this point of the transaction: earlier steps are seen.
    Range(RangeQuery),
    /// Adds to a decimal 64-bit integer in text. An absent key counts as 0; any other text, and a sum that does not fit,
    /// undo the whole command.
    Increment {
        /// The key.
        key: Bytes,
        /// What to add.
        by: i64,
    },
}

/// How two values relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CmpOp {
    /// The stored one is equal.
    Equal,
    /// The stored one differs.
    NotEqual,
    /// The stored one is less.
    Less,
    /// The stored one is greater.
    Greater,
}

impl CmpOp {
    /// Whether `stored` stands in this relation to `given`.
    pub fn holds<T: Ord + ?Sized>(self, stored: &T, given: &T) -> bool {
        match self {
            CmpOp::Equal => stored == given,
            CmpOp::NotEqual => stored != given,
            CmpOp::Less => stored < given,
            CmpOp::Greater => stored > given,
        }
    }
}

/// A test of one key. The numbers of an absent key are 0; its value passes no test.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Test {
    /// There is no such key.
    Absent,
    /// There is such a key.
    Present,
    /// Number of writes since the key was created.
    Version(CmpOp, u64),
    /// Revision at which it was created.
    CreateRevision(CmpOp, u64),
    /// Revision of its last write.
    ModRevision(CmpOp, u64),
    /// Its value, compared as bytes.
    Value(CmpOp, Bytes),
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// What must hold of it.
    pub test: Test,
}

/// If all comparisons hold: `then`, else: `otherwise`. In one step, under one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// The conditions; none: they hold.
    #[serde(deserialize_with = "vec_at_most::<_, _, TXN_LIST_CEILING>")]
    pub compare: Vec<Compare>,
    /// Steps if all conditions hold.
    #[serde(deserialize_with = "vec_at_most::<_, _, TXN_LIST_CEILING>")]
    pub then: Vec<Op>,
    /// Steps if one does not.
    #[serde(deserialize_with = "vec_at_most::<_, _, TXN_LIST_CEILING>")]
    pub otherwise: Vec<Op>,
}

/// A write, as a client makes it and the log carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// A transaction of one step, without conditions.
    Op(Op),
    /// A transaction.
    Txn(Txn),
    /// Ends the session: its results are forgotten, later requests in it are refused as expired.
    CloseSession,
    /// Opens the session named in the envelope, or keeps an open one from expiring. Has no sequence number (0), changes
    /// no data, and may be repeated at will.
    KeepAlive,
    /// Changes the table of members. Only the cluster itself issues it. Version 2.
    Members(MemberUpdate),
    /// Says what a majority of the voters found their state to be, so that a replica that found another one takes itself out.
    /// Changes nothing. Only the cluster itself issues it. Version 3.
    StateHash(HashAt),
    /// A command of a state machine of the user. Version 4.
    Custom(Custom),
}

/// What the state is at one position of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HashAt {
    /// The last entry in it.
    pub index: u64,
    /// Kind of `hash`.
    pub algorithm: u8,
    /// The hash.
    pub hash: u64,
}

/// A command of a state machine of the user, see [`machine`](crate::machine).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// Name of the machine.
    pub machine: String,
    /// The version of the machine that brought the command. A replica of a lower version stops before it applies it.
    pub version: u32,
    /// The command as the machine encodes it.
    pub command: Bytes,
}

impl Command {
    /// The bytes that travel, are checksummed by the client, and are stored unchanged.
    pub fn encode(&self) -> Bytes {
        codec::encode(self.version(), self).into()
    }

    /// The version that brought this kind of command.
    fn version(&self) -> u8 {
        match self {
            Command::Op(_) | Command::Txn(_) | Command::CloseSession | Command::KeepAlive => {
                FIRST_VERSION
            }
            Command::Members(_) => MEMBERS_VERSION,
            Command::StateHash(_) => STATE_HASH_VERSION,
            Command::Custom(_) => CUSTOM_VERSION,
        }
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no command that this program knows.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let command: Command = codec::decode(COMMAND_VERSION, bytes)?;
        // All programs must find the same in the same bytes. In an older version there is nothing of a newer kind, and older
        // kinds in a newer version would be refused by older programs only.
        match bytes.first() == Some(&command.version()) {
            true => Ok(command),
            false => Err(DecodeError::Malformed),
        }
    }
}

impl From<Op> for Command {
    fn from(op: Op) -> Command {
        Command::Op(op)
    }
}

impl From<Txn> for Command {
    fn from(txn: Txn) -> Command {
        Command::Txn(txn)
    }
}

/// CRC-32 of an encoded command. Made by the client, checked by the node that receives it and by every replica that
/// applies it, so that a bit that flips anywhere on the way is caught.
pub fn command_crc(encoded: &[u8]) -> u32 {
    crc32fast::hash(encoded)
}

/// One key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; empty if only keys were asked for.
    pub value: Bytes,
    /// Revision at which the key was created.
    pub create_revision: u64,
    /// Revision of its last write.
    pub mod_revision: u64,
    /// Number of writes since it was created; 1 at creation.
    pub version: u64,
}

/// Answer to a [`RangeQuery`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RangeResult {
    /// What was found, in the order of the keys.
    #[serde(deserialize_with = "vec_at_most::<_, _, ANSWER_ITEMS_CEILING>")]
    pub items: Vec<KeyValue>,
    /// With `count_only` all keys that match; else the number of items.
    pub count: u64,
    /// A limit ended the answer: ask again with `after` = the last key.
    pub more: bool,
    /// The store's revision when this was read.
    pub revision: u64,
}

/// What one step did. A step that had to undo the command stands alone in [`CommandResult::results`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OpResult {
    /// The key was set.
    Put {
        /// Its version now.
        version: u64,
        /// What it held before, if asked for.
        previous: Option<KeyValue>,
    },
    /// Keys were removed.
    Deleted {
        /// How many.
        count: u64,
        /// What they held, if asked for.
        #[serde(deserialize_with = "vec_at_most::<_, _, ANSWER_ITEMS_CEILING>")]
        previous: Vec<KeyValue>,
    },
    /// What was read.
    Range(RangeResult),
    /// The new number.
    Incremented {
        /// The value now.
        value: i64,
        /// The version of the key now.
        version: u64,
    },
    /// The key holds no decimal 64-bit integer. Nothing of the command was written.
    NotANumber,
    /// The sum does not fit into 64 bits. Nothing of the command was written.
    Overflow,
    /// The answer (previous values) would be too large. Nothing of the command was written.
    AnswerTooLarge {
        /// The most bytes in one answer.
        limit_bytes: u64,
    },
    /// What the state machine answered to the command.
    Answered {
        /// The answer as the machine encodes it.
        answer: Bytes,
    },
    /// The state machine rejected the command. Nothing of it was written.
    Rejected {
        /// The rejection as the machine encodes it.
        rejection: Bytes,
    },
    /// The state machine wrote a key or a value that no state can hold. Nothing of the command was written.
    WriteRefused {
        /// What is wrong with it.
        why: String,
    },
}

impl OpResult {
    /// Whether this step undid the whole command.
    pub fn is_undone(&self) -> bool {
        match self {
            OpResult::NotANumber
            | OpResult::Overflow
            | OpResult::AnswerTooLarge { .. }
            | OpResult::Rejected { .. }
            | OpResult::WriteRefused { .. } => true,
            OpResult::Answered { .. }
            | OpResult::Put { .. }
            | OpResult::Deleted { .. }
            | OpResult::Range(_)
            | OpResult::Incremented { .. } => false,
        }
    }
}

/// What a command did. A repeated request gets the one that was made the first time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandResult {
    /// The store's revision after the command. It has grown by one if anything changed.
    pub revision: u64,
    /// The comparisons held (always so without comparisons), and nothing was undone.
    pub succeeded: bool,
    /// One result for each step of the branch that ran; or the one step because of which nothing was written.
    #[serde(deserialize_with = "vec_at_most::<_, _, TXN_LIST_CEILING>")]
    pub results: Vec<OpResult>,
}
