//! One other node: its address, its current link, and the order of what is delivered from it.
//!
//! ```text
//!            handshake, admission                       closed, silent, replaced
//!   no link ----------------------> link (PeerUp) ------------------------------> no link (PeerDown)
//! ```
//!
//! Events of one peer are sent under the lock of its slot, by whoever holds the permits for them already. So
//! nothing of an older link can slip behind the `PeerUp` of a newer one, whatever the runtime does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::error::HandshakeError;
use crate::event::{Lane, NetEvent};
use crate::handshake::{Hello, Refusal, close_code};
use crate::lane::LaneQueue;
use crate::limits::{DELIVER_AT_ONCE, YOUNG_LINK};

/// Where a peer is to be found. A hint: who it is, its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Node id.
    pub id: u64,
    /// Node name; dialled as `NAME.node.kvd`.
    pub name: String,
    /// Host and port, resolved at each dial.
    pub address: String,
}

/// What is known of the link to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// Where the peer is.
    pub remote: SocketAddr,
    /// How long the link has been up.
    pub up: Duration,
    /// Estimate of the round-trip time.
    pub rtt: Duration,
    /// Bytes in datagrams sent.
    pub sent_bytes: u64,
    /// Bytes in datagrams received.
    pub received_bytes: u64,
    /// System calls for sending.
    pub send_calls: u64,
    /// Packets declared lost.
    pub lost_packets: u64,
    /// Bytes that wait in both lanes.
    pub queued_bytes: usize,
}

/// A connection to a peer that passed the handshake.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: quinn::Connection,
    pub(crate) hello: Hello,
    /// Order of the beginnings of handshakes on this endpoint: the newest wins.
    sequence: u64,
    since: Instant,
    lanes: [LaneQueue; 2],
}

