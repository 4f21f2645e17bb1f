//! Standing for election, in earnest or not yet.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Next;
use crate::core::Core;
use crate::disk_health::is_healthy;
use crate::quorum::VoteResult;
use crate::{Event, Message, NodeId, Reason, Rejected, Storage, VoteRequest};

/// A disk that hung for a minute says nothing about those of others, and a request may be lost.
const EXTRA_ELECTION_TIMEOUTS_MAX: u32 = 20;

/// The answers so far.
///
/// A candidate that has waited for long enough asks for pre-votes for the next term, and can still
/// win the term in which it stood. All disks need five election timeouts for a sync: when n2's vote
/// for n1 reaches n1, n1 has given up waiting. If it came too late, so would every other vote.
#[derive(Debug, Default)]
pub(crate) struct Candidate {
    /// Of a pre-candidate: to what it asks for the next term.
    pre_votes: Answers,
    /// Votes in the current term. Empty if this node did not stand in it.
    votes: Answers,
    /// Of a candidate: ticks that its own vote took to reach the disk, or has taken so far.
    vote_ticks: u32,
}

#[derive(Clone, Debug, Default)]
struct Answers(BTreeMap<NodeId, bool>);

impl Answers {
    /// The first answer of each voter counts: a repeated message changes nothing.
    fn take(&mut self, from: NodeId, granted: bool) {
        self.0.entry(from).or_insert(granted);
    }

    fn result<S: Storage>(&self, core: &Core<S>) -> VoteResult {
        core.membership
            .quorum()
            .vote_result(|voter| self.0.get(&voter).copied())
    }
}

impl Candidate {
    /// A pre-candidate after this one, in the same term.
    pub(crate) fn standing_again(&self) -> Candidate {
        Candidate {
            pre_votes: Answers::default(),
            votes: self.votes.clone(),
            vote_ticks: 0,
        }
    }

    /// Whether this voter's vote in the current term was received.
    pub(crate) fn has_vote_of(&self, voter: NodeId) -> bool {
        self.votes.0.get(&voter) == Some(&true)
    }

    fn take_pre_vote<S: Storage>(
        &mut self,
        core: &Core<S>,
        from: NodeId,
        granted: bool,
    ) -> Result<Next, Rejected> {
        check_voter(core, from)?;
        self.pre_votes.take(from, granted);
        Ok(after_pre_vote(self.pre_votes.result(core)))
    }

    fn take_vote<S: Storage>(
        &mut self,
        core: &Core<S>,
        from: NodeId,
        granted: bool,
        in_earnest: bool,
    ) -> Result<Next, Rejected> {
        check_voter(core, from)?;
        self.votes.take(from, granted);
        let result = self.votes.result(core);
        // A pre-candidate asks for the next term already.
        let has_lost_before = !in_earnest && result == VoteResult::Lost;
        Ok(if has_lost_before {
            Next::Stay
        } else {
            after_vote(result)
        })
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
        self.pre_votes.take(core.id(), true);
        after_pre_vote(self.pre_votes.result(core))
    }

    /// Our own vote counts only from the moment it is on disk, like the vote of any other node.
    pub(crate) fn on_durable<S: Storage>(&mut self, core: &Core<S>) -> Next {
        if core.own_vote_is_durable() {
            self.votes.take(core.id(), true);
        }
        after_vote(self.votes.result(core))
    }

    /// No winner within the timeout: try again, at another time than the others.
    ///
    /// A candidate whose vote is still on its way to the disk has asked nobody yet. It waits: raising
    /// the term once per timeout while a disk hangs would win nothing, and depose a leader afterwards.
    /// The others get their time from when they are asked.
    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>, in_earnest: bool) -> Next {
        if in_earnest && !core.own_vote_is_durable() {
            self.vote_ticks = self.vote_ticks.saturating_add(1);
            core.timer.elapsed = 0;
            return Next::Stay;
        }
        core.timer.elapsed = core.timer.elapsed.saturating_add(1);
        let patience = core.timer.timeout.saturating_add(self.extra_ticks(core));
        if core.timer.elapsed < patience {
            Next::Stay
        } else if core.stands_by_itself() {
            Next::Campaign(Reason::ElectionTimeout)
        } else {
            Next::Follow(Reason::ElectionLost)
        }
    }

    /// For how much longer the others get time to vote, because the own disk was slow: theirs may be so
    /// as well, and at something else when the request comes.
    ///
    /// All disks need five election timeouts. n3 asks n1, which voted for itself and refuses, and n2,
    /// which writes its vote for n3. If n3 asked n1 for the next term meanwhile, and n1 stood in that
    /// one too, n2's vote would be late again, and so on.
    fn extra_ticks<S: Storage>(&self, core: &Core<S>) -> u32 {
        let timeout = core.config.election_timeout_ticks;
        if is_healthy(self.vote_ticks, timeout) {
            return 0;
        }
        let twice = self.vote_ticks.saturating_mul(2);
        twice.min(timeout.saturating_mul(EXTRA_ELECTION_TIMEOUTS_MAX))
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
            Message::PreVoteResponse(response) if !in_earnest => {
                self.take_pre_vote(core, from, response.granted)
            }
            Message::VoteResponse(response) if in_earnest || self.has_vote_of(core.id()) => {
                self.take_vote(core, from, response.granted, in_earnest)
            }
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

fn check_voter<S: Storage>(core: &Core<S>, from: NodeId) -> Result<(), Rejected> {
    match core.membership.current().is_voter(from) {
        true => Ok(()),
        false => Err(Rejected::UnknownSender { from }),
    }
}

fn other_voters<S: Storage>(core: &Core<S>) -> Vec<NodeId> {
    core.membership
        .current()
        .all_voters()
        .filter(|voter| *voter != core.id())
        .collect()
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
