//! Roles, and the only place where they change.

mod candidate;
mod follower;
mod leader;
mod lease;
mod membership;
mod repairing;
mod replication;
mod succession;
mod transfer;

use alloc::boxed::Box;

pub(crate) use self::candidate::Candidate;
pub(crate) use self::follower::{Follower, take_snapshot};
pub(crate) use self::leader::Leader;
use crate::core::Core;
use crate::{Event, Message, Node, NodeId, Reason, Rejected, Role, Storage, Term};

/// A node's role and what only this role knows.
///
/// ```text
///                     leader of this term heard, election lost
///        +----------------------------+---------------------------+
///        v                            |                           |
///    Follower ---- timeout ---> PreCandidate ---- won ---> Candidate ---- won ---> Leader
///        ^  \__ leader transfer, or no pre-vote ______________^ |                     |
///        |                            ^                        | timeout, and its     |
///        |                            +------------------------+ votes still count    |
///        +--------------- higher term seen, or quorum lost ---------------------------+
/// ```
#[derive(Debug)]
pub(crate) enum RoleState {
    Follower(Follower),
    PreCandidate(Candidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// What a handler wants to happen to the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Stay,
    /// Ask for pre-votes, or for votes if pre-vote is off.
    Campaign(Reason),
    /// Ask for votes at once: the pre-vote is won, or the leader hands over.
    Stand(Reason),
    Lead,
    Follow(Reason),
}

impl RoleState {
    pub(crate) fn role(&self) -> Role {
        match self {
            RoleState::Follower(_) => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The leader as far as known; `own` is this node.
    pub(crate) fn leader(&self, own: NodeId) -> Option<NodeId> {
        match self {
            RoleState::Follower(follower) => follower.leader,
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
            RoleState::Leader(_) => Some(own),
        }
    }

    /// Handles a message of the current term.
    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        message: Message,
    ) -> Result<Next, Rejected> {
        match self {
            RoleState::Follower(follower) => follower.step(core, from, message),
            RoleState::PreCandidate(candidate) => candidate.step(core, from, message, false),
            RoleState::Candidate(candidate) => candidate.step(core, from, message, true),
            RoleState::Leader(leader) => leader.step(core, from, message),
        }
    }

    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        match self {
            RoleState::Follower(follower) => follower.tick(core),
            RoleState::PreCandidate(candidate) => candidate.tick(core, false),
            RoleState::Candidate(candidate) => candidate.tick(core, true),
            RoleState::Leader(leader) => leader.tick(core),
        }
    }

    /// Whether [`RoleState::flush`] has something to do.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            RoleState::Follower(follower) => follower.reads.has_waiting(),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => false,
            RoleState::Leader(leader) => leader.has_unsent(),
        }
    }

    /// Sends what was put off to be sent together.
    pub(crate) fn flush<S: Storage>(&mut self, core: &mut Core<S>) {
        match self {
            RoleState::Follower(follower) => follower.flush(core),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
            RoleState::Leader(leader) => leader.flush(core),
        }
    }

    /// Tells the reads that wait that they will not be answered.
    fn end<S>(self, core: &mut Core<S>) {
        match self {
            RoleState::Follower(follower) => {
                core.outbox
                    .read_failures
                    .extend(follower.reads.into_reads());
            }
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
            RoleState::Leader(leader) => {
                if leader.leaves_elections_to_others() {
                    core.disk.fall_silent();
                }
                core.outbox.read_failures.extend(leader.into_local_reads())
            }
        }
    }
}

impl<S: Storage> Node<S> {
    /// Called after each message, and mostly with nothing to change.
    #[inline]
    pub(crate) fn apply_next(&mut self, next: Next) {
        if next != Next::Stay {
            self.change_role(next);
        }
    }

    fn change_role(&mut self, next: Next) {
        match next {
            Next::Stay => {}
            Next::Campaign(reason) if self.core.config.pre_vote => {
                self.become_pre_candidate(reason)
            }
            Next::Campaign(reason) | Next::Stand(reason) => self.become_candidate(reason),
            Next::Lead => self.become_leader(),
            Next::Follow(reason) => self.become_follower(self.core.term(), None, reason),
        }
    }

