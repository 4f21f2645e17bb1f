//! What a log with damaged entries still knows, and how they come back into it.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::RaftLog;
use crate::{Entry, EntryId, LogIndex, PersistId, SnapshotMeta, Storage, Term};

/// Whether a log holds an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holds {
    Yes,
    No,
    /// There is an entry at that index, and too little of it can be read to tell.
    Perhaps,
}

impl<S: Storage> RaftLog<S> {
    pub(crate) fn is_faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Whether this log holds `id`, damaged or not.
    ///
    /// Terms never fall within a log, which says much about an entry of unknown term. If the next
    /// known entry is 9@4, ours at 7 has a term of at most 4. And if another log has 7@4, so have
    /// we: the leader of term 4 made both 7@4 and 9@4, and every log that holds 9@4 holds what that
    /// leader had at 7.
    /// What lies below the beginning of the log counts as not held.
    #[inline]
    pub(crate) fn may_hold(&self, id: EntryId) -> Holds {
        match self.term(id.index) {
            Some(term) if term == id.term => Holds::Yes,
            Some(_) => Holds::No,
            None if !self.faults.is_unknown(id.index) => Holds::No,
            None => self.may_hold_unknown(id),
        }
    }

    fn may_hold_unknown(&self, id: EntryId) -> Holds {
        let least = self.newest_known(id.index).term;
        let most = self.oldest_known(id.index).term;
        if id.term == most {
            Holds::Yes
        } else if (least..most).contains(&id.term) {
            Holds::Perhaps
        } else {
            Holds::No
        }
    }

    /// Takes over the term of an entry that this log was found to hold.
    pub(crate) fn learn_term(&mut self, id: EntryId) {
        if self.faults.is_unknown(id.index) && self.may_hold(id) == Holds::Yes {
            self.faults.set_term(id.index, id.term);
            self.settle_terms();
        }
    }

    /// A snapshot of committed state ends at `id`, and this log is committed beyond: it holds the
    /// same, known or not.
    pub(crate) fn learn_committed(&mut self, id: EntryId) {
        if id.index <= self.committed && self.faults.is_unknown(id.index) {
            self.faults.set_term(id.index, id.term);
            self.settle_terms();
        }
    }

    /// The newest entry at or below `index` whose term is known.
    pub(crate) fn newest_known(&self, index: LogIndex) -> EntryId {
        let index = self.newest_known_index(index);
        let term = self.term(index).unwrap_or_default();
        EntryId { index, term }
    }

    /// Its index.
    pub(crate) fn newest_known_index(&self, index: LogIndex) -> LogIndex {
        let mut at = index.min(self.last_index());
        while self.faults.is_unknown(at) {
            at = at.prev();
        }
        at
    }

    /// The oldest entry at or above `index` whose term is known.
    pub(crate) fn oldest_known(&self, index: LogIndex) -> EntryId {
        let mut at = index;
        while self.faults.is_unknown(at) {
            at = at.next();
        }
        let term = self
            .term(at)
            .expect("the last entry of a log is never of unknown term");
        EntryId { index: at, term }
    }

    /// Notes that the stored entry at `index` cannot be read. Returns whether that is news.
    ///
    /// What is not durable yet is still in memory, and what a snapshot covers is not needed.
    pub(crate) fn on_faulty(&mut self, index: LogIndex) -> bool {
        let is_stored = index >= self.first_index() && index < self.unstable.first();
        if !is_stored || self.is_in_snapshot(index) {
            return false;
        }
        let term = self.term(index);
        term.is_some_and(|term| self.faults.add(index, term))
    }

    /// Whether this node's newest snapshot covers the entry at `index`.
    pub(crate) fn is_in_snapshot(&self, index: LogIndex) -> bool {
        self.snapshot_covering(index).is_some()
    }

    /// This node's newest snapshot, if it goes as far as `index`.
    pub(crate) fn snapshot_covering(&self, index: LogIndex) -> Option<SnapshotMeta> {
        let snapshot = self.storage.snapshot();
        snapshot.filter(|meta| index <= meta.id.index)
    }

    /// What was purged is not needed any more.
    pub(crate) fn forget_purged_faults(&mut self) {
        if self.is_faulty() && self.installing.is_none() && self.covering.is_none() {
            let purged = self.storage.first_index().prev();
            self.faults.forget_through(purged);
        }
    }

    /// Takes a copy that is certain to be the entry that was lost. Returns whether it was missing.
    pub(crate) fn receive(&mut self, entry: Entry) -> bool {
        let news = self.faults.receive(entry);
        if news {
            self.settle_terms();
        }
        news
    }

    /// Hands out the copies that have come, to be written in part `id`.
    pub(crate) fn submit_repaired(&mut self, id: PersistId) -> Vec<Entry> {
        if self.is_faulty() {
            self.faults.submit(id)
        } else {
            Vec::new()
        }
    }

    /// An entry of unknown term between two of the same term is of that term.
    pub(crate) fn settle_terms(&mut self) {
        let mut at = LogIndex(0);
        while let Some(first) = self.first_unknown_from(at) {
            let below = self.newest_known(first);
            let above = self.oldest_known(first);
            if below.term == above.term {
                (first.0..above.index.0)
                    .for_each(|index| self.faults.set_term(LogIndex(index), above.term));
            }
            at = above.index;
        }
    }

    fn first_unknown_from(&self, index: LogIndex) -> Option<LogIndex> {
        let mut at = index;
        loop {
            at = self.faults.first_from(at)?;
            if self.faults.is_unknown(at) {
                return Some(at);
            }
            at = at.next();
        }
    }

    /// The runs of neighbouring entries that are still missing, oldest first.
    pub(crate) fn missing_runs(&self) -> Vec<RangeInclusive<LogIndex>> {
        let mut runs: Vec<RangeInclusive<LogIndex>> = Vec::new();
        for index in self.faults.missing() {
            match runs.last_mut() {
                Some(run) if run.end().next() == index => *run = *run.start()..=index,
                Some(_) | None => runs.push(index..=index),
            }
        }
        runs
    }

    /// Whether an entry at or below `index` that is not applied yet is missing.
    pub(crate) fn is_blocked_below(&self, index: LogIndex) -> bool {
        let handed_out = self.handed_out();
        let mut missing = self.faults.missing().skip_while(|it| *it <= handed_out);
        missing.next().is_some_and(|fault| fault <= index)
    }

    /// Up to where entries can be read one after the other from `from` on.
    pub(crate) fn readable_through(&self, from: LogIndex, through: LogIndex) -> LogIndex {
        let fault = self.faults.first_from(from);
        fault.map_or(through, |fault| through.min(fault.prev()))
    }

    /// What this log holds at `index`: none beyond its end; an error if it cannot tell.
    pub(crate) fn term_held(&self, index: LogIndex) -> Result<Option<Term>, UnknownTerm> {
        if index > self.last_index() {
            return Ok(None);
        }
        self.term(index).map(Some).ok_or(UnknownTerm)
    }
}

/// There is an entry, damaged or compacted away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnknownTerm;
