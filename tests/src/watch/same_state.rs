//! State machine safety (thesis 3.6.3): the state after entry i is what a replay of all committed entries up to i gives, on
//! every node, whether it got there entry by entry, by a snapshot, or after a crash in between.

use raft_core::{Entry, NodeId};

use super::{Logs, Seen, Watcher};

/// A state machine that can be replayed beside the cluster.
pub trait Replay {
    /// Applies the next entry.
    fn apply(&mut self, entry: &Entry);

    /// Hash of the state.
    fn hash(&self) -> u64;
}

/// Applies each committed entry once, and remembers the hash after it.
#[derive(Clone, Debug, Default)]
pub struct SameState<R> {
    replay: R,
    /// The hash after entry i is at i.
    hashes: Vec<u64>,
}

impl<R: Replay> SameState<R> {
    pub(super) fn new(replay: R) -> SameState<R> {
        let hashes = vec![replay.hash()];
        SameState { replay, hashes }
    }

    pub(super) fn replayed(&self) -> &R {
        &self.replay
    }

    fn catch_up(&mut self, logs: &Logs) {
        for entry in &logs.committed()[self.hashes.len() - 1..] {
            self.replay.apply(entry);
            self.hashes.push(self.replay.hash());
        }
    }
}

impl<R: Replay> Watcher for SameState<R> {
    const RULE: &'static str = "same state";

    fn see(&mut self, _: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let Seen::Turned(state) = seen else {
            return Ok(());
        };
        self.catch_up(logs);
        let applied = state.applied;
        let Some(expected) = self.hashes.get(applied.0 as usize) else {
            let committed = logs.committed_index();
            return Err(format!("applied {applied}, committed is {committed}"));
        };
        if *expected != state.hash {
            return Err(format!(
                "the state at {applied} is {:016x}, a replay gives {expected:016x}",
                state.hash
            ));
        }
        Ok(())
    }
}
