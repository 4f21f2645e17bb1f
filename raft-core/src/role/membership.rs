//! Changing the members (thesis chapter 4).

use alloc::vec::Vec;

use super::Next;
use super::leader::Leader;
use crate::core::Core;
use crate::progress::Progress;
use crate::{
    ChangeError, Configuration, Entry, EntryId, EntryKind, Message, PeerState, Proposal, Reason,
    Storage,
};

/// What a learner must have of the leader's log to become a voter.
const CAUGHT_UP_PERCENT: u128 = 90;

impl Leader {
    /// Appends a configuration, which is in force at once.
    pub(crate) fn propose_configuration<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        proposal: Proposal,
    ) -> Result<EntryId, ChangeError> {
        self.check_may_change(core)?;
        let next = Configuration::decode(&proposal.payload).map_err(ChangeError::Configuration)?;
        if !core.membership.current().may_be_followed_by(&next) {
            return Err(ChangeError::NotSuccessor);
        }
        self.check_promoted(core, &next)?;
        let entry = Entry {
            index: core.log.last_index().next(),
            term: core.term(),
            kind: EntryKind::Configuration,
            payload: proposal.payload,
            checksum: proposal.checksum,
        };
        let id = entry.id();
        core.log.append(Vec::from([entry]));
        core.follow_configuration(id.index, next);
        self.follow_members(core);
        Ok(id)
    }

    /// Whether a configuration may be appended now.
    ///
    /// One change at a time, so that a leader never has to reckon with more than two configurations.
    /// And none before an entry of the own term is committed (the flaw of the thesis's single
    /// server changes): n1 appends "add n5" and falls silent; n2 leads {n1 .. n4}, appends "remove
    /// n1" and commits it with n3, both of {n2 n3 n4}; n1 returns, wins with n4 and n5, and would
    /// commit its own change with them. A no-op of n2 on a majority would have made n1 lose.
    pub(crate) fn check_may_change<S: Storage>(&self, core: &Core<S>) -> Result<(), ChangeError> {
        if let Some(to) = self.transfer_target() {
            return Err(ChangeError::Transferring { to });
        }
        if !self.own_term_committed(core) {
            let first = self.first_of_term;
            return Err(ChangeError::OwnTermUncommitted { first });
        }
        let index = core.membership.current_index();
        if index > core.log.committed() {
            return Err(ChangeError::InProgress { index });
        }
        Ok(())
    }

    /// Refuses learners as voters that would hold up every commit until they have the log.
    pub(crate) fn check_promoted<S: Storage>(
        &self,
        core: &Core<S>,
        next: &Configuration,
    ) -> Result<(), ChangeError> {
        let last = core.log.last_index();
        let promoted = core
            .membership
            .current()
            .learners
            .intersection(&next.voters);
        for learner in promoted.copied() {
            let progress = self.peers.get(learner).expect("learners are members");
            let matched = progress.matched;
            if let PeerState::Snapshot { .. } = progress.state() {
                return Err(ChangeError::SnapshotPending(learner));
            }
            if progress.repairing > 0 {
                return Err(ChangeError::Repairing(learner));
            }
            if u128::from(matched.0) * 100 < u128::from(last.0) * CAUGHT_UP_PERCENT {
                return Err(ChangeError::Behind {
                    learner,
                    matched,
                    last,
                });
            }
        }
        Ok(())
    }

    /// Takes over the members of the configuration in force. What waited for a quorum may have one
    /// now, because fewer are needed.
    fn follow_members<S: Storage>(&mut self, core: &mut Core<S>) {
        let mut members = core.membership.current().members();
        members.remove(&core.id());
        let next = core.log.last_index();
        self.peers
            .follow(&members, || Progress::of_new_member(next));
        self.maybe_commit(core);
        self.answer_confirmed_reads(core);
        self.needs_flush = true;
    }

    /// A leader whose removal is committed steps down (thesis 4.2.2). Not before: until then it may
    /// be the only one who can commit it. The others are told of the commit, or nobody could know.
    ///
    /// The best of them is asked to stand at once. Left alone they would wait for an election
    /// timeout first, and the two that are left of three, who both must agree, could then split
    /// their votes more than once.
    pub(crate) fn after_commit<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        let is_committed = core.membership.current_index() <= core.log.committed();
        if core.membership.quorum().contains(core.id()) || !is_committed {
            return Next::Stay;
        }
        self.replicate(core);
        if let Some(successor) = self.best_successor(core) {
            core.send(successor, Message::TimeoutNow);
        }
        Next::Follow(Reason::Removed)
    }
}
