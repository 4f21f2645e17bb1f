//! Two sets of voters that must both agree (thesis 4.3).

use super::{VoteResult, majority};
use crate::NodeId;

/// The voters of a configuration. Outside of a change of members the outgoing half is empty and
/// holds nothing back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JointQuorum<'a> {
    pub(crate) incoming: &'a [NodeId],
    pub(crate) outgoing: &'a [NodeId],
}

impl JointQuorum<'_> {
    /// Whether the node votes in either half.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.incoming.contains(&node) || self.outgoing.contains(&node)
    }

    /// The largest value that a majority of each half has reached.
    pub(crate) fn reached(&self, value: impl Fn(NodeId) -> u64) -> u64 {
        let incoming = majority::reached_by_majority(self.incoming, &value);
        if self.outgoing.is_empty() {
            return incoming;
        }
        incoming.min(majority::reached_by_majority(self.outgoing, &value))
    }

    /// How a vote stands: won in both halves, lost if lost in either.
    pub(crate) fn vote_result(&self, answer: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        let incoming = majority::vote_result(self.incoming, &answer);
        let outgoing = majority::vote_result(self.outgoing, &answer);
        match (incoming, outgoing) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            (VoteResult::Pending, VoteResult::Won | VoteResult::Pending)
            | (VoteResult::Won, VoteResult::Pending) => VoteResult::Pending,
        }
    }

    /// Whether these nodes alone make a quorum.
    pub(crate) fn is_met_by(&self, present: impl Fn(NodeId) -> bool) -> bool {
        self.vote_result(|voter| present(voter).then_some(true)) == VoteResult::Won
    }
}
