//! What the consensus loop knows of its log without touching a disk.
//!
//! The loop may never wait for a page fault, so it reads recent entries out of memory and asks for older ones:
//! [`Storage::entries`] answers [`StorageError::Later`], the driver reads them elsewhere and brings them back. Terms of all
//! stored entries are known at once, because conflict checks cannot wait; a log of millions of entries has a handful.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use raft_core::{
    Entry, EntryId, InitialState, LogIndex, Persist, SnapshotMeta, Storage, StorageError, Term,
};

/// Bytes of recent entries that are kept in memory, unless configured otherwise.
///
/// A follower that is no further behind than this is caught up without reading the disk; 64 MiB is about a second of the
/// fastest log, and one segment.
pub const CACHE_BYTES: u64 = 64 << 20;

/// The log as the consensus core reads it: the newest entries, and the terms of all.
///
/// Entries are put in when they are handed to the log thread, not when it has synced them; the core reads an index only
/// once it was reported persisted.
///
/// Entries that were found damaged when the log was opened are part of it like the others; they are not in memory, and of some
/// not even the term is known until a copy came from a peer.
///
/// Invariant: `recent` is contiguous and ends at `last`, so what is missing is always an older part.
#[derive(Clone, Debug)]
pub struct LogCache {
    initial: InitialState,
    /// The entry before the first one.
    floor: EntryId,
    last: LogIndex,
    terms: TermRuns,
    /// Damaged entries whose term is not known. In `terms` they belong to the run before them.
    unknown: BTreeSet<LogIndex>,
    recent: VecDeque<Entry>,
    recent_bytes: u64,
    limit_bytes: u64,
    snapshot: Option<SnapshotMeta>,
}

impl LogCache {
    /// An empty log behind `floor`. `initial` is what the core is told when it starts; `snapshot` the newest one that can be
    /// sent.
    #[must_use]
    pub fn new(
        initial: InitialState,
        floor: EntryId,
        snapshot: Option<SnapshotMeta>,
        limit_bytes: u64,
    ) -> LogCache {
        LogCache {
            initial,
            floor,
            last: floor.index,
            terms: TermRuns::default(),
            unknown: BTreeSet::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            limit_bytes,
            snapshot,
        }
    }

    /// Notes that the log holds entries of `term` up to and including `through`, without having them in memory.
    ///
    /// # Panics
    /// If `through` is not above the last index, or entries are in memory already.
    pub fn note_stored(&mut self, through: LogIndex, term: Term) {
        assert!(
            through > self.last,
            "entries up to {through} are known already, up to {}",
            self.last
        );
        assert!(
            self.recent.is_empty(),
            "only what is older than the entries in memory may be missing"
        );
        self.terms.push(self.last.next(), term);
        self.last = through;
    }

    /// Notes that the next entry of the log is damaged, and that nothing tells its term.
    ///
    /// # Panics
    /// If entries are in memory already.
    pub fn note_unknown(&mut self) {
        let before = self.terms.term(self.last).unwrap_or(self.floor.term);
        self.note_stored(self.last.next(), before);
        self.unknown.insert(self.last);
    }

    /// Notes one persist part: the snapshot in it takes the place of everything, or of what lies before it; the repaired
    /// entries that of damaged ones, the new entries that of a conflicting suffix.
    ///
    /// # Panics
    /// As [`LogCache::append`].
    pub fn persist(&mut self, persist: &Persist) {
        if let Some(meta) = &persist.snapshot {
            if persist.snapshot_keeps_log {
                self.purge(meta.id);
            } else {
                self.reset(meta.id);
            }
            self.set_snapshot((**meta).clone());
        }
        for entry in &persist.repaired {
            self.repair(entry.id());
        }
        self.append(&persist.entries);
    }

    /// A damaged entry is back. Its bytes are read from the log like those of any old entry.
    fn repair(&mut self, id: EntryId) {
        // One that was unknown is purged with the others.
        if self.unknown.remove(&id.index) {
            self.terms.set(id.index, id.term, self.last);
        }
    }

