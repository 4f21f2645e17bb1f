//! Repairing: getting damaged entries back from the other nodes. It needs no leader.
//!
//! Entries with the same index and term are the same on every node (log matching, thesis 3.5), so a
//! node that lost 7@3 may take it from anybody who has it, committed or not. Until all are back the
//! node takes part only as far as it can without making promises that rest on what it cannot read:
//!
//! * It grants no vote and no pre-vote, and does not stand. n1 and n2 hold 7@3, n1's copy is
//!   damaged; if n1 forgot it and voted for n3, a committed entry would be gone.
//! * It writes what the leader sends, and says [`Repairing`](crate::Repairing) instead of
//!   acknowledging. It refuses an append only over entries whose terms it knows.
//! * It answers heartbeats: they are about who leads, not about what is in the log.
//!
//! Damaged entries, and what follows them, are given up only if the leader overwrites them by the
//! ordinary conflict rule, a snapshot covers them, or **all** other voters say that they never had
//! them. A majority is not enough: n3, who leads and has the entry, may be counting the
//! acknowledgement that this node gave before the damage.

mod answer;
mod pace;
mod receive;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use self::pace::Pace;
use crate::core::Core;
use crate::{
    Event, LogIndex, Message, NodeId, RepairAsk, RepairId, RepairStatus, SnapshotAsk, Storage,
};

/// Runs of damaged entries that are asked for at a time. The next ones are asked for as soon as the
/// answers are there, so that slow links do not fill with answers.
const RUNS_MAX: usize = 4;

/// After so many election timeouts without a step forward a snapshot is asked for.
const ENTRIES_PATIENCE_TIMEOUTS: u32 = 3;

/// A snapshot that was asked for may take so many election timeouts to arrive, until another node
/// is asked. It may be large, and nothing tells how far it is. Who sends one already does not begin
/// anew.
const SNAPSHOT_PATIENCE_TIMEOUTS: u32 = 10;

/// So many senders that are no members are remembered. The transport knows who they are, so there
/// are few; this is the bound if it does not.
const STRANGERS_MAX: usize = 16;

/// When what is asked again.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    /// Damage up to this number has been told.
    announced: RepairId,
    pace: Pace,
    /// Who spoke to this node since it knows of its damage, and is no member as far as it knows. What
    /// made it one may be just what is damaged.
    strangers: BTreeSet<NodeId>,
    /// Ticks since anything came back.
    idle_ticks: u32,
    /// Who was asked for a snapshot last.
    snapshot_from: Option<NodeId>,
    /// It was asked because it said that it has one, and not in turn.
    snapshot_was_offered: bool,
    /// Snapshots that end before this are of no use: whether they are of this log cannot be told.
    snapshot_least: LogIndex,
    /// To whom this node sends a snapshot for repair.
    sends_to: BTreeSet<NodeId>,
    /// Who asked for one that is not there yet.
    owed: BTreeMap<NodeId, Owed>,
}

/// A snapshot that is sent as soon as there is one.
#[derive(Clone, Copy, Debug)]
struct Owed {
    ask: SnapshotAsk,
    /// Then the other one asks somebody else.
    ticks_left: u32,
}

impl Repair {
    fn on_progress(&mut self) {
        self.idle_ticks = 0;
        self.pace.on_progress();
    }

    /// A snapshot was taken over.
    fn on_snapshot_taken(&mut self) {
        self.on_progress();
        self.snapshot_from = None;
        self.snapshot_least = LogIndex(0);
    }

    /// The transfer of a snapshot for repair to `peer` is over.
    pub(crate) fn on_snapshot_sent(&mut self, peer: NodeId) {
        self.sends_to.remove(&peer);
    }

    /// What was asked of `peer`, or is sent to it, will not come.
    pub(crate) fn on_peer_lost(&mut self, peer: NodeId) {
        self.sends_to.remove(&peer);
        self.owed.remove(&peer);
        self.forget_questions_to(peer);
    }

    /// What was asked of `peer` before is asked anew.
    pub(crate) fn forget_questions_to(&mut self, peer: NodeId) {
        self.pace.forget(peer);
        if self.snapshot_from == Some(peer) {
            self.snapshot_from = None;
        }
    }
}

impl<S: Storage> Core<S> {
    /// Whether damage was found that is not told yet. Other questions wait for a tick or a message.
    pub(crate) fn repair_is_due(&self) -> bool {
        self.log.is_faulty()
            && (self.repair.announced != self.log.faults.newest() || self.repair.pace.is_due())
    }

    pub(crate) fn tick_repair(&mut self) {
        self.tick_owed_snapshots();
        self.log.forget_purged_faults();
        if !self.log.is_faulty() {
            return;
        }
        self.repair.pace.tick();
        self.repair.idle_ticks += 1;
        let patience = match self.repair.snapshot_from {
            None => ENTRIES_PATIENCE_TIMEOUTS,
            Some(_) => SNAPSHOT_PATIENCE_TIMEOUTS,
        };
        let timeout = self.config.election_timeout_ticks;
        if self.repair.idle_ticks >= patience.saturating_mul(timeout) {
            self.ask_next_for_snapshot();
        }
    }

