//! Messages between nodes: one frame is one [`PeerMessage`].
//!
//! ```text
//!  version (1)  head (postcard)  tail
//! ```
//!
//! The tail of a message with log entries is their records, back to back, exactly as they lie in the log: encoded once by
//! the leader, with checksums seeded with the cluster id. Encoding copies no payload, decoding checks both checksums of
//! every record and hands out slices of the frame. The tail of a forwarded write is the client's command.

use bytes::Bytes;
use raft_core::{Entry, EntryKind, Envelope, LogIndex, Message, Term, UnknownEntryKind};
use raft_log::record::{self, RecordError, RecordHeader};
use serde::{Deserialize, Serialize};

use self::head::RaftHead;
use super::client::Response;
use crate::kv::auth::{Principal, PrincipalRef};
use crate::kv::command::{HashAt, STATE_HASH_VERSION};
use crate::kv::envelope::SessionRef;
use crate::kv::{DecodeError, codec};

mod head;
#[cfg(test)]
mod tests;

/// Newest version of the encoding; also what a node says in the handshake that it speaks.
pub const PEER_VERSION: u8 = 2;

/// Version of the messages that every program knows. All others are encoded in the version that brought them, so that an
/// older program tells them from malformed ones.
const FIRST_VERSION: u8 = 1;

/// Version that brought [`PeerMessage::StateHash`] and [`PeerMessage::StateAsk`].
const STATE_VERSION: u8 = 2;

/// The newest commands that a node knows, by what it said in the handshake.
pub fn command_version(protocol: u16) -> u8 {
    if protocol < u16::from(STATE_VERSION) {
        2
    } else {
        STATE_HASH_VERSION
    }
}

/// What one node says to another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerMessage {
    /// Consensus.
    Raft(Envelope),
    /// A client's write, from a node that does not lead to the one that does.
    Forward {
        /// Chosen by the sender; comes back in the reply.
        request: u64,
        /// The client as the sender has authenticated it.
        principal: Principal,
        /// Its write.
        write: ForwardedWrite,
    },
    /// What became of a forwarded write.
    ForwardReply {
        /// The number of the request.
        request: u64,
        /// The answer for the client.
        response: Response,
    },
    /// What the sender's state is at a position of the log: to the leader. Version 2.
    StateHash(HashAt),
    /// The sender's state differs from that of the majority, and it asks for a snapshot. To be answered only by a node whose
    /// own state was that of the majority at that position or later. Version 2.
    StateAsk {
        /// What the majority has.
        agreed: HashAt,
        /// The snapshot must go so far.
        covering: LogIndex,
    },
}

