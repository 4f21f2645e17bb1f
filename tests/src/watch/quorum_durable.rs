//! A commit stands on disks: at the moment a leader takes an entry for committed, a quorum of the configuration in force holds
//! it durably, and the leader itself counts only by its own disk.

use std::collections::BTreeSet;

use raft_core::{EntryId, NodeId, Role};

use super::{Logs, Seen, State, Watcher};

/// Counts the disks that hold what a leader newly commits.
#[derive(Clone, Debug, Default)]
pub struct QuorumDurable;

impl Watcher for QuorumDurable {
    const RULE: &'static str = "durable on a quorum";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let Seen::Turned(state) = seen else {
            return Ok(());
        };
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
        check_half(state, id, &state.configuration.voters, holders)?;
        check_half(state, id, &state.configuration.voters_outgoing, holders)
    }
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
