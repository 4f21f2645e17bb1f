//! The gate through which every message comes in: who, which term, and whether it makes sense at
//! all.

use crate::log::{Holds, slice};
use crate::role::RoleState;
use crate::{
    Envelope, Event, HeartbeatResponse, InstallSnapshot, Message, Node, NodeId, Reason, Rejected,
    RepairAnswer, RepairOutcome, SnapshotMeta, Storage, Term, VoteRefusal, VoteRequest,
    VoteResponse,
};

impl<S: Storage> Node<S> {
    /// A message arrived.
    ///
    /// # Errors
    /// If it was not acted on. That is no reason to drop its sender: most rejected messages are
    /// late or early. A message with content that contradicts itself is refused before anything
    /// else, so it does not even raise the term.
    pub fn step(&mut self, envelope: Envelope) -> Result<(), Rejected> {
        self.check_address(&envelope)?;
        check_content(&envelope)?;
        let Envelope {
            from,
            to: _,
            term,
            message,
        } = envelope;
        self.core.note_sender(from);
        match message {
            Message::PreVote(request) => {
                let leader = self.role.leader(self.core.id());
                self.core.answer_pre_vote(from, term, request, leader);
                Ok(())
            }
            Message::RepairAsk(ask) => {
                self.core.answer_repair_ask(from, term, ask);
                self.stand_back_if_damaged(); // Reading may have found it.
                Ok(())
            }
            Message::RepairAnswer(answer) => self.step_repair_answer(from, answer),
            Message::SnapshotAsk(ask) => {
                self.core.answer_snapshot_ask(from, ask);
                Ok(())
            }
            Message::RepairSnapshot(install) => {
                self.step_repair_snapshot(from, term, *install.meta)
            }
            message @ (Message::PreVoteResponse(_)
            | Message::Vote(_)
            | Message::VoteResponse(_)
            | Message::Append(_)
            | Message::AppendResponse(_)
            | Message::Commit(_)
            | Message::Heartbeat(_)
            | Message::HeartbeatResponse(_)
            | Message::InstallSnapshot(_)
            | Message::SnapshotResponse(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow
            | Message::Repairing(_)) => self.step_in_term(from, term, message),
        }
    }

    /// Handles a message that belongs to a term.
    fn step_in_term(&mut self, from: NodeId, term: Term, message: Message) -> Result<(), Rejected> {
        let before = self.core.term();
        if message.has_future_term() {
            self.check_pre_vote_grant(term)?;
        } else {
            self.observe_term(from, term, &message)?;
        }
        match self.role.step(&mut self.core, from, message) {
            Ok(next) => self.apply_next(next),
            // An answer to what this node was in an older term. That the term is over was all it
            // had to say.
            Err(Rejected::NotLeader | Rejected::Unasked) if self.core.term() > before => {}
            Err(rejected) => return Err(rejected),
        }
        Ok(())
    }

    fn step_repair_answer(&mut self, from: NodeId, answer: RepairAnswer) -> Result<(), Rejected> {
        self.core.take_repair_answer(from, answer)?;
        match self.role {
            RoleState::Leader(_) => {}
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.core.drop_what_nobody_had();
            }
        }
        Ok(())
    }

    /// A snapshot of committed state may come from anybody, of whatever term.
    fn step_repair_snapshot(
        &mut self,
        from: NodeId,
        term: Term,
        meta: SnapshotMeta,
    ) -> Result<(), Rejected> {
        if term > self.core.term() {
            self.become_follower(term, None, Reason::HigherTerm { from });
        }
        // A leader holds all that is committed, so only what it lost can be of use to it.
        let is_leader = matches!(self.role, RoleState::Leader(_));
        let is_foreign = is_leader && self.core.log.may_hold(meta.id) != Holds::Yes;
        if is_foreign || !self.core.log.is_faulty() {
            return Err(Rejected::Unasked);
        }
        self.core.take_repair_snapshot(meta)
    }

    fn check_address(&self, envelope: &Envelope) -> Result<(), Rejected> {
        let (from, to, term) = (envelope.from, envelope.to, envelope.term);
        if to != self.core.id() {
            return Err(Rejected::NotForMe { to });
        }
        if from == NodeId(0) || from == to {
            return Err(Rejected::UnknownSender { from });
        }
        if term == Term(0) || term > Term::MAX {
            return Err(Rejected::TermOutOfRange { term });
        }
        Ok(())
    }

    /// A grant names the term that would be; one for another term answers an older question.
    fn check_pre_vote_grant(&self, term: Term) -> Result<(), Rejected> {
        if term == self.core.term().next() {
            Ok(())
        } else {
            Err(Rejected::Unasked)
        }
    }

