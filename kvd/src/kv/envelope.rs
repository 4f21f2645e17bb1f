//! The command envelope: the payload of a log entry that carries a command.
//!
//! Layout: a version byte, the head in postcard, then the client's own command bytes to the end of the payload,
//! unchanged and still covered by the client's own CRC. What the client computed is what every replica checks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::auth::PrincipalRef;
use super::codec::{self, DecodeError};

#[cfg(test)]
mod tests;

/// Version of the encoding of an [`Envelope`].
pub const ENVELOPE_VERSION: u8 = 1;

/// The session in which a command is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SessionRef {
    /// The session with this id, which is the index of the log entry that registered it. Unknown means expired.
    Id(u64),
    /// The session of this name, made by the client: registers it, or finds it if it is live, then applies. So the first
    /// write and the registration travel together, and repeating both is harmless.
    Named(u128),
    /// No session: the command is applied each time it is in the log. For upkeep that the cluster does by itself.
    None,
}

/// A command on its way into the log, and out of it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// On whose behalf. Rights are decided when the entry is applied.
    pub principal: PrincipalRef<'a>,
    /// In which session.
    pub session: SessionRef,
    /// Position of the command in its session; the first is 1. 0 without a session and for a keep-alive.
    pub sequence: u64,
    /// The client has done with all sequences below this one: it got their answers, or will never ask for them again.
    pub done_below: u64,
    /// Log time, made by the leader: never falls within one leadership.
    pub log_time_ms: u64,
    /// The client's own checksum of `command`.
    pub command_crc: u32,
    /// The client's own bytes.
    pub command: &'a [u8],
}

/// All of an envelope but the command. Kept apart so that the command can follow without a length.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    principal: PrincipalRef<'a>,
    session: SessionRef,
    sequence: u64,
    done_below: u64,
    log_time_ms: u64,
    command_crc: u32,
}

/// The head without the name: role, session reference (up to 20 bytes), three 64-bit numbers and a 32-bit one.
const HEAD_BYTES_TYPICAL: usize = 64;

impl<'a> Envelope<'a> {
    /// The payload of the entry.
    pub fn encode(&self) -> Bytes {
        let head = Head {
            principal: self.principal,
            session: self.session,
            sequence: self.sequence,
            done_below: self.done_below,
            log_time_ms: self.log_time_ms,
            command_crc: self.command_crc,
        };
        let mut payload =
            Vec::with_capacity(HEAD_BYTES_TYPICAL + self.principal.name.len() + self.command.len());
        payload.push(ENVELOPE_VERSION);
        let mut payload = codec::extend(payload, &head);
        payload.extend_from_slice(self.command);
        payload.into()
    }

    /// Reads what [`Envelope::encode`] wrote, without a copy. The command is not looked at.
    ///
    /// # Errors
    /// The bytes are no envelope that this program knows.
    pub fn decode(payload: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        let (head, command) = codec::decode_prefix::<Head<'a>>(ENVELOPE_VERSION, payload)?;
        Ok(Envelope {
            principal: head.principal,
            session: head.session,
            sequence: head.sequence,
            done_below: head.done_below,
            log_time_ms: head.log_time_ms,
            command_crc: head.command_crc,
            command,
        })
    }
}
