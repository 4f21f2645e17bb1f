//! Faults on purpose: datagrams of a real socket dropped or delayed, for demonstrations and tests.
//!
//! One wrapper around quinn's socket. Without an impairment it costs one relaxed load per system call.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// What happens to datagrams between this endpoint and one other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Path {
    /// Nothing passes, in either direction.
    pub cut: bool,
    /// Share of the sent datagrams that is lost, from 0 to 1.
    pub loss: f64,
    /// Sent datagrams leave this much later.
    pub delay: Duration,
}

impl Path {
    /// A path on which nothing passes.
    pub const CUT: Path = Path {
        cut: true,
        loss: 0.0,
        delay: Duration::ZERO,
    };

    fn is_clear(&self) -> bool {
        *self == Path::default()
    }

    fn loses_one(&self) -> bool {
        self.cut || (self.loss > 0.0 && rand::random::<f64>() < self.loss)
    }
}

/// All faults of one endpoint. The default has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Towards peers, by node id: wherever they are, as far as this endpoint knows.
    pub peers: BTreeMap<u64, Path>,
    /// Towards addresses.
    pub addresses: BTreeMap<SocketAddr, Path>,
    /// Towards everybody else.
    pub others: Path,
}

/// What the socket looks at.
#[derive(Debug, Default)]
struct Rules {
    addresses: BTreeMap<SocketAddr, Path>,
    others: Path,
}

impl Rules {
    fn path(&self, remote: SocketAddr) -> Path {
        *self
            .addresses
            .get(&canonical(remote))
            .unwrap_or(&self.others)
    }
}

/// An IPv4 address has a second spelling on an IPv6 socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The switch, shared by the endpoint and its socket.
#[derive(Debug, Default)]
pub(crate) struct Impairer {
    active: AtomicBool,
    rules: ArcSwap<Rules>,
}

impl Impairer {
    /// Takes over `impairment`; `locate` says where a peer is.
    pub(crate) fn set(&self, impairment: &Impairment, locate: impl Fn(u64) -> Vec<SocketAddr>) {
        let mut addresses = BTreeMap::new();
        for (peer, path) in &impairment.peers {
            for address in locate(*peer) {
                addresses.insert(canonical(address), *path);
            }
        }
        for (address, path) in &impairment.addresses {
            addresses.insert(canonical(*address), *path);
        }
        let clear = addresses.values().all(Path::is_clear) && impairment.others.is_clear();
        self.rules.store(Arc::new(Rules {
            addresses,
            others: impairment.others,
        }));
        self.active.store(!clear, Ordering::Relaxed);
    }
}

/// A socket whose datagrams may be lost or late.
pub(crate) struct ImpairedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    impairer: Arc<Impairer>,
}

impl fmt::Debug for ImpairedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl ImpairedSocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, impairer: Arc<Impairer>) -> ImpairedSocket {
        ImpairedSocket { inner, impairer }
    }

    /// Sends the datagrams of one transmit one by one, so that each has its own luck.
    fn send_impaired(&self, transmit: &Transmit<'_>, path: Path) -> io::Result<()> {
        let size = transmit
            .segment_size
            .unwrap_or(transmit.contents.len())
            .max(1);
        for datagram in transmit.contents.chunks(size) {
            if path.loses_one() {
                continue;
            }
            if path.delay.is_zero() {
                self.inner.try_send(&Transmit {
                    destination: transmit.destination,
                    ecn: transmit.ecn,
                    contents: datagram,
                    segment_size: None,
                    src_ip: transmit.src_ip,
                })?;
            } else {
                let late = Late {
                    socket: self.inner.clone(),
                    destination: transmit.destination,
                    src_ip: transmit.src_ip,
                    contents: datagram.to_vec(),
                };
                tokio::spawn(late.send_after(path.delay));
            }
        }
        Ok(())
    }
}

/// A datagram on its slow way.
struct Late {
    socket: Arc<dyn AsyncUdpSocket>,
    destination: SocketAddr,
    src_ip: Option<IpAddr>,
    contents: Vec<u8>,
}

impl Late {
    async fn send_after(self, delay: Duration) {
        tokio::time::sleep(delay).await;
        let transmit = Transmit {
            destination: self.destination,
            ecn: None,
            contents: &self.contents,
            segment_size: None,
            src_ip: self.src_ip,
        };
        // A full socket drops it, as a full router would.
        if let Err(error) = self.socket.try_send(&transmit) {
            tracing::trace!(%error, "delayed datagram lost");
        }
    }
}

impl AsyncUdpSocket for ImpairedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.impairer.active.load(Ordering::Relaxed) {
            let path = self.impairer.rules.load().path(transmit.destination);
            if !path.is_clear() {
                return self.send_impaired(transmit, path);
            }
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = received
            && self.impairer.active.load(Ordering::Relaxed)
        {
            let rules = self.impairer.rules.load();
            for meta in meta.iter_mut().take(count) {
                if rules.path(meta.addr).cut {
                    // An empty datagram is skipped by the endpoint.
                    meta.len = 0;
                }
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
