//! A follower as its leader sees it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::inflights::Inflights;
use crate::{LogIndex, NodeId, PeerState};

/// How entries are sent to a follower.
///
/// ```text
///             acknowledgement                     entries it needs are compacted
///    Probe ------------------> Replicate      Probe, Replicate ----> Snapshot
///      ^                           |                                    |
///      +---------------------------+       delivered or failed          |
///      |   rejection, unreachable          (acknowledged: Replicate)    |
///      +----------------------------------------------------------------+
/// ```
#[derive(Debug)]
enum State {
    /// It is not known where the logs agree: one append at a time.
    Probe {
        /// An append is on its way; wait for its answer, or for a heartbeat's if it got lost.
        paused: bool,
    },
    /// The logs agree up to `next`, so far as is known: send ahead of the acknowledgements.
    Replicate(Inflights),
    /// A snapshot up to this index is on its way; nothing else makes sense before it has arrived.
    Snapshot { index: LogIndex },
}

/// A follower as its leader sees it.
///
/// Invariant: `matched < next`.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The follower durably holds our log up to here: acknowledged in this leadership, by this life
    /// of the follower.
    pub(crate) matched: LogIndex,
    /// What is sent next.
    pub(crate) next: LogIndex,
    state: State,
    /// The largest commit index that the follower was told, if nothing got lost.
    pub(crate) told_commit: LogIndex,
    /// Heard since the last check of the quorum.
    pub(crate) recently_active: bool,
    /// Heard in the time before that.
    was_active: bool,
    /// The newest round of leadership confirmation that the follower answered.
    pub(crate) acked_round: u64,
    /// Age of its oldest unfinished sync, as it said with its newest answer to a heartbeat.
    pub(crate) sync_age_ticks: u32,
    /// The greatest such age of late.
    worst_sync: WorstSync,
    /// Its priority, from the same answer.
    pub(crate) priority: u32,
    /// No append was answered since the last regular heartbeat.
    silent: bool,
    /// An append should be sent even if nothing is new and the window is full: its answer tells
    /// whether all that is on the way got lost.
    verify: bool,
    /// How many entries the follower lost, as it said last; 0 if it is whole.
    pub(crate) repairing: u64,
    /// The first index of a read that the driver makes for this follower.
    pub(crate) fetching: Option<LogIndex>,
}

/// The greatest age of an unfinished sync that a follower told, while it counts.
#[derive(Clone, Copy, Debug, Default)]
struct WorstSync {
    age_ticks: u32,
    /// For how much longer.
    left_ticks: u32,
}

impl Progress {
    pub(crate) fn new(next: LogIndex) -> Progress {
        Progress {
            matched: LogIndex(0),
            next,
            state: State::Probe { paused: false },
            told_commit: LogIndex(0),
            recently_active: false,
            was_active: false,
            acked_round: 0,
            sync_age_ticks: 0,
            worst_sync: WorstSync::default(),
            priority: 0,
            silent: false,
            verify: false,
            repairing: 0,
            fetching: None,
        }
    }

    /// The follower told the age of its oldest unfinished sync. The greatest one counts for
    /// `lately_ticks`.
    pub(crate) fn note_sync_age(&mut self, age_ticks: u32, lately_ticks: u32) {
        self.sync_age_ticks = age_ticks;
        if age_ticks >= self.worst_sync.age_ticks {
            self.worst_sync = WorstSync {
                age_ticks,
                left_ticks: lately_ticks,
            };
        }
    }

    /// The greatest age of a sync that the follower told lately.
    pub(crate) fn worst_sync_age_ticks(&self) -> u32 {
        self.worst_sync.age_ticks
    }

    /// A tick of the leader.
    pub(crate) fn tick(&mut self) {
        let worst = &mut self.worst_sync;
        worst.left_ticks = worst.left_ticks.saturating_sub(1);
        if worst.left_ticks == 0 {
            worst.age_ticks = self.sync_age_ticks;
        }
    }

    /// A follower that has just become a member. It counts as heard, or a leader that adds two
    /// voters to three could miss its quorum before it had a chance to reach them.
    pub(crate) fn of_new_member(next: LogIndex) -> Progress {
        Progress {
            recently_active: true,
            ..Progress::new(next)
        }
    }