    /// Asks the other nodes for what is missing.
    pub(crate) fn flush_repair(&mut self) {
        if !self.log.is_faulty() {
            return;
        }
        self.log.forget_purged_faults();
        if !self.repair_is_due() {
            return;
        }
        self.announce_damage();
        let mut runs = self.log.missing_runs();
        runs.truncate(RUNS_MAX);
        for peer in self.other_nodes() {
            if self.repair.pace.may_ask(peer) && !runs.is_empty() {
                runs.iter().for_each(|run| self.ask_for(peer, run));
                self.repair.pace.on_asked(peer, runs.len(), &self.config);
            }
        }
        self.repair.pace.on_flushed();
    }

    fn announce_damage(&mut self) {
        let newest = self.log.faults.newest();
        if core::mem::replace(&mut self.repair.announced, newest) != newest {
            self.repair.pace.on_progress();
            self.repair.strangers.clear();
            let count = self.log.faults.count();
            if let Some(first) = self.log.faults.first_from(LogIndex(0)) {
                self.event(Event::DamageFound { first, count });
            }
        }
    }

    fn ask_for(&mut self, peer: NodeId, run: &RangeInclusive<LogIndex>) {
        let (first, last) = (*run.start(), *run.end());
        let anchor = self.log.oldest_known(first);
        // What lies above an anchor that is not the first entry itself could be of another log.
        let last = if anchor.index == first {
            last
        } else {
            last.min(anchor.index)
        };
        let id = self.log.faults.newest();
        let ask = RepairAsk {
            id,
            first,
            last,
            anchor,
        };
        self.send(peer, Message::RepairAsk(ask));
    }

    /// All who may have what is missing: members, and whoever speaks to this node.
    fn other_nodes(&self) -> Vec<NodeId> {
        let mut nodes = self.membership.members_ever();
        nodes.extend(&self.repair.strangers);
        nodes.remove(&self.id());
        nodes.into_iter().collect()
    }

    /// `from` is there, and can be asked.
    #[inline]
    pub(crate) fn note_sender(&mut self, from: NodeId) {
        if self.log.is_faulty() {
            self.note_stranger(from);
        }
    }

    fn note_stranger(&mut self, from: NodeId) {
        let strangers = &mut self.repair.strangers;
        let is_full = strangers.len() == STRANGERS_MAX;
        let is_member = self.membership.members_ever().contains(&from);
        if !is_member && !is_full && strangers.insert(from) {
            self.repair.pace.on_newcomer();
        }
    }

    /// Entries do not come, be it that nobody has them or that nobody can tell whether his are ours.
    /// A snapshot that goes far enough makes them unnecessary.
    fn ask_next_for_snapshot(&mut self) {
        if self.wants_own_snapshot() {
            return;
        }
        let others = self.other_nodes();
        let after = |peer: &&NodeId| self.repair.snapshot_from.is_some_and(|last| **peer > last);
        let next = others.iter().find(after).or(others.first());
        if let Some(peer) = next.copied() {
            self.repair.snapshot_was_offered = false;
            self.ask_for_snapshot(peer);
        }
    }

    /// If all that is missing is applied here no other node has to send anything: a snapshot of this
    /// one will do.
    fn wants_own_snapshot(&mut self) -> bool {
        let applied = self.log.applied();
        let missing = self.log.faults.missing().last();
        let Some(index) = missing.filter(|index| *index <= applied) else {
            return false;
        };
        self.repair.idle_ticks = 0;
        self.event(Event::SnapshotWanted { index });
        true
    }

    fn ask_for_snapshot(&mut self, peer: NodeId) {
        // What is applied is covered as well by a snapshot of what is not.
        let applied = self.log.applied();
        let first = self.log.faults.missing().find(|index| *index > applied);
        let Some(first) = first else { return };
        self.repair.snapshot_from = Some(peer);
        self.repair.idle_ticks = 0;
        // What is committed here is the same in every snapshot. Beyond that it cannot be told
        // whether a snapshot that ends at an entry of unknown term is of our log, so it must go up
        // to the next known one.
        let needed = if first <= self.log.committed() {
            first
        } else {
            self.log.oldest_known(first).index
        };
        let covering = needed.max(self.repair.snapshot_least);
        self.send(peer, Message::SnapshotAsk(SnapshotAsk { covering }));
    }

    /// A snapshot that ends at `index`, an entry of unknown term, was of no use.
    fn on_useless_snapshot(&mut self, index: LogIndex) {
        self.repair.snapshot_least = self.log.oldest_known(index).index;
    }

    /// How the repair stands; none if nothing is damaged.
    pub(crate) fn repair_status(&self) -> Option<RepairStatus> {
        if !self.log.is_faulty() {
            return None;
        }
        // If a snapshot that is being written covers all of them, where it ends.
        let first = self.log.faults.first_from(LogIndex(0));
        let first = first.unwrap_or(self.log.first_index().prev());
        let never = self.log.faults.get(first).map(|fault| &fault.never);
        let waits_for = |voter: &NodeId| never.is_none_or(|never| !never.contains(voter));
        Some(RepairStatus {
            count: self.log.faults.count(),
            first,
            waiting_for: self.other_voters().filter(waits_for).collect(),
        })
    }

    /// All voters, but this node, who may be in a quorum for what is not committed here.
    ///
    /// Those of the configuration at the commit index, and of all after it. Whoever leads with an
    /// entry of this log above that index has the log below it as well, and so no older configuration.
    /// A voter that was removed before is not asked: it may be gone for good.
    fn other_voters(&self) -> impl Iterator<Item = NodeId> {
        let mut voters = self.membership.voters_since(self.log.committed());
        voters.remove(&self.id());
        voters.into_iter()
    }
}
