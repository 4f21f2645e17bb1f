//! One task per peer keeps the link to it.
//!
//! The node with the lower id dials. The other one **knocks** while it has no link: it dials too, shows its
//! certificate and hello, and is told "we dial you". A knock ends the dialler's back-off, and tells it that what it
//! still takes for a link is dead. So whichever side comes back, the link is there after one or two round trips.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::endpoint::Shared;
use crate::error::HandshakeError;
use crate::event::NetEvent;
use crate::identity::node_dns_name;
use crate::limits::{DIAL_ANSWER_TIMEOUT, PATIENT_DIAL_EVERY, YOUNG_LINK};
use crate::link;
use crate::peer::Peer;

/// Runs until the peer is removed or the endpoint closes.
pub(crate) async fn keep_link(shared: Arc<Shared>, peer: Arc<Peer>) {
    let options = &shared.options;
    let mut backoff = Backoff::new(options.backoff_first, options.backoff_max, rand::random());
    let mut told = None;
    while !peer.is_removed() {
        let outcome = if peer.is_up() {
            Ok(wait_down(&peer).await)
        } else {
            let patient = backoff.attempts() % PATIENT_DIAL_EVERY == PATIENT_DIAL_EVERY - 1;
            attempt(&shared, &peer, patient).await
        };
        match outcome {
            Ok(lived) => {
                told = None;
                if lived >= YOUNG_LINK {
                    backoff.reset();
                    continue;
                }
                // A link that breaks at once, again and again, must not become a storm of handshakes.
            }
            Err(HandshakeError::Stopping) => return,
            Err(error) => {
                tracing::debug!(peer = peer.id, %error, "no link");
                // The same refusal again and again is said once.
                if told.as_ref() != Some(&error) {
                    report(&shared, &peer, &error).await;
                    told = Some(error);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = peer.attention.notified() => {}
        }
    }
}

/// Waits while the link that the other side made is up; how long it was.
async fn wait_down(peer: &Peer) -> Duration {
    let begin = Instant::now();
    while peer.is_up() && !peer.is_removed() {
        peer.attention.notified().await;
    }
    begin.elapsed()
}

/// Dials once; if that makes a link, serves it until it ends. Answers how long it lived.
async fn attempt(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    patient: bool,
) -> Result<Duration, HandshakeError> {
    let sequence = shared.next_sequence();
    let connection = dial(shared, peer, patient).await?;
    let greeted = async {
        let link = link::greet(shared, peer, &connection, sequence).await?;
        peer.install(&link, &shared.events).await?;
        Ok(link)
    };
    let greeted = match tokio::time::timeout(shared.options.handshake_timeout, greeted).await {
        Ok(result) => result,
        Err(_) => Err(HandshakeError::TimedOut),
    };
    match greeted {
        Ok(link) => {
            let begin = Instant::now();
            link::serve(shared, peer, &link).await;
            Ok(begin.elapsed())
        }
        Err(error) => {
            link::close_failed(&connection, &error);
            Err(error)
        }
    }
}

/// A QUIC connection to the peer, its certificate verified by rustls for the name of the node.
async fn dial(
    shared: &Shared,
    peer: &Peer,
    patient: bool,
) -> Result<quinn::Connection, HandshakeError> {
    let target = peer.target();
    let remote = resolve(&target.address, shared.local_addr.is_ipv6()).await?;
    let config = shared.tls.load().dial.clone();
    let connecting = shared
        .quinn
        .connect_with(config, remote, &node_dns_name(&target.name));
    let mut connecting = connecting.map_err(|error| dial_error(&target.address, error))?;
    let answer_timeout = if patient {
        shared.options.handshake_timeout
    } else {
        DIAL_ANSWER_TIMEOUT
    };
    tokio::select! {
        answer = connecting.handshake_data() => drop(answer?),
        () = tokio::time::sleep(answer_timeout) => return Err(HandshakeError::NoAnswer),
        // The peer knocked: it is there now, and our packets so far may have been lost.
        () = peer.attention.notified() => {
            peer.attention.notify_one();
            return Err(HandshakeError::NoAnswer);
        }
    }
    match tokio::time::timeout(shared.options.handshake_timeout, connecting).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(HandshakeError::TimedOut),
    }
}

fn dial_error(address: &str, error: quinn::ConnectError) -> HandshakeError {
    if error == quinn::ConnectError::EndpointStopping {
        return HandshakeError::Stopping;
    }
    HandshakeError::Address(format!("{address}: {error}"))
}

/// The first address of `address` that our socket can reach.
async fn resolve(address: &str, ipv6: bool) -> Result<SocketAddr, HandshakeError> {
    let unknown = |reason: &str| HandshakeError::Address(format!("{address}: {reason}"));
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| unknown(&error.to_string()))?;
    found
        .find(|found| ipv6 || found.is_ipv4())
        .ok_or_else(|| unknown("no usable address"))
}

/// What the user should hear of a failed attempt. Silence is no news.
async fn report(shared: &Shared, peer: &Peer, error: &HandshakeError) {
    let refused = |reason: String| {
        let remote = peer.addresses().pop().unwrap_or(shared.local_addr);
        NetEvent::Refused { remote, reason }
    };
    let event = match error {
        HandshakeError::RefusedBy(refusal) => NetEvent::RefusedBy {
            id: peer.id,
            refusal: *refusal,
        },
        HandshakeError::Refused(refusal) => refused(refusal.to_string()),
        HandshakeError::Closed(_)
        | HandshakeError::Hello(_)
        | HandshakeError::Frame(_)
        | HandshakeError::Address(_) => refused(error.to_string()),
        HandshakeError::TimedOut
        | HandshakeError::NoAnswer
        | HandshakeError::Knocked
        | HandshakeError::Replaced
        | HandshakeError::Stopping => return,
    };
    shared.emit(event).await;
}
