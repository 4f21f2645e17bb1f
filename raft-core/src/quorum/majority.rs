//! One set of voters.

use alloc::vec::Vec;

use super::VoteResult;
use crate::NodeId;

/// So many voters are reckoned with on the stack: a leader asks at each acknowledgement.
const FEW: usize = 7;

/// Number of voters that make a majority of `count`.
fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The largest value that a majority of the voters has reached, where `reached` tells each voter's
/// value. An empty set of voters holds nothing back, so that it can be one half of a joint quorum.
#[inline]
pub(super) fn reached_by_majority(voters: &[NodeId], reached: impl Fn(NodeId) -> u64) -> u64 {
    match *voters {
        [] => return u64::MAX,
        // As mostly: the middle one.
        [one, two, three] => {
            let (one, two, three) = (reached(one), reached(two), reached(three));
            return one.min(two).max(one.max(two).min(three));
        }
        _ => {}
    }
    let (mut few, mut many) = ([0; FEW], Vec::new());
    let values = match few.get_mut(..voters.len()) {
        Some(few) => few,
        None => {
            many.resize(voters.len(), 0);
            &mut many[..]
        }
    };
    for (value, voter) in values.iter_mut().zip(voters) {
        *value = reached(*voter);
    }
    values.sort_unstable();
    values[voters.len() - majority(voters.len())]
}

/// How a vote stands, where `answer` tells what each voter said, if anything yet. An empty set of
/// voters agrees.
pub(super) fn vote_result(
    voters: &[NodeId],
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
