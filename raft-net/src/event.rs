//! What the transport tells its user.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::client::ClientStream;
use crate::handshake::{Hello, Refusal};
use crate::snapshot_stream::IncomingSnapshot;

/// The class of a message to a peer. Each lane is one ordered stream; lanes do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Heartbeats, votes, and whatever else must not wait behind data.
    Urgent = 1,
    /// Replication.
    Bulk = 2,
}

impl Lane {
    pub(crate) const ALL: [Lane; 2] = [Lane::Urgent, Lane::Bulk];

    /// The byte that opens a stream of this lane.
    pub(crate) fn tag(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_tag(tag: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| lane.tag() == tag)
    }

    pub(crate) fn position(self) -> usize {
        match self {
            Lane::Urgent => 0,
            Lane::Bulk => 1,
        }
    }

    /// Larger goes first.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Lane::Urgent => 1,
            Lane::Bulk => 0,
        }
    }
}

/// Something that happened, in order of happening.
///
/// For one peer: every message of a link comes between its `PeerUp` and the matching `PeerDown`, and after the
/// `PeerUp` of a newer link nothing of an older one comes any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetEvent {
    /// A link to a peer is made; messages can be sent.
    PeerUp {
        /// The peer.
        id: u64,
        /// What it said of itself.
        hello: Hello,
    },
    /// The link is gone. What was queued is lost.
    PeerDown {
        /// The peer.
        id: u64,
        /// Why.
        reason: String,
    },
    /// A message from a peer.
    Message {
        /// The peer, by its certificate.
        from: u64,
        /// The boot counter of its hello.
        boot_counter: u64,
        /// The lane it came by.
        lane: Lane,
        /// Its bytes. They share memory with messages that arrived together: copy what is kept for long.
        payload: Bytes,
    },
    /// A peer began to send a snapshot.
    Snapshot(IncomingSnapshot),
    /// A client opened its stream.
    Client(ClientStream),
    /// A peer refused us.
    RefusedBy {
        /// The peer.
        id: u64,
        /// Why.
        refusal: Refusal,
    },
    /// We refused someone, or their handshake failed. For logs.
    Refused {
        /// Where they came from.
        remote: SocketAddr,
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_tags_stay_what_they_are_on_the_wire() {
        assert_eq!(Lane::ALL.map(Lane::tag), [1, 2]);
        for tag in 0..=255 {
            assert_eq!(
                Lane::from_tag(tag).map(Lane::tag),
                (1..=2).contains(&tag).then_some(tag)
            );
        }
    }

    /// Events travel through a channel by value; a large variant would make every message pay for it.
    #[test]
    fn an_event_is_small() {
        assert!(
            size_of::<NetEvent>() <= 256,
            "{} bytes",
            size_of::<NetEvent>()
        );
    }
}
