//! The snapshot: the whole state of a store at one log index, as a stream of checked blocks.
//!
//! ```text
//!  prelude   magic (8)  version (4)  CRC of both (4)
//!  block     kind (4)  length (4)  number (4)  CRC of these and the content (4)  content
//!            Header, Members..., Sessions..., Machines..., Data..., End
//! ```
//!
//! All numbers are little-endian; contents are postcard. Blocks are numbered from 0, so a lost, repeated or exchanged one
//! is noticed where it happens; the end holds the counts and a CRC over all bytes before it. The same state gives the same
//! bytes on every replica.
//!
//! Version 2 brought the blocks with the members. A cluster whose members never changed has none, and its snapshots are of
//! version 1: older programs read them. Likewise version 3 brought the blocks with the states of state machines of users.
//!
//! [`SnapshotWriter`] makes the blocks one by one from a clone of the store, [`SnapshotReader`] takes bytes in pieces of
//! any size. Neither touches a file.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded::vec_at_most;
use super::command::KeyValue;
use super::hash::HASH_ALGORITHM;
use super::limits::{CommandLimits, StoreLimits};
use super::store::Store;
use crate::wire::client::{MEMBERS_CEILING, MemberAddress};

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::SnapshotReader;
pub use writer::SnapshotWriter;

/// The first bytes of every snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"KVDSNAP\0";
/// Version of the format. 4 will add the history of old revisions.
pub const SNAPSHOT_VERSION: u32 = 3;
/// Version of the snapshots of a cluster without state machines whose members have changed.
const MEMBERS_VERSION: u32 = 2;
/// Version of the snapshots of a cluster whose members never changed.
const FIRST_VERSION: u32 = 1;

const PRELUDE_BYTES: usize = 16;
const BLOCK_HEADER_BYTES: usize = 16;
/// A block is closed when it has reached this size: small enough to be sent and checked while the next one is made.
const BLOCK_BYTES: usize = 64 << 10;
/// No block is larger: a reader never holds more than this, whatever a length says.
const BLOCK_BYTES_MAX: usize = 32 << 20;

// The largest single element: a session whose last result went beyond the limit by one largest item.
const _: () = {
    let ceiling = CommandLimits::CEILING;
    let results = 4 << 20;
    assert!(
        BLOCK_BYTES + results + 2 * (ceiling.key_bytes + ceiling.value_bytes) < BLOCK_BYTES_MAX
    );
};

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum BlockKind {
    Header = 1,
    Sessions = 2,
    Data = 3,
    End = 4,
    Members = 5,
    Machines = 6,
}

impl BlockKind {
    fn from_number(number: u32) -> Option<BlockKind> {
        [
            BlockKind::Header,
            BlockKind::Sessions,
            BlockKind::Data,
            BlockKind::End,
            BlockKind::Members,
            BlockKind::Machines,
        ]
        .into_iter()
        .find(|&kind| kind as u32 == number)
    }

    /// Its place in a snapshot.
    fn rank(self) -> u8 {
        match self {
            BlockKind::Header => 0,
            BlockKind::Members => 1,
            BlockKind::Sessions => 2,
            BlockKind::Machines => 3,
            BlockKind::Data => 4,
            BlockKind::End => 5,
        }
    }

    /// The version that brought it.
    fn since(self) -> u32 {
        match self {
            BlockKind::Header | BlockKind::Sessions | BlockKind::Data | BlockKind::End => {
                FIRST_VERSION
            }
            BlockKind::Members => MEMBERS_VERSION,
            BlockKind::Machines => SNAPSHOT_VERSION,
        }
    }
}

/// What a snapshot says about the log and the cluster, beside the state of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotContext {
    /// Term of the last entry in it.
    pub term: u64,
    /// The configuration in force there, both halves if it is joint. Opaque here.
    pub configuration: Bytes,
    /// Index of the entry that brought it.
    pub configuration_index: u64,
    /// The members that the cluster was founded with. Once they have changed the store knows better.
    pub members: Vec<MemberAddress>,
    /// The cluster.
    pub cluster: u32,
    /// The cluster's version: which kinds of entries all members know.
    pub cluster_version: u32,
}

