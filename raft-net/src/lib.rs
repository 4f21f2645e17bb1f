//! QUIC transport with mutual TLS (work in progress: peer links follow).
#![forbid(unsafe_code)]

mod accept;
mod backoff;
mod client;
mod credentials;
mod dial;
mod endpoint;
mod error;
mod event;
mod handshake;
mod identity;
mod impair;
mod lane;
pub mod limits;
mod link;
mod options;
mod peer;
#[cfg(feature = "pki")]
pub mod pki;
mod snapshot_stream;
mod socket;
mod tls;
pub mod wire;

pub use backoff::Backoff;
pub use client::{ClientConnection, ClientHandle, ClientStream, connect_client};
pub use credentials::{CREDENTIAL_FILES, CredentialError, Credentials, DenyList};
pub use endpoint::Endpoint;
pub use error::{BindError, CloseReason, ConnectError, ReloadError, SendError, TransferError};
pub use event::{Lane, NetEvent};
pub use handshake::{Admission, AdmitAll, Hello, HelloError, Refusal};
pub use identity::{ANY_NODE_NAME, ClusterId, Identity, IdentityError, node_dns_name};
pub use impair::{Impairment, Path};
pub use options::{ClientOptions, EndpointOptions};
pub use peer::{PeerAddress, PeerStats};
pub use snapshot_stream::{IncomingSnapshot, SnapshotSender};
pub use tls::{CLIENT_ALPN, PEER_ALPN};
pub use wire::{FrameError, FrameReceiver, FrameSender};
