//! How fast a repairing node asks, and asks again.

use alloc::collections::BTreeMap;

use crate::{Config, NodeId};

/// A node that was asked is left alone for so many heartbeats, at first.
const WAIT_HEARTBEATS: u32 = 2;
/// And for so many election timeouts at most.
const WAIT_ELECTION_TIMEOUTS_MAX: u32 = 8;
/// More than enough to get from the one to the other.
const DOUBLINGS_MAX: u32 = 16;

/// One node that was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Questions that it has not answered.
    open: usize,
    /// Until it is asked again.
    wait_ticks: u32,
    /// How often in a row it was asked and did not answer.
    silences: u32,
}

/// Whom to ask when.
///
/// A node that owes answers is left alone for two heartbeats, then for four, and so on: its answers
/// may be large, and its link slow. One that has answered is asked again at once if anything came
/// back from anybody, and else after two heartbeats.
#[derive(Debug, Default)]
pub(super) struct Pace {
    asked: BTreeMap<NodeId, Asked>,
    is_due: bool,
}

impl Pace {
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    pub(super) fn tick(&mut self) {
        for asked in self.asked.values_mut() {
            asked.wait_ticks = asked.wait_ticks.saturating_sub(1);
            self.is_due |= asked.wait_ticks == 0;
        }
    }

    pub(super) fn may_ask(&self, peer: NodeId) -> bool {
        self.asked.get(&peer).is_none_or(|it| it.wait_ticks == 0)
    }

    pub(super) fn on_asked(&mut self, peer: NodeId, questions: usize, config: &Config) {
        let asked = self.asked.entry(peer).or_default();
        let least = config.heartbeat_ticks.saturating_mul(WAIT_HEARTBEATS);
        let most = config.election_timeout_ticks;
        let most = most.saturating_mul(WAIT_ELECTION_TIMEOUTS_MAX);
        asked.open = questions;
        asked.wait_ticks = least.saturating_mul(1 << asked.silences).min(most);
        asked.silences = (asked.silences + 1).min(DOUBLINGS_MAX);
    }

    pub(super) fn on_answered(&mut self, peer: NodeId) {
        if let Some(asked) = self.asked.get_mut(&peer) {
            asked.open = asked.open.saturating_sub(1);
            asked.silences = 0;
        }
    }

    /// Something came back, or new damage was found.
    pub(super) fn on_progress(&mut self) {
        self.is_due = true;
        for asked in self.asked.values_mut().filter(|it| it.open == 0) {
            asked.wait_ticks = 0;
        }
    }

    /// There is one more who can be asked.
    pub(super) fn on_newcomer(&mut self) {
        self.is_due = true;
    }

    pub(super) fn on_flushed(&mut self) {
        self.is_due = false;
    }

    /// What was asked of `peer` may be lost.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.is_due |= self.asked.remove(&peer).is_some();
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const PEER: NodeId = NodeId(2);

    #[test]
    fn silent_node_is_asked_less_and_less() {
        let (mut pace, config) = (Pace::default(), Config::new(NodeId(1), 0));
        let mut asked_at = Vec::new();
        for tick in 0..300 {
            if pace.may_ask(PEER) {
                pace.on_asked(PEER, 4, &config);
                asked_at.push(tick);
            }
            pace.tick();
        }
        assert_eq!(asked_at, [0, 2, 6, 14, 30, 62, 126, 206, 286]);
    }

    #[test]
    fn node_that_answered_is_asked_again_when_something_came_back() {
        let mut pace = Pace::default();
        pace.on_asked(PEER, 1, &Config::new(NodeId(1), 0));
        pace.on_progress();
        assert!(!pace.may_ask(PEER), "it still owes an answer");
        pace.on_answered(PEER);
        assert!(!pace.may_ask(PEER), "nothing came back since");
        pace.on_progress();
        assert!(pace.may_ask(PEER));
    }
}
