//! What a user of the crate may choose.

use std::net::SocketAddr;
use std::time::Duration;

use crate::limits;

/// Options of an [`Endpoint`](crate::Endpoint). The defaults are those of [`limits`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointOptions {
    /// UDP address to listen on; port 0 takes any free one. `[::]` serves IPv4 as well.
    pub listen: SocketAddr,
    /// A peer link that heard nothing for this long is given up.
    pub peer_idle_timeout: Duration,
    /// Keep-alive on peer links; well below the idle timeout.
    pub peer_keep_alive: Duration,
    /// A client connection that heard nothing for this long is given up.
    pub client_idle_timeout: Duration,
    /// Time for QUIC handshake, hello and admission together.
    pub handshake_timeout: Duration,
    /// Shortest delay before a peer is dialled again.
    pub backoff_first: Duration,
    /// Longest delay before a peer is dialled again.
    pub backoff_max: Duration,
    /// Client connections in all.
    pub clients_max: usize,
    /// Client connections with one identity.
    pub clients_per_identity_max: usize,
    /// Handshakes in progress.
    pub handshakes_max: usize,
    /// Handshakes in progress above which addresses are validated first. 0: always.
    pub retry_above_handshakes: usize,
    /// Bytes of one message between nodes.
    pub frame_bytes_max: usize,
    /// Bytes of one frame from or to a client.
    pub client_frame_bytes_max: usize,
    /// Bytes waiting in one lane to one peer.
    pub lane_queue_bytes_max: usize,
    /// Events waiting for the consumer.
    pub events_max: usize,
    /// Receive window of one stream, in bytes.
    pub stream_window_bytes: u32,
    /// Receive window of one client connection, in bytes.
    pub client_window_bytes: u32,
    /// UDP socket buffers to ask the system for, in bytes.
    pub socket_buffer_bytes: usize,
}

impl EndpointOptions {
    /// Defaults for an endpoint on `listen`.
    #[must_use]
    pub fn new(listen: SocketAddr) -> EndpointOptions {
        EndpointOptions {
            listen,
            peer_idle_timeout: limits::PEER_IDLE_TIMEOUT,
            peer_keep_alive: limits::PEER_KEEP_ALIVE,
            client_idle_timeout: limits::CLIENT_IDLE_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            backoff_first: Duration::from_millis(50),
            backoff_max: Duration::from_millis(500),
            clients_max: limits::CLIENTS_MAX,
            clients_per_identity_max: limits::CLIENTS_PER_IDENTITY_MAX,
            handshakes_max: limits::HANDSHAKES_MAX,
            retry_above_handshakes: limits::RETRY_ABOVE_HANDSHAKES,
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            client_frame_bytes_max: limits::CLIENT_FRAME_BYTES_MAX,
            lane_queue_bytes_max: limits::LANE_QUEUE_BYTES_MAX,
            events_max: limits::EVENTS_MAX,
            stream_window_bytes: limits::STREAM_WINDOW_BYTES,
            client_window_bytes: limits::CLIENT_WINDOW_BYTES,
            socket_buffer_bytes: limits::SOCKET_BUFFER_BYTES,
        }
    }
}

/// Options of [`connect_client`](crate::connect_client).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Time for name resolution, handshake and the server's word that it serves us.
    pub timeout: Duration,
    /// A connection that heard nothing for this long is given up.
    pub idle_timeout: Duration,
    /// Keep-alive; well below the idle timeout.
    pub keep_alive: Duration,
    /// Bytes of one frame.
    pub frame_bytes_max: usize,
    /// Receive window, in bytes.
    pub window_bytes: u32,
    /// UDP socket buffers to ask the system for, in bytes.
    pub socket_buffer_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout: Duration::from_secs(5),
            idle_timeout: limits::CLIENT_IDLE_TIMEOUT,
            keep_alive: limits::CLIENT_KEEP_ALIVE,
            frame_bytes_max: limits::CLIENT_FRAME_BYTES_MAX,
            window_bytes: limits::STREAM_WINDOW_BYTES,
            socket_buffer_bytes: limits::SOCKET_BUFFER_BYTES,
        }
    }
}
