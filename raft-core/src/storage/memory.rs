//! A log in memory, for tests, examples and simulations.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use super::{InitialState, SnapshotMeta, Storage, StorageError};
use crate::types::extend_limited;
use crate::{
    Configuration, Entry, EntryId, EntryKind, FaultyEntry, HardState, LogIndex, NodeId, Persist,
    Term,
};

/// A [`Storage`] that keeps everything in memory, with switches to answer "later" as a log on a disk
/// does, and to damage entries as disks do.
#[derive(Clone, Debug)]
pub struct MemoryStorage {
    hard_state: HardState,
    founding: Configuration,
    /// The entry before the first one kept.
    floor: EntryId,
    entries: VecDeque<Entry>,
    faulty: BTreeMap<LogIndex, FaultyEntry>,
    snapshot: Option<SnapshotMeta>,
    commit: LogIndex,
    cached_from: LogIndex,
}

impl MemoryStorage {
    /// An empty log of a cluster that is founded with these voters; also for a node that joins later,
    /// which is not among them.
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> MemoryStorage {
        MemoryStorage::with_configuration(Configuration::new(voters))
    }

    /// An empty log of a cluster that is founded with this configuration.
    pub fn with_configuration(founding: Configuration) -> MemoryStorage {
        MemoryStorage {
            hard_state: HardState::default(),
            founding,
            floor: EntryId::default(),
            entries: VecDeque::new(),
            faulty: BTreeMap::new(),
            snapshot: None,
            commit: LogIndex(0),
            cached_from: LogIndex(0),
        }
    }

    /// Does what a driver does with the persist part of a [`Ready`](crate::Ready), and is done at
    /// once.
    ///
    /// # Panics
    /// If the entries leave a gap to the log.
    pub fn persist(&mut self, persist: Persist) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        match persist.snapshot {
            Some(snapshot) if persist.snapshot_keeps_log => {
                let id = snapshot.id;
                self.snapshot = Some(*snapshot);
                self.purge(id.index);
                self.floor = id;
            }
            Some(snapshot) => self.install(*snapshot),
            None => {}
        }
        persist
            .repaired
            .into_iter()
            .for_each(|entry| self.repair(entry));
        self.append(persist.entries);
    }

    /// Damages a stored entry: it cannot be read any more, and of its term and kind only that is
    /// known which `faulty` tells; its term must be among it while a node runs. The node is told by
    /// [`Node::on_faulty`](crate::Node::on_faulty), or finds out at its next start.
    ///
    /// # Panics
    /// If the log does not hold the entry.
    pub fn damage(&mut self, faulty: FaultyEntry) {
        let index = faulty.index;
        assert!(
            index > self.floor.index && index <= self.last_index(),
            "{index} is not in the log"
        );
        self.faulty.insert(index, faulty);
    }

    /// Drops the log up to the newest snapshot if anything there is damaged, as every driver does
    /// before it starts a node or reports damage: what the snapshot covers is not needed.
    pub fn purge_damaged(&mut self) {
        let covered = self.snapshot.as_ref().map(|meta| meta.id.index);
        let is_damaged = |covered: LogIndex| self.faulty.range(..=covered).next().is_some();
        if let Some(covered) = covered.filter(|covered| is_damaged(*covered)) {
            self.purge(covered);
        }
    }

    /// Puts a damaged entry back, unless it was purged meanwhile.
    ///
    /// # Panics
    /// If the log ends before it.
    pub fn repair(&mut self, entry: Entry) {
        if entry.index <= self.floor.index {
            return;
        }
        self.faulty.remove(&entry.index);
        let position = entry.index.distance_from(self.first_index()) as usize;
        let place = self.entries.get_mut(position);
        *place.expect("only what is in the log is damaged") = entry;
    }

    /// Appends entries; what is stored from the first one's index on is truncated before.
    ///
    /// # Panics
    /// If the entries leave a gap to the log.
    pub fn append(&mut self, mut entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        let last = self.last_index();
        assert!(
            first.index > self.floor.index,
            "{} is at or below the floor {}",
            first.id(),
            self.floor
        );
        assert!(
            first.index <= last.next(),
            "{} leaves a gap after {last}",
            first.id()
        );
        if first.index <= last {
            self.entries
                .truncate(first.index.distance_from(self.first_index()) as usize);
            self.faulty.split_off(&first.index);
        }
        if entries.len() == 1 {
            self.entries.push_back(entries.swap_remove(0)); // Cheaper than to extend by one.
        } else {
            self.entries.extend(entries);
        }
    }

    /// Replaces the whole log by a snapshot.
    pub fn install(&mut self, snapshot: SnapshotMeta) {
        self.floor = snapshot.id;
        self.entries.clear();
        self.faulty.clear();
        self.commit = snapshot.id.index;
        self.snapshot = Some(snapshot);
    }

    /// Sets term and vote.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Stores the lazy hint of the commit index.
    pub fn set_commit(&mut self, commit: LogIndex) {
        self.commit = commit.min(self.last_index()).max(self.floor.index);
    }

    /// Notes a snapshot of the applied state at `index`, which from then on is the one sent to
    /// followers. `index` must be applied: what is not may still be overwritten.
    ///
    /// # Panics
    /// If the log does not hold `index`.
    pub fn take_snapshot(&mut self, index: LogIndex) -> SnapshotMeta {
        let term = self
            .term(index)
            .expect("a snapshot is taken of entries that are present");
        let (configuration_index, configuration) = self.configuration_at(index);
        let meta = SnapshotMeta {
            id: EntryId { index, term },
            configuration,
            configuration_index,
        };
        self.snapshot = Some(meta.clone());
        meta
    }

    /// Drops the entries up to and including `through`, which a snapshot must cover.
    ///
    /// # Panics
    /// If no snapshot covers `through`.
    pub fn purge(&mut self, through: LogIndex) {
        let covered = self
            .snapshot
            .as_ref()
            .map_or(LogIndex(0), |snapshot| snapshot.id.index);
        assert!(
            through <= covered,
            "purge of {through} beyond the snapshot at {covered}"
        );
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= through)
        {
            self.floor = self.entries.pop_front().expect("just seen").id();
        }
        self.faulty = self.faulty.split_off(&self.floor.index.next());
    }

    /// From now on entries below `index` are answered with [`StorageError::Later`].
    pub fn evict_below(&mut self, index: LogIndex) {
        self.cached_from = index;
    }

    /// Reads as [`Storage::entries`] does, but also what was evicted: the slow path behind a
    /// [`Fetch`](crate::Fetch).
    ///
    /// # Errors
    /// As [`Storage::entries`], never [`StorageError::Later`].
    /// [`StorageError::Faulty`] is to be reported with [`Node::on_faulty`](crate::Node::on_faulty).
    pub fn read(&self, range: Range<LogIndex>, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        self.read_into(range, max_bytes, &mut entries)?;
        Ok(entries)
    }

    fn read_into(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        if range.start <= self.floor.index {
            return Err(StorageError::Compacted);
        }
        if range.end > self.last_index().next() {
            return Err(StorageError::Unavailable);
        }
        let end = self.first_faulty(&range).unwrap_or(range.end);
        if end == range.start {
            return Err(StorageError::Faulty);
        }
        let skip = range.start.distance_from(self.first_index()) as usize;
        let count = end.distance_from(range.start) as usize;
        extend_limited(into, &self.entries, skip..skip + count, max_bytes);
        Ok(())
    }

    fn first_faulty(&self, range: &Range<LogIndex>) -> Option<LogIndex> {
        if self.faulty.is_empty() {
            return None;
        }
        self.faulty.range(range.clone()).next().map(|it| *it.0)
    }

    /// The entries that are present.
    pub fn stored(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The durable term and vote.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// A damaged configuration is known all the same: what was applied before the damage has it.
    fn configuration_at(&self, index: LogIndex) -> (LogIndex, Configuration) {
        let base = self.base_configuration();
        self.configurations()
            .into_iter()
            .take_while(|(at, _)| *at <= index)
            .last()
            .unwrap_or(base)
    }

    fn base_configuration(&self) -> (LogIndex, Configuration) {
        match &self.snapshot {
            Some(snapshot) => (snapshot.configuration_index, snapshot.configuration.clone()),
            None => (LogIndex(0), self.founding.clone()),
        }
    }

    fn configurations(&self) -> Vec<(LogIndex, Configuration)> {
        let entries = self
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Configuration);
        let decoded = entries.map(|entry| {
            let configuration =
                Configuration::decode(&entry.payload).expect("checked before it was stored");
            (entry.index, configuration)
        });
        decoded.collect()
    }
}