    pub(crate) fn state(&self) -> PeerState {
        match &self.state {
            State::Probe { .. } => PeerState::Probe,
            State::Replicate(inflights) => PeerState::Replicate {
                inflight: inflights.count(),
            },
            State::Snapshot { index } => PeerState::Snapshot { index: *index },
        }
    }

    /// Whether an append with entries may be sent now.
    pub(crate) fn may_send(&self, inflight_count_max: usize, inflight_bytes_max: u64) -> bool {
        match &self.state {
            State::Probe { paused } => !paused,
            State::Replicate(inflights) => {
                !inflights.is_full(inflight_count_max, inflight_bytes_max)
            }
            State::Snapshot { .. } => false,
        }
    }

    /// Whether an append without entries should be sent, given that there are none to send or no
    /// room for them. A probe without entries asks where the logs agree; in replication it asks
    /// whether all that was sent got lost.
    pub(crate) fn wants_empty_append(&self) -> bool {
        match &self.state {
            State::Probe { paused } => !paused,
            State::Replicate(_) => self.verify,
            State::Snapshot { .. } => false,
        }
    }

    /// The commit index, as far as the follower was sent the log, if it was not told yet.
    pub(crate) fn untold_commit(&self, committed: LogIndex) -> Option<LogIndex> {
        let reached = committed.min(self.next.prev());
        match &self.state {
            State::Replicate(_) => Some(reached).filter(|reached| *reached > self.told_commit),
            State::Probe { .. } | State::Snapshot { .. } => None,
        }
    }

    /// Whether an append may be due, so that it is worth looking closer. A follower in replication
    /// that has been sent everything wants nothing.
    pub(crate) fn may_want(&self, last_index: LogIndex, committed: LogIndex) -> bool {
        match &self.state {
            State::Replicate(_) => {
                self.next <= last_index || self.verify || self.untold_commit(committed).is_some()
            }
            State::Probe { .. } | State::Snapshot { .. } => true,
        }
    }

    /// Notes an append that leaves now, with its last index and the bytes of its entries.
    #[inline]
    pub(crate) fn on_append_sent(&mut self, last: LogIndex, bytes: u64, committed: LogIndex) {
        self.told_commit = self.told_commit.max(committed.min(last));
        self.verify = false;
        match &mut self.state {
            State::Probe { paused } => *paused = true,
            State::Replicate(inflights) if last >= self.next => {
                inflights.add(last, bytes);
                self.next = last.next();
            }
            State::Replicate(_) => assert_eq!(
                last.next(),
                self.next,
                "an empty append ends before the next index"
            ),
            State::Snapshot { index } => {
                panic!("append while the snapshot of {index} is on its way")
            }
        }
    }

    /// The follower durably holds our log up to `matched`. Returns whether that is news.
    #[inline]
    pub(crate) fn on_accepted(&mut self, matched: LogIndex, first_index: LogIndex) -> bool {
        self.silent = false;
        self.repairing = 0;
        let news = matched > self.matched;
        self.matched = self.matched.max(matched);
        self.next = self.next.max(matched.next());
        match &mut self.state {
            // An answer below `matched` is an old one and says nothing about the append on its way.
            State::Probe { .. } if matched >= self.matched => self.become_replicate(),
            State::Probe { .. } => {}
            State::Replicate(inflights) => inflights.free_to(matched),
            // What the log still holds goes on from there, even if another snapshot than the one we
            // wait for did it.
            State::Snapshot { .. } if self.matched.next() >= first_index => self.become_replicate(),
            State::Snapshot { .. } => {}
        }
        news
    }

