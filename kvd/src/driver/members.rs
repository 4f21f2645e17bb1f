//! Changing the members.
//!
//! Two things are replicated: the configuration, which is the core's and holds ids, and the table of members in the store,
//! which holds what people and sockets need. A change runs through both:
//!
//! ```text
//!  add      table: joining --> configuration: learner --> table: learner ... configuration: voter --> table: voter
//!  remove                      configuration: without it --> table: removed
//!  replace  as add; the configuration that makes the new one a voter is also the one that leaves the old one out
//! ```
//!
//! Whoever leads brings the two together, whatever an earlier leader had begun: the table follows a configuration once that is
//! committed, and the configuration follows members that are to join. So nothing has to be remembered outside of the log, and
//! nothing that was begun is left half done when a leader dies.

mod plan;
mod reconcile;

use std::collections::{BTreeSet, VecDeque};

use raft_core::{Configuration, ConfigurationChange, EntryId, LogIndex, NodeId, Term};

use super::{ClientId, Driver, Effect};
use crate::kv::command::Command;
use crate::kv::members::{MemberState, MemberUpdate};
use crate::kv::store::Applied;
use crate::wire::client::{MemberAddress, MemberChange, MemberLine, Quorum, Refusal, Response};

/// Requests for other members that may wait for the end of a turn.
const ASKED_MAX: usize = 64;

/// What the driver remembers of changes under way. All of it may be lost: the log has what matters.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The table that the shell knows, by the index of its last change.
    told: u64,
    /// Requests that nobody has looked at yet.
    asked: VecDeque<Asked>,
    /// The request that waits for its answer.
    job: Option<Job>,
    /// A change of the table that is not applied yet.
    edit: Option<EntryId>,
    /// Table and configuration that were found to fit together.
    reconciled: Option<(u64, LogIndex)>,
    /// When learners were last looked at.
    looked_at_tick: u64,
    /// A peer has said that this node was removed.
    told_removed: bool,
}

/// A client's wish.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) client: ClientId,
    pub(super) id: u64,
    pub(super) changes: Vec<MemberChange>,
    pub(super) dry_run: bool,
    pub(super) timeout_ms: u32,
}

/// A client's change.
#[derive(Debug)]
struct Job {
    client: ClientId,
    id: u64,
    deadline: u64,
    stage: Stage,
    /// The table changes as well: then a refusal of the rest does not undo it.
    announces: bool,
    /// What the configuration must become.
    changes: Vec<raft_core::MemberChange>,
    goals: Vec<Goal>,
    before: Quorum,
    after: Quorum,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The table changes first; this is the entry.
    Table(EntryId),
    /// The configuration is to be proposed.
    Configuration,
    /// All is proposed.
    Settling,
}

/// What must have become of a member before the client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Present(NodeId),
    Voter(NodeId),
    Gone(NodeId),
}

impl Driver {
    /// A client wants other members. Looked at when the events of this turn have had their effect: only then does the store
    /// hold all that is committed.
    pub(super) fn handle_change_members(&mut self, asked: Asked) {
        if self.members.asked.len() < ASKED_MAX {
            self.members.asked.push_back(asked);
            return;
        }
        let refusal = Refusal::Overloaded {
            what: "changes of members waiting".into(),
            limit: ASKED_MAX as u64,
        };
        self.refuse(asked.client, asked.id, refusal);
    }

    fn take_asked(&mut self) -> bool {
        let Some(asked) = self.members.asked.pop_front() else {
            return false;
        };
        self.begin_change(asked);
        true
    }

