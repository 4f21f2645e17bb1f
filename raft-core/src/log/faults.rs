//! Entries that the log holds and cannot read: what is known of each, and what has come back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::{Entry, EntryKind, FaultyEntry, LogIndex, NodeId, PersistId, RepairId, Term};

/// One damaged entry. It is still an entry of this log: others may count on it.
#[derive(Debug)]
pub(crate) struct Fault {
    /// None if not even its header can be read, and nothing else tells.
    pub(crate) term: Option<Term>,
    /// The disk itself does not tell the term, so that after a crash it is unknown again.
    disk_forgot_term: bool,
    /// It may be a change of members that is not known here.
    pub(crate) hides_members: bool,
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
    /// How many more there are that a snapshot covers which is on its way to the disk.
    covered: u64,
    /// No question of this life has this number or a lower one.
    base: RepairId,
    newest: RepairId,
}

impl Faults {
    /// The numbers of questions begin above `base`.
    pub(crate) fn new(faulty: Vec<FaultyEntry>, base: RepairId) -> Faults {
        let mut faults = Faults {
            entries: BTreeMap::new(),
            covered: 0,
            base,
            newest: base,
        };
        for FaultyEntry { index, term, kind } in faulty {
            let hides_members = kind.is_none_or(|kind| kind == EntryKind::Configuration);
            faults.insert(index, term, hides_members);
        }
        faults
    }

    /// Notes an entry that was readable until now, so that a change of members in it is known.
    /// Returns whether that is news.
    pub(crate) fn add(&mut self, index: LogIndex, term: Term) -> bool {
        let is_news = !self.entries.contains_key(&index);
        if is_news {
            self.insert(index, Some(term), false);
        }
        is_news
    }

    fn insert(&mut self, index: LogIndex, term: Option<Term>, hides_members: bool) {
        self.newest = self.newest.next();
        let fault = Fault {
            term,
            disk_forgot_term: term.is_none(),
            hides_members,
            since: self.newest,
            never: BTreeSet::new(),
            copy: Copied::Missing,
        };
        self.entries.insert(index, fault);
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
        self.entries.is_empty() && self.covered == 0
    }

    pub(crate) fn count(&self) -> u64 {
        self.entries.len() as u64 + self.covered
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

    /// Whether a log that is cut behind `index` could not say, after a crash, in which term it ends.
    pub(crate) fn disk_forgot_term(&self, index: LogIndex) -> bool {
        self.get(index).is_some_and(|fault| fault.disk_forgot_term)
    }

    /// The oldest damaged entry at or above `index`.
    pub(crate) fn first_from(&self, index: LogIndex) -> Option<LogIndex> {
        if self.entries.is_empty() {
            return None; // As mostly, and at each turn: a search in an empty tree is not for free.
        }
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
        fault.hides_members = false;
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

    /// The entries up to `through` are not needed any more.
    pub(crate) fn forget_through(&mut self, through: LogIndex) {
        self.entries = self.entries.split_off(&through.next());
    }

    /// A snapshot that covers the entries up to `through` is on its way to the disk. They count as
    /// damaged until it is there.
    pub(crate) fn cover_through(&mut self, through: LogIndex) {
        let before = self.entries.len();
        self.forget_through(through);
        self.covered += (before - self.entries.len()) as u64;
    }

    /// That snapshot is there, or another has taken its place.
    pub(crate) fn forget_covered(&mut self) {
        self.covered = 0;
    }
}
