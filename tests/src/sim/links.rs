//! The network of the world: packets take some ticks, and keep their order on each link.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Place;

/// Longest way of a packet, in ticks.
const DELAY_TICKS_MAX: u64 = 3;

/// Something on its way from one node to another.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) content: Content,
}

/// What a packet carries: bytes, as they would be on the wire.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Message(Bytes),
    /// The message in front of a snapshot, and the whole file.
    Snapshot(Bytes, Vec<Bytes>),
    /// The receiver's word on the snapshot that was sent to it.
    SnapshotTaken(bool),
}

/// Packets by the time of their arrival, then by the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Links {
    packets: BTreeMap<(u64, u64), Packet>,
    /// When the last packet of each link arrives: none may overtake it.
    last: BTreeMap<(Place, Place), u64>,
    sent: u64,
}

impl Links {
    pub(super) fn send(&mut self, now: u64, packet: Packet, rng: &mut StdRng) {
        let last = self.last.entry((packet.from, packet.to)).or_default();
        *last = (now + rng.random_range(1..=DELAY_TICKS_MAX)).max(*last);
        self.sent += 1;
        self.packets.insert((*last, self.sent), packet);
    }

    /// Everything that arrives by now, in order.
    pub(super) fn due(&mut self, now: u64) -> Vec<Packet> {
        let later = self.packets.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.packets, later)
            .into_values()
            .collect()
    }

    /// Connections die with the process at either end.
    pub(super) fn forget(&mut self, place: Place) {
        self.packets
            .retain(|_, packet| packet.from != place && packet.to != place);
    }
}
