//! The cache against a plain list.

use kvd::log_cache::LogCache;
use proptest::prelude::*;
use raft_core::{Entry, EntryId, InitialState, LogIndex, Storage, StorageError};

use crate::support::{cached, entries, entry, id, meta, persist};

fn cache(floor: EntryId, limit_bytes: u64) -> LogCache {
    LogCache::new(InitialState::default(), floor, None, limit_bytes)
}

/// A log as a list of everything above the floor, and how much of its front is not in memory.
#[derive(Debug)]
struct Model {
    floor: EntryId,
    entries: Vec<Entry>,
    evicted: usize,
    limit_bytes: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.floor.index.0 + self.entries.len() as u64
    }

    fn last_term(&self) -> u64 {
        self.entries
            .last()
            .map_or(self.floor.term.0, |entry| entry.term.0)
    }

    fn append(&mut self, new: &[Entry]) {
        let keep = new[0].index.0 - self.floor.index.0 - 1;
        self.entries.truncate(keep as usize);
        self.evicted = self.evicted.min(keep as usize);
        self.entries.extend(new.iter().cloned());
    }

    fn purge(&mut self, count: usize) {
        if let Some(entry) = count.checked_sub(1).map(|at| &self.entries[at]) {
            self.floor = entry.id();
            self.entries.drain(..count);
            self.evicted = self.evicted.saturating_sub(count);
        }
    }

    fn evict(&mut self, through: u64) {
        let bytes = |model: &Model| -> u64 {
            let recent = model.entries[model.evicted..].iter();
            recent.map(Entry::bytes).sum()
        };
        while bytes(self) > self.limit_bytes && self.floor.index.0 + (self.evicted as u64) < through
        {
            self.evicted += 1;
        }
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        if index == self.floor.index.0 {
            return Ok(self.floor.term.0);
        }
        let at = index
            .checked_sub(self.floor.index.0 + 1)
            .ok_or(StorageError::Compacted)?;
        let entry = self.entries.get(at as usize);
        entry
            .map(|entry| entry.term.0)
            .ok_or(StorageError::Unavailable)
    }

    fn read(&self, start: u64, end: u64, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        if start <= self.floor.index.0 {
            return Err(StorageError::Compacted);
        }
        if end > self.last() + 1 {
            return Err(StorageError::Unavailable);
        }
        if start >= end {
            return Ok(Vec::new());
        }
        let (from, to) = (start - self.floor.index.0 - 1, end - self.floor.index.0 - 1);
        if (from as usize) < self.evicted {
            return Err(StorageError::Later);
        }
        let mut prefix = Vec::new();
        for entry in &self.entries[from as usize..to as usize] {
            prefix.push(entry.clone());
            if prefix.len() > 1 && prefix.iter().map(Entry::bytes).sum::<u64>() > max_bytes {
                prefix.pop();
                break;
            }
        }
        Ok(prefix)
    }

    fn agree(&self, cache: &LogCache) {
        assert_eq!(cache.first_index(), self.floor.index.next());
        assert_eq!(cache.last_index(), LogIndex(self.last()));
        let recent = &self.entries[self.evicted..];
        assert_eq!(
            cache.recent_bytes(),
            recent.iter().map(Entry::bytes).sum::<u64>()
        );
        for index in 0..=self.last() + 2 {
            let found = cache.term(LogIndex(index)).map(|term| term.0);
            assert_eq!(found, self.term(index), "term of {index}");
            for end in [index, index + 1, index + 3, self.last() + 1] {
                for max_bytes in [0, 700, u64::MAX] {
                    let found = cached(cache, LogIndex(index)..LogIndex(end), max_bytes);
                    let expected = self.read(index, end, max_bytes);
                    assert_eq!(found, expected, "{index}..{end} of {max_bytes}");
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Keep so many of the last entries fewer, then append so many, in a term so much higher.
    Append(u64, u64, u64),
    Purge(usize),
    Evict(u64),
    Reset(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..4, 1u64..6, 0u64..3).prop_map(|(cut, count, raise)| Step::Append(cut, count, raise)),
        1 => (0usize..6).prop_map(Step::Purge),
        2 => (0u64..30).prop_map(Step::Evict),
        1 => (1u64..5).prop_map(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cache_agrees_with_a_plain_list(steps in proptest::collection::vec(step(), 1..16)) {
        let limit_bytes = 1000;
        let floor = id(3, 1);
        let mut cache = cache(floor, limit_bytes);
        let mut model = Model { floor, entries: Vec::new(), evicted: 0, limit_bytes };
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(cut, count, raise) => {
                    let cut = cut.min(model.entries.len() as u64);
                    // A leader that overwrites entries has a higher term.
                    let term = model.last_term() + raise + u64::from(cut > 0);
                    let first = model.last() + 1 - cut;
                    let new = entries(first..=first + count - 1, term);
                    cache.persist(&persist(number as u64 + 1, None, new.clone()));
                    model.append(&new);
                }
                Step::Purge(count) => {
                    let count = count.min(model.entries.len());
                    model.purge(count);
                    cache.purge(model.floor);
                }
                Step::Evict(through) => {
                    let through = through.min(model.last());
                    model.evict(through);
                    cache.evict(LogIndex(through));
                }
                Step::Reset(ahead) => {
                    let snapshot = meta(model.last() + ahead, model.last_term() + 1);
                    let mut part = persist(number as u64 + 1, None, Vec::new());
                    part.snapshot = Some(snapshot.clone().into());
                    cache.persist(&part);
                    prop_assert_eq!(cache.snapshot(), Some(snapshot.clone()));
                    model = Model { floor: snapshot.id, entries: Vec::new(), evicted: 0, limit_bytes };
                }
            }
            model.agree(&cache);
        }
    }
}

#[test]
fn entries_beyond_the_limit_are_answered_later_and_their_terms_at_once() {
    let one = entry(1, 1).bytes();
    let mut cache = cache(id(0, 0), 3 * one);
    cache.append(&entries(1..=9, 1));
    cache.evict(LogIndex(4));
    assert_eq!(
        cache.recent_from(),
        LogIndex(5),
        "what is not released stays"
    );
    cache.evict(LogIndex(9));
    assert_eq!(
        cache.recent_from(),
        LogIndex(7),
        "what fits into the limit stays"
    );
    let later = cached(&cache, LogIndex(6)..LogIndex(8), u64::MAX);
    assert_eq!(later, Err(StorageError::Later));
    assert_eq!(
        cached(&cache, LogIndex(7)..LogIndex(10), u64::MAX),
        Ok(entries(7..=9, 1))
    );
    assert_eq!(cache.term(LogIndex(2)).map(|term| term.0), Ok(1));
}

#[test]
fn stored_entries_that_were_never_in_memory_have_terms() {
    let mut cache = cache(id(10, 2), 1 << 20);
    cache.note_stored(LogIndex(15), raft_core::Term(2));
    cache.note_stored(LogIndex(20), raft_core::Term(5));
    cache.append(&entries(21..=22, 5));
    let terms: Vec<u64> = (10..=22)
        .map(|index| cache.term(LogIndex(index)).unwrap().0)
        .collect();
    assert_eq!(terms, [2, 2, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5, 5]);
    assert_eq!(
        cached(&cache, LogIndex(20)..LogIndex(22), 0),
        Err(StorageError::Later)
    );
    // A conflict deeper than what is in memory.
    cache.append(&entries(18..=19, 7));
    assert_eq!(cache.last_index(), LogIndex(19));
    assert_eq!(cache.term(LogIndex(17)).map(|term| term.0), Ok(5));
    assert_eq!(
        cached(&cache, LogIndex(18)..LogIndex(20), u64::MAX),
        Ok(entries(18..=19, 7))
    );
}
