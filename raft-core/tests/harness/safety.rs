//! What must hold of the whole cluster after every step (thesis, figure 3.2), checked from what the
//! nodes show and say.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a checker looks at the messages it knows something about"
)]

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    AppendResponse, Entry, EntryId, Envelope, LogIndex, MemoryStorage, Message, Node, NodeId,
    ReadId, ReadState, Role, Storage, Term, VoteResponse,
};

/// Everything that was ever seen and must never be contradicted.
#[derive(Default)]
pub(crate) struct Safety {
    /// At most one leader per term.
    leaders: BTreeMap<Term, NodeId>,
    /// Log matching: what precedes an entry is the same in every log that holds it.
    predecessors: BTreeMap<EntryKey, EntryKey>,
    payloads: BTreeMap<EntryKey, Vec<u8>>,
    /// Committed entries never change.
    committed: BTreeMap<LogIndex, (Term, Vec<u8>)>,
    highest_commit: LogIndex,
    /// How far each state machine is, for gaps and repetitions.
    applied: BTreeMap<NodeId, LogIndex>,
    /// What was committed anywhere when a read was asked for.
    reads: BTreeMap<(NodeId, ReadId), LogIndex>,
    /// A vote that left is never given to another in the same term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    terms: BTreeMap<NodeId, Term>,
    roles: BTreeSet<(NodeId, Term)>,
}

type EntryKey = (LogIndex, Term);

fn key(id: EntryId) -> EntryKey {
    (id.index, id.term)
}

