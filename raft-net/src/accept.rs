//! Incoming connections: limits before any cryptography, then to the peers' or the clients' protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::{ClientStream, accept_stream, close_refused};
use crate::endpoint::Shared;
use crate::error::{CloseReason, HandshakeError};
use crate::event::NetEvent;
use crate::handshake::{Refusal, close_code};
use crate::identity::Identity;
use crate::limits::LINGER;
use crate::link;
use crate::peer::close;
use crate::tls::{CLIENT_ALPN, PEER_ALPN, PeerError, negotiated_alpn};

/// Takes connections until the endpoint closes.
pub(crate) async fn accept_all(shared: Arc<Shared>) {
    while let Some(incoming) = shared.quinn.accept().await {
        let Some(place) = Gauge::enter(&shared.handshakes, shared.options.handshakes_max) else {
            incoming.refuse();
            continue;
        };
        if place.count > shared.options.retry_above_handshakes && incoming.may_retry() {
            // A spoofed address never answers; an honest client loses one round trip.
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            continue;
        }
        tokio::spawn(admit(shared.clone(), incoming, place));
    }
}

/// A place among a limited number, given back on drop.
#[derive(Debug)]
pub(crate) struct Gauge {
    value: Arc<AtomicUsize>,
    /// How many there are, this one included.
    count: usize,
}

impl Gauge {
    fn enter(value: &Arc<AtomicUsize>, limit: usize) -> Option<Gauge> {
        let before = value.fetch_add(1, Ordering::Relaxed);
        let place = Gauge {
            value: value.clone(),
            count: before + 1,
        };
        (before < limit).then_some(place)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.value.fetch_sub(1, Ordering::Relaxed);
    }
}

/// From a first packet to a served peer or client.
async fn admit(shared: Arc<Shared>, incoming: quinn::Incoming, place: Gauge) {
    let remote = incoming.remote_address();
    let sequence = shared.next_sequence();
    let connecting = async { incoming.await };
    let connection = match tokio::time::timeout(shared.options.handshake_timeout, connecting).await
    {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if is_refusal(&error) => {
            return refused(&shared, remote, CloseReason::from(error).reason);
        }
        Ok(Err(error)) => return tracing::debug!(%remote, %error, "handshake abandoned"),
        Err(_) => return refused(&shared, remote, HandshakeError::TimedOut.to_string()),
    };
    match negotiated_alpn(&connection).as_deref() {
        Some(PEER_ALPN) => accept_peer(shared, connection, sequence, place).await,
        Some(CLIENT_ALPN) => accept_client(shared, connection, place).await,
        // rustls refuses every other protocol before.
        Some(_) | None => close(&connection, close_code::PROTOCOL, "unknown protocol"),
    }
}

/// Whether one side found something wrong with the other, rather than giving up or losing its way.
fn is_refusal(error: &quinn::ConnectionError) -> bool {
    match error {
        quinn::ConnectionError::TransportError(_) => true,
        // A dialler that starts over closes its former attempt like this.
        quinn::ConnectionError::ConnectionClosed(close) => {
            close.error_code != quinn::TransportErrorCode::APPLICATION_ERROR
        }
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::ApplicationClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::TimedOut
        | quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::CidsExhausted => false,
    }
}

fn refused(shared: &Shared, remote: SocketAddr, reason: String) {
    tracing::debug!(%remote, reason, "connection refused");
    shared.emit_if_room(NetEvent::Refused { remote, reason });
}

async fn accept_peer(
    shared: Arc<Shared>,
    connection: quinn::Connection,
    sequence: u64,
    place: Gauge,
) {
    let greeted = async {
        let (peer, link) = link::answer_greeting(&shared, &connection, sequence).await?;
        peer.install(&link, &shared.events).await?;
        Ok((peer, link))
    };
    let greeted = match tokio::time::timeout(shared.options.handshake_timeout, greeted).await {
        Ok(result) => result,
        Err(_) => Err(HandshakeError::TimedOut),
    };
    drop(place);
    match greeted {
        Ok((peer, link)) => {
            peer.attention.notify_one();
            link::serve(&shared, &peer, &link).await;
            peer.attention.notify_one();
        }
        Err(error) => {
            link::close_failed(&connection, &error);
            if error.is_ours() {
                let reason = describe(&shared, &connection, &error.to_string());
                refused(&shared, connection.remote_address(), reason);
            }
        }
    }
}

/// A reason together with whom it concerns.
fn describe(shared: &Shared, connection: &quinn::Connection, reason: &str) -> String {
    match shared.tls.load().identify(connection) {
        Ok(identity) => format!("{reason} ({identity})"),
        Err(error) => error.to_string(),
    }
}

