//! From one configuration to the next.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use super::Configuration;
use crate::types::write_spaced;
use crate::{ChangeError, NodeId};

/// What is to become of one member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum MemberChange {
    /// A node that is no member becomes a voter. Until it has the log it counts in the quorum and
    /// cannot help, so adding a learner and promoting it is the safer way (thesis 4.2.1).
    AddVoter(NodeId),
    /// A node that is no member becomes a learner.
    AddLearner(NodeId),
    /// A learner becomes a voter. Refused while it is far behind.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A voter or learner is no member any more.
    Remove(NodeId),
}

/// A request for any number of changes that take effect as one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ConfigurationChange {
    /// What changes; each node at most once.
    pub changes: Vec<MemberChange>,
    /// Whether a joint configuration is left without being asked. If not, it lasts until somebody
    /// proposes [`Node::plan_leave`](crate::Node::plan_leave).
    pub auto_leave: bool,
}

impl ConfigurationChange {
    /// These changes; a joint configuration between is left by itself.
    pub fn new(changes: impl IntoIterator<Item = MemberChange>) -> ConfigurationChange {
        ConfigurationChange {
            changes: changes.into_iter().collect(),
            auto_leave: true,
        }
    }
}

impl fmt::Display for MemberChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            MemberChange::AddVoter(_) => "add voter",
            MemberChange::AddLearner(_) => "add learner",
            MemberChange::Promote(_) => "promote",
            MemberChange::Demote(_) => "demote",
            MemberChange::Remove(_) => "remove",
        };
        write!(f, "{what} {}", self.node())
    }
}

impl fmt::Display for ConfigurationChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        write_spaced(f, &self.changes)?;
        f.write_str(if self.auto_leave { ") auto" } else { ")" })
    }
}

impl MemberChange {
    /// Whose part changes.
    pub fn node(&self) -> NodeId {
        match self {
            MemberChange::AddVoter(node)
            | MemberChange::AddLearner(node)
            | MemberChange::Promote(node)
            | MemberChange::Demote(node)
            | MemberChange::Remove(node) => *node,
        }
    }
}

