//! Leading with damaged entries: of a follower, or of the leader itself.

use super::Next;
use super::leader::Leader;
use crate::core::Core;
use crate::{Event, LogIndex, NodeId, Reason, Rejected, Repairing, Storage};

/// After so many election timeouts a leader that lost entries hands over, and one later it steps
/// down.
const HAND_OVER_TIMEOUTS: u32 = 2;

/// A leader that found damage in its own log.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnDamage {
    /// It counts itself for commits up to here, what was durable when the damage was found. Newer
    /// entries are committed by the others: a log with a hole is no good copy of what follows.
    counts_through: LogIndex,
    elapsed: u32,
    hands_over: bool,
}

impl Leader {
    /// The follower lives, and acknowledges nothing before it has its entries back. It is sent one
    /// append per heartbeat: what it lacks may be among the entries, and its answer tells when it is
    /// done.
    pub(super) fn handle_repairing<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        repairing: Repairing,
    ) -> Result<(), Rejected> {
        let Repairing { count, next } = repairing;
        let last = core.log.last_index();
        if count == 0 || next == LogIndex(0) || next > last.next() {
            return Err(Rejected::MalformedRepair);
        }
        let before = self.peers.get(from).map_or(0, |peer| peer.repairing);
        self.update_peer(core, from, |peer| peer.on_repairing(count, next))?;
        if before == 0 {
            core.event(Event::PeerRepairing { peer: from, count });
        }
        Ok(())
    }

    /// How far this node's own disk counts for commits.
    pub(super) fn own_match<S: Storage>(&self, core: &Core<S>) -> LogIndex {
        let persisted = core.log.persisted();
        let through = |damage: OwnDamage| persisted.min(damage.counts_through);
        self.own_damage.map_or(persisted, through)
    }

    /// Looks whether this leader's own log is damaged, or whole again.
    pub(crate) fn notice_damage<S: Storage>(&mut self, core: &Core<S>) {
        if !core.log.is_faulty() {
            self.own_damage = None;
        } else if self.own_damage.is_none() {
            self.own_damage = Some(OwnDamage {
                counts_through: core.log.persisted(),
                elapsed: 0,
                hands_over: false,
            });
        }
    }

    /// Somebody with a whole log should lead. If nobody can be reached this leader stays, and tries
    /// again.
    ///
    /// If the transfer is not done in time it steps down: the others may lack just what it lost, so
    /// that nobody ever has its whole log, and it cannot give up entries as long as it leads.
    pub(super) fn tick_damage<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        self.notice_damage(core);
        let Some(mut damage) = self.own_damage else {
            return Next::Stay;
        };
        damage.elapsed += 1;
        let timeout = core.config.election_timeout_ticks;
        if damage.hands_over && damage.elapsed >= timeout {
            return Next::Follow(Reason::Damaged);
        }
        if !damage.hands_over && damage.elapsed >= HAND_OVER_TIMEOUTS.saturating_mul(timeout) {
            damage.elapsed = 0;
            damage.hands_over = self.begin_transfer(core, None).is_ok();
        }
        self.own_damage = Some(damage);
        Next::Stay
    }
}
