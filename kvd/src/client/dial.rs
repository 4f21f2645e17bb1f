//! Getting a link to an endpoint, over QUIC or over the admin socket.

use std::future::Future;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use raft_net::{ConnectError, Credentials, FrameReceiver, FrameSender, connect_client};
use tokio::net::{UdpSocket, UnixStream};

use super::error::Found;
use super::link::Link;
use crate::wire::client::{
    CLIENT_VERSION, MemberAddress, Request, RequestFrame, Response, ResponseFrame,
};

/// What an endpoint begins with when it names the admin socket and not a host.
const SOCKET_PREFIX: &str = "unix:";

/// How long the farewell of a connection may take: one packet that leaves at once, or is not worth waiting for.
const FAREWELL_MAX: Duration = Duration::from_millis(10);

/// A future behind a pointer, so that a test can stand in for the network.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, or `unix:` and a path.
    pub(crate) address: String,
    /// Only the node of this name will do.
    pub(crate) node: Option<String>,
}

/// How links are made. The network, or a test.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Makes a link.
    fn dial(&self, target: Target) -> Pending<Result<Link, Found>>;

    /// Finds out quickly whether nobody listens there; otherwise waits for ever.
    fn refused(&self, target: Target) -> Pending<()>;
}

/// What a node says at the beginning of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The answering node.
    pub node: String,
    /// Its id.
    pub node_id: u64,
    /// The cluster.
    pub cluster: u32,
    /// The cluster's name.
    pub cluster_name: String,
    /// All members.
    pub members: Vec<MemberAddress>,
    /// Id of the leader it knows of.
    pub leader: Option<u64>,
}

/// The real network.
pub(crate) struct Network {
    pub(crate) credentials: Option<Credentials>,
    pub(crate) options: raft_net::ClientOptions,
}

impl Dial for Network {
    fn dial(&self, target: Target) -> Pending<Result<Link, Found>> {
        let options = self.options.clone();
        if let Some(path) = target.address.strip_prefix(SOCKET_PREFIX) {
            return Box::pin(dial_socket(PathBuf::from(path), options.frame_bytes_max));
        }
        match self.credentials.clone() {
            Some(credentials) => Box::pin(dial_quic(target, credentials, options)),
            None => Box::pin(async {
                Err(Found::NotTrusted(
                    "there is no certificate to connect with".to_owned(),
                ))
            }),
        }
    }

    fn refused(&self, target: Target) -> Pending<()> {
        Box::pin(async move {
            if target.address.starts_with(SOCKET_PREFIX) || !is_refused(&target.address).await {
                std::future::pending::<()>().await;
            }
        })
    }
}

async fn dial_quic(
    target: Target,
    credentials: Credentials,
    options: raft_net::ClientOptions,
) -> Result<Link, Found> {
    let node = target.node.as_deref();
    let connection = connect_client(&target.address, &credentials, node, &options)
        .await
        .map_err(found)?;
    let handle = connection.handle;
    let farewell = move || -> Pending<()> {
        Box::pin(async move {
            // The packet that says so leaves at once; waiting for the end of the draining period would only cost time.
            let _ = tokio::time::timeout(FAREWELL_MAX, handle.close()).await;
        })
    };
    Ok(Link::over(
        connection.receiver,
        connection.sender,
        Some(Box::new(farewell)),
    ))
}

async fn dial_socket(path: PathBuf, frame_bytes_max: usize) -> Result<Link, Found> {
    let stream = UnixStream::connect(&path)
        .await
        .map_err(|error| socket_found(&error))?;
    let (read, write) = stream.into_split();
    Ok(Link::over(
        FrameReceiver::new(read, frame_bytes_max),
        FrameSender::new(write, frame_bytes_max),
        None,
    ))
}

fn socket_found(error: &std::io::Error) -> Found {
    let kind = error.kind();
    if kind == ErrorKind::ConnectionRefused || kind == ErrorKind::NotFound {
        return Found::ConnectionRefused;
    }
    if kind == ErrorKind::PermissionDenied {
        return Found::CertificateRejected("this user may not use the admin socket".to_owned());
    }
    Found::Lost(error.to_string())
}

fn found(error: ConnectError) -> Found {
    let said = error.to_string();
    match error {
        ConnectError::Resolve { reason, .. } => Found::Unresolved(reason),
        ConnectError::TimedOut { .. } => Found::TimedOut,
        ConnectError::BadServer { reason } => Found::NotTrusted(reason),
        ConnectError::Rejected(reason) => Found::CertificateRejected(reason.to_string()),
        ConnectError::Socket(_) | ConnectError::Tls { .. } | ConnectError::Lost(_) | _ => {
            Found::Lost(said)
        }
    }
}

/// Whether the machine at `address` answers a datagram with "nobody listens". QUIC itself does not look at that answer and
/// would wait for its timeout.
async fn is_refused(address: &str) -> bool {
    let Ok(mut found) = tokio::net::lookup_host(address).await else {
        return false;
    };
    let Some(remote) = found.next() else {
        return false;
    };
    let local = if remote.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let Ok(socket) = UdpSocket::bind(local).await else {
        return false;
    };
    // A node drops a datagram that is too short for a packet without an answer.
    if socket.connect(remote).await.is_err() || socket.send(&[0]).await.is_err() {
        return false;
    }
    let answer = socket.recv(&mut [0; 16]).await;
    answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Dials and says hello.
pub(crate) async fn reach(
    dial: &dyn Dial,
    target: Target,
    cluster: Option<u32>,
) -> Result<(Link, Greeting), Found> {
    let mut link = dial.dial(target).await?;
    let greeting = greet(&mut link).await?;
    match cluster {
        Some(cluster) if cluster != greeting.cluster => Err(Found::NotTrusted(format!(
            "it belongs to cluster {:08x}",
            greeting.cluster
        ))),
        Some(_) | None => Ok((link, greeting)),
    }
}

/// Says hello over a fresh link and waits for the answer.
async fn greet(link: &mut Link) -> Result<Greeting, Found> {
    let hello = Request::Hello {
        version: u16::from(CLIENT_VERSION),
        program: concat!("kvd-client ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let answer = ask(link, hello).await?;
    if let Response::Refused(refusal) = &answer {
        return Err(Found::CertificateRejected(refusal.to_string()));
    }
    let Response::Hello {
        node,
        node_id,
        cluster,
        cluster_name,
        members,
        leader,
        ..
    } = answer
    else {
        return Err(Found::Lost(
            "the answer to hello was something else".to_owned(),
        ));
    };
    Ok(Greeting {
        node,
        node_id,
        cluster,
        cluster_name,
        members,
        leader,
    })
}

/// One request over a link that carries nothing else at the moment.
pub(crate) async fn ask(link: &mut Link, body: Request) -> Result<Response, Found> {
    link.send(RequestFrame { id: 0, body }.encode());
    let frames = link.recv().await.map_err(Found::Lost)?;
    let frame = frames
        .first()
        .ok_or_else(|| Found::Lost("an empty answer".to_owned()))?;
    ResponseFrame::decode(frame)
        .map(|response| response.body)
        .map_err(|error| Found::Lost(format!("not the client protocol: {error}")))
}