impl Configuration {
    /// The configuration to propose for a change: a simple one if at most one voter comes or goes
    /// and there are other than two voters, else a joint one.
    ///
    /// One voter more or less leaves any two majorities with a common member, so one entry is
    /// enough (thesis 4.1); that is the usual case, and it is over after one commit. With two the
    /// majorities could be disjoint: {n1 n2} of {n1 n2 n3} and {n3 n4 n5} of {n1 .. n5}.
    ///
    /// Two voters change jointly, so that nothing is ever committed without both of them until
    /// both hold the change. With {n1 n2} then {n1 n2 n3} n1 and n3 could commit it, and if n1 lost
    /// its entry, n2 could not tell it that there is an n3.
    ///
    /// # Errors
    /// If this is a joint configuration, or the change does not fit the members, or no voter would
    /// be left.
    pub fn changed(&self, change: &ConfigurationChange) -> Result<Configuration, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        let mut target = self.clone();
        let mut named = BTreeSet::new();
        for member_change in &change.changes {
            if !named.insert(member_change.node()) {
                return Err(ChangeError::NamedTwice(member_change.node()));
            }
            target.apply(*member_change)?;
        }
        if target == *self {
            return Err(ChangeError::Unchanged);
        }
        if !self.may_change_simply_to(&target) {
            target.learners_next = &target.learners & &self.voters;
            target.learners = &target.learners - &target.learners_next;
            target.voters_outgoing = self.voters.clone();
            target.auto_leave = change.auto_leave;
        }
        target.check().map_err(ChangeError::Configuration)?;
        Ok(target)
    }

    fn apply(&mut self, change: MemberChange) -> Result<(), ChangeError> {
        let node = change.node();
        match change {
            MemberChange::AddVoter(_) | MemberChange::AddLearner(_) if self.contains(node) => {
                return Err(ChangeError::AlreadyMember(node));
            }
            MemberChange::Promote(_) if !self.learners.contains(&node) => {
                return Err(ChangeError::NotLearner(node));
            }
            MemberChange::Demote(_) if !self.voters.contains(&node) => {
                return Err(ChangeError::NotVoter(node));
            }
            MemberChange::Remove(_) if !self.contains(node) => {
                return Err(ChangeError::NotMember(node));
            }
            MemberChange::AddVoter(_) | MemberChange::Promote(_) => {
                self.learners.remove(&node);
                self.voters.insert(node);
            }
            MemberChange::AddLearner(_) | MemberChange::Demote(_) => {
                self.voters.remove(&node);
                self.learners.insert(node);
            }
            MemberChange::Remove(_) => {
                self.voters.remove(&node);
                self.learners.remove(&node);
            }
        }
        Ok(())
    }

    /// The configuration that ends this joint one; none if this is not joint.
    pub fn left(&self) -> Option<Configuration> {
        self.is_joint().then(|| Configuration {
            voters: self.voters.clone(),
            learners: &self.learners | &self.learners_next,
            ..Configuration::default()
        })
    }

    /// Whether `next` may follow this configuration in a log: any majority (or joint quorum) of the
    /// one must have a member in common with any of the other.
    pub(crate) fn may_be_followed_by(&self, next: &Configuration) -> bool {
        if self.is_joint() {
            return self.left().as_ref() == Some(next);
        }
        if next.is_joint() {
            return next.voters_outgoing == self.voters;
        }
        self.may_change_simply_to(next)
    }

    /// Whether one entry is enough between these two sets of voters.
    fn may_change_simply_to(&self, next: &Configuration) -> bool {
        let most = if self.voters.len() == 2 { 0 } else { 1 };
        self.voters.symmetric_difference(&next.voters).count() <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogIndex;
    use crate::membership::Membership;

    const NODES: u64 = 4;

    /// The set whose members are the bits of `mask`.
    fn set(mask: u64) -> BTreeSet<NodeId> {
        let ids = (1..=NODES).filter(|id| mask & (1 << (id - 1)) != 0);
        ids.map(NodeId).collect()
    }

    fn simple(mask: u64) -> Configuration {
        Configuration::new(set(mask))
    }

    fn joint(incoming: u64, outgoing: u64) -> Configuration {
        Configuration {
            voters_outgoing: set(outgoing),
            ..simple(incoming)
        }
    }

    /// Which sets of nodes are quorums.
    fn quorums(configuration: &Configuration) -> Vec<u64> {
        let membership = Membership::new(LogIndex(0), configuration.clone());
        let is_quorum = |mask: &u64| {
            let present = set(*mask);
            let quorum = membership.quorum();
            quorum.is_met_by(|node| present.contains(&node))
        };
        (0..1 << NODES).filter(is_quorum).collect()
    }

    /// Cases 25 and 26: whatever may follow a configuration, no quorum of the one and quorum of the
    /// other are disjoint. All configurations of up to four voters are tried.
    #[test]
    fn configurations_that_follow_each_other_share_a_node_in_any_two_quorums() {
        let masks = 1..1 << NODES;
        let joints = masks
            .clone()
            .flat_map(|incoming| masks.clone().map(move |outgoing| joint(incoming, outgoing)));
        let all: Vec<(Configuration, Vec<u64>)> = masks
            .clone()
            .map(simple)
            .chain(joints)
            .map(|configuration| (configuration.clone(), quorums(&configuration)))
            .collect();
        let mut followed = 0;
        for (before, before_quorums) in &all {
            for (after, after_quorums) in &all {
                if !before.may_be_followed_by(after) {
                    continue;
                }
                followed += 1;
                let disjoint = before_quorums
                    .iter()
                    .any(|one| after_quorums.iter().any(|other| one & other == 0));
                assert!(!disjoint, "{before} then {after}");
            }
        }
        assert!(followed > 400, "only {followed} pairs");
    }

    /// Case 26: a joint configuration is followed by the one it leads to and by no other.
    #[test]
    fn joint_configurations_are_only_left() {
        let joint = joint(0b0011, 0b1100);
        let more = ConfigurationChange::new([MemberChange::AddLearner(NodeId(9))]);
        assert_eq!(joint.changed(&more), Err(ChangeError::Joint));
        assert!(joint.may_be_followed_by(&simple(0b0011)));
        assert!(!joint.may_be_followed_by(&simple(0b0111)));
        assert!(!joint.may_be_followed_by(&joint));
        assert_eq!(simple(0b0011).left(), None);
    }

    #[test]
    fn one_voter_changes_simply_and_more_jointly() {
        let add = MemberChange::AddVoter(NodeId(4));
        let demote = MemberChange::Demote(NodeId(1));
        let base = simple(0b0111);
        let one = base.changed(&ConfigurationChange::new([add]));
        assert_eq!(one, Ok(simple(0b1111)));
        let two = base.changed(&ConfigurationChange::new([add, demote]));
        let expected = Configuration {
            learners_next: set(0b0001),
            auto_leave: true,
            ..joint(0b1110, 0b0111)
        };
        assert_eq!(two, Ok(expected.clone()));
        let left = expected.left().expect("it is joint");
        assert_eq!(left.voters, set(0b1110));
        assert_eq!(left.learners, set(0b0001));
        assert_eq!(left.check(), Ok(()));
    }

    /// From two voters on, whoever commits anything has asked both of them; a voter that lost the
    /// end of its log relies on it.
    #[test]
    fn two_voters_change_jointly() {
        let base = simple(0b0011);
        let changed = |change| base.changed(&ConfigurationChange::new([change]));
        let auto = |configuration| Configuration {
            auto_leave: true,
            ..configuration
        };
        let added = changed(MemberChange::AddVoter(NodeId(3)));
        assert_eq!(added, Ok(auto(joint(0b0111, 0b0011))));
        let removed = changed(MemberChange::Remove(NodeId(2)));
        assert_eq!(removed, Ok(auto(joint(0b0001, 0b0011))));
        let learner = changed(MemberChange::AddLearner(NodeId(3)));
        assert!(!learner.expect("a change").is_joint());
        assert!(!base.may_be_followed_by(&simple(0b0111)));
        assert!(!base.may_be_followed_by(&simple(0b0001)));
        for after in 1..1 << NODES {
            let next = simple(after);
            let together = quorums(&next).into_iter().all(|it| it & 0b0011 == 0b0011);
            assert!(together || !base.may_be_followed_by(&next), "{next}");
        }
    }
}
