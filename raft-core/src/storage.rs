//! What the core asks of its log. Answers come at once or not at all; nothing here blocks.

mod memory;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

pub use self::memory::MemoryStorage;
use crate::{Configuration, Entry, EntryId, EntryKind, HardState, LogIndex, Term};

/// Read access to the durable log.
///
/// The core keeps every entry in memory until the driver reports it durable with
/// [`Node::on_persisted`](crate::Node::on_persisted), and asks the storage only for what lies
/// below. Between the moment a [`Persist`](crate::Persist) was handed out and its completion the
/// storage may answer for the concerned indexes as it likes, or not at all; the core does not ask.
/// From the completion on it must answer for them.
///
/// Nor does the core ask for entries that are damaged, see [`InitialState::faulty`].
pub trait Storage {
    /// What the log held when it was opened. Asked once, by [`Node::new`](crate::Node::new).
    fn initial_state(&self) -> InitialState;

    /// Oldest index present; one above the newest snapshot if the log is empty. Moves up when the
    /// driver purges, but never above the applied index plus one.
    fn first_index(&self) -> LogIndex;

    /// Newest index present; `first_index() - 1` if the log is empty.
    fn last_index(&self) -> LogIndex;

    /// Term of the entry at `index`, for all of `first_index() - 1 ..= last_index()` but those that
    /// [`InitialState::faulty`] named. What turns out to be damaged later keeps its term.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] below, [`StorageError::Unavailable`] above that range; never
    /// [`StorageError::Later`], because conflict checks cannot wait.
    fn term(&self, index: LogIndex) -> Result<Term, StorageError>;

    /// Appends a non-empty prefix of `range` to `into`: as many entries as fit into `max_bytes` by
    /// [`Entry::bytes`], but at least one.
    ///
    /// # Errors
    /// [`StorageError::Later`] if the first entry is not in memory: the core then asks with a
    /// [`Fetch`](crate::Fetch) and goes on with other work. [`StorageError::Faulty`] if it turns out
    /// to be damaged: the core then repairs it. Nothing is appended with an error.
    fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Result<(), StorageError>;

    /// The newest snapshot that can be sent to a follower. Its index must be at least
    /// `first_index() - 1`, or a follower that installs it still has a gap.
    fn snapshot(&self) -> Option<SnapshotMeta>;
}

/// Why a storage does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// Replaced by a snapshot.
    #[error("the entry was compacted away")]
    Compacted,
    /// Not in memory; the driver must fetch it.
    #[error("the entry is not in memory")]
    Later,
    /// Present and damaged: the bytes do not match their checksum, or cannot be read.
    #[error("the entry is damaged")]
    Faulty,
    /// Beyond the end of the log.
    #[error("the log does not reach that far")]
    Unavailable,
}

/// What a log held when it was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InitialState {
    /// Term and vote.
    pub hard_state: HardState,
    /// The configuration of the newest snapshot, or the one the cluster was founded with. A node that
    /// joins later has the founding one as well: it learns from the log that it is a member, and with
    /// itself as the only voter it would lead a cluster of its own.
    pub configuration: Configuration,
    /// Where that configuration was appended; 0 for the founding one.
    pub configuration_index: LogIndex,
    /// What the state machine holds: the index of its newest snapshot.
    pub applied: LogIndex,
    /// A commit index that was true once; it may lag, but must lie in `applied ..= last_index`.
    pub commit: LogIndex,
    /// All configuration entries of the stored log, ascending, so that no payload has to be read
    /// at start. Those at or below `configuration_index` are ignored.
    pub configurations: Vec<(LogIndex, Configuration)>,
    /// The entries of the stored log that are damaged, ascending. The node gets them back from its
    /// peers, and takes part only with restrictions until it has them: see
    /// [`Status::repair`](crate::Status::repair).
    ///
    /// Only those above the newest snapshot: what it covers is not needed, so the driver purges up
    /// to there instead.
    pub faulty: Vec<FaultyEntry>,
}

/// An entry that was durable once and cannot be read any more. Not a torn write: that never was
/// durable, and is dropped by the log itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultyEntry {
    /// Where it is.
    pub index: LogIndex,
    /// Its term, if its header or an index of the log still tells. For the last entry of the log it
    /// must be known.
    pub term: Option<Term>,
    /// Its kind, if that is still known.
    pub kind: Option<EntryKind>,
}

/// What a snapshot stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotMeta {
    /// The last entry that the snapshot includes.
    pub id: EntryId,
    /// The configuration in force at that entry, both halves if it is a joint one.
    pub configuration: Configuration,
    /// Where that configuration was appended.
    pub configuration_index: LogIndex,
}

impl fmt::Display for SnapshotMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "snapshot {} {} of {}",
            self.id, self.configuration, self.configuration_index
        )
    }
}
