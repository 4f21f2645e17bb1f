//! Client connections: one long-lived bidirectional stream each, from both ends.
//!
//! The client opens the stream with one byte; the server answers with the same byte once it has looked at the
//! certificate. Only then is the client connected: with TLS 1.3 a server's refusal of a client certificate comes
//! after the client's handshake has succeeded, and would otherwise surface in the middle of the first request.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::VarInt;

use crate::credentials::Credentials;
use crate::error::{CloseReason, ConnectError};
use crate::handshake::close_code;
use crate::identity::{ANY_NODE_NAME, Identity, node_dns_name};
use crate::options::ClientOptions;
use crate::socket;
use crate::tls::{self, CLIENT_ALPN};
use crate::wire::{FrameReceiver, FrameSender, StreamReader, StreamWriter};

/// The byte that opens a client stream, in both directions.
pub(crate) const CLIENT_TAG: u8 = 16;

/// A client's stream, as the server gets it. The connection ends when both halves are dropped.
#[derive(Debug)]
pub struct ClientStream {
    /// Who it is, by the certificate.
    pub identity: Arc<Identity>,
    /// Where it came from.
    pub remote: SocketAddr,
    /// Answers go here.
    pub sender: FrameSender,
    /// Requests come from here.
    pub receiver: FrameReceiver,
}

/// A connection to a server, as the client holds it.
#[derive(Debug)]
pub struct ClientConnection {
    /// The node at the other end, by its certificate.
    pub server: Identity,
    /// Its address.
    pub remote: SocketAddr,
    /// Requests go here.
    pub sender: FrameSender,
    /// Answers come from here.
    pub receiver: FrameReceiver,
    /// Keeps the connection; give it away to split sender and receiver, and close it at the end.
    pub handle: ClientHandle,
}

/// The connection itself, apart from its stream.
#[derive(Clone, Debug)]
pub struct ClientHandle {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl ClientHandle {
    /// Closes the connection and tells the server so.
    pub async fn close(&self) {
        self.connection.close(close_code::DONE.into(), b"done");
        self.endpoint.wait_idle().await;
    }

    /// Current estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> std::time::Duration {
        self.connection.rtt()
    }
}

/// Connects to the server at `address` (host and port, or a socket address).
///
/// With `expect_node`, only the node of that name is accepted; otherwise any node of the cluster. Several addresses
/// of one name are tried in their order within the one timeout. Must be called within a tokio runtime.
///
/// # Errors
///
/// See [`ConnectError`]; a refusal of our certificate is [`ConnectError::Rejected`], with the server's reason.
pub async fn connect_client(
    address: &str,
    credentials: &Credentials,
    expect_node: Option<&str>,
    options: &ClientOptions,
) -> Result<ClientConnection, ConnectError> {
    let connect = connect_any(address, credentials, expect_node, options);
    match tokio::time::timeout(options.timeout, connect).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut {
            address: address.to_owned(),
            timeout: options.timeout,
        }),
    }
}

async fn connect_any(
    address: &str,
    credentials: &Credentials,
    expect_node: Option<&str>,
    options: &ClientOptions,
) -> Result<ClientConnection, ConnectError> {
    let unresolved = |reason: String| ConnectError::Resolve {
        address: address.to_owned(),
        reason,
    };
    let found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| unresolved(error.to_string()))?;
    let mut result = Err(unresolved("no address".to_owned()));
    for remote in found {
        result = connect_one(remote, credentials, expect_node, options).await;
        match result {
            // Whoever answered speaks for the name.
            Ok(_) | Err(ConnectError::Rejected(_) | ConnectError::BadServer { .. }) => break,
            Err(_) => {}
        }
    }
    result
}