    /// The follower does not hold the entry at `prev`; `candidate` is the newest index where the
    /// logs could agree. Returns whether the answer is to be acted on, and not an old one.
    pub(crate) fn on_rejected(&mut self, prev: LogIndex, candidate: LogIndex) -> bool {
        self.silent = false;
        let is_old = match &self.state {
            State::Probe { .. } => prev != self.next.prev(),
            State::Replicate(_) => prev <= self.matched,
            State::Snapshot { .. } => true,
        };
        if is_old {
            return false;
        }
        let next = prev.min(candidate.next()).max(self.matched.next());
        let gets_nowhere = next == self.next;
        self.become_probe(next);
        // It rejects what it acknowledged: its log went back. Asking again at once would get the
        // same answer for ever.
        self.state = State::Probe {
            paused: gets_nowhere,
        };
        true
    }

    /// The follower took what was sent, and acknowledges nothing before it has repaired its log.
    /// What it acknowledged before it may still be counted: it forgets nothing. The next append
    /// waits for its next answer to a heartbeat, which finds it silent, and begins at `next`.
    pub(crate) fn on_repairing(&mut self, count: u64, next: LogIndex) {
        self.recently_active = true;
        self.repairing = count;
        if let State::Snapshot { .. } = self.state {
            return;
        }
        self.become_probe(next.max(self.matched.next()));
        self.pause_probe();
    }

    pub(crate) fn become_probe(&mut self, next: LogIndex) {
        self.next = next;
        self.told_commit = LogIndex(0);
        self.fetching = None;
        self.verify = false;
        self.state = State::Probe { paused: false };
    }

    fn become_replicate(&mut self) {
        self.next = self.matched.next();
        self.fetching = None;
        self.state = State::Replicate(Inflights::default());
    }

    pub(crate) fn become_snapshot(&mut self, index: LogIndex) {
        self.fetching = None;
        self.verify = false;
        self.state = State::Snapshot { index };
    }

    /// A probe that cannot be sent yet is tried again when the follower is heard.
    pub(crate) fn pause_probe(&mut self) {
        if let State::Probe { paused } = &mut self.state {
            *paused = true;
        }
    }

    /// The transport lost the follower: what is on the way may be lost, so find out.
    pub(crate) fn on_unreachable(&mut self) {
        if let State::Replicate(_) = self.state {
            self.become_probe(self.matched.next());
        }
    }

    /// The transfer of the snapshot ended. The next append waits for a sign of the follower: an
    /// arrived snapshot still has to be installed, and a failed transfer is not repeated at once.
    pub(crate) fn on_snapshot_sent(&mut self, delivered: bool) {
        if let State::Snapshot { index } = self.state {
            let from = if delivered {
                self.matched.max(index)
            } else {
                self.matched
            };
            self.become_probe(from.next());
            self.state = State::Probe { paused: true };
        }
    }

    /// The follower lives again after a restart: what it acknowledged in its last life counts no
    /// more.
    pub(crate) fn on_restarted(&mut self) {
        self.become_probe(self.matched.next());
        self.matched = LogIndex(0);
        self.acked_round = 0;
    }

    /// The quorum was checked; a new time to be heard in begins.
    pub(crate) fn on_quorum_checked(&mut self) {
        self.was_active = core::mem::take(&mut self.recently_active);
    }

    /// Whether the follower was heard within the last two election timeouts.
    pub(crate) fn is_in_reach(&self) -> bool {
        self.recently_active || self.was_active
    }

    /// A regular heartbeat leaves.
    pub(crate) fn on_heartbeat_sent(&mut self) {
        self.silent = true;
    }

    /// The follower answered a heartbeat. If it answered no append since the heartbeat before, what
    /// is on the way may be lost: a probe is sent again, and replication is verified.
    pub(crate) fn on_heartbeat_answered(&mut self, round: u64, last_index: LogIndex) {
        self.recently_active = true;
        self.acked_round = self.acked_round.max(round);
        if !self.silent {
            return;
        }
        self.silent = false;
        match &mut self.state {
            State::Probe { paused } => *paused = false,
            State::Replicate(_) => self.verify = self.matched < last_index,
            State::Snapshot { .. } => {}
        }
    }
}

/// The other members as their leader sees them, ascending by id.
///
/// They are few, and looked up at each message: a walk over a vector is quicker than a tree.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<(NodeId, Progress)>);

impl Peers {
    pub(crate) fn get(&self, peer: NodeId) -> Option<&Progress> {
        self.iter()
            .find(|(id, _)| *id == peer)
            .map(|(_, progress)| progress)
    }

