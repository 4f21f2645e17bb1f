//! The disks of the nodes: which write reaches them and when, and what goes wrong with them.

use raft_core::{
    Entry, EntryId, FaultyEntry, HardState, LogIndex, MemoryStorage, NodeId, Persist, PersistId,
    Storage, StorageError, Term,
};

use super::{Cluster, command, id};

/// What can still be told of a damaged entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Its header, so that its term and kind are known.
    Header,
    /// Its term, from an index.
    Term,
    /// Only that there was one.
    Nothing,
}

impl Cluster {
    /// The oldest pending write reaches the disk, and what waited for it leaves. Returns whether
    /// there was one.
    pub(crate) fn sync(&mut self, id: NodeId) -> bool {
        self.sync_together(id, 1)
    }

    /// The oldest `count` pending writes reach the disk, and only the last one is reported done.
    pub(crate) fn sync_together(&mut self, id: NodeId, count: usize) -> bool {
        self.write_ahead(id, count);
        self.report(id)
    }

    /// The oldest `count` pending writes reach the disk, and the report of that is on its way.
    pub(crate) fn write_ahead(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            let Some(write) = self.member(id).writes.pop_front() else {
                break;
            };
            self.member(id).unreported = Some(write.id);
            self.write(id, write);
        }
    }

    /// The node is told how far its disk has come. Returns whether there was something to tell.
    fn report(&mut self, id: NodeId) -> bool {
        let Some(done) = self.member(id).unreported.take() else {
            return false;
        };
        self.say(format!("{id} synced {done}"));
        self.node(id).on_persisted(done);
        self.observe_log(id);
        self.release(id, done);
        self.pump(id);
        true
    }

    /// A write reaches the disk; a snapshot in it replaces the state machine.
    fn write(&mut self, id: NodeId, write: Persist) {
        if let Some(snapshot) = &write.snapshot {
            let through = snapshot.id.index;
            self.member(id).applied.clear();
            self.member(id)
                .to_apply
                .retain(|entry| entry.index > through);
            self.safety.on_installed(id, snapshot.id);
        }
        self.node(id).storage_mut().persist(write);
    }

    /// The copies of damaged entries reach the disk ahead of the rest of the writes that wait, up to one with a snapshot.
    pub(crate) fn repair_ahead(&mut self, id: NodeId) {
        let writes = self.member(id).writes.iter_mut();
        let (mut repaired, mut done) = (Vec::new(), None);
        for write in writes.take_while(|write| write.snapshot.is_none()) {
            repaired.append(&mut write.repaired);
            done = Some(write.id);
        }
        let Some(done) = done else { return };
        self.say(format!("{id} repaired ahead up to {done}"));
        self.node(id).storage_mut().persist(Persist {
            id: done,
            hard_state: None,
            snapshot: None,
            snapshot_keeps_log: false,
            repaired,
            entries: Vec::new(),
        });
        self.node(id).on_repaired(done);
        self.pump(id);
    }

    fn release(&mut self, id: NodeId, done: PersistId) {
        while self
            .member(id)
            .waiting
            .front()
            .is_some_and(|(after, _)| *after <= done)
        {
            let (_, envelope) = self.member(id).waiting.pop_front().expect("just seen");
            self.post(envelope);
        }
    }

    pub(crate) fn sync_all_of(&mut self, id: NodeId) {
        while self.sync(id) {}
    }

    /// Reads what the node asked for. Returns whether it asked.
    pub(crate) fn serve_fetches(&mut self, id: NodeId) -> bool {
        let fetches = std::mem::take(&mut self.member(id).fetches);
        let any = !fetches.is_empty();
        for fetch in fetches {
            let node = self.node(id);
            match node.storage().read(fetch.range.clone(), fetch.max_bytes) {
                Ok(entries) => node.on_fetched(fetch, entries),
                Err(error) => {
                    if error == StorageError::Faulty {
                        node.on_faulty([fetch.range.start]);
                    }
                    node.on_fetch_failed(fetch);
                }
            }
            self.pump(id);
        }
        any
    }

    /// Notes a snapshot of everything applied and drops the log up to there.
    pub(crate) fn compact(&mut self, id: NodeId, through: u64) {
        let storage = self.node(id).storage_mut();
        storage.take_snapshot(LogIndex(through));
        storage.purge(LogIndex(through));
        self.check(id);
    }

    pub(crate) fn disk(&self, id: NodeId) -> &MemoryStorage {
        let member = &self.members[&id];
        let running = member.node.as_ref().map(|node| node.storage());
        running.unwrap_or(&member.disk)
    }

    /// Whether nothing is on its way to the disk, or back from it.
    pub(crate) fn is_idle(&self, id: NodeId) -> bool {
        let member = &self.members[&id];
        member.writes.is_empty() && member.unreported.is_none()
    }

    /// Whether the node has an intact copy of the entry, or a snapshot of what it led to.
    pub(crate) fn has_copy(&self, id: NodeId, entry: EntryId) -> bool {
        let disk = self.disk(id);
        let is_compacted = entry.index < disk.first_index();
        let is_faulty = |it: &FaultyEntry| it.index == entry.index;
        let is_intact = !disk.initial_state().faulty.iter().any(is_faulty);
        is_compacted || (is_intact && self.holds(id, entry))
    }

    /// Whether the disk of the node holds the entry, damaged or not.
    pub(crate) fn holds(&self, id: NodeId, entry: EntryId) -> bool {
        self.disk(id).stored().any(|it| it.id() == entry)
    }

    /// Damages an entry on the disk of a node, which is told at once if it runs.
    pub(crate) fn damage(&mut self, id: NodeId, index: LogIndex, left: Left) {
        let member = self.member(id);
        let disk = match &mut member.node {
            Some(node) => node.storage_mut(),
            None => &mut member.disk,
        };
        let entry = disk.stored().find(|entry| entry.index == index);
        let entry = entry.expect("only what is stored can be damaged");
        let (term, kind) = (Some(entry.term), Some(entry.kind));
        disk.damage(match left {
            Left::Header => FaultyEntry { index, term, kind },
            Left::Term => FaultyEntry {
                index,
                term,
                kind: None,
            },
            Left::Nothing => FaultyEntry {
                index,
                term: None,
                kind: None,
            },
        });
        disk.purge_damaged();
        if let Some(node) = &mut member.node {
            node.on_faulty([index]);
            self.pump(id);
        }
    }

    /// Damages an entry; nobody notices before it is read.
    pub(crate) fn damage_silently(&mut self, id: NodeId, index: LogIndex) {
        let storage = self.node(id).storage_mut();
        let entry = storage.stored().find(|entry| entry.index == index);
        let entry = entry.expect("only what is stored can be damaged");
        let (term, kind) = (Some(entry.term), Some(entry.kind));
        storage.damage(FaultyEntry { index, term, kind });
    }

    /// The whole log as `index@term` of what node and disk hold.
    pub(crate) fn log_of(&self, id: NodeId) -> Vec<EntryId> {
        let mut log: Vec<EntryId> = self.disk(id).stored().map(Entry::id).collect();
        for write in &self.members[&id].writes {
            if let Some(first) = write.entries.first() {
                log.retain(|entry| entry.index < first.index);
            }
            match &write.snapshot {
                Some(snapshot) if write.snapshot_keeps_log => {
                    log.retain(|entry| entry.index > snapshot.id.index);
                }
                Some(_) => log.clear(),
                None => {}
            }
            log.extend(write.entries.iter().map(Entry::id));
        }
        log
    }

    /// A cluster of voters `1..=count` that all hold this log, nobody started yet.
    pub(crate) fn with_log(count: u64, terms: &[u64]) -> Cluster {
        let mut cluster = Cluster::new(count);
        (1..=count).for_each(|node| cluster.set_own_log(id(node), terms));
        cluster
    }

    /// Puts a log on a disk whose node has seen no later term than that of its last entry.
    pub(crate) fn set_own_log(&mut self, id: NodeId, terms: &[u64]) {
        let term = Term(terms.last().copied().unwrap_or(0));
        self.set_log(id, terms, HardState { term, vote: None });
    }

    /// Puts a log of commands with these terms on a disk, before the node is started.
    pub(crate) fn set_log(&mut self, id: NodeId, terms: &[u64], hard_state: HardState) {
        let entries: Vec<Entry> = (1..)
            .zip(terms)
            .map(|(index, term)| command(index, *term, &format!("t{term}")))
            .collect();
        let disk = &mut self.member(id).disk;
        disk.append(entries);
        disk.set_hard_state(hard_state);
    }
}