async fn connect_one(
    remote: SocketAddr,
    credentials: &Credentials,
    expect_node: Option<&str>,
    options: &ClientOptions,
) -> Result<ClientConnection, ConnectError> {
    let tls_error = |reason| ConnectError::Tls { reason };
    let config = tls::quic_client(credentials, CLIENT_ALPN, tls::client_transport(options))
        .map_err(tls_error)?;
    let endpoint = client_endpoint(remote, options).map_err(ConnectError::Socket)?;
    let name = expect_node.map_or_else(|| ANY_NODE_NAME.to_owned(), node_dns_name);
    let connecting = endpoint.connect_with(config, remote, &name);
    let connecting = connecting.map_err(|error| ConnectError::BadServer {
        reason: error.to_string(),
    })?;
    let connection = connecting.await.map_err(connect_error)?;
    let server = server_identity(&connection, credentials)?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(connect_error)?;
    send.write_all(&[CLIENT_TAG])
        .await
        .map_err(|error| lost_or_rejected(error.into()))?;
    let mut tag = [0];
    let answer = recv
        .read(&mut tag)
        .await
        .map_err(|error| lost_or_rejected(error.into()))?;
    if answer != Some(1) || tag != [CLIENT_TAG] {
        connection.close(
            close_code::PROTOCOL.into(),
            b"unexpected answer to the opening of a client stream",
        );
        return Err(ConnectError::BadServer {
            reason: "unexpected answer to the opening of a stream".to_owned(),
        });
    }
    Ok(ClientConnection {
        server,
        remote,
        sender: FrameSender::new(
            StreamWriter {
                stream: send,
                _guard: None,
            },
            options.frame_bytes_max,
        ),
        receiver: FrameReceiver::new(
            StreamReader {
                stream: recv,
                _guard: None,
            },
            options.frame_bytes_max,
        ),
        handle: ClientHandle {
            endpoint,
            connection,
        },
    })
}

fn client_endpoint(
    remote: SocketAddr,
    options: &ClientOptions,
) -> std::io::Result<quinn::Endpoint> {
    let any: SocketAddr = if remote.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = socket::bind(any, options.socket_buffer_bytes)?;
    quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        None,
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

/// rustls has checked CA, time and DNS name; here it is checked that it is a node of our cluster.
fn server_identity(
    connection: &quinn::Connection,
    credentials: &Credentials,
) -> Result<Identity, ConnectError> {
    let bad = |reason: String| {
        connection.close(close_code::DONE.into(), b"not the server that was expected");
        Err(ConnectError::BadServer { reason })
    };
    match tls::peer_identity(connection) {
        Ok((identity @ Identity::Node { .. }, _))
            if identity.cluster() == credentials.identity().cluster() =>
        {
            Ok(identity)
        }
        Ok((other, _)) => bad(format!(
            "{other} instead of a node of cluster {}",
            credentials.identity().cluster()
        )),
        Err(error) => bad(error.to_string()),
    }
}

fn connect_error(error: quinn::ConnectionError) -> ConnectError {
    match error {
        // Found by our own TLS: the server's certificate.
        quinn::ConnectionError::TransportError(_) => ConnectError::BadServer {
            reason: CloseReason::from(error).reason,
        },
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::ApplicationClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::TimedOut
        | quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::CidsExhausted => lost_or_rejected(error.into()),
    }
}

/// A close by the other side while we were connecting is its refusal; anything else is a loss.
fn lost_or_rejected(reason: CloseReason) -> ConnectError {
    if reason.by_other_side {
        ConnectError::Rejected(reason)
    } else {
        ConnectError::Lost(reason)
    }
}

/// The server's half: takes the one stream of an accepted client connection. The caller holds the limits.
pub(crate) async fn accept_stream(
    connection: &quinn::Connection,
    identity: Arc<Identity>,
    frame_bytes_max: usize,
) -> Result<
    (
        ClientStream,
        tokio::sync::oneshot::Receiver<std::convert::Infallible>,
    ),
    CloseReason,
> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let mut tag = [0];
    let opened = recv.read(&mut tag).await?;
    if opened != Some(1) || tag != [CLIENT_TAG] {
        return Err(CloseReason::protocol(
            "a client stream opens with another byte",
        ));
    }
    send.write_all(&[CLIENT_TAG]).await?;
    let (guard, gone) = tokio::sync::oneshot::channel();
    let guard = Arc::new(guard);
    let stream = ClientStream {
        identity,
        remote: connection.remote_address(),
        sender: FrameSender::new(
            StreamWriter {
                stream: send,
                _guard: Some(guard.clone()),
            },
            frame_bytes_max,
        ),
        receiver: FrameReceiver::new(
            StreamReader {
                stream: recv,
                _guard: Some(guard),
            },
            frame_bytes_max,
        ),
    };
    Ok((stream, gone))
}

/// Closes with a refusal that the other side can read.
pub(crate) fn close_refused(connection: &quinn::Connection, refusal: crate::Refusal) {
    connection.close(
        VarInt::from_u32(refusal.code()),
        refusal.to_string().as_bytes(),
    );
}
