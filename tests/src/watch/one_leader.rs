//! Election safety: at most one leader in a term (thesis 3.2).

use std::collections::BTreeMap;

use raft_core::{NodeId, Role, Term};

use super::{Logs, Seen, Watcher};

/// Remembers who led which term.
#[derive(Clone, Debug, Default)]
pub struct OneLeader(BTreeMap<Term, NodeId>);

impl Watcher for OneLeader {
    const RULE: &'static str = "one leader";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, _: &Logs) -> Result<(), String> {
        let Seen::Turned(state) = seen else {
            return Ok(());
        };
        if state.role != Role::Leader {
            return Ok(());
        }
        let leader = *self.0.entry(state.term).or_insert(node);
        if leader != node {
            return Err(format!("leads {}, which {leader} led", state.term));
        }
        Ok(())
    }
}