impl PeerMessage {
    /// Whether it must not wait behind data: what keeps leaders in office and elects them, and reads.
    pub fn is_urgent(&self) -> bool {
        let PeerMessage::Raft(envelope) = self else {
            return false;
        };
        match envelope.message {
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::Vote(_)
            | Message::VoteResponse(_)
            | Message::Heartbeat(_)
            | Message::HeartbeatResponse(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow => true,
            Message::Append(_)
            | Message::AppendResponse(_)
            | Message::Commit(_)
            | Message::InstallSnapshot(_)
            | Message::SnapshotResponse(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::Repairing(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => false,
        }
    }
}

/// A client's write on its way to the leader; the fields are those of
/// [`Request::Write`](super::client::Request::Write).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedWrite {
    /// In which session.
    pub session: SessionRef,
    /// Position in the session.
    pub sequence: u64,
    /// Sequences below are done with.
    pub done_below: u64,
    /// The client's own bytes.
    pub command: Bytes,
    /// The client's checksum of them.
    pub crc: u32,
    /// How long the client still waits.
    pub timeout_ms: u32,
}

/// Why a frame is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The head does not decode, or something follows the end.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// An entry does not check.
    #[error("record {position} of {count}: {error}")]
    Record {
        /// Which, from 0.
        position: u32,
        /// Of how many.
        count: u32,
        /// What is wrong with it.
        error: RecordError,
    },
    /// An entry of a kind that this program does not know.
    #[error(transparent)]
    EntryKind(#[from] UnknownEntryKind),
    /// The configuration of a snapshot does not decode.
    #[error(transparent)]
    Configuration(#[from] raft_core::ConfigurationError),
}

/// The head of a message. Append-only.
#[derive(Serialize, Deserialize)]
enum Head<'a> {
    #[serde(borrow)]
    Raft(RaftHead<'a>),
    Forward {
        request: u64,
        #[serde(borrow)]
        principal: PrincipalRef<'a>,
        session: SessionRef,
        sequence: u64,
        done_below: u64,
        crc: u32,
        timeout_ms: u32,
    },
    ForwardReply {
        request: u64,
        response: Response,
    },
    StateHash(HashAt),
    StateAsk {
        agreed: HashAt,
        covering: u64,
    },
}

impl Head<'_> {
    /// The version that brought this kind of message.
    fn version(&self) -> u8 {
        match self {
            Head::Raft(_) | Head::Forward { .. } | Head::ForwardReply { .. } => FIRST_VERSION,
            Head::StateHash(_) | Head::StateAsk { .. } => STATE_VERSION,
        }
    }
}

/// The frame of a message, in parts to be sent one after the other.
pub fn encode(cluster: u32, message: &PeerMessage) -> Vec<Bytes> {
    match message {
        PeerMessage::Raft(envelope) => {
            let configuration = head::configuration_bytes(&envelope.message);
            let (head, entries) = RaftHead::of(envelope, &configuration);
            encode_entries(cluster, &Head::Raft(head), entries)
        }
        PeerMessage::Forward {
            request,
            principal,
            write,
        } => {
            let head = Head::Forward {
                request: *request,
                principal: principal.borrowed(),
                session: write.session,
                sequence: write.sequence,
                done_below: write.done_below,
                crc: write.crc,
                timeout_ms: write.timeout_ms,
            };
            vec![
                codec::encode(head.version(), &head).into(),
                write.command.clone(),
            ]
        }
        PeerMessage::ForwardReply { request, response } => {
            let head = Head::ForwardReply {
                request: *request,
                response: response.clone(),
            };
            vec![codec::encode(head.version(), &head).into()]
        }
        PeerMessage::StateHash(hash) => {
            let head = Head::StateHash(*hash);
            vec![codec::encode(head.version(), &head).into()]
        }
        PeerMessage::StateAsk { agreed, covering } => {
            let head = Head::StateAsk {
                agreed: *agreed,
                covering: covering.0,
            };
            vec![codec::encode(head.version(), &head).into()]
        }
    }
}

/// The head and all record headers lie in one allocation; the payloads are shared, not copied.
fn encode_entries(cluster: u32, head: &Head<'_>, entries: &[Entry]) -> Vec<Bytes> {
    let mut heads = codec::encode(head.version(), head);
    let first = heads.len();
    for entry in entries {
        heads.extend_from_slice(&record::encode_header(cluster, &record_header(entry)));
    }
    let heads = Bytes::from(heads);
    let mut parts = Vec::with_capacity(1 + 2 * entries.len());
    parts.push(heads.slice(..first));
    for (position, entry) in entries.iter().enumerate() {
        let at = first + position * record::HEADER_BYTES;
        parts.push(heads.slice(at..at + record::HEADER_BYTES));
        if !entry.payload.is_empty() {
            parts.push(entry.payload.clone());
        }
    }
    parts
}

fn record_header(entry: &Entry) -> RecordHeader {
    let payload_bytes =
        u32::try_from(entry.payload.len()).expect("payloads are bounded far below 4 GiB");
    RecordHeader {
        index: entry.index.0,
        term: entry.term.0,
        kind: entry.kind as u8,
        payload_bytes,
        payload_crc: entry.checksum,
    }
}

/// Reads a frame. Payloads and commands in the message are slices of it.
///
/// # Errors
/// The frame is no message of this cluster that this program knows.
pub fn decode(cluster: u32, frame: Bytes) -> Result<PeerMessage, WireError> {
    let (head, tail) = codec::decode_prefix::<Head<'_>>(PEER_VERSION, &frame)?;
    if frame.first() != Some(&head.version()) {
        return Err(DecodeError::Malformed.into());
    }
    match head {
        Head::Raft(head) => {
            let entries = decode_entries(cluster, &frame, tail, head.entry_count())?;
            Ok(PeerMessage::Raft(head.into_envelope(entries)?))
        }
        Head::Forward {
            request,
            principal,
            session,
            sequence,
            done_below,
            crc,
            timeout_ms,
        } => {
            let command = frame.slice_ref(tail);
            let principal = principal.to_owned();
            let write = ForwardedWrite {
                session,
                sequence,
                done_below,
                command,
                crc,
                timeout_ms,
            };
            Ok(PeerMessage::Forward {
                request,
                principal,
                write,
            })
        }
        Head::ForwardReply { request, response } => {
            no_tail(tail)?;
            Ok(PeerMessage::ForwardReply { request, response })
        }
        Head::StateHash(hash) => {
            no_tail(tail)?;
            Ok(PeerMessage::StateHash(hash))
        }
        Head::StateAsk { agreed, covering } => {
            no_tail(tail)?;
            let covering = LogIndex(covering);
            Ok(PeerMessage::StateAsk { agreed, covering })
        }
    }
}

fn no_tail(tail: &[u8]) -> Result<(), DecodeError> {
    if tail.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::TrailingBytes { bytes: tail.len() })
    }
}

/// Memory grows with the records that are there, not with `count`.
fn decode_entries(
    cluster: u32,
    frame: &Bytes,
    mut tail: &[u8],
    count: u32,
) -> Result<Vec<Entry>, WireError> {
    let mut entries = Vec::new();
    for position in 0..count {
        let (header, payload, used) =
            record::decode(cluster, tail).map_err(|error| WireError::Record {
                position,
                count,
                error,
            })?;
        entries.push(Entry {
            index: LogIndex(header.index),
            term: Term(header.term),
            kind: EntryKind::try_from(header.kind)?,
            payload: frame.slice_ref(payload),
            checksum: header.payload_crc,
        });
        tail = &tail[used..];
    }
    no_tail(tail)?;
    Ok(entries)
}
