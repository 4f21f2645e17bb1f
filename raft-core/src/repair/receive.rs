//! What a node makes of the answers to its questions.

use alloc::vec::Vec;

use crate::core::Core;
use crate::log::Holds;
use crate::{
    Configuration, Entry, EntryId, EntryKind, Event, LogIndex, NodeId, Rejected, RepairAnswer,
    RepairAsk, RepairOutcome, SnapshotMeta, Storage, Term, role,
};

impl<S: Storage> Core<S> {
    /// Late answers say nothing new, and are no fault of the sender.
    pub(crate) fn take_repair_answer(
        &mut self,
        from: NodeId,
        answer: RepairAnswer,
    ) -> Result<(), Rejected> {
        self.log.forget_purged_faults();
        let RepairAnswer { ask, outcome } = answer;
        if !self.log.faults.have_asked(ask.id) {
            return Err(Rejected::Unasked);
        }
        self.repair.pace.on_answered(from);
        match outcome {
            RepairOutcome::Have { entries } => self.receive_from_peer(ask, entries),
            RepairOutcome::Compacted { snapshot } => self.note_offer(from, ask, snapshot),
            RepairOutcome::Maybe => {}
            RepairOutcome::Never { held } => self.note_never(from, ask, held),
        }
        Ok(())
    }

    /// `from` has a snapshot in place of what was asked for. It is preferred to somebody who was asked in turn, and may have none.
    fn note_offer(&mut self, from: NodeId, ask: RepairAsk, snapshot: EntryId) {
        let awaits_another =
            self.repair.snapshot_from.is_some() && self.repair.snapshot_was_offered;
        let is_needed = self.log.faults.contains(ask.first) && snapshot.index >= ask.first;
        if is_needed && !awaits_another && !self.wants_own_snapshot() {
            self.repair.snapshot_was_offered = true;
            self.ask_for_snapshot(from);
        }
    }

    /// Takes over a snapshot that somebody sent. One that turns out to be of no use is not asked for
    /// again.
    pub(crate) fn take_repair_snapshot(&mut self, meta: SnapshotMeta) -> Result<(), Rejected> {
        let index = meta.id.index;
        let taken = role::take_snapshot(self, meta);
        match taken {
            Ok(_) => self.repair.on_snapshot_taken(),
            Err(Rejected::UnknownIdentity { .. }) => self.on_useless_snapshot(index),
            Err(_) => {}
        }
        taken.map(|_| ())
    }

    /// Takes the entries that are certain to be ours: of the term that we know, or at or below an
    /// anchor that both logs hold.
    fn receive_from_peer(&mut self, ask: RepairAsk, entries: Vec<Entry>) {
        let is_same_log = self.log.may_hold(ask.anchor) == Holds::Yes;
        for entry in entries {
            let is_ours = match self.log.may_hold(entry.id()) {
                Holds::Yes => true,
                Holds::Perhaps => is_same_log && entry.index <= ask.anchor.index,
                Holds::No => false,
            };
            if !is_ours {
                return;
            }
            self.receive(entry);
        }
    }

    /// Takes from an append, of whatever place, the entries that are certain to be ours: all up to
    /// one that this log is known to hold, and all that is committed here, which every leader has.
    pub(crate) fn receive_from_leader(&mut self, entries: &[Entry]) {
        let held = |entry: &Entry| self.log.may_hold(entry.id()) == Holds::Yes;
        let proven = entries.iter().rposition(held).map_or(0, |at| at + 1);
        let committed = self.log.committed();
        for (position, entry) in entries.iter().enumerate() {
            if position < proven || entry.index <= committed {
                self.receive(entry.clone());
            }
        }
    }

    fn receive(&mut self, entry: Entry) {
        if self.log.may_hold(entry.id()) == Holds::No || !self.log.faults.contains(entry.index) {
            return;
        }
        let index = entry.index;
        let configuration = match entry.kind {
            EntryKind::Configuration => Configuration::decode(&entry.payload).ok(),
            EntryKind::Noop | EntryKind::Command => None,
        };
        if !self.log.receive(entry) {
            return;
        }
        self.repair.on_progress();
        let newest = self.membership.current_index();
        let is_news =
            configuration.is_some_and(|configuration| self.membership.learn(index, configuration));
        if is_news && self.membership.current_index() != newest {
            self.announce_configuration();
        }
    }

    /// `from` does not hold the anchor. Of the first entry asked for that says something only if
    /// what it holds there cannot be our entry: n2 may have our committed 5 and lack the 6 behind
    /// it, which is the anchor.
    fn note_never(&mut self, from: NodeId, ask: RepairAsk, held: Option<Term>) {
        let index = ask.first;
        let is_other = |term| self.log.may_hold(EntryId { index, term }) == Holds::No;
        if held.is_none_or(is_other) {
            self.log.faults.note_never(index, ask.id, from);
        }
    }

    /// Gives up damaged entries that nobody else ever had, and what follows them. Not for a leader:
    /// it never overwrites its log.
    pub(crate) fn drop_what_nobody_had(&mut self) {
        let nobody_had = |index: &LogIndex| self.nobody_had(*index);
        let Some(from) = self.log.faults.missing().find(nobody_had) else {
            return;
        };
        let last = self.log.last_id();
        self.event(Event::DamagedTailDropped { from, last });
        self.truncate_log(from);
        self.repair.on_progress();
    }

    fn nobody_had(&self, index: LogIndex) -> bool {
        let Some(fault) = self.log.faults.get(index) else {
            return false;
        };
        let nobody_else = || {
            let mut voters = self.other_voters();
            voters.all(|voter| fault.never.contains(&voter))
        };
        index > self.log.committed()
            && !self.log.faults.disk_forgot_term(index.prev())
            && self.knows_the_members_before(index)
            && self.knows_a_voter_of_each_quorum(index)
            && nobody_else()
    }

    /// Whether no damaged entry below `index` may be a change of members that is not known here.
    fn knows_the_members_before(&self, index: LogIndex) -> bool {
        let faults = &self.log.faults;
        let hides_members = |at| faults.get(at).is_some_and(|fault| fault.hides_members);
        let mut below = faults.missing().take_while(|at| *at < index);
        !below.any(hides_members)
    }

    /// Whether another voter that is known here is in every quorum that may have committed the
    /// entry at `index`.
    ///
    /// What is damaged may itself be a change of members, to voters of whom nothing is known here.
    /// With three voters before it, any quorum after it has two of them, one of them not this node.
    /// Two voters change jointly, so both are asked.
    ///
    /// Nor may a known change leave this node as the only voter: it alone committed what followed.
    fn knows_a_voter_of_each_quorum(&self, index: LogIndex) -> bool {
        let Some((_, before)) = self.membership.at(index.prev()) else {
            return false;
        };
        let mut configurations = core::iter::once(before).chain(self.membership.since(index));
        configurations.all(|it| it.has_voters_in_each_half(2))
    }
}
