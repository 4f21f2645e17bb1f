//! Disks that hang, and how old their unfinished syncs are.

use std::collections::VecDeque;

use raft_core::{NodeId, PersistId};

use super::Cluster;

/// What a member's driver knows of its disk beside the writes.
#[derive(Default)]
pub(crate) struct DiskWatch {
    /// Writes stay in the queue whatever settles, until they are synced by name.
    pub(crate) is_held: bool,
    /// The ages of writes are reported before each tick, as a driver does it.
    pub(crate) reports: bool,
    now: u64,
    handed_out: VecDeque<(PersistId, u64)>,
}

impl DiskWatch {
    pub(crate) fn on_handed_out(&mut self, write: PersistId) {
        self.handed_out.push_back((write, self.now));
    }

    /// The node is gone, and its writes with it.
    pub(crate) fn on_crash(&mut self) {
        self.handed_out.clear();
    }

    /// Age of the oldest of the writes from `oldest` on, in ticks.
    fn age(&mut self, oldest: Option<PersistId>) -> u32 {
        let Some(oldest) = oldest else {
            self.handed_out.clear();
            return 0;
        };
        self.handed_out.retain(|(write, _)| *write >= oldest);
        let since = self
            .handed_out
            .front()
            .map_or(self.now, |(_, since)| *since);
        u32::try_from(self.now - since).expect("tests are short")
    }
}

impl Cluster {
    /// Lets time pass for a disk, and reports its age if its driver does that.
    pub(crate) fn tick_disk(&mut self, id: NodeId) {
        let member = self.member(id);
        let oldest = member.writes.front().map(|write| write.id);
        member.watch.now += 1;
        let age = member.watch.age(oldest);
        if member.watch.reports {
            self.node(id).report_sync_age(age);
        }
    }
}
