//! What clients ask, and what nodes say to each other.

use bytes::Bytes;
use kvd::driver::TICK_MS;
use kvd::kv::command::{Command, Op, command_crc};
use kvd::kv::envelope::SessionRef;
use kvd::wire::client::Request;
use kvd::wire::peer::PeerMessage;
use raft_core::Message;

use crate::world::PATIENCE;

/// A message on its way.
#[derive(Debug, Clone)]
pub struct Packet {
    pub from: u64,
    pub to: u64,
    pub message: PeerMessage,
}

impl Packet {
    pub fn raft(&self) -> Option<&Message> {
        if let PeerMessage::Raft(envelope) = &self.message {
            return Some(&envelope.message);
        }
        None
    }
}

/// A write as a client makes it.
#[derive(Debug, Clone)]
pub struct Write {
    pub session: SessionRef,
    pub sequence: u64,
    pub command: Bytes,
    pub crc: u32,
    pub ticks: u64,
}

impl Write {
    /// Without a session: never to be repeated.
    pub fn bare(command: impl Into<Command>) -> Write {
        let command = command.into().encode();
        Write {
            session: SessionRef::None,
            sequence: 0,
            crc: command_crc(&command),
            command,
            ticks: PATIENCE,
        }
    }

    /// In the session of this name.
    pub fn named(name: u128, sequence: u64, command: impl Into<Command>) -> Write {
        Write {
            session: SessionRef::Named(name),
            sequence,
            ..Write::bare(command)
        }
    }

    pub fn within(self, ticks: u64) -> Write {
        Write { ticks, ..self }
    }

    pub fn request(self) -> Request {
        Request::Write {
            session: self.session,
            sequence: self.sequence,
            done_below: u64::from(self.sequence > 0),
            command: self.command,
            crc: self.crc,
            timeout_ms: u32::try_from(self.ticks * TICK_MS).unwrap(),
        }
    }
}

pub fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        want_previous: false,
    }
}

/// Adds one: it shows when a command ran twice.
pub fn increment(key: &str) -> Op {
    Op::Increment {
        key: key.to_owned().into(),
        by: 1,
    }
}

pub fn is_append(packet: &Packet) -> bool {
    matches!(packet.raft(), Some(Message::Append(_)))
}

pub fn is_accepted(packet: &Packet) -> bool {
    matches!(
        packet.raft(),
        Some(Message::AppendResponse(
            raft_core::AppendResponse::Accepted { .. }
        ))
    )
}

pub fn is_heartbeat(packet: &Packet) -> bool {
    matches!(packet.raft(), Some(Message::Heartbeat(_)))
}

pub fn is_forward(packet: &Packet) -> bool {
    matches!(packet.message, PeerMessage::Forward { .. })
}

pub fn is_reply(packet: &Packet) -> bool {
    matches!(packet.message, PeerMessage::ForwardReply { .. })
}
