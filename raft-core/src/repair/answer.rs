//! What a node says to one that lost entries.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use crate::core::Core;
use crate::log::Holds;
use crate::{
    Entry, Event, Fetch, FetchPurpose, InstallSnapshot, LogIndex, Message, NodeId, RepairAnswer,
    RepairAsk, RepairOutcome, SnapshotAsk, Storage, StorageError, Term,
};

impl<S: Storage> Core<S> {
    /// Answers with the term of the question, which nobody looks at: ours could be 0, before any
    /// election, and that no message shows.
    pub(crate) fn answer_repair_ask(&mut self, from: NodeId, term: Term, ask: RepairAsk) {
        match self.repair_outcome(ask) {
            Found::Outcome(outcome) => self.send_repair_answer(from, term, ask, outcome),
            Found::OnDisk(range) => self.outbox.fetches.push(Fetch {
                purpose: FetchPurpose::Repair(from, ask),
                range,
                max_bytes: self.config.max_append_bytes,
            }),
        }
    }

    fn send_repair_answer(
        &mut self,
        to: NodeId,
        term: Term,
        ask: RepairAsk,
        outcome: RepairOutcome,
    ) {
        let answer = RepairAnswer { ask, outcome };
        self.send_in(term, to, Message::RepairAnswer(answer));
    }

    fn repair_outcome(&mut self, ask: RepairAsk) -> Found {
        if ask.first < self.log.first_index() {
            return Found::Outcome(self.compacted(ask.first));
        }
        match self.log.may_hold(ask.anchor) {
            Holds::Yes => self.read_for_repair(ask),
            Holds::No => Found::Outcome(match self.log.term_held(ask.first) {
                Ok(held) => RepairOutcome::Never { held },
                Err(_) => RepairOutcome::Maybe,
            }),
            Holds::Perhaps => Found::Outcome(RepairOutcome::Maybe),
        }
    }

    /// What to say of an entry that is gone, or as good as gone: what led on from it.
    fn compacted(&self, index: LogIndex) -> RepairOutcome {
        match self.log.snapshot_covering(index) {
            Some(meta) => RepairOutcome::Compacted { snapshot: meta.id },
            None => RepairOutcome::Maybe,
        }
    }

    /// Reads the first intact entries of those asked for: this node may have lost some as well.
    fn read_for_repair(&mut self, ask: RepairAsk) -> Found {
        let last = ask.last.min(self.log.last_index());
        let mut first = ask.first;
        while first <= last && self.log.faults.contains(first) {
            first = first.next();
        }
        if first > last {
            return Found::Outcome(RepairOutcome::Maybe);
        }
        let range = first..last.next();
        let (max_bytes, mut entries) = (self.config.max_append_bytes, Vec::new());
        match self.log.entries(range.clone(), max_bytes, &mut entries) {
            Ok(()) => Found::Outcome(RepairOutcome::Have { entries }),
            Err(StorageError::Later) => Found::OnDisk(self.log.durable_part(range)),
            Err(StorageError::Faulty) => {
                self.log.on_faulty(first);
                Found::Outcome(self.compacted(first))
            }
            Err(StorageError::Compacted | StorageError::Unavailable) => {
                Found::Outcome(RepairOutcome::Maybe)
            }
        }
    }

    /// The driver read what another node asked for. If this log has changed meanwhile nothing is
    /// said; the other asks again.
    pub(crate) fn on_fetched_for_repair(
        &mut self,
        to: NodeId,
        ask: RepairAsk,
        start: LogIndex,
        entries: Vec<Entry>,
    ) {
        if self.log.may_hold(ask.anchor) == Holds::Yes && self.log.are_own(start, &entries) {
            let term = ask.anchor.term;
            self.send_repair_answer(to, term, ask, RepairOutcome::Have { entries });
        }
    }

    /// Sends a snapshot, if there is one that goes far enough. The driver reports the end of the
    /// transfer; until then the same node gets no other.
    pub(crate) fn answer_snapshot_ask(&mut self, from: NodeId, ask: SnapshotAsk) {
        if self.repair.sends_to.contains(&from) {
            return;
        }
        match self.log.snapshot_covering(ask.covering) {
            Some(meta) => {
                self.repair.sends_to.insert(from);
                let id = meta.id;
                self.event(Event::SnapshotSent { peer: from, id });
                let meta = Box::new(meta);
                self.send(from, Message::RepairSnapshot(InstallSnapshot { meta }));
            }
            None => self.event(Event::SnapshotUnavailable { peer: from }),
        }
    }
}

/// What was found for a question.
enum Found {
    Outcome(RepairOutcome),
    /// These entries are to be read first.
    OnDisk(Range<LogIndex>),
}
