//! A start loses nothing that was durable.

use raft_core::{EntryId, LogIndex, NodeId};

use super::{Log, Logs, Seen, Watcher};

/// Compares what a node finds when it starts with what its last life had on the disk.
#[derive(Clone, Debug, Default)]
pub struct NothingLost;

impl Watcher for NothingLost {
    const RULE: &'static str = "nothing lost";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let Seen::Started {
            hard_state,
            floor,
            entries,
        } = *seen
        else {
            return Ok(());
        };
        let Some(durable) = logs.durable(node) else {
            return Ok(()); // Its first life.
        };
        let before = logs.hard_state(node);
        if hard_state.term < before.term
            || hard_state.term == before.term
                && before.vote.is_some()
                && hard_state.vote != before.vote
        {
            return Err(format!("{before:?} was durable, found {hard_state:?}"));
        }
        let found = Log::new(floor, entries);
        // What the disk was working on may have replaced the rest, or not.
        let settled = logs
            .unsettled_from(node)
            .map_or(u64::MAX, |index| index.0.saturating_sub(1));
        for index in durable.floor().index.0 + 1..=durable.last().0.min(settled) {
            let index = LogIndex(index);
            let Some(term) = durable.term(index) else {
                continue;
            };
            if !found.holds(EntryId { index, term }) {
                return Err(format!(
                    "{index}@{term} was durable, found {:?} in a log of {floor} up to {}",
                    found.term(index),
                    found.last()
                ));
            }
        }
        Ok(())
    }
}
