//! The endpoint: one UDP port for peers and clients, in both directions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use quinn::Runtime;
use tokio::sync::{mpsc, watch};

use crate::accept::{self, Clients};
use crate::credentials::Credentials;
use crate::dial;
use crate::error::{BindError, ReloadError, SendError, TransferError};
use crate::event::{Lane, NetEvent};
use crate::handshake::{Admission, Hello, close_code};
use crate::identity::Identity;
use crate::impair::{ImpairedSocket, Impairer, Impairment};
use crate::lane::PushError;
use crate::options::EndpointOptions;
use crate::peer::{Link, Peer, PeerAddress, PeerStats};
use crate::snapshot_stream::SnapshotSender;
use crate::socket;
use crate::tls::{self, Tls};

/// How long `close` waits until the other sides have heard of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A node's transport. Dropping it closes every connection, without waiting until the other sides know.
pub struct Endpoint {
    shared: Arc<Shared>,
}

/// What all tasks of one endpoint work on.
pub(crate) struct Shared {
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) local_addr: SocketAddr,
    pub(crate) options: EndpointOptions,
    pub(crate) tls: ArcSwap<Tls>,
    pub(crate) hello: Hello,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) events: mpsc::Sender<NetEvent>,
    pub(crate) handshakes: Arc<AtomicUsize>,
    pub(crate) clients: Clients,
    /// Counts reloads; connections look at the deny list again when it moves.
    pub(crate) reloads: watch::Sender<u64>,
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
    sequence: AtomicU64,
    impairer: Arc<Impairer>,
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Peer>>> {
        // No critical section leaves the map half-changed.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.peers().get(&id).cloned()
    }

    /// Of two nodes, the one with the lower id dials.
    pub(crate) fn dials(&self, id: u64) -> bool {
        self.hello.node < id
    }

    /// Orders handshakes by their beginning.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the consumer; waits while it is behind. Without a consumer there is nobody to tell.
    pub(crate) async fn emit(&self, event: NetEvent) {
        if self.events.send(event).await.is_err() {
            tracing::trace!("nobody listens to events");
        }
    }

    /// Tells the consumer unless it is far behind: what strangers can cause must not fill its queue.
    pub(crate) fn emit_if_room(&self, event: NetEvent) {
        if self.events.capacity() > self.events.max_capacity() / 2
            && self.events.try_send(event).is_err()
        {
            tracing::trace!("an event for the log was dropped");
        }
    }

    fn link(&self, id: u64) -> Result<Arc<Link>, SendError> {
        let peer = self.peer(id).ok_or(SendError::UnknownPeer { peer: id })?;
        peer.link().ok_or(SendError::Down { peer: id })
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("local_addr", &self.shared.local_addr)
            .field("node", &self.shared.hello.node)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Listens, and serves peers and clients from then on. Must be called within a tokio runtime, to which all tasks
    /// of the endpoint belong.
    ///
    /// The receiver must be read: while `events_max` events wait, the endpoint stops reading from its peers.
    ///
    /// # Errors
    ///
    /// The address cannot be had, the credentials make no TLS configuration, or they are not those of the node that
    /// `local` speaks of.
    pub fn bind(
        options: EndpointOptions,
        credentials: Credentials,
        local: Hello,
        admission: Arc<dyn Admission>,
    ) -> Result<(Endpoint, mpsc::Receiver<NetEvent>), BindError> {
        check_own_identity(&credentials, &local)?;
        let tls_error = |reason| BindError::Tls { reason };
        let server = tls::quic_server(&credentials, &options).map_err(tls_error)?;
        let endpoint_config = tls::endpoint_config(&credentials);
        let tls = Tls::new(credentials, &options).map_err(tls_error)?;
        let listen = options.listen;
        let impairer = Arc::new(Impairer::default());
        let quinn = open(&options, endpoint_config, server, &impairer);
        let bound = quinn.and_then(|quinn| Ok((quinn.local_addr()?, quinn)));
        let (local_addr, quinn) = bound.map_err(|source| BindError::Socket { listen, source })?;
        let (events, receiver) = mpsc::channel(options.events_max.max(2));
        let shared = Arc::new(Shared {
            quinn,
            local_addr,
            tls: ArcSwap::from_pointee(tls),
            hello: local,
            admission,
            events,
            handshakes: Arc::default(),
            clients: Clients::new(options.clients_max, options.clients_per_identity_max),
            reloads: watch::Sender::new(0),
            peers: Mutex::default(),
            sequence: AtomicU64::new(0),
            impairer,
            options,
        });
        tokio::spawn(accept::accept_all(shared.clone()));
        Ok((Endpoint { shared }, receiver))
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Sets who the peers are. Links to new ones are made, links to those no longer named are closed, a changed
    /// address counts from the next dial on. This node itself is left out. Must be called within the runtime.
    pub fn set_peers(&self, peers: Vec<PeerAddress>) {
        let mut known = self.shared.peers();
        let wanted: BTreeMap<u64, PeerAddress> =
            peers.into_iter().map(|peer| (peer.id, peer)).collect();
        known.retain(|id, peer| {
            let stays = wanted.contains_key(id);
            if !stays {
                peer.remove();
            }
            stays
        });
        for (id, target) in wanted {
            if id == self.shared.hello.node {
                continue;
            }
            match known.get(&id) {
                Some(peer) => peer.set_target(target),
                None => {
                    let peer = Arc::new(Peer::new(target));
                    tokio::spawn(dial::keep_link(self.shared.clone(), peer.clone()));
                    known.insert(id, peer);
                }
            }
        }
    }

    /// Queues one message, given in parts, for a peer. Never waits. Whatever is queued for a lane when its stream can
    /// take more leaves in one write. The message may be lost, if the link is; it is never altered, never doubled,
    /// and never overtakes an earlier one of its lane.
    ///
    /// # Errors
    ///
    /// The message was not taken, see [`SendError`].
    pub fn send(&self, peer: u64, lane: Lane, parts: Vec<Bytes>) -> Result<(), SendError> {
        let limit = self.shared.options.frame_bytes_max;
        let pushed = self.shared.link(peer)?.lane(lane).push(parts, limit);
        pushed.map_err(|error| match error {
            PushError::Full { queued } => SendError::Full {
                peer,
                queued,
                limit: self.shared.options.lane_queue_bytes_max,
            },
            PushError::TooLarge { bytes } => SendError::TooLarge {
                bytes,
                limit: limit as u64,
            },
        })
    }

    /// Begins to send a snapshot. The transfer has a stream of its own and holds up nothing else.
    ///
    /// # Errors
    ///
    /// There is no link, or it is lost.
    pub async fn send_snapshot(
        &self,
        peer: u64,
        header: Bytes,
    ) -> Result<SnapshotSender, TransferError> {
        let link = self.shared.link(peer)?;
        SnapshotSender::open(&link.connection, header).await
    }

    /// Uses new credentials for all handshakes from now on. Existing connections stay, but those whose certificate
    /// is on the new deny list are closed.
    ///
    /// # Errors
    ///
    /// The credentials make no TLS configuration or belong to someone else; the old ones stay in use.
    pub fn reload(&self, credentials: Credentials) -> Result<(), ReloadError> {
        let tls_error = |reason| ReloadError::Tls { reason };
        let expected = self.shared.tls.load().credentials.identity().clone();
        if *credentials.identity() != expected {
            return Err(ReloadError::Identity {
                found: credentials.identity().clone(),
                expected,
            });
        }
        let server = tls::quic_server(&credentials, &self.shared.options).map_err(tls_error)?;
        let tls = Tls::new(credentials, &self.shared.options).map_err(tls_error)?;
        self.shared.tls.store(Arc::new(tls));
        self.shared.quinn.set_server_config(Some(server));
        self.shared.reloads.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The credentials in use.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.shared.tls.load().credentials.clone()
    }

    /// Drops or delays real datagrams from now on; the default [`Impairment`] ends it.
    pub fn impair(&self, impairment: &Impairment) {
        let locate = |id| {
            self.shared
                .peer(id)
                .map(|peer| peer.addresses())
                .unwrap_or_default()
        };
        self.shared.impairer.set(impairment, locate);
    }

    /// The link to a peer, if there is one.
    #[must_use]
    pub fn peer_stats(&self, peer: u64) -> Option<PeerStats> {
        self.shared.peer(peer)?.stats()
    }

    /// Clients connected now.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.shared.clients.count()
    }

    /// Closes every connection, tells the other sides why, and waits a moment until they know.
    pub async fn close(&self, reason: &str) {
        self.shared
            .quinn
            .close(close_code::DONE.into(), reason.as_bytes());
        if tokio::time::timeout(CLOSE_TIMEOUT, self.shared.quinn.wait_idle())
            .await
            .is_err()
        {
            tracing::debug!("some connections did not hear of the close in time");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared
            .quinn
            .close(close_code::DONE.into(), b"endpoint dropped");
        for peer in self.shared.peers().values() {
            peer.remove();
        }
    }
}

/// Certificate and hello must speak of the same node, or every peer would refuse us.
fn check_own_identity(credentials: &Credentials, local: &Hello) -> Result<(), BindError> {
    let identity = credentials.identity();
    if let Identity::Node { cluster, id, .. } = identity
        && *cluster == local.cluster
        && *id == local.node
    {
        return Ok(());
    }
    Err(BindError::Identity {
        node: local.node,
        cluster: local.cluster.0,
        identity: identity.clone(),
    })
}

fn open(
    options: &EndpointOptions,
    config: quinn::EndpointConfig,
    server: quinn::ServerConfig,
    impairer: &Arc<Impairer>,
) -> std::io::Result<quinn::Endpoint> {
    let runtime = Arc::new(quinn::TokioRuntime);
    let socket = socket::bind(options.listen, options.socket_buffer_bytes)?;
    let socket = runtime.wrap_udp_socket(socket)?;
    socket::warn_without_offload(socket.max_transmit_segments());
    let socket = Arc::new(ImpairedSocket::new(socket, impairer.clone()));
    quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)
}
