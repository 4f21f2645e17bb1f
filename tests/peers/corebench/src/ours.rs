//! raft-core.

use std::hint::black_box;
use std::ops::Range;

use bytes::Bytes;
use raft_core::{
    Config, Configuration, Entry, Envelope, InitialState, LogIndex, MemoryStorage, Node, NodeId,
    Persist, Proposal, ReadId, Ready, Role, SnapshotMeta, Storage, StorageError, Term,
};

use crate::deck::Deck;
use crate::{Carry, Cluster, Propose};

const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// As often as the peer's logs are purged, and so much is kept.
pub const PURGE_EVERY: usize = 20_000;
pub const PURGE_KEEPS: u64 = 100;
/// raft-rs carries no checksum of an entry, so none is computed here either.
const CHECKSUM: u32 = 7;

/// What a log does for its driver.
pub trait Log: Storage {
    fn persist(&mut self, persist: Persist);
    fn purge(&mut self, through: LogIndex);
}

/// Three nodes and the messages between them.
pub struct RaftCore<S> {
    nodes: Vec<Node<S>>,
    network: Vec<Envelope>,
    /// The batch that is carried out, kept for its memory.
    ready: Ready,
    applied: [u64; 3],
    reads: u64,
    next_read: u64,
    /// Late answers of the election; then nothing is late any more.
    rejected: u64,
    since_purge: usize,
    propose: Propose,
    carry: Carry,
    buffer: Vec<u8>,
    wire_bytes: u64,
}

impl RaftCore<MemoryStorage> {
    /// On the log in memory that comes with the crate.
    pub fn shipped_log(propose: Propose, carry: Carry) -> Box<dyn Cluster> {
        Box::new(RaftCore::new(|| MemoryStorage::new(VOTERS), propose, carry))
    }
}

impl RaftCore<DeckLog> {
    /// On the log in memory that both cores share.
    pub fn same_log(propose: Propose, carry: Carry) -> Box<dyn Cluster> {
        Box::new(RaftCore::new(DeckLog::new, propose, carry))
    }
}

impl<S: Log> RaftCore<S> {
    fn new(make_log: impl Fn() -> S, propose: Propose, carry: Carry) -> RaftCore<S> {
        let node = |id: NodeId| {
            Node::new(Config::new(id, id.0), make_log()).expect("sound options and an empty log")
        };
        let mut cluster = RaftCore {
            nodes: VOTERS.map(node).into(),
            network: Vec::new(),
            ready: Ready::default(),
            applied: [0; 3],
            reads: 0,
            next_read: 0,
            rejected: 0,
            since_purge: 0,
            propose,
            carry,
            buffer: Vec::new(),
            wire_bytes: 0,
        };
        cluster.nodes[0].campaign();
        cluster.settle();
        assert_eq!(cluster.nodes[0].role(), Role::Leader);
        cluster.rejected = 0;
        cluster
    }

    /// Does what one node wants done, as a driver with a disk that is done at once.
    fn turn(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if !node.has_ready() {
            return false;
        }
        let ready = &mut self.ready;
        node.ready_into(ready);
        self.network.append(&mut ready.messages);
        if let Some(persist) = ready.persist.take() {
            let id = persist.id;
            node.storage_mut().persist(persist);
            node.on_persisted(id);
        }
        self.network.append(&mut ready.messages_after_sync);
        if let Some(last) = ready.committed.last().map(|entry| entry.index) {
            self.applied[at] = last.0;
            node.on_applied(last);
        }
        black_box((&ready.committed, &ready.events, &ready.read_states));
        self.reads += ready.read_states.len() as u64;
        ready.committed.clear();
        true
    }

    /// Delivers messages until nobody has anything to say.
    fn settle(&mut self) -> u64 {
        let mut messages = 0;
        loop {
            let mut busy = false;
            for at in 0..self.nodes.len() {
                busy |= self.turn(at);
            }
            let mut network = std::mem::take(&mut self.network);
            busy |= !network.is_empty();
            messages += network.len() as u64;
            for envelope in network.drain(..) {
                let envelope = match self.carry {
                    Carry::Moved => envelope,
                    Carry::Encoded => self.recode(&envelope),
                };
                let to = envelope.to.0 as usize - 1;
                if self.nodes[to].step(envelope).is_err() {
                    self.rejected += 1;
                }
            }
            self.network = network;
            if !busy {
                return messages;
            }
        }
    }

