//! The one output batch and its ordering contract.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use bytes::Bytes;

use crate::{
    Entry, Envelope, Event, HardState, LogIndex, NodeId, PersistId, ReadId, RepairAsk, SnapshotMeta,
};

/// Everything a node wants done. Taken with [`Node::ready`](crate::Node::ready).
///
/// What must keep its order, and what need not:
///
/// 1. [`persist`](Ready::persist) parts are executed strictly one after the other, in the order
///    they were handed out. When one is on disk, the driver calls
///    [`Node::on_persisted`](crate::Node::on_persisted). More parts may be taken and queued before
///    the first is done. One exception: while a part waits for room, the repaired entries in it and
///    in those behind it, up to the first with a snapshot, may be written and reported with
///    [`Node::on_repaired`](crate::Node::on_repaired).
/// 2. [`messages`](Ready::messages) may leave at once, even before the persist part is begun.
/// 3. [`messages_after_sync`](Ready::messages_after_sync) promise durable state. They leave only
///    after the part [`after_sync`](Ready::after_sync) is on disk, and never in a later life of the
///    process.
/// 4. [`committed`](Ready::committed) entries are applied in order and reported with
///    [`Node::on_applied`](crate::Node::on_applied). They need not wait for the persist part: a
///    quorum holds them. A snapshot in the persist part replaces the state machine; entries after
///    it are handed out only once the part is reported done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// Write and sync this, then call `on_persisted` with its id.
    pub persist: Option<Persist>,
    /// May leave now.
    pub messages: Vec<Envelope>,
    /// May leave once `after_sync` is on disk.
    pub messages_after_sync: Vec<Envelope>,
    /// The newest persist part handed out so far, this one's included.
    pub after_sync: PersistId,
    /// Apply in order, then call `on_applied` with the last index.
    pub committed: Vec<Entry>,
    /// Reads to be served as soon as the given index is applied.
    pub read_states: Vec<ReadState>,
    /// Reads that will not be answered. Definite: nothing was read.
    pub read_failures: Vec<ReadId>,
    /// Entries that the storage could not answer for at once.
    pub fetches: Vec<Fetch>,
    /// For logs, metrics and timelines.
    pub events: Vec<Event>,
}

impl Ready {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.persist.is_none()
            && self.messages.is_empty()
            && self.messages_after_sync.is_empty()
            && self.committed.is_empty()
            && self.read_states.is_empty()
            && self.read_failures.is_empty()
            && self.fetches.is_empty()
            && self.events.is_empty()
    }

    /// Drops what is left, and keeps the memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.events.clear(); // There mostly are some, and callers only look at them.
        // The caller took all the rest, as it should.
        if self.is_empty() {
            return;
        }
        self.persist = None;
        self.messages.clear();
        self.messages_after_sync.clear();
        self.committed.clear();
        self.read_states.clear();
        self.read_failures.clear();
        self.fetches.clear();
    }
}

/// What must reach the disk.
///
/// In this order: term and vote, the snapshot, the repaired entries, the new entries. They may share
/// one sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persist {
    /// Names this part.
    pub id: PersistId,
    /// New term and vote.
    pub hard_state: Option<HardState>,
    /// Install this snapshot, whose data the driver staged before it stepped the message: it
    /// replaces the state machine and the whole log, which is empty afterwards, unless
    /// `snapshot_keeps_log` says otherwise. (A snapshot that agrees with a whole log is not handed
    /// out at all: the core commits up to it.)
    pub snapshot: Option<Box<SnapshotMeta>>,
    /// The snapshot takes the place of damaged entries only: it replaces the state machine, and the
    /// log up to its index is purged; what follows stays, and must not be gone for a moment.
    pub snapshot_keeps_log: bool,
    /// Rewrite these in place. They are the entries that the log holds there, and could not read;
    /// those around them stay as they are. What was purged meanwhile is to be skipped.
    pub repaired: Vec<Entry>,
    /// Consecutive entries. If the first index is not above the stored last index, the stored
    /// suffix from there on is truncated first.
    pub entries: Vec<Entry>,
}

/// A read that may be served once `index` is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadState {
    /// The read.
    pub id: ReadId,
    /// What must be applied before it is served.
    pub index: LogIndex,
}

/// A request for entries that are not in memory. Answered with
/// [`Node::on_fetched`](crate::Node::on_fetched) or
/// [`Node::on_fetch_failed`](crate::Node::on_fetch_failed).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// Who needs them.
    pub purpose: FetchPurpose,
    /// Which entries; a non-empty prefix is enough.
    pub range: Range<LogIndex>,
    /// How much is useful.
    pub max_bytes: u64,
}

/// Who needs fetched entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchPurpose {
    /// They go to this follower.
    Peer(NodeId),
    /// They go to this node, which asked for what it lost.
    Repair(NodeId, RepairAsk),
    /// They are committed and go to the state machine.
    Apply,
}

/// One command for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Opaque to the core.
    pub payload: Bytes,
    /// Checksum of the payload, carried with it everywhere; 0 for an empty payload.
    pub checksum: u32,
}

/// How the transfer of a snapshot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotOutcome {
    /// The receiver has the data, whether installed yet or not.
    Delivered,
    /// It has not; the core tries again when the follower is heard.
    Failed,
}

impl fmt::Display for Persist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        if let Some(hard_state) = self.hard_state {
            write!(f, " {hard_state}")?;
        }
        if let Some(snapshot) = &self.snapshot {
            write!(f, " {snapshot}")?;
            f.write_str(if self.snapshot_keeps_log {
                " before its log"
            } else {
                ""
            })?;
        }
        if !self.repaired.is_empty() {
            f.write_str(" repaired [")?;
            crate::types::write_spaced(f, &self.repaired)?;
            f.write_str("]")?;
        }
        if !self.entries.is_empty() {
            f.write_str(" [")?;
            crate::types::write_spaced(f, &self.entries)?;
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl fmt::Display for ReadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.index)
    }
}

impl fmt::Display for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.purpose {
            FetchPurpose::Peer(peer) => {
                write!(f, "{}..{} for {peer}", self.range.start, self.range.end)
            }
            FetchPurpose::Repair(peer, _) => write!(
                f,
                "{}..{} to repair {peer}",
                self.range.start, self.range.end
            ),
            FetchPurpose::Apply => write!(f, "{}..{} to apply", self.range.start, self.range.end),
        }
    }
}
