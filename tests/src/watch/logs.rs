//! What each log holds, as its node gave it to the disk, and what of it is durable. Not a watcher: the watchers' memory.

use std::collections::{BTreeMap, VecDeque};

use raft_core::{Entry, EntryId, HardState, LogIndex, NodeId, Persist, PersistId, Term};

use super::Seen;

/// A log: a floor, and the entries after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    floor: EntryId,
    entries: VecDeque<Entry>,
}

impl Log {
    /// A log with these entries after `floor`.
    pub fn new(floor: EntryId, entries: &[Entry]) -> Log {
        Log {
            floor,
            entries: entries.iter().cloned().collect(),
        }
    }

    /// The entry before the first one; everything up to it is in a snapshot.
    pub fn floor(&self) -> EntryId {
        self.floor
    }

    /// The last index; that of the floor if there are no entries.
    pub fn last(&self) -> LogIndex {
        LogIndex(self.floor.index.0 + self.entries.len() as u64)
    }

    /// The entry at an index.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let place = index.0.checked_sub(self.floor.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Term of the entry at an index, the floor included.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.floor.index {
            return Some(self.floor.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether it holds the entry, or a snapshot that includes its index.
    pub fn holds(&self, id: EntryId) -> bool {
        id.index < self.floor.index || self.term(id.index) == Some(id.term)
    }

    /// Does what a part asks for.
    fn take(&mut self, part: &Part) {
        match part.snapshot {
            Some((id, false)) => *self = Log::new(id, &[]),
            Some((id, true)) => self.purge(id),
            None => {}
        }
        let Some(first) = part.entries.first() else {
            return;
        };
        let kept = first.index.0.saturating_sub(self.floor.index.0 + 1);
        self.entries.truncate(kept as usize);
        assert_eq!(self.last().next(), first.index, "a gap in a log");
        self.entries.extend(part.entries.iter().cloned());
    }

    fn purge(&mut self, through: EntryId) {
        while self.floor.index < through.index && !self.entries.is_empty() {
            let first = self.entries.pop_front().expect("it is not empty");
            self.floor = EntryId {
                index: first.index,
                term: first.term,
            };
        }
        if self.floor.index < through.index {
            self.floor = through;
        }
    }
}

/// What a [`Persist`] does to a log.
#[derive(Clone, Debug)]
struct Part {
    id: PersistId,
    hard_state: Option<HardState>,
    /// The last entry it covers, and whether the log keeps what follows.
    snapshot: Option<(EntryId, bool)>,
    entries: Vec<Entry>,
}

impl Part {
    fn of(persist: &Persist) -> Part {
        let snapshot = persist.snapshot.as_ref();
        Part {
            id: persist.id,
            hard_state: persist.hard_state,
            snapshot: snapshot.map(|meta| (meta.id, persist.snapshot_keeps_log)),
            entries: persist.entries.clone(),
        }
    }

    /// The first index whose entry it may replace.
    fn replaces_from(&self) -> Option<LogIndex> {
        match self.snapshot {
            Some((_, false)) => Some(LogIndex(0)),
            Some((_, true)) | None => self.entries.first().map(|entry| entry.index),
        }
    }
}

/// One node's log and its disk.
#[derive(Clone, Debug, Default)]
struct Node {
    given: Log,
    durable: Log,
    hard_state: HardState,
    on_the_way: VecDeque<Part>,
}

/// The logs of all nodes, and the entries that are known to be committed.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    nodes: BTreeMap<NodeId, Node>,
    /// The entry at index i is at i - 1.
    committed: Vec<Entry>,
}

impl Logs {
    pub(super) fn see(&mut self, id: NodeId, seen: &Seen<'_>) {
        let node = self.nodes.entry(id).or_default();
        match *seen {
            Seen::Started {
                hard_state,
                floor,
                entries,
            } => {
                let log = Log::new(floor, entries);
                *node = Node {
                    given: log.clone(),
                    durable: log,
                    hard_state,
                    on_the_way: VecDeque::new(),
                };
            }
            Seen::Given(persist) => {
                let part = Part::of(persist);
                node.given.take(&part);
                node.on_the_way.push_back(part);
            }
            Seen::Durable(through) => node.settle(through),
            Seen::Sends(_) | Seen::Told(_) | Seen::Turned(_) | Seen::LogBytes(..) => {}
        }
    }

    pub(super) fn note_commit(&mut self, id: NodeId, seen: &Seen<'_>) {
        let Seen::Turned(state) = seen else { return };
        let log = &self.nodes[&id].given;
        while self.committed_index() < state.commit
            && let Some(entry) = log.entry(self.committed_index().next())
        {
            self.committed.push(entry.clone());
        }
    }

    /// The highest index that any node has known as committed.
    pub fn committed_index(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// All committed entries, from index 1 on.
    pub fn committed(&self) -> &[Entry] {
        &self.committed
    }

    /// The committed entry at an index.
    pub fn committed_entry(&self, index: LogIndex) -> Option<&Entry> {
        let place = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.committed.get(place)
    }

    /// What a node's core has given to its disk, done or not.
    ///
    /// # Panics
    /// If the node never started.
    pub fn given(&self, node: NodeId) -> &Log {
        &self.nodes[&node].given
    }

    /// What of a node's log is durable.
    pub fn durable(&self, node: NodeId) -> Option<&Log> {
        self.nodes.get(&node).map(|node| &node.durable)
    }

    /// The durable term and vote of a node.
    ///
    /// # Panics
    /// If the node never started.
    pub fn hard_state(&self, node: NodeId) -> HardState {
        self.nodes[&node].hard_state
    }

    /// The lowest index whose entry may change by what a node's disk is working on.
    pub(super) fn unsettled_from(&self, node: NodeId) -> Option<LogIndex> {
        let node = self.nodes.get(&node)?;
        node.on_the_way.iter().filter_map(Part::replaces_from).min()
    }
}

impl Node {
    fn settle(&mut self, through: PersistId) {
        while self
            .on_the_way
            .front()
            .is_some_and(|part| part.id <= through)
        {
            let part = self.on_the_way.pop_front().expect("there is a first one");
            self.durable.take(&part);
            self.hard_state = part.hard_state.unwrap_or(self.hard_state);
        }
    }
}
