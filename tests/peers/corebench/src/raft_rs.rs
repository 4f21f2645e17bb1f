//! raft-rs 0.7.

use std::hint::black_box;

use bytes::Bytes;
use protobuf::Message as _;
use raft::prelude::*;
use raft::storage::MemStorage;
use raft::{GetEntriesContext, RaftState, StateRole, StorageError};

use crate::deck::Deck;
use crate::ours::{PURGE_EVERY, PURGE_KEEPS};
use crate::{Carry, Cluster, Propose};

const VOTERS: [u64; 3] = [1, 2, 3];

/// What a log does for its driver.
pub trait Log: Storage {
    fn append(&mut self, entries: Vec<Entry>);
    fn set_hard_state(&mut self, state: HardState);
    fn set_commit(&mut self, commit: u64);
    fn purge(&mut self, through: u64);
}

/// Three nodes and the messages between them.
pub struct RaftRs<S: Storage> {
    nodes: Vec<RawNode<S>>,
    network: Vec<Message>,
    applied: [u64; 3],
    reads: u64,
    next_read: u64,
    since_purge: usize,
    propose: Propose,
    carry: Carry,
    buffer: Vec<u8>,
    wire_bytes: u64,
}

impl RaftRs<MemStorage> {
    /// On the log in memory that comes with the crate.
    pub fn shipped_log(batch_append: bool, propose: Propose, carry: Carry) -> Box<dyn Cluster> {
        let make_log = || MemStorage::new_with_conf_state((VOTERS.to_vec(), vec![]));
        Box::new(RaftRs::new(make_log, batch_append, propose, carry))
    }
}

impl RaftRs<DeckLog> {
    /// On the log in memory that both cores share.
    pub fn same_log(batch_append: bool, propose: Propose, carry: Carry) -> Box<dyn Cluster> {
        Box::new(RaftRs::new(DeckLog::new, batch_append, propose, carry))
    }
}

impl<S: Log> RaftRs<S> {
    fn new(
        make_log: impl Fn() -> S,
        batch_append: bool,
        propose: Propose,
        carry: Carry,
    ) -> RaftRs<S> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = |id| {
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 1,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                batch_append,
                pre_vote: true,
                check_quorum: true,
                ..Config::default()
            };
            RawNode::new(&config, make_log(), &logger).expect("sound options and an empty log")
        };
        let mut cluster = RaftRs {
            nodes: VOTERS.map(node).into(),
            network: Vec::new(),
            applied: [0; 3],
            reads: 0,
            next_read: 0,
            since_purge: 0,
            propose,
            carry,
            buffer: Vec::new(),
            wire_bytes: 0,
        };
        cluster.nodes[0].campaign().expect("a voter");
        cluster.settle();
        assert_eq!(cluster.nodes[0].raft.state, StateRole::Leader);
        cluster
    }

    /// Does what one node wants done, in the order of the crate's documentation, with a disk that
    /// is done at once.
    fn turn(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if !node.has_ready() {
            return false;
        }
        let mut ready = node.ready();
        self.network.append(&mut ready.take_messages());
        let read_states = ready.take_read_states();
        self.reads += read_states.len() as u64;
        let committed = ready.take_committed_entries();
        if let Some(last) = committed.last() {
            self.applied[at] = last.index;
        }
        if !ready.entries().is_empty() {
            node.mut_store().append(ready.take_entries());
        }
        if let Some(state) = ready.hs() {
            node.mut_store().set_hard_state(state.clone());
        }
        self.network.append(&mut ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            node.mut_store().set_commit(commit);
        }
        self.network.append(&mut light.take_messages());
        let committed_now = light.take_committed_entries();
        if let Some(last) = committed_now.last() {
            self.applied[at] = last.index;
        }
        node.advance_apply();
        black_box((&committed, &committed_now, &read_states));
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
            for message in network.drain(..) {
                let message = match self.carry {
                    Carry::Moved => message,
                    Carry::Encoded => self.recode(&message),
                };
                let to = message.to as usize - 1;
                self.nodes[to].step(message).expect("nothing is late here");
            }
            self.network = network;
            if !busy {
                return messages;
            }
        }
    }

    fn recode(&mut self, message: &Message) -> Message {
        self.buffer.clear();
        message
            .write_to_vec(&mut self.buffer)
            .expect("memory does not fail");
        self.wire_bytes += self.buffer.len() as u64;
        Message::parse_from_bytes(&self.buffer).expect("just encoded")
    }

    fn maybe_purge(&mut self, count: usize) {
        self.since_purge += count;
        if self.since_purge > PURGE_EVERY {
            self.since_purge = 0;
            for (node, applied) in self.nodes.iter_mut().zip(self.applied) {
                node.mut_store().purge(applied - PURGE_KEEPS);
            }
        }
    }
}