    fn begin_change(&mut self, asked: Asked) {
        let Asked {
            client,
            id,
            changes,
            dry_run,
            timeout_ms,
        } = asked;
        let plan = match self.plan_members(&changes) {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(client, id, refusal),
        };
        let (before, after) = (plan.before, plan.after);
        if dry_run || plan.changes_nothing() {
            return self.answer(client, id, Response::MembersChanged { before, after });
        }
        let mut job = Job {
            client,
            id,
            deadline: self.deadline(timeout_ms),
            stage: Stage::Configuration,
            announces: !plan.update.edits.is_empty(),
            changes: plan.configuration,
            goals: plan.goals,
            before,
            after,
        };
        if plan.update != MemberUpdate::default() {
            match self.propose_update(plan.update) {
                Ok(entry) => job.stage = Stage::Table(entry),
                Err(refusal) => return self.refuse(client, id, refusal),
            }
        }
        self.members.job = Some(job);
    }

    /// Proposes a change of the table.
    fn propose_update(&mut self, update: MemberUpdate) -> Result<EntryId, Refusal> {
        let proposed = self.propose_internal(&Command::Members(update));
        let entry = proposed.map_err(|error| Refusal::MembersBusy {
            why: error.to_string(),
        })?;
        self.members.edit = Some(entry);
        Ok(entry)
    }

    /// Plans, checks and proposes a configuration.
    fn propose_change(&mut self, changes: &[raft_core::MemberChange]) -> Result<(), Refusal> {
        let change = ConfigurationChange::new(changes.iter().copied());
        let planned = self.node.plan_configuration(&change);
        let planned = planned.map_err(|error| self.refusal_of(&error))?;
        // Learners cost nothing. To refuse them here, when they are announced, would leave them half added.
        if planned.is_joint() || planned.voters != self.node.configuration().voters {
            self.check_quorum(&planned)?;
        }
        self.propose_configuration(&planned)
    }

    fn propose_configuration(&mut self, configuration: &Configuration) -> Result<(), Refusal> {
        let proposal = self.sealed(configuration.encode().into());
        let proposed = self.node.propose_configuration(proposal);
        proposed
            .map(|entry| tracing::info!(%entry, %configuration, "change of members proposed"))
            .map_err(|error| self.refusal_of(&error))
    }

    /// Does the next step of whatever is under way; whether there was one. Only a leader takes steps.
    pub(super) fn advance_members(&mut self) -> bool {
        if self.halted {
            return false;
        }
        if !self.is_leader() {
            return self.take_asked();
        }
        if self.suspicion.is_some() {
            return self.leave_joint(); // All else needs the table, which may be wrong.
        }
        self.take_asked() || self.leave_joint() || self.advance_job() || self.reconcile_members()
    }

    fn leave_joint(&mut self) -> bool {
        let Some(left) = self.node.pending_leave() else {
            return false;
        };
        self.propose_configuration(&left).is_ok()
    }

    fn advance_job(&mut self) -> bool {
        let Some(job) = &self.members.job else {
            return false;
        };
        match job.stage {
            Stage::Table(_) => false,
            Stage::Configuration => {
                let changes = job.changes.clone();
                self.propose_job(&changes)
            }
            Stage::Settling => {
                if self.is_settled() && job.goals.iter().all(|goal| self.table_says(*goal)) {
                    self.conclude_job(None);
                }
                false
            }
        }
    }

    fn propose_job(&mut self, changes: &[raft_core::MemberChange]) -> bool {
        let proposed = match changes.is_empty() {
            true => Ok(()),
            false => self.propose_change(changes),
        };
        match proposed {
            Ok(()) => {
                if let Some(job) = &mut self.members.job {
                    job.stage = Stage::Settling;
                }
                true
            }
            // Until its time is up: what is in the way goes by.
            Err(Refusal::MembersBusy { .. }) => false,
            Err(refusal) => {
                let announced = self.members.job.as_ref().is_some_and(|job| job.announces);
                let refusal = match announced {
                    true => Refusal::OutcomeUnknown {
                        why: format!(
                            "the table of members has changed, the rest was refused: {refusal}"
                        ),
                    },
                    false => refusal,
                };
                self.conclude_job(Some(refusal));
                false
            }
        }
    }