    /// On a higher term this is the whole of stepping down: whatever the disk does, a leader stops
    /// acting at once.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>, reason: Reason) {
        assert_ne!(
            leader,
            Some(self.core.id()),
            "following itself in term {term}"
        );
        if term > self.core.term() {
            self.core.advance_term(term, None);
        }
        self.core.reset_timer();
        if leader.is_some() {
            self.core.leaderless_ticks = 0;
        }
        self.replace_role(RoleState::Follower(Follower::new(leader)), reason);
    }

    fn become_pre_candidate(&mut self, reason: Reason) {
        assert_ne!(self.role.role(), Role::Leader, "a leader needs no votes");
        assert!(
            self.core.is_promotable(),
            "{} may not stand",
            self.core.id()
        );
        self.core.reset_timer();
        let candidate = match &self.role {
            RoleState::PreCandidate(before) | RoleState::Candidate(before) => {
                before.standing_again()
            }
            RoleState::Follower(_) | RoleState::Leader(_) => Candidate::default(),
        };
        self.replace_role(RoleState::PreCandidate(candidate), reason);
        let RoleState::PreCandidate(candidate) = &mut self.role else {
            unreachable!("the role was just set")
        };
        let next = candidate.ask_for_pre_votes(&mut self.core);
        self.apply_next(next);
    }

    fn become_candidate(&mut self, reason: Reason) {
        assert_ne!(self.role.role(), Role::Leader, "a leader needs no votes");
        assert!(
            self.core.is_promotable(),
            "{} may not stand",
            self.core.id()
        );
        assert!(
            reason == Reason::Transfer || self.core.owes_lease() == 0,
            "{} stands while a leader relies on it",
            self.core.id()
        );
        // The vote is for ourselves, so it too must reach the disk first: a crash between sending
        // and syncing would let n1 vote twice in term 7, once for itself and once for n2.
        self.core
            .advance_term(self.core.term().next(), Some(self.core.id()));
        self.core.reset_timer();
        self.replace_role(RoleState::Candidate(Candidate::default()), reason);
        candidate::ask_for_votes(&mut self.core, reason == Reason::Transfer);
    }

    fn become_leader(&mut self) {
        let (RoleState::Candidate(candidate) | RoleState::PreCandidate(candidate)) = &self.role
        else {
            panic!("{} won without standing", self.core.id())
        };
        let quorum = self.core.membership.quorum();
        assert!(
            quorum.is_met_by(|voter| candidate.has_vote_of(voter)),
            "won term {} without a quorum",
            self.core.term()
        );
        self.core.draw_timer();
        self.core.disk.end_silence();
        let leader = Leader::new(&mut self.core);
        self.replace_role(RoleState::Leader(Box::new(leader)), Reason::ElectionWon);
    }

    fn replace_role(&mut self, role: RoleState, reason: Reason) {
        let before = self.role.role();
        let leader_before = self.role.leader(self.core.id());
        let (to, leader) = (role.role(), role.leader(self.core.id()));
        core::mem::replace(&mut self.role, role).end(&mut self.core);
        let term = self.core.term();
        if before != to || self.announced_term != term {
            self.announced_term = term;
            self.core.event(Event::RoleChanged {
                from: before,
                to,
                term,
                reason,
            });
        }
        if leader != leader_before {
            self.core.event(Event::LeaderChanged { term, leader });
        }
    }

    /// A leader of this term was heard.
    pub(crate) fn hear_leader(&mut self, from: NodeId) -> Result<(), Rejected> {
        let term = self.core.term();
        match self.role.leader(self.core.id()) {
            Some(leader) if leader != from => Err(Rejected::SecondLeader { from, leader, term }),
            Some(_) => {
                self.core.timer.elapsed = 0;
                self.core.leaderless_ticks = 0;
                Ok(())
            }
            None => {
                self.become_follower(term, Some(from), Reason::LeaderHeard { leader: from });
                Ok(())
            }
        }
    }

    /// The disk holds more than before.
    pub(crate) fn on_durable(&mut self) {
        let next = match &mut self.role {
            RoleState::Follower(_) | RoleState::PreCandidate(_) => Next::Stay,
            RoleState::Candidate(candidate) => candidate.on_durable(&self.core),
            RoleState::Leader(leader) => {
                leader.maybe_commit(&mut self.core);
                leader.after_commit(&mut self.core)
            }
        };
        self.apply_next(next);
    }
}