    /// Appends entries. What is there from the first one's index on is truncated before.
    ///
    /// # Panics
    /// If the entries leave a gap, or begin at or below the floor.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.truncate(first.index);
        for entry in entries {
            assert_eq!(
                entry.index,
                self.last.next(),
                "{} does not follow {}",
                entry.id(),
                self.last
            );
            self.terms.push(entry.index, entry.term);
            self.last = entry.index;
            self.recent_bytes += entry.bytes();
            self.recent.push_back(entry.clone());
        }
    }

    fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.floor.index,
            "{from} is at or below the floor {}",
            self.floor
        );
        while self.recent.back().is_some_and(|entry| entry.index >= from) {
            let dropped = self.recent.pop_back().expect("just seen");
            self.recent_bytes -= dropped.bytes();
        }
        if from <= self.last {
            self.unknown.split_off(&from);
            self.terms.truncate(from);
            self.last = from.prev();
        }
    }

    /// Empties the log: a snapshot that ends with `id` takes the place of all of it.
    pub fn reset(&mut self, id: EntryId) {
        self.floor = id;
        self.last = id.index;
        self.terms = TermRuns::default();
        self.unknown.clear();
        self.recent.clear();
        self.recent_bytes = 0;
    }

    /// Drops everything up to and including `through`, which a kept snapshot must cover.
    ///
    /// # Panics
    /// If the log does not reach `through`.
    pub fn purge(&mut self, through: EntryId) {
        if through.index <= self.floor.index {
            return;
        }
        assert!(
            through.index <= self.last,
            "purge through {through} of a log that ends at {}",
            self.last
        );
        self.drop_front(through.index);
        self.terms.drop_before(through.index.next());
        self.unknown = self.unknown.split_off(&through.index.next());
        self.floor = through;
    }

    /// Sets the snapshot that followers are sent from now on.
    pub fn set_snapshot(&mut self, meta: SnapshotMeta) {
        self.snapshot = Some(meta);
    }

    /// The snapshot that followers are sent cannot be read any more: there is none until the next one is set.
    pub fn forget_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Drops entries up to and including `through` from memory, oldest first, for as long as there are more bytes than the
    /// limit. They must be synced: from then on only the log itself has them.
    pub fn evict(&mut self, through: LogIndex) {
        while self.recent_bytes > self.limit_bytes {
            match self.recent.front() {
                Some(front) if front.index <= through => self.drop_front(front.index),
                Some(_) | None => return,
            }
        }
    }

    /// Bytes of the entries in memory, as [`Entry::bytes`] counts them.
    #[must_use]
    pub fn recent_bytes(&self) -> u64 {
        self.recent_bytes
    }

    /// The oldest entry in memory; one above the last index if there is none.
    #[must_use]
    pub fn recent_from(&self) -> LogIndex {
        self.recent
            .front()
            .map_or(self.last.next(), |entry| entry.index)
    }

    fn drop_front(&mut self, through: LogIndex) {
        while self
            .recent
            .front()
            .is_some_and(|entry| entry.index <= through)
        {
            let dropped = self.recent.pop_front().expect("just seen");
            self.recent_bytes -= dropped.bytes();
        }
    }
}

impl Storage for LogCache {
    fn initial_state(&self) -> InitialState {
        self.initial.clone()
    }

    fn first_index(&self) -> LogIndex {
        self.floor.index.next()
    }

    fn last_index(&self) -> LogIndex {
        self.last
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.floor.index {
            return Ok(self.floor.term);
        }
        if index < self.floor.index {
            return Err(StorageError::Compacted);
        }
        if index > self.last {
            return Err(StorageError::Unavailable);
        }
        if self.unknown.contains(&index) {
            return Err(StorageError::Faulty);
        }
        Ok(self
            .terms
            .term(index)
            .expect("every index of the log lies in a run"))
    }

    fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        if range.start <= self.floor.index {
            return Err(StorageError::Compacted);
        }
        if range.end > self.last.next() {
            return Err(StorageError::Unavailable);
        }
        if range.is_empty() {
            return Ok(());
        }
        let from = self.recent_from();
        if range.start < from {
            return Err(StorageError::Later);
        }
        let skip = range.start.distance_from(from) as usize;
        let count = range.end.distance_from(range.start) as usize;
        let mut total = 0;
        for (position, entry) in self.recent.range(skip..skip + count).enumerate() {
            total += entry.bytes();
            if total > max_bytes && position > 0 {
                break;
            }
            into.push(entry.clone());
        }
        Ok(())
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        self.snapshot.clone()
    }
}

/// Which term each index has, as (first index of a run, its term), ascending in both.
#[derive(Clone, Debug, Default)]
struct TermRuns(Vec<(LogIndex, Term)>);

impl TermRuns {
    fn push(&mut self, index: LogIndex, term: Term) {
        match self.0.last() {
            Some((_, last)) if *last == term => {}
            Some((_, last)) => {
                assert!(*last < term, "term {term} of {index} after term {last}");
                self.0.push((index, term));
            }
            None => self.0.push((index, term)),
        }
    }

    /// Sets the term of an entry that was counted to the run before it. What is said of the others stays.
    fn set(&mut self, index: LogIndex, term: Term, last: LogIndex) {
        let behind = self.0.partition_point(|(first, _)| *first <= index);
        let run = behind
            .checked_sub(1)
            .expect("an entry of the log lies in a run");
        let (first, before) = self.0[run];
        if before == term {
            return;
        }
        let end = self.0.get(behind).map_or(last.next(), |next| next.0);
        let front = (first < index).then_some((first, before));
        let rest = (index.next() < end).then_some((index.next(), before));
        let parts = [front, Some((index, term)), rest];
        self.0.splice(run..behind, parts.into_iter().flatten());
    }

    fn truncate(&mut self, from: LogIndex) {
        let keep = self.0.partition_point(|(first, _)| *first < from);
        self.0.truncate(keep);
    }

    /// Forgets the runs that lie before `index` as a whole.
    fn drop_before(&mut self, index: LogIndex) {
        let behind = self.0.partition_point(|(first, _)| *first <= index);
        self.0.drain(..behind.saturating_sub(1));
    }

    fn term(&self, index: LogIndex) -> Option<Term> {
        let behind = self.0.partition_point(|(first, _)| *first <= index);
        behind.checked_sub(1).map(|run| self.0[run].1)
    }
}
