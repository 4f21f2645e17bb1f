//! Entries that the log holds and cannot read: what is known of each, and what has come back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::{Entry, EntryKind, FaultyEntry, LogIndex, NodeId, PersistId, RepairId, Term};

/// One damaged entry. It is still an entry of this log: others may count on it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// None if not even its header can be read.
    pub(crate) term: Option<Term>,
    pub(crate) kind: Option<EntryKind>,
    /// Only answers to questions asked since then are about this damage. n1 asks for 5, n3 has
    /// never had it, n2 sends it. Later n3 gets 5 too, and then n1 loses it again: the old "never"
    /// of n3 must not count.
    since: RepairId,
    /// Who answered that it never had the entry.
    pub(crate) never: BTreeSet<NodeId>,
    copy: Copied,
}

/// How far the entry is on its way back.
#[derive(Debug)]
enum Copied {
    Missing,
    /// A copy is here, and certain to be the entry.
    Received(Entry),
    /// It was handed out to be written, in this part.
    HandedOut(PersistId),
}

/// The damaged entries, by index.
///
/// Invariant: the last entry of the log is never one of unknown term, or nobody could say where
/// this log stands among others.
#[derive(Debug)]
pub(crate) struct Faults {
    entries: BTreeMap<LogIndex, Fault>,
    /// No question of this life has this number or a lower one.
    base: RepairId,
    newest: RepairId,
}

impl Faults {
    /// The numbers of questions begin above `base`.
    pub(crate) fn new(faulty: Vec<FaultyEntry>, base: RepairId) -> Faults {
        let mut faults = Faults {
            entries: BTreeMap::new(),
            base,
            newest: base,
        };
        for faulty in faulty {
            faults.add(faulty);
        }
        faults
    }

    /// Notes a damaged entry. Returns whether that is news.
    pub(crate) fn add(&mut self, faulty: FaultyEntry) -> bool {
        if self.entries.contains_key(&faulty.index) {
            return false;
        }
        self.newest = self.newest.next();
        let fault = Fault {
            term: faulty.term,
            kind: faulty.kind,
            since: self.newest,
            never: BTreeSet::new(),
            copy: Copied::Missing,
        };
        self.entries.insert(faulty.index, fault);
        true
    }

    /// The number that questions asked now carry.
    pub(crate) fn newest(&self) -> RepairId {
        self.newest
    }

    /// Whether `id` is the number of a question of this life.
    pub(crate) fn have_asked(&self, id: RepairId) -> bool {
        self.base < id && id <= self.newest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn get(&self, index: LogIndex) -> Option<&Fault> {
        self.entries.get(&index)
    }

    pub(crate) fn contains(&self, index: LogIndex) -> bool {
        self.entries.contains_key(&index)
    }

    pub(crate) fn is_unknown(&self, index: LogIndex) -> bool {
        self.get(index).is_some_and(|fault| fault.term.is_none())
    }

    /// The oldest damaged entry at or above `index`.
    pub(crate) fn first_from(&self, index: LogIndex) -> Option<LogIndex> {
        self.entries.range(index..).next().map(|(index, _)| *index)
    }

    /// Indexes of which nobody has sent a copy yet, ascending.
    pub(crate) fn missing(&self) -> impl Iterator<Item = LogIndex> + '_ {
        let missing = |fault: &Fault| matches!(fault.copy, Copied::Missing);
        let entries = self.entries.iter();
        entries
            .filter(move |(_, fault)| missing(fault))
            .map(|(index, _)| *index)
    }

    /// Damaged entries from `index` on, in order.
    pub(crate) fn from(&self, index: LogIndex) -> impl Iterator<Item = &Fault> {
        self.entries.range(index..).map(|(_, fault)| fault)
    }

    pub(crate) fn set_term(&mut self, index: LogIndex, term: Term) {
        if let Some(fault) = self.entries.get_mut(&index) {
            fault.term = Some(term);
        }
    }

    /// `peer`, asked as `asked`, never had the entry at `index`.
    pub(crate) fn note_never(&mut self, index: LogIndex, asked: RepairId, peer: NodeId) {
        if let Some(fault) = self.entries.get_mut(&index).filter(|it| asked >= it.since) {
            fault.never.insert(peer);
        }
    }

    /// The entry itself has come. Returns whether it was still missing.
    pub(crate) fn receive(&mut self, entry: Entry) -> bool {
        let Some(fault) = self.entries.get_mut(&entry.index) else {
            return false;
        };
        if !matches!(fault.copy, Copied::Missing) {
            return false;
        }
        fault.term = Some(entry.term);
        fault.kind = Some(entry.kind);
        fault.copy = Copied::Received(entry);
        true
    }

    pub(crate) fn has_received(&self) -> bool {
        let received = |fault: &Fault| matches!(fault.copy, Copied::Received(_));
        self.entries.values().any(received)
    }

    /// Hands out what has come, to be written in part `id`.
    pub(crate) fn submit(&mut self, id: PersistId) -> Vec<Entry> {
        let mut entries = Vec::new();
        for fault in self.entries.values_mut() {
            if matches!(fault.copy, Copied::Received(_)) {
                let copy = core::mem::replace(&mut fault.copy, Copied::HandedOut(id));
                if let Copied::Received(entry) = copy {
                    entries.push(entry);
                }
            }
        }
        entries
    }

    /// The parts up to `id` are on disk. Returns how many entries are whole again.
    pub(crate) fn complete(&mut self, id: PersistId) -> u64 {
        let before = self.count();
        let is_whole =
            |fault: &Fault| matches!(fault.copy, Copied::HandedOut(written) if written <= id);
        self.entries.retain(|_, fault| !is_whole(fault));
        before - self.count()
    }

    /// The entries from `from` on are gone from the log.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.entries.split_off(&from);
    }

    /// A snapshot covers the entries up to `through`.
    pub(crate) fn forget_through(&mut self, through: LogIndex) {
        self.entries = self.entries.split_off(&through.next());
    }
}
