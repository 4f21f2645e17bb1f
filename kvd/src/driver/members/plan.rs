//! What a wish comes to: the change of the table, the change of the configuration, or a refusal with its reason.

use std::collections::BTreeSet;
use std::net::IpAddr;

use raft_core::{ChangeError, Configuration, ConfigurationChange, NodeId};

use super::super::Driver;
use super::Goal;
use crate::kv::members::{MemberEdit, MemberRefusal, MemberState, MemberTable, MemberUpdate};
use crate::names::{check_address, check_name};
use crate::wire::client::{MemberAddress, MemberChange, Quorum, Refusal};

/// A change that can be made.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) update: MemberUpdate,
    pub(super) configuration: Vec<raft_core::MemberChange>,
    pub(super) goals: Vec<Goal>,
    pub(super) before: Quorum,
    pub(super) after: Quorum,
}

impl Plan {
    /// All is as it was asked for.
    pub(super) fn changes_nothing(&self) -> bool {
        self.update.edits.is_empty() && self.configuration.is_empty()
    }
}

impl Driver {
    /// Plans a change, or says why it cannot be made.
    pub(super) fn plan_members(&self, changes: &[MemberChange]) -> Result<Plan, Refusal> {
        self.check_may_change()?;
        let table = self.founded_table();
        let mut plan = Plan {
            before: self.quorum_of(self.node.configuration()),
            ..Plan::default()
        };
        for change in changes {
            self.plan_one(&table, change, &mut plan)?;
        }
        let target = table
            .updated(&plan.update)
            .map_err(|refusal| refused(&refusal))?;
        let mut configuration = self.node.configuration().clone();
        if !plan.configuration.is_empty() {
            let change = ConfigurationChange::new(plan.configuration.iter().copied());
            let planned = self.node.plan_configuration(&change);
            configuration = planned.map_err(|error| self.refusal_of(&error))?;
            self.check_quorum(&configuration)?;
        }
        plan.after = self.quorum_of(&target_of(&configuration, &target));
        if self.store.members().is_empty() && !plan.changes_nothing() {
            plan.update.founding = self.founding();
        }
        Ok(plan)
    }

    fn check_may_change(&self) -> Result<(), Refusal> {
        if !self.is_leader() {
            let leader = self.leader.and_then(|id| self.member(id));
            return Err(Refusal::NotLeader { leader });
        }
        if self.stopping.is_some() {
            return Err(Refusal::Stopping);
        }
        if self.space.is_full() {
            return Err(Refusal::NoSpace);
        }
        if let Some(why) = self.under_way() {
            return Err(Refusal::MembersBusy { why });
        }
        Ok(())
    }

    /// What keeps the members from being changed at this moment.
    fn under_way(&self) -> Option<String> {
        let status = self.node.status();
        if let Some(to) = status.transfer {
            return Some(format!(
                "leadership is being handed to {}",
                self.name_of(to)
            ));
        }
        if !status.own_term_committed {
            return Some("the leader has just been elected, and has committed nothing yet".into());
        }
        if self.members.job.is_some() || !self.is_settled() {
            return Some("another change is under way".into());
        }
        None
    }

    /// The table, with those in it that the cluster was founded with.
    pub(super) fn founded_table(&self) -> MemberTable {
        let update = MemberUpdate {
            founding: self.founding(),
            edits: Vec::new(),
        };
        let table = self.store.members();
        // What it was founded with is left out if it makes no sense, and missed where it is needed.
        table.updated(&update).unwrap_or_else(|_| table.clone())
    }

    fn founding(&self) -> Vec<MemberAddress> {
        let configuration = self.node.configuration();
        let members = self.options.members.iter();
        members
            .filter(|member| configuration.contains(NodeId(member.id)))
            .cloned()
            .collect()
    }

    fn plan_one(
        &self,
        table: &MemberTable,
        change: &MemberChange,
        plan: &mut Plan,
    ) -> Result<(), Refusal> {
        match change {
            MemberChange::Add(new) => plan_join(table, new, None, plan),
            MemberChange::Replace { old, new } => {
                let replaced = named(table, old)?;
                plan_join(table, new, Some(replaced), plan)
            }
            MemberChange::Remove { name } => self.plan_remove(table, name, plan),
            MemberChange::Promote { name } => {
                let id = NodeId(named(table, name)?);
                if !self.node.configuration().voters.contains(&id) {
                    plan.configuration
                        .push(raft_core::MemberChange::Promote(id));
                    plan.goals.push(Goal::Voter(id));
                }
                Ok(())
            }
            MemberChange::Update { name, address } => plan_address(table, name, address, plan),
        }
    }

