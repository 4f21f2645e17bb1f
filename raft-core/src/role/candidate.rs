//! Standing for election, in earnest or not yet.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Next;
use crate::core::Core;
use crate::quorum::VoteResult;
use crate::{Event, Message, NodeId, Reason, Rejected, Storage, VoteRequest};

/// The answers so far.
#[derive(Debug, Default)]
pub(crate) struct Candidate {
    answers: BTreeMap<NodeId, bool>,
}

impl Candidate {
    pub(crate) fn was_granted_by(&self, voter: NodeId) -> bool {
        self.answers.get(&voter) == Some(&true)
    }

    fn result<S: Storage>(&self, core: &Core<S>) -> VoteResult {
        core.membership
            .quorum()
            .vote_result(|voter| self.answers.get(&voter).copied())
    }

    /// Takes an answer. The first one of each voter counts: a repeated message changes nothing.
    fn take_answer<S: Storage>(
        &mut self,
        core: &Core<S>,
        from: NodeId,
        granted: bool,
    ) -> Result<VoteResult, Rejected> {
        if !core.membership.current().is_voter(from) {
            return Err(Rejected::UnknownSender { from });
        }
        self.answers.entry(from).or_insert(granted);
        Ok(self.result(core))
    }

    /// A pre-vote for ourselves promises nothing, so it counts at once.
    pub(crate) fn ask_for_pre_votes<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        let request = VoteRequest {
            last: core.log.last_id(),
            transfer: false,
            priority: core.config.priority,
        };
        let proposed = core.term().next();
        core.event(Event::PreVotesAsked { term: proposed });
        for voter in other_voters(core) {
            core.send_in(proposed, voter, Message::PreVote(request));
        }
        self.answers.insert(core.id(), true);
        after_pre_vote(self.result(core))
    }

    /// Our own vote counts only from the moment it is on disk, like the vote of any other node.
    pub(crate) fn on_durable<S: Storage>(&mut self, core: &Core<S>) -> Next {
        if core.own_vote_is_durable() {
            self.answers.insert(core.id(), true);
        }
        after_vote(self.result(core))
    }

    /// Handles a message. `in_earnest` tells a candidate from a pre-candidate.
    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        message: Message,
        in_earnest: bool,
    ) -> Result<Next, Rejected> {
        match message {
            Message::PreVoteResponse(response) if !in_earnest => self
                .take_answer(core, from, response.granted)
                .map(after_pre_vote),
            Message::VoteResponse(response) if in_earnest => self
                .take_answer(core, from, response.granted)
                .map(after_vote),
            Message::PreVoteResponse(_) | Message::VoteResponse(_) => Err(Rejected::Unasked),
            Message::Vote(request) => {
                core.answer_vote(from, request, None);
                Ok(Next::Stay)
            }
            Message::AppendResponse(_)
            | Message::HeartbeatResponse(_)
            | Message::SnapshotResponse(_)
            | Message::Repairing(_)
            | Message::ReadIndex(_) => Err(Rejected::NotLeader),
            Message::Append(_)
            | Message::Commit(_)
            | Message::Heartbeat(_)
            | Message::InstallSnapshot(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow => {
                unreachable!("whoever hears the leader of its term follows it")
            }
            Message::PreVote(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => unreachable!("handled at the gate"),
        }
    }
}

pub(crate) fn ask_for_votes<S: Storage>(core: &mut Core<S>, transfer: bool) {
    let request = VoteRequest {
        last: core.log.last_id(),
        transfer,
        priority: core.config.priority,
    };
    core.event(Event::VotesAsked { term: core.term() });
    for voter in other_voters(core) {
        core.send(voter, Message::Vote(request));
    }
}

fn other_voters<S: Storage>(core: &Core<S>) -> Vec<NodeId> {
    core.membership
        .current()
        .all_voters()
        .filter(|voter| *voter != core.id())
        .collect()
}

/// No winner within the timeout: try again, at another time than the others.
///
/// A candidate whose vote is still on its way to the disk has asked nobody yet. It waits: raising the
/// term once per timeout while a disk hangs would win nothing, and depose a leader afterwards.
pub(crate) fn tick<S: Storage>(core: &mut Core<S>, in_earnest: bool) -> Next {
    core.timer.elapsed = core.timer.elapsed.saturating_add(1);
    let waits_for_disk = in_earnest && !core.own_vote_is_durable();
    if core.timer.elapsed < core.timer.timeout || waits_for_disk {
        Next::Stay
    } else if core.stands_by_itself() {
        Next::Campaign(Reason::ElectionTimeout)
    } else {
        Next::Follow(Reason::ElectionLost)
    }
}

fn after_pre_vote(result: VoteResult) -> Next {
    match result {
        VoteResult::Won => Next::Stand(Reason::PreVoteWon),
        VoteResult::Lost => Next::Follow(Reason::ElectionLost),
        VoteResult::Pending => Next::Stay,
    }
}

fn after_vote(result: VoteResult) -> Next {
    match result {
        VoteResult::Won => Next::Lead,
        VoteResult::Lost => Next::Follow(Reason::ElectionLost),
        VoteResult::Pending => Next::Stay,
    }
}