    pub(crate) fn get_mut(&mut self, peer: NodeId) -> Option<&mut Progress> {
        self.iter_mut()
            .find(|(id, _)| *id == peer)
            .map(|(_, progress)| progress)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.0.iter().map(|(id, progress)| (*id, progress))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Progress)> {
        self.0.iter_mut().map(|(id, progress)| (*id, progress))
    }

    /// Keeps the progress of `members`, and adds what `new` makes for those who are not there yet.
    pub(crate) fn follow(&mut self, members: &BTreeSet<NodeId>, new: impl Fn() -> Progress) {
        self.0.retain(|(id, _)| members.contains(id));
        for member in members {
            if let Err(at) = self.0.binary_search_by_key(member, |(id, _)| *id) {
                self.0.insert(at, (*member, new()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: LogIndex = LogIndex(1);

    fn replicating(matched: u64) -> Progress {
        let mut progress = Progress::new(LogIndex(matched + 1));
        progress.on_accepted(LogIndex(matched), FIRST);
        progress
    }

    #[test]
    fn probe_sends_once_until_answered() {
        let mut progress = Progress::new(LogIndex(8));
        assert!(progress.may_send(3, 100));
        progress.on_append_sent(LogIndex(9), 64, LogIndex(0));
        assert!(!progress.may_send(3, 100));
        assert!(progress.on_rejected(LogIndex(7), LogIndex(4)));
        assert_eq!(progress.next, LogIndex(5));
        assert!(progress.may_send(3, 100));
    }

    #[test]
    fn old_rejections_are_ignored() {
        let mut progress = replicating(5);
        assert!(!progress.on_rejected(LogIndex(5), LogIndex(2)));
        assert_eq!(progress.state(), PeerState::Replicate { inflight: 0 });
        progress.become_probe(LogIndex(6));
        assert!(!progress.on_rejected(LogIndex(7), LogIndex(2)));
        assert_eq!(progress.next, LogIndex(6));
    }

    #[test]
    fn old_acceptance_does_not_end_a_probe() {
        let mut progress = replicating(5);
        progress.become_probe(LogIndex(6));
        assert!(!progress.on_accepted(LogIndex(3), FIRST));
        assert_eq!(progress.state(), PeerState::Probe);
    }

    /// Case 32: the follower goes on with ordinary replication as soon as the log reaches it,
    /// whichever snapshot did it.
    #[test]
    fn acknowledged_snapshot_resumes_replication_even_if_a_newer_one_was_pending() {
        let mut progress = Progress::new(LogIndex(3));
        progress.become_snapshot(LogIndex(20));
        assert!(!progress.may_send(3, 100));
        assert!(progress.on_accepted(LogIndex(9), LogIndex(11)));
        assert_eq!(
            progress.state(),
            PeerState::Snapshot {
                index: LogIndex(20)
            }
        );
        assert!(progress.on_accepted(LogIndex(15), LogIndex(11)));
        assert_eq!(progress.state(), PeerState::Replicate { inflight: 0 });
        assert_eq!(progress.next, LogIndex(16));
    }

    #[test]
    fn peers_that_stay_keep_their_progress() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        let mut peers = Peers::default();
        peers.follow(&ids(&[2, 5]), || Progress::new(LogIndex(3)));
        peers.follow(&ids(&[1, 3, 5]), || Progress::new(LogIndex(7)));
        let next: Vec<(u64, u64)> = peers
            .iter()
            .map(|(id, progress)| (id.0, progress.next.0))
            .collect();
        assert_eq!(next, [(1, 7), (3, 7), (5, 3)]);
        assert!(peers.get(NodeId(2)).is_none());
        assert!(peers.get_mut(NodeId(3)).is_some());
    }

    #[test]
    fn restarted_follower_starts_from_nothing() {
        let mut progress = replicating(5);
        progress.on_restarted();
        assert_eq!(progress.matched, LogIndex(0));
        assert_eq!(progress.next, LogIndex(6));
        assert_eq!(progress.state(), PeerState::Probe);
    }
}
