//! One set of voters.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::VoteResult;
use crate::NodeId;

/// Number of voters that make a majority of `count`.
fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The largest value that a majority of the voters has reached, where `reached` tells each voter's
/// value. An empty set of voters holds nothing back, so that it can be one half of a joint quorum.
pub(super) fn reached_by_majority(
    voters: &BTreeSet<NodeId>,
    reached: impl Fn(NodeId) -> u64,
) -> u64 {
    if voters.is_empty() {
        return u64::MAX;
    }
    let mut values: Vec<u64> = voters.iter().map(|voter| reached(*voter)).collect();
    values.sort_unstable();
    values[voters.len() - majority(voters.len())]
}

/// How a vote stands, where `answer` tells what each voter said, if anything yet. An empty set of
/// voters agrees.
pub(super) fn vote_result(
    voters: &BTreeSet<NodeId>,
    answer: impl Fn(NodeId) -> Option<bool>,
) -> VoteResult {
    if voters.is_empty() {
        return VoteResult::Won;
    }
    let count_of = |wanted| {
        voters
            .iter()
            .filter(|voter| answer(**voter) == Some(wanted))
            .count()
    };
    let needed = majority(voters.len());
    if count_of(true) >= needed {
        VoteResult::Won
    } else if voters.len() - count_of(false) < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}
