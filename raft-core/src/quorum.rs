//! Arithmetic of majorities. Knows nothing of Raft but the ids.

mod joint;
mod majority;

pub(crate) use self::joint::JointQuorum;

/// How a vote stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VoteResult {
    /// Enough said yes.
    Won,
    /// Enough said no, so that yes can no longer win.
    Lost,
    /// Still open.
    Pending,
}

#[cfg(test)]
mod tests {
    //! The arithmetic against a slow and obvious version: all subsets of the voters are tried.

    use alloc::collections::{BTreeMap, BTreeSet};
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::NodeId;

    /// Whether `present` holds more than half of `voters`; an empty half agrees to anything.
    fn is_majority(voters: &[NodeId], present: &BTreeSet<NodeId>) -> bool {
        let count = voters
            .iter()
            .filter(|voter| present.contains(voter))
            .count();
        voters.is_empty() || count * 2 > voters.len()
    }

    fn is_quorum(quorum: JointQuorum<'_>, present: &BTreeSet<NodeId>) -> bool {
        is_majority(quorum.incoming, present) && is_majority(quorum.outgoing, present)
    }

    fn subsets(nodes: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
        let mut subsets = Vec::from([BTreeSet::new()]);
        for node in nodes {
            let with: Vec<_> = subsets
                .iter()
                .map(|set| set.iter().copied().chain([*node]).collect())
                .collect();
            subsets.extend(with);
        }
        subsets
    }

    fn all(quorum: JointQuorum<'_>) -> BTreeSet<NodeId> {
        let halves = quorum.incoming.iter().chain(quorum.outgoing);
        halves.copied().collect()
    }

    /// The largest of the given values that all members of some quorum have reached.
    fn slow_reached(quorum: JointQuorum<'_>, values: &BTreeMap<NodeId, u64>) -> u64 {
        let value = |node: &NodeId| values.get(node).copied().unwrap_or(0);
        let quorums = subsets(&all(quorum))
            .into_iter()
            .filter(|set| is_quorum(quorum, set));
        quorums
            .map(|set| set.iter().map(value).min().unwrap_or(u64::MAX))
            .max()
            .unwrap_or(0)
    }

    /// Won if those who said yes are a quorum, lost if even all who have not said no are none.
    fn slow_vote(quorum: JointQuorum<'_>, answers: &BTreeMap<NodeId, bool>) -> VoteResult {
        let yes = answers
            .iter()
            .filter(|(_, yes)| **yes)
            .map(|(node, _)| *node)
            .collect();
        let not_no = all(quorum)
            .into_iter()
            .filter(|node| answers.get(node) != Some(&false))
            .collect();
        if is_quorum(quorum, &yes) {
            VoteResult::Won
        } else if !is_quorum(quorum, &not_no) {
            VoteResult::Lost
        } else {
            VoteResult::Pending
        }
    }

    fn nodes(max: usize) -> impl Strategy<Value = BTreeSet<NodeId>> {
        prop::collection::btree_set((1..8_u64).prop_map(NodeId), 0..=max)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Case 26: a joint quorum is a majority of both halves, overlapping or not, for positions
        /// as for votes.
        #[test]
        fn quorum_arithmetic_agrees_with_trying_all_subsets(
            incoming in nodes(5).prop_filter("there are voters", |set| !set.is_empty()),
            outgoing in nodes(5),
            values in prop::collection::btree_map((1..8_u64).prop_map(NodeId), 0..6_u64, 0..8),
            answers in
                prop::collection::btree_map((1..8_u64).prop_map(NodeId), any::<bool>(), 0..8),
        ) {
            let [incoming, outgoing] = [incoming, outgoing].map(Vec::from_iter);
            let quorum = JointQuorum { incoming: &incoming, outgoing: &outgoing };
            let reached = quorum.reached(|node| values.get(&node).copied().unwrap_or(0));
            prop_assert_eq!(reached, slow_reached(quorum, &values));
            let result = quorum.vote_result(|node| answers.get(&node).copied());
            prop_assert_eq!(result, slow_vote(quorum, &answers));
            let present: BTreeSet<NodeId> = values.keys().copied().collect();
            let is_met = quorum.is_met_by(|node| present.contains(&node));
            prop_assert_eq!(is_met, is_quorum(quorum, &present));
        }
    }
}