impl Storage for MemoryStorage {
    fn initial_state(&self) -> InitialState {
        let (configuration_index, configuration) = self.base_configuration();
        let applied = self
            .snapshot
            .as_ref()
            .map_or(self.floor.index, |snapshot| snapshot.id.index);
        let is_needed =
            |index: LogIndex| index > configuration_index && !self.faulty.contains_key(&index);
        let configurations = self
            .configurations()
            .into_iter()
            .filter(|(index, _)| is_needed(*index));
        InitialState {
            hard_state: self.hard_state,
            configuration,
            configuration_index,
            applied,
            commit: self.commit.max(applied),
            configurations: configurations.collect(),
            faulty: self
                .faulty
                .range(applied.next()..)
                .map(|(_, it)| *it)
                .collect(),
        }
    }

    fn first_index(&self) -> LogIndex {
        self.floor.index.next()
    }

    fn last_index(&self) -> LogIndex {
        self.floor.index.plus(self.entries.len() as u64)
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.floor.index {
            return Ok(self.floor.term);
        }
        if index < self.floor.index {
            return Err(StorageError::Compacted);
        }
        if let Some(faulty) = self.faulty.get(&index) {
            return faulty.term.ok_or(StorageError::Faulty);
        }
        let position = index.distance_from(self.first_index()) as usize;
        self.entries
            .get(position)
            .map(|entry| entry.term)
            .ok_or(StorageError::Unavailable)
    }

    fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        if range.start > self.floor.index && range.start < self.cached_from {
            return Err(StorageError::Later);
        }
        self.read_into(range, max_bytes, into)
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        self.snapshot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// n1 asked for 2; while the copy was on its way a snapshot was taken and the log purged.
    #[test]
    fn copy_of_a_purged_entry_is_not_written_over_another() {
        let mut storage = MemoryStorage::new([NodeId(1)]);
        let entry = |index| Entry::noop(LogIndex(index), Term(1));
        storage.append((1..=4).map(entry).collect());
        storage.damage(FaultyEntry {
            index: LogIndex(2),
            term: Some(Term(1)),
            kind: None,
        });
        storage.take_snapshot(LogIndex(3));
        storage.purge(LogIndex(3));
        storage.repair(entry(2));
        assert!(storage.stored().eq([&entry(4)]));
    }
}