    fn recode(&mut self, envelope: &Envelope) -> Envelope {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.buffer = postcard::to_extend(envelope, buffer).expect("memory does not fail");
        self.wire_bytes += self.buffer.len() as u64;
        postcard::from_bytes(&self.buffer).expect("just encoded")
    }

    fn maybe_purge(&mut self, count: usize) {
        self.since_purge += count;
        if self.since_purge > PURGE_EVERY {
            self.since_purge = 0;
            for (node, applied) in self.nodes.iter_mut().zip(self.applied) {
                node.storage_mut().purge(LogIndex(applied - PURGE_KEEPS));
            }
        }
    }
}

fn proposal(payload: &Bytes) -> Proposal {
    // A copy for each command, as each command of a client comes in memory of its own.
    Proposal {
        payload: Bytes::copy_from_slice(payload),
        checksum: CHECKSUM,
    }
}

impl<S: Log> Cluster for RaftCore<S> {
    fn commit(&mut self, payload: &Bytes, count: usize) -> u64 {
        let expected = self.applied[0] + count as u64;
        let leader = &mut self.nodes[0];
        match self.propose {
            Propose::Each => {
                for _ in 0..count {
                    leader.propose([proposal(payload)]).expect("it leads");
                }
            }
            Propose::Together => {
                let proposals = (0..count).map(|_| proposal(payload));
                leader.propose(proposals).expect("it leads");
            }
        }
        let messages = self.settle();
        assert_eq!((self.applied, self.rejected), ([expected; 3], 0));
        self.maybe_purge(count);
        messages
    }

    fn read(&mut self, count: usize) {
        let expected = self.reads + count as u64;
        for _ in 0..count {
            self.next_read += 1;
            self.nodes[0]
                .read_index(ReadId(self.next_read))
                .expect("it leads");
        }
        self.settle();
        assert_eq!(self.reads, expected);
    }

    fn applied(&self) -> u64 {
        self.applied.into_iter().min().expect("three nodes")
    }

    fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }
}

impl Log for MemoryStorage {
    fn persist(&mut self, persist: Persist) {
        MemoryStorage::persist(self, persist);
    }

    fn purge(&mut self, through: LogIndex) {
        self.take_snapshot(through);
        MemoryStorage::purge(self, through);
    }
}

/// The log that both cores share.
pub struct DeckLog(Deck<Entry>);

impl DeckLog {
    fn new() -> DeckLog {
        DeckLog(Deck::new())
    }
}

impl Log for DeckLog {
    fn persist(&mut self, persist: Persist) {
        if let Some(first) = persist.entries.first().map(|entry| entry.index) {
            self.0.append(first.0, persist.entries);
        }
    }

    fn purge(&mut self, through: LogIndex) {
        let term = self.term(through).expect("it is present");
        self.0.purge((through.0, term.0));
    }
}

impl Storage for DeckLog {
    fn initial_state(&self) -> InitialState {
        InitialState {
            configuration: Configuration::new(VOTERS),
            ..InitialState::default()
        }
    }

    fn first_index(&self) -> LogIndex {
        LogIndex(self.0.floor.0 + 1)
    }

    fn last_index(&self) -> LogIndex {
        LogIndex(self.0.last_index())
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index.0 == self.0.floor.0 {
            return Ok(Term(self.0.floor.1));
        }
        if index.0 < self.0.floor.0 {
            return Err(StorageError::Compacted);
        }
        self.0
            .get(index.0)
            .map(|entry| entry.term)
            .ok_or(StorageError::Unavailable)
    }

    fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: u64,
        into: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        if range.start.0 <= self.0.floor.0 {
            return Err(StorageError::Compacted);
        }
        let range = (range.start.0, range.end.0);
        self.0.slice(range, max_bytes, Entry::bytes, into);
        Ok(())
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        None
    }
}
