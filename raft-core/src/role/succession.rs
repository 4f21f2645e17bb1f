//! Who should lead next, and when a leader gives up by itself.

use super::Next;
use super::leader::Leader;
use crate::core::Core;
use crate::disk_health;
use crate::progress::Progress;
use crate::{Event, LogIndex, NodeId, PeerState, Reason, Storage};

/// What a leader has done about its slow disk, or its unfitness.
///
/// ```text
///                            a voter is healthier               an election timeout later
///    NotNeeded ---- slow ----------------------------> Sought ----------------------------> steps down
///        ^            \                                 ^  |
///        |             \-- nobody is --> Nobody --------+  | nobody is any more
///        |                                 ^ |             |
///        |                                 +-|-------------+
///        +------------ not slow any more ----+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Relief {
    /// The disk is well.
    #[default]
    NotNeeded,
    /// No other voter is better off. A slow leader is better than none: when all disks hang in the
    /// same storage, nobody may make an outage of it by stepping down.
    Nobody,
    /// A transfer was begun so many ticks ago.
    Sought { elapsed: u32 },
}

/// A voter whose disk hung lately is still the better leader if ours hangs for so many times as long.
const FAR_BETTER: u32 = 4;

/// How good a leader a voter would be; the fields in the order in which they count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Fitness {
    disk_is_healthy: bool,
    is_caught_up: bool,
    priority: u32,
    matched: LogIndex,
}

impl Leader {
    /// The voter in reach that would be the best leader. One that repairs its log would not stand.
    pub(super) fn best_successor<S: Storage>(&self, core: &Core<S>) -> Option<NodeId> {
        self.successors(core)
            .max_by_key(|(_, fitness)| *fitness)
            .map(|(peer, _)| peer)
    }

    /// The best of those to whom handing over would help: its disk is well, and it has the log, or
    /// it would be given up before it had.
    fn healthier_voter<S: Storage>(&self, core: &Core<S>) -> Option<NodeId> {
        self.successors(core)
            .filter(|(_, fitness)| fitness.disk_is_healthy && fitness.is_caught_up)
            .max_by_key(|(_, fitness)| *fitness)
            .map(|(peer, _)| peer)
    }

    fn successors<S: Storage>(&self, core: &Core<S>) -> impl Iterator<Item = (NodeId, Fitness)> {
        self.peers
            .iter()
            .filter(|(peer, progress)| {
                core.membership.current().is_voter(*peer)
                    && progress.is_in_reach()
                    && progress.repairing == 0
            })
            .map(|(peer, progress)| (peer, fitness(core, progress)))
    }

    /// A leader whose disk has not synced for more than an election timeout, or that is unfit for
    /// another reason, hands over to a voter that is better off. If that does not succeed within one more, the transfer itself seems to
    /// be hampered: the leader steps down and leaves the election to the others.
    pub(super) fn tick_disk<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        let timeout = core.config.election_timeout_ticks;
        if !core.disk.is_slow(timeout) {
            self.relief = Relief::NotNeeded;
            return Next::Stay;
        }
        let Some(successor) = self.healthier_voter(core) else {
            if self.relief != Relief::Nobody {
                self.relief = Relief::Nobody;
                core.event(why_relieved(core, None));
            }
            return Next::Stay;
        };
        match self.relief {
            Relief::NotNeeded | Relief::Nobody => {
                self.seek_relief(core, successor);
                Next::Stay
            }
            Relief::Sought { elapsed } if elapsed + 1 < timeout => {
                self.relief = Relief::Sought {
                    elapsed: elapsed + 1,
                };
                Next::Stay
            }
            Relief::Sought { .. } if core.disk.is_unfit() => Next::Follow(Reason::Unfit),
            Relief::Sought { .. } => Next::Follow(Reason::SlowDisk {
                age_ticks: core.disk.age_ticks(),
            }),
        }
    }

    /// One transfer, not one per tick: proposals are refused meanwhile. One that somebody else
    /// asked for is awaited first.
    fn seek_relief<S: Storage>(&mut self, core: &mut Core<S>, to: NodeId) {
        if self.transfer_target().is_some() {
            return;
        }
        core.event(why_relieved(core, Some(to)));
        self.begin_transfer(core, Some(to))
            .expect("a voter, and no other transfer");
        self.relief = Relief::Sought { elapsed: 0 };
    }

    /// Whether this leadership ends, if it ends now, because of the disk: then others are to stand
    /// first, also if the transfer succeeded.
    pub(super) fn leaves_elections_to_others(&self) -> bool {
        matches!(self.relief, Relief::Sought { .. })
    }
}

fn why_relieved<S: Storage>(core: &Core<S>, successor: Option<NodeId>) -> Event {
    match core.disk.is_unfit() {
        true => Event::Unfit { successor },
        false => Event::SlowDisk {
            age_ticks: core.disk.age_ticks(),
            successor,
        },
    }
}

/// Whether the disk of a voter is well enough to hand over to it.
///
/// A disk that hangs over and over looks healthy in between. All disks need five election timeouts for
/// a sync: n2 has just finished one when n1's is late. If n1 handed over to it, nobody would lead for as
/// long as the votes take to reach the disks, and n2 would be in n1's place. So the worst of a while
/// counts, unless our own disk is far worse. A leader that is unfit for another reason has no such choice.
fn has_healthy_disk<S: Storage>(core: &Core<S>, progress: &Progress) -> bool {
    let timeout = core.config.election_timeout_ticks;
    let (now, worst) = (progress.sync_age_ticks, progress.worst_sync_age_ticks());
    let is_better = core.disk.is_unfit()
        || disk_health::is_healthy(worst, timeout)
        || worst <= core.disk.age_ticks() / FAR_BETTER;
    disk_health::is_healthy(now, timeout) && is_better
}

fn fitness<S: Storage>(core: &Core<S>, progress: &Progress) -> Fitness {
    Fitness {
        disk_is_healthy: has_healthy_disk(core, progress),
        is_caught_up: is_caught_up(core, progress),
        priority: progress.priority,
        matched: progress.matched,
    }
}

/// Whether a transfer will not have to wait for more than a round trip: the follower holds all that
/// is committed, or all that it lacks is on its way to it. Our own last index would ask too much,
/// because under load something is always in flight; and with a hanging disk of our own everything
/// that is committed is held by others.
fn is_caught_up<S: Storage>(core: &Core<S>, progress: &Progress) -> bool {
    let is_replicating = matches!(progress.state(), PeerState::Replicate { .. });
    let lacks_nothing_committed = progress.matched >= core.log.committed();
    let was_sent_all = progress.next > core.log.last_index();
    is_replicating && (lacks_nothing_committed || was_sent_all)
}
