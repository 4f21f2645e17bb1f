//! From one configuration to the next.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Configuration;
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
    /// The configuration to propose for a change: a simple one if at most one voter comes or goes,
    /// else a joint one.
    ///
    /// One voter more or less leaves any two majorities with a common member, so one entry is
    /// enough (thesis 4.1); that is the usual case, and it is over after one commit. With two the
    /// majorities could be disjoint: {n1 n2} of {n1 n2 n3} and {n3 n4 n5} of {n1 .. n5}.
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
        if self.voters.symmetric_difference(&target.voters).count() > 1 {
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
        self.voters.symmetric_difference(&next.voters).count() <= 1
    }
}