/// What [`RawNode::propose`] makes, for many commands at once. The crate has no call for it, but
/// accepts the message.
fn propose_together<S: Storage>(leader: &mut RawNode<S>, payload: &Bytes, count: usize) {
    let entry = |_| Entry {
        data: Bytes::copy_from_slice(payload),
        ..Entry::default()
    };
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgPropose);
    message.from = leader.raft.id;
    message.set_entries((0..count).map(entry).collect::<Vec<_>>().into());
    leader.step(message).expect("it leads");
}

impl<S: Log> Cluster for RaftRs<S> {
    fn commit(&mut self, payload: &Bytes, count: usize) -> u64 {
        let expected = self.applied[0] + count as u64;
        let leader = &mut self.nodes[0];
        match self.propose {
            Propose::Each => {
                for _ in 0..count {
                    leader
                        .propose(Vec::new(), payload.to_vec())
                        .expect("it leads");
                }
            }
            Propose::Together => propose_together(leader, payload, count),
        }
        let messages = self.settle();
        assert_eq!(self.applied, [expected; 3]);
        self.maybe_purge(count);
        messages
    }

    fn read(&mut self, count: usize) {
        let expected = self.reads + count as u64;
        for _ in 0..count {
            self.next_read += 1;
            self.nodes[0].read_index(self.next_read.to_le_bytes().to_vec());
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

impl Log for MemStorage {
    fn append(&mut self, entries: Vec<Entry>) {
        self.wl().append(&entries).expect("no gap");
    }

    fn set_hard_state(&mut self, state: HardState) {
        self.wl().set_hardstate(state);
    }

    fn set_commit(&mut self, commit: u64) {
        self.wl().mut_hard_state().set_commit(commit);
    }

    fn purge(&mut self, through: u64) {
        self.wl().compact(through + 1).expect("it is present");
    }
}

/// The log that both cores share.
pub struct DeckLog {
    deck: Deck<Entry>,
    hard_state: HardState,
}

impl DeckLog {
    fn new() -> DeckLog {
        DeckLog {
            deck: Deck::new(),
            hard_state: HardState::default(),
        }
    }
}

impl Log for DeckLog {
    fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first().map(|entry| entry.index) {
            self.deck.append(first, entries);
        }
    }

    fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    fn purge(&mut self, through: u64) {
        let term = self.term(through).expect("it is present");
        self.deck.purge((through, term));
    }
}

impl Storage for DeckLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            (VOTERS.to_vec(), vec![]).into(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.deck.floor.0 {
            return Err(StorageError::Compacted.into());
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let bytes = |entry: &Entry| u64::from(entry.compute_size());
        let mut entries = Vec::new();
        self.deck.slice((low, high), limit, bytes, &mut entries);
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.deck.floor.0 {
            return Ok(self.deck.floor.1);
        }
        if index < self.deck.floor.0 {
            return Err(StorageError::Compacted.into());
        }
        self.deck
            .get(index)
            .map(|entry| entry.term)
            .ok_or(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.deck.floor.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.deck.last_index())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}
