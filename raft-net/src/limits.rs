//! Bounds, each with its unit and its reason.
//!
//! What a user could need to change is an option of [`EndpointOptions`](crate::EndpointOptions) or
//! [`ClientOptions`](crate::ClientOptions) whose default stands here; the rest is fixed by the protocol.

use std::time::Duration;

/// Bytes of one peer frame. A frame holds one message; an append batch is kept far below this.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Bytes of one client frame: the largest value plus its key and envelope, with room to spare.
pub const CLIENT_FRAME_BYTES_MAX: usize = 4 << 20;

/// Bytes that may wait in one lane to one peer before `send` answers `Full`.
pub const LANE_QUEUE_BYTES_MAX: usize = 16 << 20;

/// Events that may wait for the consumer before the transport stops reading; flow control then reaches the senders.
/// A bound in number: how many bytes they hold is up to the frames of the peers, which have certificates.
pub const EVENTS_MAX: usize = 1024;

/// Client connections of the whole endpoint.
pub const CLIENTS_MAX: usize = 1024;

/// Client connections with one and the same certificate identity.
pub const CLIENTS_PER_IDENTITY_MAX: usize = 256;

/// Handshakes in progress; one more is refused before any cryptography.
pub const HANDSHAKES_MAX: usize = 512;

/// Handshakes in progress above which a new remote address must first prove that it receives what we send (Retry).
pub const RETRY_ABOVE_HANDSHAKES: usize = 32;

/// Time for the QUIC handshake, the hello frames and the admission together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A dialler that hears nothing at all for this long starts over. With the first retransmissions at 100 and
/// 300 ms, and the back-off of at most 500 ms, a healed cut is noticed within about half a second.
pub(crate) const DIAL_ANSWER_TIMEOUT: Duration = Duration::from_millis(310);

/// Every so many attempts one waits for the whole handshake timeout, for links slower than the answer timeout.
pub(crate) const PATIENT_DIAL_EVERY: u32 = 4;

/// First guess of the round-trip time while dialling; the first retransmission comes after three times this.
pub(crate) const DIAL_INITIAL_RTT: Duration = Duration::from_millis(33);

/// Keep-alive on a peer link. Only the dialler sends them; the acknowledgements keep the other side alive.
pub const PEER_KEEP_ALIVE: Duration = Duration::from_millis(250);

/// A peer link that heard nothing for this long is given up and dialled anew.
///
/// Probes of a silent connection back off exponentially, so after a cut of length t the next probe comes up to t
/// later. Giving up after one second bounds that wait by half a second; dialling takes over with fresh packets.
pub const PEER_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client connection that heard nothing for this long is given up.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Keep-alive sent by a client.
pub const CLIENT_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Receive window of one stream, in bytes: bandwidth times delay of 10 Gbit/s at 3 ms.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Streams that share one peer connection: hello, two lanes, snapshots. Their windows add up to the window of the
/// connection, so that no stream can take the credit of another: a stuck snapshot must not silence heartbeats.
pub(crate) const STREAMS_PER_PEER: u32 = 3 + SNAPSHOTS_AT_ONCE;

/// Snapshot transfers that one peer may have open towards us.
pub(crate) const SNAPSHOTS_AT_ONCE: u32 = 4;

/// Receive window of a client connection, in bytes: what a client can make us buffer before its frame is read.
pub const CLIENT_WINDOW_BYTES: u32 = 1 << 20;

/// UDP socket buffers asked for, in bytes. Linux' default of 208 KiB holds fewer than 100 full packets.
pub const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Parts of a message at least this long are sent without a copy; shorter ones are cheaper to copy than to chain.
pub(crate) const CHAIN_BYTES_MIN: usize = 16 << 10;

/// Memory taken at once for reading, in bytes.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// With less room than this, in bytes, a reader takes new memory.
pub(crate) const SPARE_BYTES_MIN: usize = 4 << 10;

/// Messages handed to the consumer under one lock.
pub(crate) const DELIVER_AT_ONCE: usize = 64;

/// A knock by a peer that has no link says that a link of ours older than this is dead; and when a link older than
/// this ends, the peer is dialled at once.
pub(crate) const YOUNG_LINK: Duration = Duration::from_secs(1);

/// Bytes of a hello frame that are accepted. Ours is shorter; a newer version may have appended fields.
pub(crate) const HELLO_BYTES_MAX: usize = 256;

/// Bytes of the header of a snapshot transfer.
pub const SNAPSHOT_HEADER_BYTES_MAX: usize = 1 << 20;

/// A connection refused or finished by us gets this long to hear the reason.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
