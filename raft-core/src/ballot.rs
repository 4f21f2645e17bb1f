//! Who gets the vote of this node, and who does not.

use crate::core::Core;
use crate::{Event, Message, NodeId, Storage, Term, VoteRefusal, VoteRequest, VoteResponse};

/// For how long a preferred node holds off others. In three election timeouts it had the time to
/// stand once or twice itself.
const PREFERENCE_ELECTION_TIMEOUTS: u64 = 3;

impl<S: Storage> Core<S> {
    /// Answers whether the vote would be granted, and changes nothing.
    pub(crate) fn answer_pre_vote(
        &mut self,
        from: NodeId,
        proposed: Term,
        request: VoteRequest,
        leader: Option<NodeId>,
    ) {
        let refusal = self.pre_vote_refusal(proposed, request, leader);
        self.tell_refusal(proposed, from, refusal);
        let granted = refusal.is_none();
        if granted {
            let term = proposed;
            self.event(Event::PreVoteGranted { term, to: from });
        }
        let term = if granted { proposed } else { self.term() };
        let answer = Message::PreVoteResponse(VoteResponse { granted });
        self.send_in(term, from, answer);
    }

    /// Votes, if the vote of this term is still there and the candidate holds all that may be
    /// committed. Whoever asks is answered, member or not: n4 may be a candidate by a configuration
    /// that has not reached this node yet.
    pub(crate) fn answer_vote(
        &mut self,
        from: NodeId,
        request: VoteRequest,
        leader: Option<NodeId>,
    ) {
        let refusal = self.vote_refusal(from, request, leader);
        self.tell_refusal(self.term(), from, refusal);
        let granted = refusal.is_none();
        if granted {
            self.grant_vote(from);
        }
        self.send(from, Message::VoteResponse(VoteResponse { granted }));
    }

    fn tell_refusal(&mut self, term: Term, to: NodeId, refusal: Option<VoteRefusal>) {
        if let Some(why) = refusal {
            self.event(Event::VoteRefused { term, to, why });
        }
    }

    fn pre_vote_refusal(
        &self,
        proposed: Term,
        request: VoteRequest,
        leader: Option<NodeId>,
    ) -> Option<VoteRefusal> {
        let current = self.term();
        if proposed <= current {
            return Some(VoteRefusal::TermTooLow { current });
        }
        if let Some(leader) = self.live_leader(leader) {
            return Some(VoteRefusal::LeaderAlive { leader });
        }
        if let Some(to) = self.vote_under_way() {
            // All disks are slow: n3 stands while n2's vote for n1 is being written. If n2 said yes
            // to n3, its vote for n1 would be void before it arrived, and so could be the next one.
            return Some(VoteRefusal::VoteUnderWay { to });
        }
        let unfit = self.unfitness(request);
        unfit.or_else(|| self.preference_refusal(request))
    }

    fn vote_refusal(
        &self,
        from: NodeId,
        request: VoteRequest,
        leader: Option<NodeId>,
    ) -> Option<VoteRefusal> {
        let vote = self.hard_state.vote;
        if let Some(to) = vote.or(leader).filter(|to| *to != from) {
            return Some(VoteRefusal::AlreadyVoted { to });
        }
        // A vote that was given is not taken back for the sake of a preference: the candidate asks
        // again because it missed the answer.
        let preference = || match vote {
            Some(_) => None,
            None => self.preference_refusal(request),
        };
        self.unfitness(request).or_else(preference)
    }

    /// Why nobody may be elected with this node's help, or not this candidate.
    fn unfitness(&self, request: VoteRequest) -> Option<VoteRefusal> {
        let (own, count) = (self.log.last_id(), self.log.faults.count());
        if count > 0 {
            // It cannot judge another log, because it does not know its own.
            return Some(VoteRefusal::Repairing { count });
        }
        if !request.last.is_up_to_date_with(own) {
            let candidate = request.last;
            return Some(VoteRefusal::LogBehind { candidate, own });
        }
        self.lease_refusal(request)
    }

    fn grant_vote(&mut self, to: NodeId) {
        let term = self.term();
        if self.hard_state.vote.is_none() {
            self.hard_state.vote = Some(to);
            self.event(Event::VoteGranted { term, to });
        }
        let vote = self.hard_state.vote;
        assert_eq!(vote, Some(to), "second vote in term {term}");
        self.reset_timer();
    }

    /// With lease reads: the ticks for which a leader may still rely on this node not to elect
    /// anybody, this node included; 0 if none does.
    ///
    /// They are counted since a leader was last heard, whatever happened to the role or the term
    /// since then: n2 answers n1's heartbeat and is then told to campaign by its driver, and so is
    /// n3. Neither knows a leader any more, but n1 counts on both.
    ///
    /// A node that has just started has forgotten whom it answered, so it counts from its start.
    pub(crate) fn owes_lease(&self) -> u32 {
        let timeout = self.config.election_timeout_ticks;
        match self.config.lease_reads {
            true => timeout.saturating_sub(self.leaderless_ticks),
            false => 0,
        }
    }

    /// Whether a vote would break what a leader relies on. A transfer is excepted: the leader that
    /// asked for it has given up its lease.
    fn lease_refusal(&self, request: VoteRequest) -> Option<VoteRefusal> {
        match self.owes_lease() {
            0 => None,
            _ if request.transfer => None,
            ticks => Some(VoteRefusal::LeaseOwed { ticks }),
        }
    }

    /// Whether this node should lead rather than the candidate, whose log is up to date. A transfer
    /// is the leader's own wish, and goes to whom it likes.
    ///
    /// Only against a log that is not better than our own: with a worse one we could not win against
    /// the voters that hold the better one.
    ///
    /// And not for ever. n1 is preferred and n3 is down; n1 hears n2, but n2 does not hear n1. If n1
    /// always refused, n2 would never lead, though the two are a quorum, and n1 cannot lead. So
    /// after three election timeouts without a leader n1 helps whoever asks.
    fn preference_refusal(&self, request: VoteRequest) -> Option<VoteRefusal> {
        let (candidate, own) = (request.priority, self.config.priority);
        let timeout = self.config.election_timeout_ticks;
        let may_lead = self.stands_by_itself() && self.disk.is_healthy(timeout);
        let is_better = !self.log.last_id().is_up_to_date_with(request.last);
        let since = u64::from(self.leaderless_ticks);
        let is_patient = since <= PREFERENCE_ELECTION_TIMEOUTS * u64::from(timeout);
        let holds_off = candidate < own && may_lead && !is_better && is_patient;
        (holds_off && !request.transfer).then_some(VoteRefusal::PreferredSelf { candidate, own })
    }
}
