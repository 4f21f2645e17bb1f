//! Damage in the own log and in the own snapshots, as the driver sees it.
//!
//! The core knows how entries come back from the peers. What it cannot do is write a snapshot, and that is the rest of it:
//!
//! ```text
//!  damaged                                        what mends it
//!  entry above the newest snapshot                a copy from a peer, by the core
//!  the same, applied, and purged everywhere else  a snapshot of this node (SnapshotWanted), and a purge up to it
//!  entry at or below the newest snapshot          that snapshot once it was read again, and a purge up to it
//!  the newest snapshot                            another one, be it of the same entry
//! ```

use raft_core::{EntryId, LogIndex, Storage as _};

use super::Driver;
use crate::wire::status::RepairProgress;

impl Driver {
    /// Stored entries turned out to be damaged: while they were read for somebody, or by the scrub.
    pub(super) fn handle_faulty(&mut self, indexes: &[LogIndex]) {
        self.node.on_faulty(indexes.iter().copied());
        let storage = self.node.storage();
        let first = storage.first_index();
        let covered = storage.snapshot().map(|meta| meta.id.index);
        let is_covered = |index: &LogIndex| *index >= first && Some(*index) <= covered;
        if let Some(index) = indexes.iter().copied().filter(is_covered).max() {
            self.snapshots.want_instead_of(index);
        }
    }

    /// The snapshot that was to be sent has rotted. It must not be counted on, and somebody waits for one. One that a newer
    /// one has replaced since does not matter.
    pub(super) fn handle_snapshot_rotten(&mut self, id: EntryId) {
        let newest = self.node.storage().snapshot().map(|meta| meta.id);
        if newest == Some(id) {
            self.node.storage_mut().forget_snapshot();
            self.snapshots.forget_newest();
            self.want_snapshot();
        }
    }

    /// Does what the core can only ask for.
    pub(super) fn heed(&mut self, events: &[raft_core::Event]) {
        for event in events {
            if let raft_core::Event::SnapshotAccepted { meta } = event {
                self.snapshots.accept(meta.id);
            } else if let raft_core::Event::SnapshotWanted { index } = event {
                self.snapshots.want_instead_of(*index);
            } else if let raft_core::Event::SnapshotUnavailable { .. } = event {
                self.want_snapshot();
            }
        }
    }

    /// How the repair of the log stands; `None` if nothing is damaged.
    pub(super) fn repair_progress(&self) -> Option<RepairProgress> {
        let repair = self.node.status().repair?;
        let waiting_for = repair.waiting_for.iter();
        Some(RepairProgress {
            damaged: repair.count,
            first: repair.first.0,
            waiting_for: waiting_for.map(|id| self.name_of(*id)).collect(),
        })
    }
}
