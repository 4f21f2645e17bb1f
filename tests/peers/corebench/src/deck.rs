//! One log in memory for both cores, so that neither pays for the log that the other ships: no
//! lock, and appended entries are moved in.

use std::collections::VecDeque;

/// Consecutive entries after a floor.
pub struct Deck<E> {
    /// Index and term of the entry before the first one kept.
    pub floor: (u64, u64),
    entries: VecDeque<E>,
}

impl<E: Clone> Deck<E> {
    pub fn new() -> Deck<E> {
        Deck {
            floor: (0, 0),
            entries: VecDeque::new(),
        }
    }

    pub fn last_index(&self) -> u64 {
        self.floor.0 + self.entries.len() as u64
    }

    /// Appends entries from `first` on, and drops what lay there.
    pub fn append(&mut self, first: u64, entries: Vec<E>) {
        assert!(
            first > self.floor.0 && first <= self.last_index() + 1,
            "entries from {first} do not fit"
        );
        self.entries.truncate((first - self.floor.0 - 1) as usize);
        self.entries.extend(entries);
    }

    pub fn get(&self, index: u64) -> Option<&E> {
        self.entries
            .get(index.checked_sub(self.floor.0 + 1)? as usize)
    }

    /// Appends the entries from `from` to before `to`, as many as fit into `max_bytes`, at least
    /// one.
    pub fn slice(
        &self,
        (from, to): (u64, u64),
        max_bytes: u64,
        bytes: impl Fn(&E) -> u64,
        into: &mut Vec<E>,
    ) {
        let (from, to) = (
            (from - self.floor.0 - 1) as usize,
            (to - self.floor.0 - 1) as usize,
        );
        let mut total = 0;
        let fits = |entry: &&E| {
            let is_first = total == 0;
            total += bytes(entry);
            is_first || total <= max_bytes
        };
        into.reserve(to - from);
        into.extend(self.entries.range(from..to).take_while(fits).cloned());
    }

    /// Drops the entries up to `floor.0`, whose term is `floor.1`.
    pub fn purge(&mut self, floor: (u64, u64)) {
        self.entries.drain(..(floor.0 - self.floor.0) as usize);
        self.floor = floor;
    }
}
