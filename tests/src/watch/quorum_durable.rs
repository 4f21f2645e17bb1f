//! A commit stands on disks: at the moment a leader takes an entry for committed, a quorum of the configuration in force holds
//! it durably, and the leader itself counts only by its own disk.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{Configuration, EntryId, NodeId, Role};

use super::{Logs, Seen, State, Watcher};

/// Counts the disks that hold what a leader newly commits. A turn that commits may also propose another configuration
/// afterwards, so that of the turn before is remembered.
#[derive(Clone, Debug, Default)]
pub struct QuorumDurable(BTreeMap<NodeId, Configuration>);

impl Watcher for QuorumDurable {
    const RULE: &'static str = "durable on a quorum";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let Seen::Turned(state) = seen else {
            return Ok(());
        };
        let before = self.0.get(&node);
        let result = check(node, state, state.configuration, logs);
        let result = match before {
            Some(before) if result.is_err() => check(node, state, before, logs).or(result),
            Some(_) | None => result,
        };
        if before != Some(state.configuration) {
            self.0.insert(node, state.configuration.clone());
        }
        result
    }
}

fn check(
    node: NodeId,
    state: &State<'_>,
    configuration: &Configuration,
    logs: &Logs,
) -> Result<(), String> {
    if state.role != Role::Leader || state.commit <= logs.committed_index() {
        return Ok(());
    }
    let Some(term) = logs.given(node).term(state.commit) else {
        return Ok(()); // Agreement tells of it.
    };
    let id = EntryId {
        index: state.commit,
        term,
    };
    let holders = |voters: &BTreeSet<NodeId>| {
        let holds = |voter: &&NodeId| logs.durable(**voter).is_some_and(|log| log.holds(id));
        voters.iter().filter(holds).count()
    };
    check_half(state, id, &configuration.voters, holders)?;
    check_half(state, id, &configuration.voters_outgoing, holders)
}

fn check_half(
    state: &State<'_>,
    id: EntryId,
    voters: &BTreeSet<NodeId>,
    holders: impl Fn(&BTreeSet<NodeId>) -> usize,
) -> Result<(), String> {
    let (held, quorum) = (holders(voters), voters.len() / 2 + 1);
    if voters.is_empty() || held >= quorum {
        return Ok(());
    }
    Err(format!(
        "committed {id} in {} while {held} disks held it, {quorum} of {} are needed",
        state.term,
        voters.len()
    ))
}
