//! Leader completeness: what is committed is in the log of every later leader (thesis 3.6).

use std::collections::BTreeSet;

use raft_core::{EntryId, NodeId, Role, Term};

use super::{Logs, Seen, Watcher};

/// Looks at the log of each new leader once.
#[derive(Clone, Debug, Default)]
pub struct LeaderCompleteness(BTreeSet<(Term, NodeId)>);

impl Watcher for LeaderCompleteness {
    const RULE: &'static str = "leader completeness";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let Seen::Turned(state) = seen else {
            return Ok(());
        };
        if state.role != Role::Leader || !self.0.insert((state.term, node)) {
            return Ok(());
        }
        // With log matching the newest one stands for all before it.
        let Some(newest) = logs.committed().last() else {
            return Ok(());
        };
        let id = EntryId {
            index: newest.index,
            term: newest.term,
        };
        // A log can hold a committed entry of a later term only if this leader is not the newest one.
        if id.term <= state.term && !logs.given(node).holds(id) {
            return Err(format!(
                "leads {} without {id}, which is committed",
                state.term
            ));
        }
        Ok(())
    }
}
