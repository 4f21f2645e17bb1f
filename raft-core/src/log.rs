//! One view over stable and unstable entries.

mod faults;
mod repair;
pub(crate) mod slice;
mod unstable;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;

use self::faults::Faults;
pub(crate) use self::repair::Holds;
use self::unstable::Unstable;
use crate::types::entries_bytes;
use crate::{
    Entry, EntryId, FaultyEntry, LogIndex, RepairId, SnapshotMeta, Storage, StorageError, Term,
};

/// The log as the core sees it: what the storage holds, the entries on their way there, and how far
/// it is committed and applied.
///
/// Invariants: `applied <= handed_out <= committed <= last`; `persisted < unstable.first`, and
/// equal to the index before it unless a snapshot waits for the disk.
#[derive(Debug)]
pub(crate) struct RaftLog<S> {
    pub(crate) storage: S,
    unstable: Unstable,
    /// The last entry, or the end of what was compacted. Its term is always known. It repeats what
    /// `unstable` and the storage say, because nearly every message is about the end of the log.
    last: EntryId,
    /// A snapshot that replaces the log and is not durable yet. While it waits the storage is not
    /// asked for anything, because it may answer for the old log or for the new one.
    installing: Option<Installing>,
    /// A snapshot that takes the place of damaged entries only, and is not durable yet. The log
    /// after it stays; what lies before counts as gone, and nothing is applied meanwhile.
    covering: Option<Installing>,
    /// Damaged entries.
    pub(crate) faults: Faults,
    persisted: LogIndex,
    committed: LogIndex,
    applying: Applying,
}

#[derive(Debug)]
struct Installing {
    meta: SnapshotMeta,
    submitted: bool,
}

/// Committed entries on their way through the state machine.
#[derive(Debug)]
struct Applying {
    applied: LogIndex,
    handed_out: LogIndex,
    /// Last index and bytes of each batch that is handed out and not applied.
    batches: VecDeque<(LogIndex, u64)>,
    bytes: u64,
    /// The first index of a read that the driver makes for us.
    fetching: Option<LogIndex>,
    fetched: Vec<Entry>,
}

/// What of the log stays when a snapshot is installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeptLog {
    Nothing,
    AfterSnapshot,
}

impl<S: Storage> RaftLog<S> {
    /// `repair_base` is where the numbers of this life's repair questions begin.
    pub(crate) fn new(
        storage: S,
        applied: LogIndex,
        committed: LogIndex,
        faulty: Vec<FaultyEntry>,
        repair_base: RepairId,
    ) -> RaftLog<S> {
        let persisted = storage.last_index();
        let applying = Applying {
            applied,
            handed_out: applied,
            batches: VecDeque::new(),
            bytes: 0,
            fetching: None,
            fetched: Vec::new(),
        };
        let unstable = Unstable::new(persisted.next());
        let mut log = RaftLog {
            storage,
            unstable,
            last: EntryId::default(),
            installing: None,
            covering: None,
            faults: Faults::new(faulty, repair_base),
            persisted,
            committed,
            applying,
        };
        log.last = log.end_at(persisted);
        log.settle_terms();
        // The stored commit index may lag, so it may as well name an entry whose term is known:
        // appends are compared with it.
        log.committed = log.newest_known(committed).index.max(applied);
        log
    }

    pub(crate) fn first_index(&self) -> LogIndex {
        match self.installing.as_ref().or(self.covering.as_ref()) {
            Some(installing) => installing.meta.id.index.next(),
            None => self.storage.first_index(),
        }
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.last.index
    }

    pub(crate) fn last_id(&self) -> EntryId {
        self.last
    }

    /// The name of the entry that is to be the last one.
    fn end_at(&self, index: LogIndex) -> EntryId {
        let term = self
            .term_within(index)
            .expect("the term of the last entry is always known");
        EntryId { index, term }
    }

