//! Disks that lose entries in a storm.

use raft_core::{Entry, LogIndex, NodeId, Storage};

use crate::Storm;
use crate::harness::disk::Left;

impl Storm {
    /// A disk loses an entry, or a few. What is on a quorum stays intact on one node at least; what
    /// only one node ever had may go.
    pub(crate) fn damage(&mut self) {
        let id = self.any();
        let stored: Vec<Entry> = self.cluster.disk(id).stored().cloned().collect();
        // Mostly near the end, where it matters most.
        let span = if self.dice.chance(70) { 3 } else { u64::MAX };
        let span = span.min(stored.len() as u64);
        if span == 0 || self.others_have_unknown_damage(id) {
            return;
        }
        let from = stored.len() - 1 - self.dice.roll(span) as usize;
        let count = 1 + self.dice.roll(3) as usize;
        let left = self.left_of_damage(id, stored.last().expect("not empty"), &stored[from]);
        for entry in stored.iter().skip(from).take(count) {
            let others = self.ids.iter().filter(|other| **other != id);
            let has_copy = |other: &&NodeId| self.cluster.has_copy(**other, entry.id());
            let holds = |other: &&NodeId| self.cluster.holds(**other, entry.id());
            let is_elsewhere = others.clone().any(|other| has_copy(&other));
            if is_elsewhere || !others.clone().any(|it| holds(&it)) {
                self.damage_one(id, entry.index, left);
            }
        }
    }

    /// Of the last entry the term is always known. Two nodes that both do not know what they lost
    /// may have to wait for each other.
    fn left_of_damage(&mut self, id: NodeId, last: &Entry, first: &Entry) -> Left {
        let others = self.ids.iter().filter(|other| **other != id);
        let is_whole = |other: &NodeId| self.cluster.disk(*other).initial_state().faulty.is_empty();
        let may_forget = first.index < last.index && others.clone().all(is_whole);
        // A single voter gives up nothing.
        let up = self.ids.iter().filter(|id| self.cluster.is_up(**id));
        let mut configurations = up.map(|id| self.cluster.status(*id).configuration);
        let is_alone =
            configurations.any(|it| it.voters.len() < 2 || it.voters_outgoing.len() == 1);
        match self.dice.roll(4) {
            _ if is_alone => Left::Header,
            0 | 1 => Left::Header,
            2 if may_forget && !self.cluster.is_up(id) => Left::Nothing,
            _ => Left::Term,
        }
    }

    /// Some damage is found at once, some when the entry is read.
    fn damage_one(&mut self, id: NodeId, index: LogIndex, left: Left) {
        let is_last = index == self.cluster.disk(id).last_index();
        if self.cluster.is_up(id) && self.dice.chance(40) {
            self.cluster.damage_silently(id, index);
        } else if left != Left::Nothing || !is_last {
            self.cluster.damage(id, index, left);
        }
    }

    /// The stated limit of repair: two nodes that both do not know what they lost may wait for each
    /// other.
    fn others_have_unknown_damage(&self, id: NodeId) -> bool {
        let faulty = |id: &NodeId| self.cluster.disk(*id).initial_state().faulty;
        let others = self.ids.iter().filter(|other| **other != id);
        others.flat_map(faulty).any(|it| it.term.is_none())
    }
}
