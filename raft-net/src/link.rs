//! From a QUIC connection to a link: hello frames and admission, then the loops that serve it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::client::close_refused;
use crate::endpoint::Shared;
use crate::error::{CloseReason, HandshakeError};
use crate::event::{Lane, NetEvent};
use crate::handshake::{Hello, Refusal, close_code};
use crate::identity::Identity;
use crate::lane::stream_error;
use crate::limits::{HELLO_BYTES_MAX, SNAPSHOTS_AT_ONCE};
use crate::peer::{Link, Peer, close};
use crate::snapshot_stream::{IncomingSnapshot, SNAPSHOT_TAG};
use crate::tls;
use crate::wire::{FrameReceiver, FrameSender, StreamReader, StreamWriter};

/// The stream of the hello frames.
struct HelloStream {
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl HelloStream {
    fn new((send, recv): (quinn::SendStream, quinn::RecvStream)) -> HelloStream {
        HelloStream {
            sender: FrameSender::new(
                StreamWriter {
                    stream: send,
                    _guard: None,
                },
                HELLO_BYTES_MAX,
            ),
            receiver: FrameReceiver::new(
                StreamReader {
                    stream: recv,
                    _guard: None,
                },
                HELLO_BYTES_MAX,
            ),
        }
    }

    async fn send(&mut self, hello: &Hello) -> Result<(), HandshakeError> {
        let frame = Bytes::copy_from_slice(&hello.encode());
        self.sender.send_all(&[frame]).await?;
        Ok(self.sender.finish().await?)
    }

    async fn recv(&mut self) -> Result<Hello, HandshakeError> {
        let frame = self.receiver.recv().await?.unwrap_or_default();
        Ok(Hello::decode(&frame)?)
    }
}

/// The dialler's side of the handshake, with the peer that was dialled.
pub(crate) async fn greet(
    shared: &Shared,
    peer: &Peer,
    connection: &quinn::Connection,
    sequence: u64,
) -> Result<Arc<Link>, HandshakeError> {
    let id = peer_id(shared, connection)?;
    if id != peer.id {
        return Err(HandshakeError::Refused(Refusal::WrongIdentity));
    }
    let mut stream = HelloStream::new(connection.open_bi().await?);
    stream.send(&shared.hello).await?;
    let hello = stream.recv().await?;
    check_hello(shared, peer, &hello)?;
    shared
        .admission
        .admit(&hello)
        .await
        .map_err(HandshakeError::Refused)?;
    Ok(new_link(shared, connection, hello, sequence))
}

/// The other side. Answers `Knocked` when it is we who dial that peer.
pub(crate) async fn answer_greeting(
    shared: &Shared,
    connection: &quinn::Connection,
    sequence: u64,
) -> Result<(Arc<Peer>, Arc<Link>), HandshakeError> {
    let id = peer_id(shared, connection)?;
    let stranger = || HandshakeError::Refused(shared.admission.refuse_stranger(id));
    let peer = shared.peer(id).ok_or_else(stranger)?;
    let mut stream = HelloStream::new(connection.accept_bi().await?);
    let hello = stream.recv().await?;
    check_hello(shared, &peer, &hello)?;
    if shared.dials(id) {
        peer.on_knock(&hello);
        return Err(HandshakeError::Knocked);
    }
    shared
        .admission
        .admit(&hello)
        .await
        .map_err(HandshakeError::Refused)?;
    widen(shared, connection);
    stream.send(&shared.hello).await?;
    let link = new_link(shared, connection, hello, sequence);
    Ok((peer, link))
}

/// An accepted connection has a client's limits until it is known to be a peer's.
fn widen(shared: &Shared, connection: &quinn::Connection) {
    let window = tls::peer_window_bytes(&shared.options);
    connection.set_receive_window(quinn::VarInt::from_u64(window).unwrap_or(quinn::VarInt::MAX));
    connection.set_send_window(window);
    connection.set_max_concurrent_uni_streams(2_u32.into());
    connection.set_max_concurrent_bi_streams(SNAPSHOTS_AT_ONCE.into());
}

fn new_link(
    shared: &Shared,
    connection: &quinn::Connection,
    hello: Hello,
    sequence: u64,
) -> Arc<Link> {
    Arc::new(Link::new(
        connection.clone(),
        hello,
        sequence,
        shared.options.lane_queue_bytes_max,
    ))
}

/// The node id in the certificate at the other end.
fn peer_id(shared: &Shared, connection: &quinn::Connection) -> Result<u64, HandshakeError> {
    match shared.tls.load().identify(connection) {
        Ok(Identity::Node { id, .. }) => Ok(id),
        Ok(Identity::Client { .. } | Identity::Admin { .. }) => {
            Err(HandshakeError::Refused(Refusal::WrongRole))
        }
        Err(error) => Err(HandshakeError::Refused(error.refusal())),
    }
}

/// The hello must say what the certificate says, and must not be older than what was met.
fn check_hello(shared: &Shared, peer: &Peer, hello: &Hello) -> Result<(), HandshakeError> {
    if hello.cluster != shared.hello.cluster {
        return Err(HandshakeError::Refused(Refusal::WrongCluster));
    }
    if hello.node != peer.id {
        return Err(HandshakeError::Refused(Refusal::WrongIdentity));
    }
    peer.check_incarnation(hello)
        .map_err(HandshakeError::Refused)
}

/// Tells the other side why there is no link.
pub(crate) fn close_failed(connection: &quinn::Connection, error: &HandshakeError) {
    match error {
        HandshakeError::Refused(refusal) => close_refused(connection, *refusal),
        HandshakeError::Knocked => close(connection, close_code::KNOCKED, "we dial you"),
        HandshakeError::Replaced => close(
            connection,
            close_code::REPLACED,
            "a newer connection took over",
        ),
        HandshakeError::TimedOut => close(
            connection,
            close_code::HANDSHAKE_TIMEOUT,
            "handshake not finished in time",
        ),
        HandshakeError::Hello(_) | HandshakeError::Frame(_) => {
            close(connection, close_code::PROTOCOL, &error.to_string());
        }
        HandshakeError::RefusedBy(_)
        | HandshakeError::Closed(_)
        | HandshakeError::NoAnswer
        | HandshakeError::Address(_)
        | HandshakeError::Stopping => close(connection, close_code::DONE, ""),
    }
}

/// Serves an installed link until it ends, and takes it down.
pub(crate) async fn serve(shared: &Arc<Shared>, peer: &Arc<Peer>, link: &Arc<Link>) {
    let mut tasks = JoinSet::new();
    let reason = match open_lanes(link, &mut tasks).await {
        Ok(()) => accept_streams(shared, peer, link, &mut tasks).await,
        Err(reason) => reason,
    };
    // What the readers have taken from the connection is part of this link; nothing of it may come later.
    tasks.shutdown().await;
    let refusal = reason.refusal;
    peer.uninstall(link, reason.reason, &shared.events).await;
    if let Some(refusal) = refusal {
        shared
            .emit(NetEvent::RefusedBy {
                id: peer.id,
                refusal,
            })
            .await;
    }
}

async fn open_lanes(link: &Arc<Link>, tasks: &mut JoinSet<()>) -> Result<(), CloseReason> {
    for lane in Lane::ALL {
        let mut stream = link.connection.open_uni().await?;
        stream
            .set_priority(lane.priority())
            .map_err(quinn::WriteError::from)?;
        stream.write_all(&[lane.tag()]).await?;
        let link = link.clone();
        tasks.spawn(async move {
            // The end of the connection is noticed and reported where streams are accepted.
            let _ended: CloseReason = link.lane(lane).write_to(stream).await;
        });
    }
    Ok(())
}

/// Takes the other side's streams until the connection ends.
async fn accept_streams(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    link: &Arc<Link>,
    tasks: &mut JoinSet<()>,
) -> CloseReason {
    let mut reloads = shared.reloads.subscribe();
    // A reload between the handshake and this moment counts too.
    reloads.mark_changed();
    loop {
        tokio::select! {
            stream = link.connection.accept_uni() => match stream {
                Ok(stream) => {
                    tasks.spawn(read_lane(shared.clone(), peer.clone(), link.clone(), stream));
                }
                Err(error) => return error.into(),
            },
            stream = link.connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    tasks.spawn(receive_snapshot(shared.clone(), peer.clone(), link.clone(), send, recv));
                }
                Err(error) => return error.into(),
            },
            Ok(()) = reloads.changed() => {
                if let Err(error) = shared.tls.load().identify(&link.connection) {
                    close_refused(&link.connection, error.refusal());
                }
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Reads one lane. Whatever breaks the protocol ends the connection: its other streams cannot be trusted either.
async fn read_lane(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    link: Arc<Link>,
    mut stream: quinn::RecvStream,
) {
    let mut tag = [0];
    let lane = match stream.read(&mut tag).await {
        Ok(Some(1)) => Lane::from_tag(tag[0]),
        Ok(_) => None,
        Err(_) => return,
    };
    let Some(lane) = lane else {
        return close(
            &link.connection,
            close_code::PROTOCOL,
            &format!("unknown stream type {}", tag[0]),
        );
    };
    let reader = StreamReader {
        stream,
        _guard: None,
    };
    let mut receiver = FrameReceiver::new(reader, shared.options.frame_bytes_max);
    let mut messages = Vec::new();
    loop {
        let read = receiver.drain(&mut messages).await;
        if !peer
            .deliver(&link, lane, &mut messages, &shared.events)
            .await
        {
            return;
        }
        match read {
            Ok(true) => {}
            Ok(false) => return close(&link.connection, close_code::PROTOCOL, "a lane ended"),
            Err(error) => {
                if let Some(reason) = stream_error(&error) {
                    close(&link.connection, close_code::PROTOCOL, &reason);
                }
                return;
            }
        }
    }
}

async fn receive_snapshot(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    link: Arc<Link>,
    send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) {
    let mut tag = [0];
    match recv.read(&mut tag).await {
        Ok(Some(1)) if tag[0] == SNAPSHOT_TAG => {}
        Ok(_) => {
            return close(
                &link.connection,
                close_code::PROTOCOL,
                &format!("unknown stream type {}", tag[0]),
            );
        }
        Err(_) => return,
    }
    match IncomingSnapshot::open(peer.id, link.hello.boot_counter, send, recv).await {
        Ok(snapshot) => {
            peer.deliver_event(&link, NetEvent::Snapshot(snapshot), &shared.events)
                .await
        }
        Err(error) => {
            tracing::debug!(peer = peer.id, %error, "snapshot transfer ended at its header")
        }
    }
}
