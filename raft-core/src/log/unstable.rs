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
/// `unsubmitted` repeats the end of `entries`.
#[derive(Debug)]
pub(crate) struct Unstable {
    /// Index of the first entry here, or of the next one to come.
    first: LogIndex,
    entries: VecDeque<Entry>,
    /// What was not handed out to be persisted yet: the vectors that entries come in are kept, so
    /// that they can be handed on.
    unsubmitted: Vec<Entry>,
}

impl Unstable {
    pub(crate) fn new(first: LogIndex) -> Unstable {
        Unstable {
            first,
            entries: VecDeque::new(),
            unsubmitted: Vec::new(),
        }
    }

    pub(crate) fn first(&self) -> LogIndex {
        self.first
    }

    /// One above the last index.
    pub(crate) fn end(&self) -> LogIndex {
        self.first.plus(self.entries.len() as u64)
    }

    pub(crate) fn has_unsubmitted(&self) -> bool {
        !self.unsubmitted.is_empty()
    }

    /// First index that was not handed out to be persisted yet.
    fn unsubmitted_from(&self) -> LogIndex {
        self.first
            .plus((self.entries.len() - self.unsubmitted.len()) as u64)
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
    #[inline]
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
        extend_limited(into, &self.entries, from..to, max_bytes);
    }

    #[inline]
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        for (entry, expected) in entries.iter().zip(self.end().0..) {
            assert_eq!(entry.index.0, expected, "{} does not follow", entry.id());
        }
        match &entries[..] {
            [entry] => self.entries.push_back(entry.clone()), // Cheaper than to extend by one.
            entries => self.entries.extend(entries.iter().cloned()),
        }
        if self.unsubmitted.is_empty() {
            self.unsubmitted = entries;
        } else {
            self.unsubmitted.extend(entries);
        }
    }

    /// Drops everything from `from` on. What lies below `first` is left to the storage to forget:
    /// the entries that replace it will be handed out from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        if from < self.first {
            *self = Unstable::new(from);
        } else {
            self.unsubmitted
                .truncate(from.distance_from(self.unsubmitted_from()) as usize);
            self.entries
                .truncate(from.distance_from(self.first) as usize);
        }
    }

    /// Forgets the entries up to `index`, and hands out all others once more.
    pub(crate) fn begin_after(&mut self, index: LogIndex) {
        let count = index.next().distance_from(self.first) as usize;
        self.entries.drain(..count);
        self.first = index.next();
        self.unsubmitted = self.entries.iter().cloned().collect();
    }

    /// What was not handed out yet, and counts as handed out from now on.
    pub(crate) fn submit(&mut self) -> Vec<Entry> {
        core::mem::take(&mut self.unsubmitted)
    }

    /// Forgets the entries up to `index`, which the storage answers for from now on.
    #[inline]
    pub(crate) fn stable_to(&mut self, index: LogIndex) {
        assert!(
            index < self.unsubmitted_from(),
            "{index} is durable before it was handed out"
        );
        while self.first <= index {
            self.entries.pop_front(); // Mostly one: a drain costs more.
            self.first = self.first.next();
        }
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
    fn truncation_takes_what_waits_to_be_handed_out() {
        let mut unstable = Unstable::new(LogIndex(5));
        unstable.append(entries(5..7, 1));
        unstable.submit();
        unstable.append(entries(7..10, 1));
        unstable.truncate(LogIndex(8));
        unstable.append(entries(8..9, 2));
        let handed_out = unstable.submit();
        let ids: Vec<(u64, u64)> = handed_out
            .iter()
            .map(|entry| (entry.index.0, entry.term.0))
            .collect();
        assert_eq!(ids, [(7, 1), (8, 2)]);
        assert!(!unstable.has_unsubmitted());
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
    fn what_follows_a_snapshot_is_handed_out_once_more() {
        let mut unstable = Unstable::new(LogIndex(5));
        unstable.append(entries(5..8, 1));
        unstable.submit();
        unstable.append(entries(8..9, 1));
        unstable.begin_after(LogIndex(6));
        assert_eq!(unstable.first(), LogIndex(7));
        assert_eq!(unstable.submit(), entries(7..9, 1));
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
