//! Brings table and configuration together, whoever began the change.

use raft_core::{ConfigurationChange, MemberChange, NodeId};

use super::super::Driver;
use crate::kv::members::{MemberEdit, MemberState, MemberUpdate};

impl Driver {
    /// The next step towards a table and a configuration that say the same; whether there was one.
    pub(super) fn reconcile_members(&mut self) -> bool {
        let table = self.store.members();
        if table.is_empty()
            || self.members.edit.is_some()
            || !self.is_all_applied()
            || !self.is_configuration_committed()
        {
            return false;
        }
        let since = self.node.configuration_at(raft_core::LogIndex(u64::MAX));
        let versions = since.map(|(index, _)| (table.changed_at(), index));
        if self.members.reconciled == versions {
            return false;
        }
        let edits = self.due_edits();
        if !edits.is_empty() {
            let update = MemberUpdate {
                founding: Vec::new(),
                edits,
            };
            return self.propose_update(update).is_ok();
        }
        let joining = self.joining();
        if !joining.is_empty() {
            return self.propose_change(&joining).is_ok();
        }
        if self.has_learners() {
            return self.promote_learners();
        }
        self.members.reconciled = versions;
        false
    }

    /// What the table must be told of the configuration in force, which is committed.
    pub(super) fn due_edits(&self) -> Vec<MemberEdit> {
        let configuration = self.node.configuration();
        let mut edits = Vec::new();
        for (id, record) in self.store.members().present() {
            let node = NodeId(id);
            let is_voter = configuration.voters.contains(&node);
            let state = match record.state {
                MemberState::Joining | MemberState::Learner if is_voter => MemberState::Voter,
                MemberState::Joining if configuration.learners.contains(&node) => {
                    MemberState::Learner
                }
                MemberState::Learner | MemberState::Voter if !configuration.contains(node) => {
                    MemberState::Removed
                }
                MemberState::Joining
                | MemberState::Learner
                | MemberState::Voter
                | MemberState::Removed => continue,
            };
            edits.push(MemberEdit::State { id, state });
        }
        edits
    }

    /// Members that an earlier leader has announced, and not added.
    fn joining(&self) -> Vec<MemberChange> {
        // A request under way adds its own.
        if self.members.job.is_some() {
            return Vec::new();
        }
        let configuration = self.node.configuration();
        let joining = self.store.members().present().filter(|(id, record)| {
            record.state == MemberState::Joining && !configuration.contains(NodeId(*id))
        });
        joining
            .map(|(id, _)| MemberChange::AddLearner(NodeId(id)))
            .collect()
    }

    fn has_learners(&self) -> bool {
        let mut members = self.store.members().present();
        members.any(|(_, record)| record.state < MemberState::Voter)
    }

    /// Makes voters of the learners that have caught up and can be reached. Looked at once a tick: while one catches up this
    /// costs a plan each time.
    fn promote_learners(&mut self) -> bool {
        if self.members.looked_at_tick == self.now {
            return false;
        }
        self.members.looked_at_tick = self.now;
        let learners: Vec<(u64, Option<u64>)> = self
            .store
            .members()
            .present()
            .filter(|(id, record)| {
                record.state == MemberState::Learner && self.links.contains(&NodeId(*id))
            })
            .map(|(id, record)| (id, record.replaces))
            .collect();
        let mut changes = Vec::new();
        for (id, replaces) in learners {
            let own = self.promotion(NodeId(id), replaces.map(NodeId), &changes);
            let plan = ConfigurationChange::new(changes.iter().chain(&own).copied());
            let planned = self.node.plan_configuration(&plan);
            if planned.is_ok_and(|planned| self.check_quorum(&planned).is_ok()) {
                changes.extend(own);
            }
        }
        !changes.is_empty() && self.propose_change(&changes).is_ok()
    }

    /// The new one becomes a voter and the one that it replaces leaves, in one step: at no moment do both count, or neither.
    fn promotion(
        &self,
        learner: NodeId,
        replaces: Option<NodeId>,
        with: &[MemberChange],
    ) -> Vec<MemberChange> {
        let leaver = replaces.filter(|old| self.node.configuration().contains(*old));
        let leave = leaver.map(MemberChange::Remove);
        let leave = leave.filter(|leave| !with.contains(leave));
        std::iter::once(MemberChange::Promote(learner))
            .chain(leave)
            .collect()
    }
}
