//! Stores that are not what they should be, and what their nodes make of it.

use kvd::driver::Event;
use kvd::kv::command::{Command, HashAt};
use kvd::kv::envelope::Envelope;
use kvd::snapshots::{SnapshotDirError, Suspect};
use kvd::wire::status::NodeStatus;
use raft_core::{EntryId, EntryKind};

use super::World;
use crate::sim::{Place, node};
use crate::watch::Violation;

impl World {
    /// A bit of a value flips in the memory of a node. False if its process does not run, or it has no such value.
    pub fn rot_value(&mut self, place: Place, key: &str) -> bool {
        let rotted = self.nodes[place].life.as_mut();
        let rotted = rotted.is_some_and(|life| life.driver.rot(key.as_bytes()));
        self.may_differ |= rotted;
        rotted
    }

    /// What a node tells its users of itself, if its process runs.
    pub fn node_status(&self, place: Place) -> Option<NodeStatus> {
        let life = self.nodes[place].life.as_ref();
        life.map(|life| life.driver.status())
    }

    /// What majorities have agreed on, in the order of the log.
    pub fn agreed_hashes(&self) -> Vec<HashAt> {
        let entries = self.committed().iter();
        let commands = entries.filter(|entry| entry.kind == EntryKind::Command);
        let agreed = commands.filter_map(|entry| {
            let envelope = Envelope::decode(&entry.payload).ok()?;
            match Command::decode(envelope.command) {
                Ok(Command::StateHash(agreed)) => Some(agreed),
                Ok(_) | Err(_) => None,
            }
        });
        agreed.collect()
    }

    /// A node finds that its state is not that of the majority.
    pub(super) fn distrust(&mut self, place: Place, suspect: &Suspect) -> Result<(), Violation> {
        let text = format!(
            "its state at {} is not that of the majority",
            suspect.agreed.index
        );
        self.timeline.note(self.now, place, &text);
        if !self.may_differ {
            return Err(Violation {
                rule: "same state",
                text: format!("{}: {text}, though no store was changed", node::name(place)),
            });
        }
        let Some(life) = &self.nodes[place].life else {
            return Ok(());
        };
        let marked = life.snapshots.distrust(suspect);
        self.told_of_files(place, marked, Event::Distrusted)
    }

    /// A node has rebuilt its state from this snapshot.
    pub(super) fn trust(&mut self, place: Place, id: EntryId) -> Result<(), Violation> {
        let text = format!("its state is that of snapshot {id}");
        self.timeline.note(self.now, place, &text);
        let Some(life) = &self.nodes[place].life else {
            return Ok(());
        };
        let trusted = life.snapshots.trust_from(id);
        self.told_of_files(place, trusted, Event::Trusted)
    }

    fn told_of_files(
        &mut self,
        place: Place,
        changed: Result<(), SnapshotDirError>,
        report: fn(bool) -> Event,
    ) -> Result<(), Violation> {
        if self.nodes[place].disk.is_stopped() {
            return self.power_went(place);
        }
        match changed {
            Err(error) if error.is_fatal() => self.storage_failed(place, &error.to_string()),
            changed => {
                self.tell_at(self.now, place, report(changed.is_ok()));
                Ok(())
            }
        }
    }
}