    /// The term of the entry at `index`, or of the end of what was compacted; none outside, and
    /// none for a damaged entry of which not even that can be read.
    #[inline]
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        match index.cmp(&self.last.index) {
            Ordering::Less => self.term_within(index),
            Ordering::Equal => Some(self.last.term),
            Ordering::Greater => None,
        }
    }

    fn term_within(&self, index: LogIndex) -> Option<Term> {
        if index >= self.unstable.first() {
            return self.unstable.id(index).map(|id| id.term);
        }
        if let Some(installing) = &self.installing {
            let id = installing.meta.id;
            return (index == id.index).then_some(id.term);
        }
        if let Some(id) = self.covering.as_ref().map(|covering| covering.meta.id)
            && index <= id.index
        {
            return (index == id.index).then_some(id.term);
        }
        if let Some(fault) = self.faults.get(index) {
            return fault.term;
        }
        match self.storage.term(index) {
            Ok(term) => Some(term),
            Err(StorageError::Compacted | StorageError::Unavailable) => None,
            Err(error @ (StorageError::Later | StorageError::Faulty)) => {
                panic!("the storage must know the term of {index} at once: {error}")
            }
        }
    }

    /// The name of the entry at `index`, if its term is known.
    pub(crate) fn id(&self, index: LogIndex) -> Option<EntryId> {
        self.term(index).map(|term| EntryId { index, term })
    }

    pub(crate) fn holds(&self, id: EntryId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    /// The newest entry at or below `index` with a term not above `term`: the newest one that could
    /// agree with a log that has `term` at `index`. Falls back to the position before the first
    /// entry. Damaged entries of unknown term are passed over: nothing may be claimed of them.
    pub(crate) fn newest_not_above(&self, index: LogIndex, term: Term) -> EntryId {
        let mut at = index.min(self.last_index());
        loop {
            match self.term(at) {
                Some(found) if found > term => at = at.prev(),
                None if self.faults.is_unknown(at) => at = at.prev(),
                Some(found) => {
                    return EntryId {
                        index: at,
                        term: found,
                    };
                }
                None => {
                    return EntryId {
                        index: at,
                        term: Term(0),
                    };
                }
            }
        }
    }

    /// Puts a non-empty prefix of `range` within `max_bytes` into the empty `into`. `Unavailable`
    /// never comes back: asking for it is our mistake.
    pub(crate) fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        assert!(range.start < range.end, "nothing to read in {range:?}");
        assert!(
            range.end <= self.unstable.end(),
            "{range:?} ends beyond {}",
            self.last_index()
        );
        if range.start < self.first_index() {
            return Err(StorageError::Compacted);
        }
        if range.start >= self.unstable.first() {
            self.unstable.slice(range, max_bytes, into);
            return Ok(());
        }
        if self.faults.contains(range.start) {
            return Err(StorageError::Faulty);
        }
        let end = self.readable_through(range.start, range.end.prev()).next();
        let stored = range.start..end.min(self.unstable.first());
        self.storage
            .entries(stored.clone(), max_bytes, into)
            .inspect_err(|error| {
                assert_ne!(
                    *error,
                    StorageError::Unavailable,
                    "the storage lost {stored:?}"
                );
            })?;
        let first = into.first().map(|entry| entry.index);
        assert_eq!(
            first,
            Some(range.start),
            "the storage answered with other entries"
        );
        self.extend_with_unstable(into, end, max_bytes);
        Ok(())
    }

    /// Goes on where the stored entries end, as far as the limit allows.
    fn extend_with_unstable(&self, entries: &mut Vec<Entry>, end: LogIndex, max_bytes: u64) {
        let next = entries.last().map_or(end, |entry| entry.index.next());
        if next != self.unstable.first() || next >= end {
            return;
        }
        let budget = max_bytes.saturating_sub(entries_bytes(entries));
        let stored = entries.len();
        self.unstable.slice(next..end, budget, entries);
        if entries_bytes(&entries[stored..]) > budget {
            entries.truncate(stored);
        }
    }

    /// What of `range` can be read from a disk. A log refuses to read what it has not synced, so a
    /// range that goes further gets nothing: n3 is far behind, n1 takes writes all the time and asks
    /// its log for 7 to 900, of which 899 and 900 are on their way to the disk, again and again.
    /// Nor does it read what is damaged.
    pub(crate) fn durable_part(&self, range: Range<LogIndex>) -> Range<LogIndex> {
        let last = self.readable_through(range.start, range.end.prev());
        range.start..last.next().min(self.unstable.first())
    }

    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        self.last = entries.last().map_or(self.last, Entry::id);
        self.unstable.append(entries);
    }

    /// Drops everything from `from` on, to be replaced by what the leader has.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.committed,
            "truncation from {from} takes committed entries up to {}",
            self.committed
        );
        assert!(
            from >= self.first_index(),
            "truncation from {from} below {}",
            self.first_index()
        );
        self.last = self.end_at(from.prev());
        self.unstable.truncate(from);
        self.faults.truncate(from);
        self.persisted = self.persisted.min(from.prev());
    }

    /// Replaces the whole log by a snapshot, whose data the driver has staged.
    pub(crate) fn install(&mut self, meta: SnapshotMeta) {
        let index = meta.id.index;
        assert!(
            index > self.committed,
            "snapshot of {index}, but {} is committed",
            self.committed
        );
        self.unstable = Unstable::new(index.next());
        self.last = meta.id;
        self.persisted = self.persisted.min(self.committed);
        self.committed = index;
        self.applying.forget_fetch();
        self.faults.truncate(LogIndex(0));
        self.faults.forget_covered();
        self.covering = None;
        self.installing = Some(Installing {
            meta,
            submitted: false,
        });
    }

    /// Takes the state of a snapshot over damaged entries that were not applied yet. This log holds
    /// the snapshot's last entry, so what follows stays: it may be acknowledged.
    pub(crate) fn cover(&mut self, meta: SnapshotMeta) {
        let through = self.applying.handed_out;
        assert!(
            meta.id.index > through && self.may_hold(meta.id) == Holds::Yes,
            "{meta} does not lead on from {through}"
        );
        self.commit_to(meta.id.index);
        self.applying.forget_fetch();
        let reaches_beyond_the_disk = meta.id.index > self.persisted;
        let installing = Installing {
            meta,
            submitted: false,
        };
        if reaches_beyond_the_disk {
            self.cover_by_replacing(installing);
        } else {
            self.faults.cover_through(installing.meta.id.index);
            self.covering = Some(installing);
        }
    }

    /// Nothing behind this snapshot is durable, so nothing is acknowledged: the log on the disk is replaced, and what
    /// follows is written once more. It must not wait for the entries before it: they may wait for the
    /// room in a full log that only this snapshot makes.
    fn cover_by_replacing(&mut self, installing: Installing) {
        self.unstable.begin_after(installing.meta.id.index);
        self.faults.truncate(LogIndex(0));
        self.faults.forget_covered();
        self.covering = None;
        self.installing = Some(installing);
    }

    pub(crate) fn persisted(&self) -> LogIndex {
        self.persisted
    }

    pub(crate) fn has_unsubmitted(&self) -> bool {
        let is_waiting = |it: &Installing| !it.submitted;
        self.unstable.has_unsubmitted()
            || self.installing.as_ref().is_some_and(is_waiting)
            || self.covering.as_ref().is_some_and(is_waiting)
            || (self.is_faulty() && self.faults.has_received())
    }

    /// The snapshot to be installed, and what is to become of the log.
    pub(crate) fn submit_snapshot(&mut self) -> Option<(Box<SnapshotMeta>, KeptLog)> {
        if let Some(installing) = self.installing.as_mut().filter(|it| !it.submitted) {
            installing.submitted = true;
            return Some((Box::new(installing.meta.clone()), KeptLog::Nothing));
        }
        let covering = self.covering.as_mut().filter(|it| !it.submitted)?;
        covering.submitted = true;
        Some((Box::new(covering.meta.clone()), KeptLog::AfterSnapshot))
    }

    pub(crate) fn submit_entries(&mut self) -> Vec<Entry> {
        self.unstable.submit()
    }

    /// The snapshot is on disk and loaded into the state machine.
    pub(crate) fn installed(&mut self, id: EntryId) {
        self.applying.skip_to(id.index);
        let is_done = |it: &Option<Installing>| it.as_ref().is_some_and(|it| it.meta.id == id);
        if is_done(&self.installing) {
            self.installing = None;
        }
        if is_done(&self.covering) {
            self.covering = None;
            self.faults.forget_covered();
        }
    }

    /// The current log is on disk up to `index`.
    pub(crate) fn persisted_to(&mut self, index: LogIndex) {
        if self.installing.is_none() && index > self.persisted {
            self.persisted = index;
            if index >= self.unstable.first() {
                self.unstable.stable_to(index);
            }
        }
    }

    pub(crate) fn committed(&self) -> LogIndex {
        self.committed
    }

    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        assert!(
            index <= self.last_index(),
            "commit of {index} beyond {}",
            self.last_index()
        );
        self.committed = self.committed.max(index);
    }

    pub(crate) fn applied(&self) -> LogIndex {
        self.applying.applied
    }

    pub(crate) fn handed_out(&self) -> LogIndex {
        self.applying.handed_out
    }

    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether a snapshot that covers damaged entries up to `index` is on its way to the disk.
    pub(crate) fn is_covering(&self, index: LogIndex) -> bool {
        self.covering
            .as_ref()
            .is_some_and(|it| it.meta.id.index >= index)
    }

    pub(crate) fn unstable_first(&self) -> LogIndex {
        self.unstable.first()
    }

    pub(crate) fn unstable_end(&self) -> LogIndex {
        self.unstable.end()
    }

    /// Whether committed entries can be handed out, or asked for, now.
    pub(crate) fn has_committed(&self, max_bytes: u64) -> bool {
        // First what mostly decides.
        self.applying.handed_out < self.committed
            && self.installing.is_none()
            && self.covering.is_none()
            && self.applying.fetching.is_none()
            && self.applying.handed_out < self.applicable()
            && self.applying.bytes < max_bytes
    }

    /// Committed entries up to here can be applied: a damaged one must come back first.
    fn applicable(&self) -> LogIndex {
        self.readable_through(self.applying.handed_out.next(), self.committed)
    }

    /// Puts the next committed entries into the empty `into`, as far as the limit of what is handed
    /// out and not applied allows. Returns the range to be read first, if there is one.
    pub(crate) fn take_committed(
        &mut self,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Option<Range<LogIndex>> {
        if !self.has_committed(max_bytes) {
            return None;
        }
        if !self.applying.fetched.is_empty() {
            *into = core::mem::take(&mut self.applying.fetched);
            self.applying.hand_out(into);
            return None;
        }
        let range = self.applying.handed_out.next()..self.applicable().next();
        match self.entries(range.clone(), max_bytes - self.applying.bytes, into) {
            Ok(()) => {
                self.applying.hand_out(into);
                None
            }
            Err(StorageError::Later) => {
                self.applying.fetching = Some(range.start);
                Some(self.durable_part(range))
            }
            Err(StorageError::Faulty) => {
                self.on_faulty(range.start);
                None
            }
            Err(error @ (StorageError::Compacted | StorageError::Unavailable)) => {
                panic!("entries {range:?} are committed and not applied: {error}")
            }
        }
    }

    /// The range that [`take_committed`](Self::take_committed) asked for; anything else is an old
    /// answer and ignored.
    pub(crate) fn on_fetched_committed(&mut self, start: LogIndex, entries: Vec<Entry>) {
        if self.applying.fetching != Some(start) {
            return;
        }
        self.applying.fetching = None;
        if self.are_own(start, &entries) && start == self.applying.handed_out.next() {
            self.applying.fetched = entries;
        }
    }

    pub(crate) fn on_fetch_failed(&mut self, start: LogIndex) {
        if self.applying.fetching == Some(start) {
            self.applying.fetching = None;
        }
    }

    /// Whether `entries` are what this log holds from `start` on: a read that was slow may bring
    /// entries that were overwritten meanwhile.
    pub(crate) fn are_own(&self, start: LogIndex, entries: &[Entry]) -> bool {
        let expected = (start.0..).map(LogIndex);
        !entries.is_empty()
            && entries
                .iter()
                .zip(expected)
                .all(|(entry, index)| entry.index == index && self.holds(entry.id()))
    }

    pub(crate) fn on_applied(&mut self, index: LogIndex) {
        self.applying.on_applied(index);
    }
}

impl Applying {
    fn hand_out(&mut self, entries: &[Entry]) {
        let last = entries.last().expect("a batch is not empty").index;
        let bytes = entries_bytes(entries);
        self.handed_out = last;
        self.batches.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn on_applied(&mut self, index: LogIndex) {
        assert!(
            index <= self.handed_out,
            "{index} is applied, but {} was handed out",
            self.handed_out
        );
        self.applied = self.applied.max(index);
        while self
            .batches
            .front()
            .is_some_and(|(last, _)| *last <= self.applied)
        {
            let (_, bytes) = self.batches.pop_front().expect("just seen");
            self.bytes -= bytes;
        }
    }

    /// A snapshot takes the place of everything up to `index`.
    fn skip_to(&mut self, index: LogIndex) {
        self.handed_out = self.handed_out.max(index);
        self.on_applied(index.max(self.applied));
    }

    fn forget_fetch(&mut self) {
        self.fetching = None;
        self.fetched = Vec::new();
    }
}
