//! Handing the leadership over (thesis 3.10).

use super::leader::Leader;
use crate::core::Core;
use crate::{Event, Message, NodeId, Storage, TransferError};

/// A leader transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    elapsed: u32,
    asked: bool,
}

impl Leader {
    pub(crate) fn transfer_target(&self) -> Option<NodeId> {
        self.transfer.map(|transfer| transfer.to)
    }

    pub(crate) fn begin_transfer<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        to: Option<NodeId>,
    ) -> Result<NodeId, TransferError> {
        if let Some(transfer) = self.transfer {
            return Err(TransferError::InProgress { to: transfer.to });
        }
        let to = match to {
            Some(to) => to,
            None => self
                .best_successor(core)
                .ok_or(TransferError::NoCandidate)?,
        };
        if !core.membership.current().is_voter(to) || to == core.id() {
            return Err(TransferError::NotVoter { to });
        }
        if self.peers.get(to).is_some_and(|peer| peer.repairing > 0) {
            return Err(TransferError::Repairing { to });
        }
        self.transfer = Some(Transfer {
            to,
            elapsed: 0,
            asked: false,
        });
        core.event(Event::TransferStarted { to });
        self.needs_flush = true;
        self.maybe_hand_over(core, to);
        Ok(to)
    }

    /// Asks the target to campaign as soon as it has our whole log: before, nobody would vote for
    /// it.
    pub(super) fn maybe_hand_over<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let has_all = self
            .peers
            .get(peer)
            .is_some_and(|progress| progress.matched == core.log.last_index());
        if transfer.to == peer && has_all && !transfer.asked {
            transfer.asked = true;
            self.lease.end();
            core.send(peer, Message::TimeoutNow);
        }
    }

    /// A target that does not take over in time is given up: nothing can be proposed meanwhile.
    pub(super) fn tick_transfer<S: Storage>(&mut self, core: &mut Core<S>) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.elapsed += 1;
        if transfer.elapsed >= core.config.election_timeout_ticks {
            core.event(Event::TransferAborted { to: transfer.to });
            self.transfer = None;
        }
    }
}