/// The first block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The cluster.
    pub cluster: u32,
    /// The cluster's version: which kinds of entries all members know.
    pub cluster_version: u32,
    /// Index of the last entry in it.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The configuration in force there. Opaque here.
    pub configuration: Bytes,
    /// Index of the entry that brought it.
    pub configuration_index: u64,
    /// The members with their addresses.
    #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
    pub members: Vec<MemberAddress>,
    /// The store's revision.
    pub revision: u64,
    /// The store's log time.
    pub log_time_ms: u64,
    /// Kind of `hash`.
    pub hash_algorithm: u8,
    /// The store's hash over everything applied.
    pub hash: u64,
}

impl SnapshotHeader {
    /// The header of a snapshot of this store.
    pub fn new(store: &Store, context: SnapshotContext) -> SnapshotHeader {
        SnapshotHeader {
            cluster: context.cluster,
            cluster_version: context.cluster_version,
            index: store.applied,
            term: context.term,
            configuration: context.configuration,
            configuration_index: context.configuration_index,
            members: match store.members.is_empty() {
                true => context.members,
                false => store.members.addresses(),
            },
            revision: store.revision,
            log_time_ms: store.log_time_ms,
            hash_algorithm: HASH_ALGORITHM,
            hash: store.hash,
        }
    }

    /// A store at this position, still without data and sessions.
    fn store(&self, limits: StoreLimits) -> Store {
        let mut store = Store::new(limits);
        store.applied = self.index;
        store.revision = self.revision;
        store.log_time_ms = self.log_time_ms;
        store.hash = self.hash;
        store
    }
}

/// What blocks with the states of state machines hold: each machine, followed by its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum MachineElement {
    /// The next machine, in the order of their names.
    Machine {
        name: String,
        /// The highest version of a command that it has taken.
        version: u32,
    },
    /// The next key of the machine that was named last.
    Key(KeyValue),
}

/// The last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    keys: u64,
    sessions: u64,
    /// CRC of everything before this block.
    crc: u32,
}

/// Why bytes are no snapshot. `offset` is where the prelude or block in question starts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Something else.
    #[error("not a snapshot: it starts with {found:02x?}")]
    NotASnapshot {
        /// Its first bytes.
        found: [u8; 8],
    },
    /// Written by a newer program.
    #[error("snapshot format version {found}, this program knows {known}")]
    NewerVersion {
        /// The version in the snapshot.
        found: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// The rolling hash is of a kind that this program cannot continue.
    #[error("state hash of kind {found}, this program knows {known}")]
    UnknownHash {
        /// The kind in the snapshot.
        found: u8,
        /// The kind that this program computes.
        known: u8,
    },
    /// A checksum does not match.
    #[error("corrupt at offset {offset}: checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Start of the block.
        offset: u64,
        /// The checksum in the snapshot.
        expected: u32,
        /// The checksum of what is there.
        found: u32,
    },
    /// A block says it is larger than any block is.
    #[error("block of {bytes} bytes at offset {offset}, limit {limit}")]
    BlockTooLarge {
        /// Start of the block.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The largest length.
        limit: u64,
    },
    /// A block out of turn.
    #[error("unexpected block at offset {offset}: kind {kind}, number {number}")]
    UnexpectedBlock {
        /// Start of the block.
        offset: u64,
        /// Its kind.
        kind: u32,
        /// Its number.
        number: u32,
    },
    /// A sound checksum over a content that makes no sense.
    #[error("malformed block at offset {offset}")]
    Malformed {
        /// Start of the block.
        offset: u64,
    },
    /// It ends too early.
    #[error("truncated after {offset} bytes")]
    Truncated {
        /// Bytes that were there.
        offset: u64,
    },
    /// Something follows the end.
    #[error("bytes after the end at offset {offset}")]
    TrailingBytes {
        /// Where the snapshot ends.
        offset: u64,
    },
}

/// The 16 bytes in front of a block's content, or of the CRC in it: kind, length, number.
fn block_head(kind: u32, bytes: u32, number: u32) -> [u8; 12] {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&kind.to_le_bytes());
    head[4..8].copy_from_slice(&bytes.to_le_bytes());
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

fn block_crc(head: &[u8; 12], content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(content);
    crc.finalize()
}

/// Magic, version and their CRC. This shape never changes, so that a newer version can always be named.
fn prelude(version: u32) -> [u8; PRELUDE_BYTES] {
    let mut prelude = [0; PRELUDE_BYTES];
    prelude[..8].copy_from_slice(&SNAPSHOT_MAGIC);
    prelude[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&prelude[..12]);
    prelude[12..].copy_from_slice(&crc.to_le_bytes());
    prelude
}
