//! QUIC transport for the servers and the clients of a cluster, with mutual TLS 1.3 on one UDP port.
//!
//! The crate carries bytes between certificates. It knows nothing of consensus, of keys or of values.
//!
//! # What is promised
//!
//! Messages between nodes, by [`Endpoint::send`]:
//!
//! - A message **may be lost**, when its link is; it may be late; messages of different [`Lane`]s overtake each other.
//! - It is **never altered, invented or doubled**, and within one lane of one link it never overtakes another.
//! - It is attributed to the identity in the certificate at the other end, and to the **incarnation** (boot counter and
//!   boot id) of that node's [`Hello`]. Once a newer incarnation of a node was admitted, nothing of an older one is
//!   delivered any more; the [`Admission`] of the application is asked before the first message of each link.
//! - All messages of a link lie between its [`NetEvent::PeerUp`] and the matching [`NetEvent::PeerDown`].
//!
//! Client streams are ordinary ordered streams of frames: complete up to a point, and then an error.
//!
//! Snapshots have a stream each, with back-pressure and a final acknowledgement, and never hold up a lane.
//!
//! # Who is served
//!
//! A certificate names one owner in a URI: `kvd://CLUSTER/node/NAME/ID`, `kvd://CLUSTER/client/NAME` or
//! `kvd://CLUSTER/admin/NAME`. Nodes are served on the protocol [`PEER_ALPN`], clients on [`CLIENT_ALPN`], and never the
//! other way round. Whoever is refused is told why. There is no early data and no session resumption: every connection
//! shows its certificate. [`Endpoint::reload`] replaces certificate, key, CA and deny list while everything runs.
//!
//! # Links
//!
//! There is one connection for each pair of nodes. The node with the lower id dials, with a jittered [`Backoff`]; the
//! other one knocks, so that after a restart or a healed cut the link is back within a round trip or two of either side
//! being able to speak. A link that hears nothing for a second is given up.
//!
//! # Cost
//!
//! Everything queued for a lane leaves in one write, and a read takes everything that has arrived. A link costs one task
//! that watches it and one for each direction of each lane. The endpoint is meant for one `current_thread` runtime
//! together with the loop that uses it: no lock is held across an await, and nothing blocks. `examples/lane_bench.rs`
//! prints what that gives on your machine.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use raft_net::{pki::Authority, *};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = ClusterId(0xc0ff_ee42);
//! let authority = Authority::create(cluster, "example", 1)?;
//! let mut nodes = Vec::new();
//! for id in [1, 2] {
//!     let own = authority.issue_node(&format!("n{id}"), id, 1, &[])?;
//!     let ca = authority.ca_pem().as_bytes();
//!     let credentials = Credentials::from_pem(ca, own.cert_pem.as_bytes(), own.key_pem.as_bytes())?;
//!     let hello = Hello { cluster, node: id, boot_counter: 1, boot_id: 7, cluster_epoch: 0, version: 1 };
//!     let options = EndpointOptions::new("127.0.0.1:0".parse()?);
//!     nodes.push(Endpoint::bind(options, credentials, hello, Arc::new(AdmitAll))?);
//! }
//! let peers: Vec<PeerAddress> = [1, 2].into_iter().zip(&nodes).map(|(id, (endpoint, _))| PeerAddress {
//!     id,
//!     name: format!("n{id}"),
//!     address: endpoint.local_addr().to_string(),
//! }).collect();
//! for (endpoint, _) in &nodes {
//!     endpoint.set_peers(peers.clone());
//! }
//! let (second, mut events) = nodes.pop().unwrap();
//! let (first, mut first_events) = nodes.pop().unwrap();
//! while !matches!(first_events.recv().await, Some(NetEvent::PeerUp { .. })) {}
//! first.send(2, Lane::Urgent, vec![Bytes::from_static(b"hello "), Bytes::from_static(b"n2")])?;
//! loop {
//!     if let Some(NetEvent::Message { from, payload, .. }) = events.recv().await {
//!         assert_eq!((from, &payload[..]), (1, &b"hello n2"[..]));
//!         break;
//!     }
//! }
//! first.close("done").await;
//! second.close("done").await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `pki` (default): the module `pki` makes authorities and certificates. A server that only loads what others made can leave it
//! out.
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