impl Safety {
    pub(crate) fn on_leader(&mut self, id: NodeId, term: Term) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "two leaders of term {term}");
    }

    pub(crate) fn on_crash(&mut self, id: NodeId) {
        self.terms.remove(&id);
        self.applied.remove(&id);
        self.reads.retain(|(reader, _), _| *reader != id);
    }

    pub(crate) fn on_applied(&mut self, id: NodeId, entry: &Entry) {
        let content = (entry.term, entry.payload.to_vec());
        let committed = self
            .committed
            .entry(entry.index)
            .or_insert_with(|| content.clone());
        assert_eq!(
            *committed, content,
            "{id} applies another entry at {}",
            entry.index
        );
        self.highest_commit = self.highest_commit.max(entry.index);
        if let Some(before) = self.applied.insert(id, entry.index) {
            assert_eq!(before.next(), entry.index, "{id} applies out of order");
        }
    }

    pub(crate) fn on_installed(&mut self, id: NodeId, snapshot: EntryId) {
        self.check_committed(id, snapshot);
        let before = self.applied.insert(id, snapshot.index);
        assert!(
            before.is_none_or(|before| before < snapshot.index),
            "{id} went back to {snapshot}"
        );
    }

    /// A snapshot or a commit index of a node names an entry as committed.
    fn check_committed(&mut self, id: NodeId, entry: EntryId) {
        if let Some((term, _)) = self.committed.get(&entry.index) {
            assert_eq!(
                *term, entry.term,
                "{id} has another entry as committed at {}",
                entry.index
            );
        }
    }

    pub(crate) fn on_read_asked(&mut self, id: NodeId, read: ReadId) {
        self.reads.insert((id, read), self.highest_commit);
    }

    pub(crate) fn on_read_failed(&mut self, id: NodeId, read: ReadId) {
        self.reads.remove(&(id, read));
    }

    /// No answer below what was committed when the read began.
    pub(crate) fn on_read(&mut self, id: NodeId, state: ReadState) {
        if let Some(needed) = self.reads.remove(&(id, state.id)) {
            assert!(
                state.index >= needed,
                "{id} may read {state}, but {needed} was committed before it asked"
            );
        }
    }

    /// A node with damaged entries promises nothing.
    pub(crate) fn on_message_of_repairing(&self, envelope: &Envelope) {
        let promises = match &envelope.message {
            Message::Vote(_)
            | Message::PreVote(_)
            | Message::SnapshotResponse(_)
            | Message::AppendResponse(AppendResponse::Accepted { .. }) => true,
            Message::VoteResponse(response) | Message::PreVoteResponse(response) => {
                response.granted
            }
            _ => false,
        };
        assert!(!promises, "{envelope}, but its sender repairs its log");
    }

    /// A message leaves: the disk must hold what it promises. `leader_log` is what the receiver
    /// holds.
    pub(crate) fn on_message(
        &mut self,
        envelope: &Envelope,
        disk: &MemoryStorage,
        leader_log: &[EntryId],
    ) {
        let (from, to, term) = (envelope.from, envelope.to, envelope.term);
        let would_be = match &envelope.message {
            Message::PreVote(_) => true,
            Message::PreVoteResponse(response) => response.granted,
            Message::RepairAsk(_) | Message::RepairAnswer(_) | Message::SnapshotAsk(_) => true,
            _ => false,
        };
        assert!(
            would_be || disk.hard_state().term >= term,
            "{envelope} shows a term that is not on disk"
        );
        match &envelope.message {
            Message::VoteResponse(VoteResponse { granted: true }) => {
                self.on_vote(from, to, term, disk)
            }
            Message::Vote(_) => self.on_vote(from, from, term, disk),
            // What was acknowledged to a leader of an older term may be overwritten by now, if the
            // disk has gone on since the write that the message waited for.
            Message::AppendResponse(_) | Message::SnapshotResponse(_)
                if disk.hard_state().term > term => {}
            Message::AppendResponse(AppendResponse::Accepted { matched }) => {
                let (durable, end) = (disk.term(*matched), disk.last_index());
                assert!(*matched <= end, "{envelope}, but the disk ends at {end}");
                let expected = leader_log.iter().find(|id| id.index == *matched);
                // What a snapshot has replaced is durable in it.
                if let (Ok(durable), Some(expected)) = (durable, expected) {
                    assert_eq!(durable, expected.term, "{envelope}, but the disk differs");
                }
            }
            Message::SnapshotResponse(response) => {
                let end = disk.last_index();
                assert!(
                    response.matched <= end,
                    "{envelope}, but the disk ends at {end}"
                );
            }
            _ => {}
        }
    }

    fn on_vote(&mut self, from: NodeId, to: NodeId, term: Term, disk: &MemoryStorage) {
        let known = *self.votes.entry((from, term)).or_insert(to);
        assert_eq!(known, to, "{from} voted twice in term {term}");
        let state = disk.hard_state();
        assert!(
            state.term > term || state.vote == Some(to),
            "{from} promises a vote that is not on disk: {state}"
        );
    }

    /// Looks at a node after a step.
    pub(crate) fn observe(&mut self, id: NodeId, node: &Node<MemoryStorage>) {
        let status = node.status();
        if let Some(before) = self.terms.insert(id, status.term) {
            assert!(
                status.term >= before,
                "the term of {id} fell from {before} to {}",
                status.term
            );
        }
        let commit_term = node.storage().term(status.commit).ok();
        if let Some(term) = commit_term.filter(|_| status.commit <= status.persisted) {
            self.check_committed(
                id,
                EntryId {
                    index: status.commit,
                    term,
                },
            );
        }
        self.highest_commit = self.highest_commit.max(status.commit);
        if status.role == Role::Leader && self.roles.insert((id, status.term)) {
            self.check_leader_completeness(id, node);
        }
    }

    /// Log matching over everything durable.
    pub(crate) fn observe_log(&mut self, node: &Node<MemoryStorage>) {
        let storage = node.storage();
        let floor = storage.first_index().prev();
        let Ok(floor_term) = storage.term(floor) else {
            return;
        };
        let mut before = (floor, floor_term);
        for entry in storage.stored() {
            let key = key(entry.id());
            let known = *self.predecessors.entry(key).or_insert(before);
            assert_eq!(
                known,
                before,
                "logs that hold {} differ before it",
                entry.id()
            );
            let payload = self
                .payloads
                .entry(key)
                .or_insert_with(|| entry.payload.to_vec());
            assert_eq!(*payload, entry.payload, "two entries are {}", entry.id());
            before = key;
        }
    }

    /// A new leader holds everything that was ever committed.
    fn check_leader_completeness(&mut self, id: NodeId, node: &Node<MemoryStorage>) {
        let floor = node.storage().first_index().prev();
        for (index, (term, _)) in &self.committed {
            if *index > floor {
                let held = node.storage().term(*index).ok();
                assert_eq!(
                    held,
                    Some(*term),
                    "leader {id} lacks committed {index}@{term}"
                );
            }
        }
    }
}
