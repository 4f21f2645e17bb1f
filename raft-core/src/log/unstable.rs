//! Entries that the disk may not hold yet.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::types::extend_limited;
use crate::{Entry, EntryId, LogIndex};

/// The end of the log: entries that were accepted, but are not reported durable.
///
/// Invariant: consecutive from `first` on; everything below `first` is answered by the storage (or
/// by a snapshot that waits for the disk), so a gap would leave indexes that nobody can serve.
/// `first <= unsubmitted <= end`.
#[derive(Debug)]
pub(crate) struct Unstable {
    /// Index of the first entry here, or of the next one to come.
    first: LogIndex,
    entries: VecDeque<Entry>,
    /// First index that was not handed out to be persisted yet.
    unsubmitted: LogIndex,
}

impl Unstable {
    pub(crate) fn new(first: LogIndex) -> Unstable {
        Unstable {
            first,
            entries: VecDeque::new(),
            unsubmitted: first,
        }
    }

    pub(crate) fn first(&self) -> LogIndex {
        self.first
    }

    /// One above the last index.
    pub(crate) fn end(&self) -> LogIndex {
        self.first.plus(self.entries.len() as u64)
    }

    pub(crate) fn unsubmitted(&self) -> LogIndex {
        self.unsubmitted
    }

    pub(crate) fn last_id(&self) -> Option<EntryId> {
        self.entries.back().map(Entry::id)
    }

    pub(crate) fn id(&self, index: LogIndex) -> Option<EntryId> {
        assert!(
            index >= self.first,
            "{index} is below the unstable entries from {} on",
            self.first
        );
        self.entries
            .get(index.distance_from(self.first) as usize)
            .map(Entry::id)
    }

    /// Appends a longest prefix of `range` within `max_bytes`, at least one entry.
    pub(crate) fn slice(&self, range: Range<LogIndex>, max_bytes: u64, into: &mut Vec<Entry>) {
        assert!(
            range.start >= self.first,
            "{} is below {}",
            range.start,
            self.first
        );
        assert!(
            range.end <= self.end(),
            "{} is beyond {}",
            range.end,
            self.end()
        );
        let from = range.start.distance_from(self.first) as usize;
        let to = range.end.distance_from(self.first) as usize;
        extend_limited(into, self.entries.range(from..to), max_bytes);
    }

    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            assert_eq!(entry.index, self.end(), "{} does not follow", entry.id());
            self.entries.push_back(entry);
        }
    }

    /// Drops everything from `from` on. What lies below `first` is left to the storage to forget:
    /// the entries that replace it will be handed out from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        if from < self.first {
            *self = Unstable::new(from);
        } else {
            self.entries
                .truncate(from.distance_from(self.first) as usize);
            self.unsubmitted = self.unsubmitted.min(from);
        }
    }

    /// What was not handed out yet, and counts as handed out from now on.
    pub(crate) fn submit(&mut self) -> Vec<Entry> {
        let from = self.unsubmitted.distance_from(self.first) as usize;
        self.unsubmitted = self.end();
        self.entries.range(from..).cloned().collect()
    }

    /// Forgets the entries up to `index`, which the storage answers for from now on.
    pub(crate) fn stable_to(&mut self, index: LogIndex) {
        assert!(
            index < self.unsubmitted,
            "{index} is durable before it was handed out"
        );
        let count = index.next().distance_from(self.first) as usize;
        if count == self.entries.len() {
            // What mostly happens, and costs less than a drain.
            self.entries.clear();
        } else {
            self.entries.drain(..count);
        }
        self.first = self.first.max(index.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;

    fn entries(range: Range<u64>, term: u64) -> Vec<Entry> {
        range
            .map(|index| Entry::noop(LogIndex(index), Term(term)))
            .collect()
    }

    #[test]
    fn what_was_handed_out_is_handed_out_again_only_after_truncation() {
        let mut unstable = Unstable::new(LogIndex(5));
        unstable.append(entries(5..8, 1));
        assert_eq!(unstable.submit().len(), 3);
        assert_eq!(unstable.submit().len(), 0);
        unstable.truncate(LogIndex(7));
        unstable.append(entries(7..9, 2));
        let again: Vec<u64> = unstable
            .submit()
            .iter()
            .map(|entry| entry.index.0)
            .collect();
        assert_eq!(again, [7, 8]);
    }

    #[test]
    fn truncation_below_the_first_entry_moves_it_down() {
        let mut unstable = Unstable::new(LogIndex(5));
        unstable.append(entries(5..8, 1));
        unstable.truncate(LogIndex(3));
        assert_eq!(unstable.first(), LogIndex(3));
        assert_eq!(unstable.end(), LogIndex(3));
    }

    #[test]
    fn durable_entries_are_forgotten() {
        let mut unstable = Unstable::new(LogIndex(5));
        unstable.append(entries(5..8, 1));
        unstable.submit();
        unstable.stable_to(LogIndex(6));
        assert_eq!(unstable.first(), LogIndex(7));
        assert_eq!(
            unstable.id(LogIndex(7)).map(|id| id.index),
            Some(LogIndex(7))
        );
    }
}
