//! What is due, and whose it is.

use bytes::Bytes;

use kvd::driver::{Event, SnapshotOrder};
use kvd::wire::client::Response;

use crate::sim::Place;

/// Something that is due at some time.
#[derive(Debug)]
pub(super) enum Due {
    /// A tick of a process.
    Tick { place: Place, life: u64 },
    /// A packet arrives, if the connection on which it left still stands.
    Packet {
        from: Place,
        to: Place,
        connection: u64,
        bytes: Bytes,
    },
    /// The log thread is done.
    Log { place: Place, life: u64 },
    /// The log thread has had nothing to do for a while, if it has not worked since.
    LogIdle { place: Place, life: u64, works: u64 },
    /// The preparing thread is done.
    Prepared { place: Place, life: u64 },
    /// The snapshot thread writes.
    Snapshot {
        place: Place,
        life: u64,
        order: Box<SnapshotOrder>,
    },
    /// The next piece of a snapshot arrives, or the word on all of it.
    Transfer { number: u64 },
    /// Something that a process is told.
    Told {
        place: Place,
        life: u64,
        event: Box<Event>,
    },
    /// A full disk has room again.
    Space { place: Place },
    /// A client may have something to do.
    Client { number: usize },
    /// A client is told.
    Answer {
        client: usize,
        id: u64,
        response: Box<Response>,
    },
    /// Connections are looked at.
    Links,
    /// A process starts, unless it lives.
    Start { place: Place },
    /// The next fault of the scenario.
    Fault { number: usize },
}

impl Due {
    /// The process that it happens to.
    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Due::Tick { place, .. }
            | Due::Log { place, .. }
            | Due::LogIdle { place, .. }
            | Due::Prepared { place, .. }
            | Due::Snapshot { place, .. }
            | Due::Told { place, .. }
            | Due::Packet { to: place, .. } => Some(*place),
            Due::Transfer { .. }
            | Due::Space { .. }
            | Due::Client { .. }
            | Due::Answer { .. }
            | Due::Links
            | Due::Start { .. }
            | Due::Fault { .. } => None,
        }
    }

    /// The life that it was planned for; a packet has its connection instead.
    pub(super) fn life(&self) -> Option<u64> {
        match self {
            Due::Tick { life, .. }
            | Due::Log { life, .. }
            | Due::LogIdle { life, .. }
            | Due::Prepared { life, .. }
            | Due::Snapshot { life, .. }
            | Due::Told { life, .. } => Some(*life),
            Due::Packet { .. }
            | Due::Transfer { .. }
            | Due::Space { .. }
            | Due::Client { .. }
            | Due::Answer { .. }
            | Due::Links
            | Due::Start { .. }
            | Due::Fault { .. } => None,
        }
    }
}