async fn accept_client(shared: Arc<Shared>, connection: quinn::Connection, place: Gauge) {
    let remote = connection.remote_address();
    let (identity, _served) = match check_client(&shared, &connection) {
        Ok(checked) => checked,
        Err(error) => {
            close_refused(&connection, error.refusal());
            return refused(&shared, remote, error.to_string());
        }
    };
    let accepted = accept_stream(
        &connection,
        Arc::new(identity),
        shared.options.client_frame_bytes_max,
    );
    let accepted = tokio::time::timeout(shared.options.handshake_timeout, accepted).await;
    drop(place);
    match accepted {
        Ok(Ok((stream, gone))) => serve_client(&shared, &connection, stream, gone).await,
        Ok(Err(reason)) => {
            close(&connection, close_code::PROTOCOL, &reason.reason);
            refused(&shared, remote, reason.reason);
        }
        Err(_) => {
            close(
                &connection,
                close_code::HANDSHAKE_TIMEOUT,
                "no stream was opened in time",
            );
            refused(&shared, remote, HandshakeError::TimedOut.to_string());
        }
    }
}

/// Role, deny list and limits. A node's certificate is refused here: a stolen one must not also give access to the
/// data as a client, and what a node asks for its clients it asks on the peer protocol.
fn check_client(
    shared: &Shared,
    connection: &quinn::Connection,
) -> Result<(Identity, ClientPlace), PeerError> {
    let identity = shared.tls.load().identify(connection)?;
    match &identity {
        Identity::Node { .. } => Err(PeerError::Refused(identity, Refusal::WrongRole)),
        Identity::Client { .. } | Identity::Admin { .. } => match shared.clients.enter(&identity) {
            Some(place) => Ok((identity, place)),
            None => Err(PeerError::Refused(identity, Refusal::TooManyConnections)),
        },
    }
}

/// Hands the stream over and holds the connection until either side is done with it.
async fn serve_client(
    shared: &Shared,
    connection: &quinn::Connection,
    stream: ClientStream,
    mut gone: tokio::sync::oneshot::Receiver<std::convert::Infallible>,
) {
    let mut reloads = shared.reloads.subscribe();
    // A reload between the handshake and this moment counts too.
    reloads.mark_changed();
    shared.emit(NetEvent::Client(stream)).await;
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            _ = &mut gone => break,
            Ok(()) = reloads.changed() => {
                if let Err(error) = shared.tls.load().identify(connection) {
                    close_refused(connection, error.refusal());
                    return refused(shared, connection.remote_address(), error.to_string());
                }
            }
        }
    }
    // The last answers may still be under way; the client closes when it has them.
    if tokio::time::timeout(LINGER, connection.closed())
        .await
        .is_err()
    {
        close(connection, close_code::DONE, "done");
    }
}

/// Client connections, counted in all and by identity.
#[derive(Debug)]
pub(crate) struct Clients {
    all: Arc<AtomicUsize>,
    by_identity: Arc<Mutex<BTreeMap<Identity, usize>>>,
    max: usize,
    per_identity_max: usize,
}

/// A served client's place, given back on drop.
#[derive(Debug)]
pub(crate) struct ClientPlace {
    identity: Identity,
    by_identity: Arc<Mutex<BTreeMap<Identity, usize>>>,
    _all: Gauge,
}

impl Clients {
    pub(crate) fn new(max: usize, per_identity_max: usize) -> Clients {
        Clients {
            all: Arc::default(),
            by_identity: Arc::default(),
            max,
            per_identity_max,
        }
    }

    /// Clients connected now.
    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn enter(&self, identity: &Identity) -> Option<ClientPlace> {
        let all = Gauge::enter(&self.all, self.max)?;
        let mut by_identity = self
            .by_identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = by_identity.entry(identity.clone()).or_default();
        if *count >= self.per_identity_max {
            return None;
        }
        *count += 1;
        Some(ClientPlace {
            identity: identity.clone(),
            by_identity: self.by_identity.clone(),
            _all: all,
        })
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut by_identity = self
            .by_identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_identity.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                by_identity.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ClusterId;

    fn client(name: &str) -> Identity {
        Identity::Client {
            cluster: ClusterId(1),
            name: name.to_owned(),
        }
    }

    #[test]
    fn places_are_limited_in_all_and_by_identity_and_come_back() {
        let clients = Clients::new(3, 2);
        let first = clients.enter(&client("a")).unwrap();
        let _second = clients.enter(&client("a")).unwrap();
        assert!(clients.enter(&client("a")).is_none());
        let _third = clients.enter(&client("b")).unwrap();
        assert!(clients.enter(&client("c")).is_none());
        assert_eq!(clients.count(), 3);
        drop(first);
        assert!(clients.enter(&client("a")).is_some());
    }
}
