//! What must hold of a node at any time between two calls.

use crate::role::RoleState;
use crate::{LogIndex, Node, PeerState, Role, Storage};

impl<S: Storage> Node<S> {
    /// Walks the whole node and panics, with the values, if anything does not hold. For tests and
    /// simulations, after every call.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check_invariants(&self) {
        self.check_positions();
        self.check_terms();
        self.check_membership();
        self.check_faults();
        if let RoleState::Leader(_) = &self.role {
            self.check_leader();
        }
    }

    fn check_positions(&self) {
        let log = &self.core.log;
        let (applied, handed_out, committed) = (log.applied(), log.handed_out(), log.committed());
        assert!(
            applied <= handed_out,
            "applied {applied} beyond what was handed out, {handed_out}"
        );
        assert!(
            handed_out <= committed,
            "handed out {handed_out} beyond the commit index {committed}"
        );
        assert!(
            committed <= log.last_index(),
            "committed {committed} beyond the end {}",
            log.last_index()
        );
        assert_eq!(
            log.last_index(),
            log.unstable_end().prev(),
            "the log ends where its entries in memory do"
        );
        let (persisted, unstable) = (log.persisted(), log.unstable_first());
        if log.is_installing() {
            assert!(
                persisted < unstable,
                "persisted {persisted} while entries from {unstable} wait"
            );
        } else {
            assert_eq!(
                persisted,
                unstable.prev(),
                "what is not durable is kept in memory"
            );
            let stored = self.core.log.storage.first_index().prev();
            assert!(
                stored <= applied || log.is_covering(stored),
                "purged up to {stored}, but only {applied} is applied"
            );
        }
        if self.core.persistence.is_idle() && !log.has_unsubmitted() {
            assert_eq!(
                persisted,
                log.last_index(),
                "all is done, and something is not durable"
            );
        }
    }

    fn check_terms(&self) {
        let (log, state) = (&self.core.log, self.core.hard_state);
        let durable = self.core.persistence.durable();
        assert!(
            durable.term <= state.term,
            "the disk knows term {}, the memory {}",
            durable.term,
            state.term
        );
        if durable.term == state.term {
            let kept = durable.vote.is_none() || durable.vote == state.vote;
            assert!(
                kept,
                "vote of term {} changed from {durable} to {state}",
                state.term
            );
        }
        let mut before = None;
        let positions = (log.first_index().prev().0..=log.last_index().0).map(LogIndex);
        for index in positions.filter(|index| !log.faults.is_unknown(*index)) {
            let term = log.term(index).expect("all terms of the log are known");
            assert!(
                before.is_none_or(|before| before <= term),
                "the term falls at {index}"
            );
            before = Some(term);
        }
        assert!(
            before <= Some(state.term),
            "the log is ahead of term {}",
            state.term
        );
    }

    /// A damaged entry blocks what follows it, and with it this node's candidacy.
    fn check_faults(&self) {
        let log = &self.core.log;
        if !log.is_faulty() {
            return;
        }
        let last = log.last_index();
        assert!(
            !log.faults.is_unknown(last),
            "nobody knows in which term the log ends at {last}"
        );
        let beyond = log.faults.first_from(last.next());
        assert_eq!(beyond, None, "damaged beyond the end, {last}");
        let role = self.role.role();
        assert!(
            matches!(role, Role::Follower | Role::Leader),
            "{role} with a damaged log"
        );
    }

    fn check_membership(&self) {
        let (index, last) = (
            self.core.membership.current_index(),
            self.core.log.last_index(),
        );
        assert!(
            index <= last,
            "the configuration of {index} is not in the log, which ends at {last}"
        );
        let configuration = self.core.membership.current();
        assert_eq!(configuration.check(), Ok(()));
        let quorum = self.core.membership.quorum();
        assert!(
            quorum.incoming.iter().eq(&configuration.voters)
                && quorum.outgoing.iter().eq(&configuration.voters_outgoing),
            "{quorum:?} are not the voters of {configuration}"
        );
    }

    fn check_leader(&self) {
        let status = self.status();
        let mut others = status.configuration.members();
        others.remove(&status.id);
        let peers = status.progress.iter().map(|peer| peer.id);
        assert!(
            peers.eq(others.iter().copied()),
            "the leader's followers are not the members of {}",
            status.configuration
        );
        assert_eq!(
            status.vote,
            Some(status.id),
            "leads a term in which it voted for another"
        );
        for peer in status.progress {
            assert_ne!(peer.id, status.id, "a leader sends nothing to itself");
            assert!(peer.matched < peer.next, "{peer}");
            assert!(
                peer.matched <= status.last.index,
                "{peer}, but the log ends at {}",
                status.last
            );
            if let PeerState::Replicate { inflight } = peer.state {
                assert!(inflight <= self.core.config.max_inflight_appends, "{peer}");
            }
        }
    }
}
