//! What a node says to one that lost entries.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Owed, SNAPSHOT_PATIENCE_TIMEOUTS, STRANGERS_MAX};
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

    /// Sends a snapshot that goes far enough, at once or as soon as the driver has written one. The
    /// driver reports the end of the transfer; until then the same node gets no other.
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
            None => {
                self.event(Event::SnapshotUnavailable { peer: from });
                self.owe_snapshot(from, ask);
            }
        }
    }

    fn owe_snapshot(&mut self, to: NodeId, ask: SnapshotAsk) {
        let timeout = self.config.election_timeout_ticks;
        let owed = &mut self.repair.owed;
        if owed.len() < STRANGERS_MAX || owed.contains_key(&to) {
            let ticks_left = timeout.saturating_mul(SNAPSHOT_PATIENCE_TIMEOUTS);
            owed.insert(to, Owed { ask, ticks_left });
        }
    }

    /// Sends the snapshots that were asked for before they were there.
    pub(super) fn tick_owed_snapshots(&mut self) {
        if self.repair.owed.is_empty() {
            return;
        }
        let newest = self.log.storage.snapshot().map(|meta| meta.id.index);
        let mut due = Vec::new();
        self.repair.owed.retain(|to, owed| {
            let is_there = newest >= Some(owed.ask.covering);
            if is_there {
                due.push((*to, owed.ask));
            }
            owed.ticks_left = owed.ticks_left.saturating_sub(1);
            !is_there && owed.ticks_left > 0
        });
        for (to, ask) in due {
            self.answer_snapshot_ask(to, ask);
        }
    }
}

/// What was found for a question.
enum Found {
    Outcome(RepairOutcome),
    /// These entries are to be read first.
    OnDisk(Range<LogIndex>),
}