impl Link {
    pub(crate) fn new(
        connection: quinn::Connection,
        hello: Hello,
        sequence: u64,
        queue_bytes_max: usize,
    ) -> Link {
        Link {
            connection,
            hello,
            sequence,
            since: Instant::now(),
            lanes: Lane::ALL.map(|_| LaneQueue::new(queue_bytes_max)),
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneQueue {
        &self.lanes[lane.position()]
    }

    fn stats(&self) -> PeerStats {
        let stats = self.connection.stats();
        PeerStats {
            remote: self.connection.remote_address(),
            up: self.since.elapsed(),
            rtt: self.connection.rtt(),
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            send_calls: stats.udp_tx.ios,
            lost_packets: stats.path.lost_packets,
            queued_bytes: self.lanes.iter().map(LaneQueue::queued_bytes).sum(),
        }
    }
}

/// The current link and what is remembered beyond it.
#[derive(Debug, Default)]
struct Slot {
    link: Option<Arc<Link>>,
    /// Newest incarnation that was admitted.
    newest: Option<(u64, u64)>,
    /// Where the peer was met last.
    remote: Option<SocketAddr>,
}

/// Whether a peer of incarnation `found` may still speak when `newest` has been met. Pure.
pub(crate) fn check_incarnation(
    newest: Option<(u64, u64)>,
    found: (u64, u64),
) -> Result<(), Refusal> {
    match newest {
        // The same count with another id is a second copy of one directory.
        Some(seen) if found.0 < seen.0 || (found.0 == seen.0 && found.1 != seen.1) => {
            Err(Refusal::StaleIncarnation { seen })
        }
        Some(_) | None => Ok(()),
    }
}

/// One other node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: u64,
    target: Mutex<PeerAddress>,
    slot: Mutex<Slot>,
    removed: AtomicBool,
    /// Wakes the task that keeps the link: the other side made one or it is gone, the peer knocked, it has another
    /// address, or it is no longer a peer.
    pub(crate) attention: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the state whole even if it panicked half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    pub(crate) fn new(target: PeerAddress) -> Peer {
        Peer {
            id: target.id,
            target: Mutex::new(target),
            slot: Mutex::default(),
            removed: AtomicBool::new(false),
            attention: Notify::new(),
        }
    }

    pub(crate) fn target(&self) -> PeerAddress {
        lock(&self.target).clone()
    }

    pub(crate) fn set_target(&self, target: PeerAddress) {
        let mut current = lock(&self.target);
        if *current != target {
            *current = target;
            self.attention.notify_one();
        }
    }

    /// No longer a peer: the link is closed and no new one is made.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        if let Some(link) = self.link() {
            close(&link.connection, close_code::DONE, "no longer a peer");
        }
        self.attention.notify_one();
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.slot).link.clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        lock(&self.slot).link.is_some()
    }

    pub(crate) fn stats(&self) -> Option<PeerStats> {
        self.link().map(|link| link.stats())
    }

    /// Every address this peer is known by.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let literal = lock(&self.target).address.parse().ok();
        let met = lock(&self.slot).remote;
        literal.into_iter().chain(met).collect()
    }

    pub(crate) fn check_incarnation(&self, hello: &Hello) -> Result<(), Refusal> {
        check_incarnation(lock(&self.slot).newest, hello.incarnation())
    }

    /// Makes `link` the current one and says so.
    pub(crate) async fn install(
        &self,
        link: &Arc<Link>,
        events: &mpsc::Sender<NetEvent>,
    ) -> Result<(), HandshakeError> {
        let permits = events
            .reserve_many(2)
            .await
            .map_err(|_| HandshakeError::Stopping)?;
        let mut slot = lock(&self.slot);
        if self.is_removed() {
            return Err(HandshakeError::Refused(Refusal::UnknownMember));
        }
        check_incarnation(slot.newest, link.hello.incarnation())
            .map_err(HandshakeError::Refused)?;
        if let Some(current) = &slot.link
            && current.sequence > link.sequence
            && current.hello.incarnation() == link.hello.incarnation()
        {
            return Err(HandshakeError::Replaced);
        }
        slot.newest = Some(link.hello.incarnation());
        slot.remote = Some(link.connection.remote_address());
        let replaced = slot.link.replace(link.clone());
        let down = replaced.as_ref().map(|_| NetEvent::PeerDown {
            id: self.id,
            reason: "a newer connection took over".to_owned(),
        });
        let up = NetEvent::PeerUp {
            id: self.id,
            hello: link.hello.clone(),
        };
        for (permit, event) in permits.zip(down.into_iter().chain([up])) {
            permit.send(event);
        }
        drop(slot);
        if let Some(replaced) = replaced {
            close(
                &replaced.connection,
                close_code::REPLACED,
                "a newer connection took over",
            );
        }
        Ok(())
    }

    /// `link` has ended; says so unless a newer one has taken its place.
    pub(crate) async fn uninstall(
        &self,
        link: &Arc<Link>,
        reason: String,
        events: &mpsc::Sender<NetEvent>,
    ) {
        let permit = events.reserve().await;
        {
            let mut slot = lock(&self.slot);
            if !slot
                .link
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, link))
            {
                return;
            }
            slot.link = None;
            // Without a consumer there is nobody to tell.
            if let Ok(permit) = permit {
                permit.send(NetEvent::PeerDown {
                    id: self.id,
                    reason,
                });
            }
        }
    }

    /// Hands messages of `link` to the consumer. False when nobody listens or the link is no longer the current one;
    /// the rest is dropped then.
    pub(crate) async fn deliver(
        &self,
        link: &Arc<Link>,
        lane: Lane,
        messages: &mut Vec<Bytes>,
        events: &mpsc::Sender<NetEvent>,
    ) -> bool {
        while !messages.is_empty() {
            let count = messages
                .len()
                .min(DELIVER_AT_ONCE)
                .min(events.max_capacity());
            let Ok(permits) = events.reserve_many(count).await else {
                return false;
            };
            let slot = lock(&self.slot);
            if !slot
                .link
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, link))
            {
                return false;
            }
            for (permit, payload) in permits.zip(messages.drain(..count)) {
                permit.send(NetEvent::Message {
                    from: self.id,
                    boot_counter: link.hello.boot_counter,
                    lane,
                    payload,
                });
            }
        }
        true
    }

    /// Hands one event of `link` to the consumer, under the same rule as [`deliver`](Peer::deliver).
    pub(crate) async fn deliver_event(
        &self,
        link: &Arc<Link>,
        event: NetEvent,
        events: &mpsc::Sender<NetEvent>,
    ) {
        let Ok(permit) = events.reserve().await else {
            return;
        };
        let slot = lock(&self.slot);
        if slot
            .link
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            permit.send(event);
        }
    }

    /// The peer has no link and asks us, who dial, to hurry. What we hold of it is dead, unless it is so young that
    /// its knock was under way when the link was made.
    pub(crate) fn on_knock(&self, hello: &Hello) {
        if let Some(link) = self.link() {
            let newer = link.hello.boot_counter < hello.boot_counter;
            if !newer && link.since.elapsed() < YOUNG_LINK {
                return;
            }
            close(
                &link.connection,
                close_code::REPLACED,
                "the other side has lost this connection",
            );
        }
        self.attention.notify_one();
    }
}

pub(crate) fn close(connection: &quinn::Connection, code: u32, reason: &str) {
    connection.close(code.into(), reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_or_copied_incarnation_is_stale_and_a_newer_or_equal_one_is_not() {
        let stale = Err(Refusal::StaleIncarnation { seen: (5, 77) });
        assert_eq!(check_incarnation(Some((5, 77)), (4, 99)), stale);
        assert_eq!(check_incarnation(Some((5, 77)), (5, 78)), stale);
        assert_eq!(check_incarnation(Some((5, 77)), (5, 77)), Ok(()));
        assert_eq!(check_incarnation(Some((5, 77)), (6, 1)), Ok(()));
        assert_eq!(check_incarnation(None, (1, 1)), Ok(()));
    }
}
