//! What a driver reports of damaged entries, and of the copies that take their places.

use super::{Node, RoleState};
use crate::role::Next;
use crate::{Event, LogIndex, PersistId, Reason, Storage};

impl<S: Storage> Node<S> {
    /// Stored entries turned out to be damaged: their bytes do not match their checksums, or cannot
    /// be read. The storage still tells their terms. They are asked for, and come back in
    /// [`Persist::repaired`](crate::Persist::repaired).
    ///
    /// If what is damaged was applied already the others may have compacted it away: then
    /// [`Event::SnapshotWanted`] asks for a snapshot of this node.
    ///
    /// Indexes that the log does not hold durably, or that its newest snapshot covers, are ignored:
    /// for the latter the driver purges the log up to the snapshot. A leader goes on for two
    /// election timeouts, without counting itself for new entries, and then hands over.
    pub fn on_faulty(&mut self, indexes: impl IntoIterator<Item = LogIndex>) {
        for index in indexes {
            self.core.log.on_faulty(index);
        }
        self.stand_back_if_damaged();
    }

    /// Who finds damage in its log does not stand, and no longer counts on all of it as a leader.
    pub(crate) fn stand_back_if_damaged(&mut self) {
        match &mut self.role {
            RoleState::Leader(leader) => leader.notice_damage(&self.core),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) if self.core.log.is_faulty() => {
                self.apply_next(Next::Follow(Reason::Damaged));
            }
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
        }
    }

    /// The [repaired entries](crate::Persist::repaired) of the persist parts up to `id` are on disk, whatever
    /// else of these parts is.
    ///
    /// A log without room needs this: entries that wait for room must not hold up the copies, because
    /// room is made by a snapshot, and damaged entries are not applied.
    ///
    /// # Panics
    /// If `id` was never handed out.
    pub fn on_repaired(&mut self, id: PersistId) {
        let newest = self.core.persistence.newest();
        assert!(
            id <= newest,
            "{id} has its copies, but only {newest} was handed out"
        );
        if self.core.log.is_faulty() {
            self.complete_repair(id);
            self.on_durable();
        }
    }

    pub(super) fn complete_repair(&mut self, id: PersistId) {
        let count = self.core.log.faults.complete(id);
        if count > 0 {
            let left = self.core.log.faults.count();
            self.core.event(Event::Repaired { count, left });
        }
    }
}