    /// Answers the request; without a refusal it was done.
    fn conclude_job(&mut self, refusal: Option<Refusal>) {
        let Some(job) = self.members.job.take() else {
            return;
        };
        let response = match refusal {
            Some(refusal) => Response::Refused(refusal),
            None => Response::MembersChanged {
                before: job.before,
                after: job.after,
            },
        };
        self.answer(job.client, job.id, response);
    }

    /// An entry was applied: perhaps the change of the table that a request waits for.
    pub(super) fn note_member_edit(&mut self, index: LogIndex, term: Term, applied: &Applied) {
        if self.members.edit.is_some_and(|edit| edit.index <= index) {
            self.members.edit = None;
        }
        let Some(job) = &mut self.members.job else {
            return;
        };
        if job.stage != Stage::Table(EntryId { index, term }) {
            return;
        }
        match applied {
            Applied::Done { .. } => job.stage = Stage::Configuration,
            Applied::Refused(refusal) => {
                let refusal = refusal.clone().into();
                self.conclude_job(Some(refusal));
            }
        }
    }

    /// Leadership moved. A leader that left with its own change has done it; else the next one may do it, or not.
    pub(super) fn members_leadership_changed(&mut self) {
        self.members.edit = None;
        self.members.reconciled = None;
        let Some(job) = &self.members.job else { return };
        let configuration = self.node.configuration();
        let done = job.stage == Stage::Settling
            && self.is_configuration_committed()
            && job.goals.iter().all(|goal| goal.is_met_by(configuration));
        let unknown = Refusal::OutcomeUnknown {
            why:
                "leadership moved while the members changed; `member list` shows what became of it"
                    .into(),
        };
        self.conclude_job(Some(unknown).filter(|_| !done));
    }

    pub(super) fn expire_members(&mut self) {
        let now = self.now;
        if self
            .members
            .job
            .as_ref()
            .is_some_and(|job| job.deadline <= now)
        {
            let why = "no quorum has confirmed the change in time; it may still take effect".into();
            self.conclude_job(Some(Refusal::OutcomeUnknown { why }));
        }
    }

    /// Whether the configuration in force is committed and not the first of two steps.
    fn is_configuration_committed(&self) -> bool {
        let since = self.node.configuration_at(LogIndex(u64::MAX));
        let committed = since.is_some_and(|(index, _)| index <= self.node.commit_index());
        committed && !self.node.configuration().is_joint()
    }

    /// Whether nothing is under way: neither in the configuration nor in the table.
    fn is_settled(&self) -> bool {
        self.is_configuration_committed()
            && self.members.edit.is_none()
            && self.is_all_applied()
            && self.due_edits().is_empty()
    }

    /// Whether the table that is seen here is the newest one.
    fn is_all_applied(&self) -> bool {
        LogIndex(self.store.applied_index()) == self.node.commit_index()
    }

    fn table_says(&self, goal: Goal) -> bool {
        let state_of = |id: NodeId| self.store.members().get(id.0).map(|record| record.state);
        match goal {
            Goal::Present(id) => state_of(id)
                .is_some_and(|state| matches!(state, MemberState::Learner | MemberState::Voter)),
            Goal::Voter(id) => state_of(id) == Some(MemberState::Voter),
            Goal::Gone(id) => state_of(id) == Some(MemberState::Removed),
        }
    }

    /// Tells the shell who the members are, if that has changed.
    pub(super) fn tell_members(&mut self) {
        let table = self.store.members();
        if table.changed_at() == self.members.told {
            return;
        }
        self.members.told = table.changed_at();
        let gone = table
            .iter()
            .filter(|(_, record)| record.state == MemberState::Removed);
        let removed: BTreeSet<NodeId> = gone.map(|(id, _)| NodeId(id)).collect();
        self.links.retain(|peer| !removed.contains(peer));
        let members = self.members();
        self.effects.push(Effect::Members { members, removed });
    }

