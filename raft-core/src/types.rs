//! Ids and positions, each a type of its own so that a term cannot be passed where an index is
//! meant.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use bytes::Bytes;

/// A member of the cluster. Never 0, so that 0 can mean "nobody" in formats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(pub u64);

/// A term of office; 0 is the time before any election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Term(pub u64);

/// A position in the log; 0 is the position before the first entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogIndex(pub u64);

/// What names an entry: two logs that hold the same `EntryId` hold the same entry, and agree on all
/// before it (log matching, thesis 3.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EntryId {
    /// Position of the entry.
    pub index: LogIndex,
    /// Term of the leader that made the entry.
    pub term: Term,
}

/// Identity of the persist part of one [`Ready`](crate::Ready). Grows by one with each part.
///
/// Completions name the part and not an entry: an entry that was overwritten and came back has the
/// same (index, term) as the one the disk held before, and only the part tells which write has
/// completed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PersistId(pub u64);

/// Name of a linearizable read, chosen by the driver. Names of reads that are not answered yet must
/// differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReadId(pub u64);

/// Names a question for a damaged entry. Ascends within a life of a node, from a number that is drawn
/// anew for each life: only answers to this life's questions count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RepairId(pub u64);

/// What an entry is for. Numbers from 4 on are reserved (cluster version, state hash).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum EntryKind {
    /// Appended by each new leader, so that entries of earlier terms can be committed (thesis
    /// 3.6.2).
    Noop = 1,
    /// A command for the state machine.
    Command = 2,
    /// An encoded [`Configuration`](crate::Configuration); in force from the moment it is appended.
    Configuration = 3,
}

/// A number that names no [`EntryKind`] of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown entry kind {0}")]
pub struct UnknownEntryKind(pub u8);

impl TryFrom<u8> for EntryKind {
    type Error = UnknownEntryKind;

    fn try_from(kind: u8) -> Result<EntryKind, UnknownEntryKind> {
        match kind {
            1 => Ok(EntryKind::Noop),
            2 => Ok(EntryKind::Command),
            3 => Ok(EntryKind::Configuration),
            unknown => Err(UnknownEntryKind(unknown)),
        }
    }
}

/// One entry of the replicated log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Entry {
    /// Position in the log.
    pub index: LogIndex,
    /// Term of the leader that made it.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// Opaque to the core, except for configurations.
    pub payload: Bytes,
    /// Opaque checksum of the payload, made by the caller of
    /// [`Node::propose`](crate::Node::propose) and carried unchanged. An empty payload always has
    /// checksum 0, so that the core can make no-ops itself.
    pub checksum: u32,
}

impl Entry {
    /// The name of this entry.
    pub fn id(&self) -> EntryId {
        EntryId {
            index: self.index,
            term: self.term,
        }
    }

    /// What the entry counts for against limits in bytes: its payload and a flat amount for the
    /// rest, so that many empty entries cannot slip under a limit for nothing.
    pub fn bytes(&self) -> u64 {
        self.payload.len() as u64 + ENTRY_OVERHEAD_BYTES
    }

    pub(crate) fn noop(index: LogIndex, term: Term) -> Entry {
        Entry {
            index,
            term,
            kind: EntryKind::Noop,
            payload: Bytes::new(),
            checksum: 0,
        }
    }
}

/// About what an entry takes beside its payload, in memory and on the wire.
pub(crate) const ENTRY_OVERHEAD_BYTES: u64 = 32;

pub(crate) fn entries_bytes(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::bytes).sum()
}

/// Appends a longest prefix of the entries at the positions of `range` with at most `max_bytes`, but
/// at least one entry: an entry larger than the limit must still be able to travel.
#[inline]
pub(crate) fn extend_limited(
    into: &mut Vec<Entry>,
    entries: &VecDeque<Entry>,
    range: Range<usize>,
    max_bytes: u64,
) {
    if range.len() == 1 {
        // As mostly where commands come one by one; all the rest is about how many fit.
        into.reserve_exact(1);
        into.push(entries[range.start].clone());
        return;
    }
    let entries = entries.range(range);
    let mut total = 0;
    let exceeds = |entry: &Entry| {
        total += entry.bytes();
        total > max_bytes
    };
    // Counted first, so that the vector grows at most once.
    let fitting = entries.clone().position(exceeds).unwrap_or(entries.len());
    into.extend(entries.take(fitting.max(1)).cloned());
}

/// What must survive a crash beside the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HardState {
    /// The newest term this node has seen.
    pub term: Term,
    /// Whom this node voted for in that term.
    pub vote: Option<NodeId>,
}

impl Term {
    /// The largest term that is accepted from a peer. The rest of the numbers is out of reach by
    /// honest elections, and taking one of them over would leave no room for the next term.
    pub const MAX: Term = Term(u64::MAX / 2);

    /// The next term.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl LogIndex {
    /// The largest index that is accepted from a peer, so that arithmetic on positions cannot
    /// overflow.
    pub const MAX: LogIndex = LogIndex(u64::MAX / 2);

    /// The position after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The position before this one; the position before 0 is 0.
    pub fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// The position `count` after this one.
    pub fn plus(self, count: u64) -> LogIndex {
        LogIndex(self.0 + count)
    }

    /// How many positions lie in `earlier..self`; 0 if `earlier` is not earlier.
    pub fn distance_from(self, earlier: LogIndex) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl PersistId {
    pub(crate) fn next(self) -> PersistId {
        PersistId(self.0 + 1)
    }
}

impl RepairId {
    pub(crate) fn next(self) -> RepairId {
        RepairId(self.0 + 1)
    }
}

impl EntryId {
    /// Whether a log that ends here is at least as up to date as one that ends at `other` (thesis
    /// 3.6.1): the later last term wins, and the longer log among equal last terms.
    pub fn is_up_to_date_with(&self, other: EntryId) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Display for PersistId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Display for ReadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryKind::Noop => "noop",
            EntryKind::Command => "command",
            EntryKind::Configuration => "configuration",
        })
    }
}

impl fmt::Display for HardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vote {
            Some(vote) => write!(f, "term {} vote {vote}", self.term),
            None => write!(f, "term {}", self.term),
        }
    }
}

/// How many bytes of a payload the text form shows.
const SHOWN_PAYLOAD_BYTES: usize = 16;

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EntryKind::Noop => write!(f, "{} noop", self.id()),
            EntryKind::Configuration => match crate::Configuration::decode(&self.payload) {
                Ok(configuration) => write!(f, "{} {configuration}", self.id()),
                Err(_) => write!(f, "{} configuration?", self.id()),
            },
            EntryKind::Command if self.payload.len() <= SHOWN_PAYLOAD_BYTES => {
                write!(f, "{} '{}'", self.id(), self.payload.escape_ascii())
            }
            EntryKind::Command => write!(f, "{} {} bytes", self.id(), self.payload.len()),
        }
    }
}

/// Writes values separated by blanks; the text forms of messages and configurations share it.
pub(crate) fn write_spaced<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    values: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (position, value) in values.into_iter().enumerate() {
        if position > 0 {
            f.write_str(" ")?;
        }
        write!(f, "{value}")?;
    }
    Ok(())
}

/// Writes what is worth a word only if there is something of it.
pub(crate) fn write_unless_zero(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    amount: impl Into<u64>,
) -> fmt::Result {
    match amount.into() {
        0 => Ok(()),
        amount => write!(f, ", {name} {amount}"),
    }
}