    /// Compares the message's term with our own: what is over is refused, what is newer is taken
    /// over at once.
    fn observe_term(
        &mut self,
        from: NodeId,
        term: Term,
        message: &Message,
    ) -> Result<(), Rejected> {
        let current = self.core.term();
        if term < current {
            self.answer_stale(from, message);
            return Err(Rejected::StaleTerm { term, current });
        }
        if let Message::Vote(request) = message {
            self.check_lease(from, term, *request)?;
        }
        let leader = message.is_from_leader().then_some(from);
        if term > current {
            self.become_follower(term, leader, Reason::HigherTerm { from });
        } else if leader.is_some() {
            self.hear_leader(from)?;
        }
        Ok(())
    }

    /// While a leader is heard nobody is elected in its place, and a candidate's higher term is not
    /// taken over. Without this a node that hears the others badly would depose one leader after
    /// the other. The leader's own wish to hand over is excepted.
    fn check_lease(
        &mut self,
        from: NodeId,
        term: Term,
        request: VoteRequest,
    ) -> Result<(), Rejected> {
        if term == self.core.term() || request.transfer {
            return Ok(());
        }
        let leader = self.core.live_leader(self.role.leader(self.core.id()));
        let ticks = self.core.owes_lease();
        let (why, rejected) = match (leader, ticks) {
            (Some(leader), _) => (
                VoteRefusal::LeaderAlive { leader },
                Rejected::LeaderAlive { leader },
            ),
            (None, 0) => return Ok(()),
            (None, ticks) => (
                VoteRefusal::LeaseOwed { ticks },
                Rejected::LeaseOwed { ticks },
            ),
        };
        self.core.event(Event::VoteRefused {
            term,
            to: from,
            why,
        });
        Err(rejected)
    }

    /// Tells whoever leads or campaigns in a term that is over, so that it stops. Also the way back
    /// for a node that was stranded at a higher term: its answer makes the leader step down, and a
    /// common term is found.
    ///
    /// The answer says nothing but the term. It must not echo a round of the old term: n1 led term
    /// 1 with round 50, and leads term 2 with round 3; a late heartbeat of term 1 reaches n2, and
    /// an answer "term 2, round 50" would confirm all rounds up to 50 that n1 is yet to begin in
    /// term 2.
    fn answer_stale(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::Append(_)
            | Message::Commit(_)
            | Message::Heartbeat(_)
            | Message::InstallSnapshot(_) => {
                let answer = HeartbeatResponse {
                    round: 0,
                    oldest_sync_age_ticks: 0,
                    priority: 0,
                };
                self.core.send(from, Message::HeartbeatResponse(answer));
            }
            Message::Vote(_) => self
                .core
                .send(from, Message::VoteResponse(VoteResponse { granted: false })),
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::HeartbeatResponse(_)
            | Message::SnapshotResponse(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::Repairing(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => {}
        }
    }
}

#[inline]
fn check_content(envelope: &Envelope) -> Result<(), Rejected> {
    match &envelope.message {
        Message::Append(append) => {
            slice::check_append(envelope.term, append).map_err(Rejected::MalformedAppend)
        }
        Message::InstallSnapshot(InstallSnapshot { meta })
        | Message::RepairSnapshot(InstallSnapshot { meta })
            if !slice::snapshot_is_sound(envelope.term, meta) =>
        {
            Err(Rejected::MalformedSnapshot)
        }
        Message::RepairAsk(ask) if !slice::repair_ask_is_sound(ask) => {
            Err(Rejected::MalformedRepair)
        }
        Message::RepairAnswer(answer) => check_repair_answer(answer),
        Message::InstallSnapshot(_)
        | Message::RepairSnapshot(_)
        | Message::RepairAsk(_)
        | Message::Repairing(_)
        | Message::SnapshotAsk(_)
        | Message::PreVote(_)
        | Message::PreVoteResponse(_)
        | Message::Vote(_)
        | Message::VoteResponse(_)
        | Message::AppendResponse(_)
        | Message::Commit(_)
        | Message::Heartbeat(_)
        | Message::HeartbeatResponse(_)
        | Message::SnapshotResponse(_)
        | Message::ReadIndex(_)
        | Message::ReadIndexResponse(_)
        | Message::TimeoutNow => Ok(()),
    }
}

fn check_repair_answer(answer: &RepairAnswer) -> Result<(), Rejected> {
    if !slice::repair_ask_is_sound(&answer.ask) {
        return Err(Rejected::MalformedRepair);
    }
    match &answer.outcome {
        RepairOutcome::Have { entries } => {
            slice::check_repair(&answer.ask, entries).map_err(Rejected::MalformedAppend)
        }
        RepairOutcome::Compacted { .. } | RepairOutcome::Never { .. } | RepairOutcome::Maybe => {
            Ok(())
        }
    }
}
