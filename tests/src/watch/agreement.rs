//! Nodes agree on what is committed, and none of them goes back on it.

use std::collections::BTreeMap;

use raft_core::{LogIndex, NodeId};

use super::{Logs, Seen, Watcher};

/// Compares what each node newly takes for committed with what others took for it.
#[derive(Clone, Debug, Default)]
pub struct Agreement(BTreeMap<NodeId, LogIndex>);

impl Watcher for Agreement {
    const RULE: &'static str = "agreement";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        if let Seen::Started { floor, .. } = seen {
            self.0.insert(node, floor.index);
        }
        let Seen::Turned(state) = seen else {
            return Ok(());
        };
        let known = self.0.entry(node).or_default();
        if state.commit < *known {
            return Err(format!(
                "commit index fell from {known} to {}",
                state.commit
            ));
        }
        let log = logs.given(node);
        if state.commit > log.last() {
            return Err(format!(
                "committed {}, its log ends at {}",
                state.commit,
                log.last()
            ));
        }
        for index in known.0 + 1..=state.commit.0.min(logs.committed_index().0) {
            let agreed = logs
                .committed_entry(LogIndex(index))
                .map(|entry| entry.term);
            let own = log.entry(LogIndex(index)).map(|entry| entry.term);
            if own.is_some() && own != agreed {
                return Err(format!(
                    "committed {index} of {own:?}, others of {agreed:?}"
                ));
            }
        }
        *known = state.commit;
        Ok(())
    }
}