    fn plan_remove(&self, table: &MemberTable, name: &str, plan: &mut Plan) -> Result<(), Refusal> {
        let id = match named(table, name) {
            Ok(id) => id,
            Err(_) if was_removed(table, name) => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        if self.node.configuration().contains(NodeId(id)) {
            plan.configuration
                .push(raft_core::MemberChange::Remove(NodeId(id)));
        } else {
            plan.update.edits.push(MemberEdit::State {
                id,
                state: MemberState::Removed,
            });
        }
        plan.goals.push(Goal::Gone(NodeId(id)));
        Ok(())
    }

    /// Refuses a configuration in which this node would not reach enough voters to decide anything: in either half of it.
    pub(super) fn check_quorum(&self, next: &Configuration) -> Result<(), Refusal> {
        for half in [&next.voters, &next.voters_outgoing] {
            let (voters, reached) = (half.len(), self.reached(half));
            let quorum = voters / 2 + 1;
            if voters > 0 && reached.len() < quorum {
                let missing: Vec<String> = half
                    .difference(&reached)
                    .map(|id| self.name_of(*id))
                    .collect();
                let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                return Err(Refusal::QuorumAtRisk {
                    reachable: count(reached.len()),
                    quorum: count(quorum),
                    detail: format!("no link to {}", missing.join(", ")),
                });
            }
        }
        Ok(())
    }

    /// The core's refusal in the words of users.
    pub(super) fn refusal_of(&self, error: &ChangeError) -> Refusal {
        let busy = |why: String| Refusal::MembersBusy { why };
        let name = |id: &NodeId| self.name_of(*id);
        let why = match error {
            ChangeError::NotLeader { leader, .. } => {
                let leader = leader.and_then(|id| self.member(id));
                return Refusal::NotLeader { leader };
            }
            ChangeError::Transferring { .. }
            | ChangeError::OwnTermUncommitted { .. }
            | ChangeError::InProgress { .. }
            | ChangeError::Joint => return busy(error.to_string()),
            ChangeError::Behind {
                learner,
                matched,
                last,
            } => format!(
                "{} has not caught up: it holds the log up to {} of {}",
                name(learner),
                matched.0,
                last.0
            ),
            ChangeError::SnapshotPending(id) => {
                format!(
                    "{} has not caught up: it is being sent a snapshot",
                    name(id)
                )
            }
            ChangeError::Repairing(id) => format!("{} repairs its log", name(id)),
            ChangeError::AlreadyMember(id) => format!("{} is a member already", name(id)),
            ChangeError::NotMember(id) => format!("{} is no member", name(id)),
            ChangeError::NotLearner(id) => format!("{} is no learner", name(id)),
            ChangeError::NotVoter(id) => format!("{} is no voter", name(id)),
            ChangeError::NamedTwice(id) => format!("{} is named twice", name(id)),
            ChangeError::Configuration(raft_core::ConfigurationError::NoVoter) => {
                "no voter would be left".into()
            }
            ChangeError::Configuration(_)
            | ChangeError::NotJoint
            | ChangeError::Unchanged
            | ChangeError::NotSuccessor
            | _ => error.to_string(),
        };
        Refusal::MembersRefused { why }
    }
}

fn refused(refusal: &MemberRefusal) -> Refusal {
    Refusal::MembersRefused {
        why: refusal.to_string(),
    }
}

fn named(table: &MemberTable, name: &str) -> Result<u64, Refusal> {
    let found = table.named(name).map(|(id, _)| id);
    found.ok_or_else(|| Refusal::MembersRefused {
        why: match was_removed(table, name) {
            true => format!("{name} was removed"),
            false => format!("no member is called {name}"),
        },
    })
}

fn was_removed(table: &MemberTable, name: &str) -> bool {
    table.iter().any(|(_, record)| record.name == name)
}

fn plan_join(
    table: &MemberTable,
    new: &MemberAddress,
    replaces: Option<u64>,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    check_name(&new.name).map_err(|why| Refusal::MembersRefused {
        why: format!("the name {} {why}", new.name),
    })?;
    check_reachable(&new.address)?;
    let id = NodeId(new.id);
    plan.goals.push(Goal::Present(id));
    let known = table.get(new.id).is_some_and(|record| {
        let is_same = record.name == new.name && record.address == new.address;
        is_same && record.replaces == replaces && record.state != MemberState::Removed
    });
    if !known {
        plan.update.edits.push(MemberEdit::Join {
            member: new.clone(),
            replaces,
        });
        plan.configuration
            .push(raft_core::MemberChange::AddLearner(id));
    }
    Ok(())
}

fn plan_address(
    table: &MemberTable,
    name: &str,
    address: &str,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    check_reachable(address)?;
    let id = named(table, name)?;
    if table
        .get(id)
        .is_some_and(|record| record.address != address)
    {
        let address = address.to_owned();
        plan.update.edits.push(MemberEdit::Address { id, address });
    }
    Ok(())
}

/// Refuses what is no address, and what is an address to listen on but none that anybody could dial.
fn check_reachable(address: &str) -> Result<(), Refusal> {
    let refuse = |why: String| Refusal::MembersRefused {
        why: format!("the address {address} {why}"),
    };
    check_address(address).map_err(refuse)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            Err(refuse("is none that others can reach".into()))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The configuration when everybody who is on the way has become a voter.
fn target_of(configuration: &Configuration, table: &MemberTable) -> Configuration {
    let mut voters: BTreeSet<NodeId> = configuration.voters.clone();
    for (id, record) in table.present() {
        match record.state {
            MemberState::Joining | MemberState::Learner => {
                voters.insert(NodeId(id));
                if let Some(old) = record.replaces {
                    voters.remove(&NodeId(old));
                }
            }
            MemberState::Voter | MemberState::Removed => {}
        }
    }
    Configuration::new(voters)
}