    /// A peer has said that this node is no member any more.
    pub(super) fn handle_removed(&mut self, by: NodeId) {
        if !self.members.told_removed {
            let by = self.name_of(by);
            tracing::error!(
                by,
                "this node was removed from the cluster: it takes no part any more"
            );
        }
        self.members.told_removed = true;
        // A leader does not answer what a node asks that it has left out.
        self.reads.ask_again();
    }

    /// Whether this node is no part of the configuration: nobody tells it who leads, so its clients must ask elsewhere, and at
    /// once.
    pub(super) fn is_outside(&self) -> bool {
        let is_member = self.node.configuration().contains(self.id);
        !self.is_leader() && (self.is_removed() || !is_member && self.is_configuration_committed())
    }

    /// Whether this node knows that it was removed.
    pub fn is_removed(&self) -> bool {
        self.members.told_removed || self.store.members().is_removed(self.id.0)
    }

    /// The members with their addresses: those of the replicated table, and as long as that does not know this node also those
    /// that it was given when it joined, which are newer.
    ///
    /// n1 to n3 were replaced by n4 to n6, and n7 joins these. It applies the log from its beginning, and for a while its table
    /// says n1 to n3. If it believed that it would refuse the links of all others, and nobody could tell it the rest.
    pub fn members(&self) -> Vec<MemberAddress> {
        let table = self.store.members();
        let mut members = table.addresses();
        if table.get(self.id.0).is_none() {
            let given = self.options.members.iter();
            let is_news = |member: &&MemberAddress| table.get(member.id).is_none();
            members.extend(given.filter(is_news).cloned());
        }
        members
    }

    pub(super) fn member(&self, id: NodeId) -> Option<MemberAddress> {
        self.members().into_iter().find(|member| member.id == id.0)
    }

    pub(super) fn member_named(&self, name: &str) -> Result<NodeId, Refusal> {
        let members = self.members();
        let member = members.iter().find(|member| member.name == name);
        member
            .map(|member| NodeId(member.id))
            .ok_or_else(|| Refusal::BadRequest {
                why: format!("no member is called {name}"),
            })
    }

    pub(super) fn member_table(&self) -> Response {
        let table = self.founded_table();
        let line = |member: MemberAddress| {
            let record = table.get(member.id);
            let replaces = record.and_then(|record| record.replaces);
            let replaced = replaces.filter(|old| !table.is_removed(*old));
            MemberLine {
                state: record.map_or(MemberState::Voter, |record| record.state),
                replaces: replaced.map(|old| self.name_of(NodeId(old))),
                reachable: self.reaches(NodeId(member.id)),
                address: member,
            }
        };
        Response::MemberTable {
            members: self.members().into_iter().map(line).collect(),
            leader: self.leader.map(|leader| leader.0),
            quorum: self.quorum_of(self.node.configuration()),
        }
    }

    /// Whether this node has a link to another one, or is it.
    fn reaches(&self, id: NodeId) -> bool {
        id == self.id || self.links.contains(&id)
    }

    pub(super) fn quorum_of(&self, configuration: &Configuration) -> Quorum {
        let count = |ids: &BTreeSet<NodeId>| u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let voters = &configuration.voters;
        let reached: BTreeSet<NodeId> = self.reached(voters);
        Quorum {
            voters: count(voters),
            quorum: count(voters) / 2 + 1,
            reachable: count(&reached),
            learners: count(&configuration.learners),
        }
    }

    fn reached(&self, voters: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let reached = voters.iter().copied().filter(|id| self.reaches(*id));
        reached.collect()
    }
}

impl Goal {
    fn is_met_by(self, configuration: &Configuration) -> bool {
        match self {
            Goal::Present(id) => configuration.contains(id),
            Goal::Voter(id) => configuration.voters.contains(&id),
            Goal::Gone(id) => !configuration.contains(id),
        }
    }
}
