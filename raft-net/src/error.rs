//! Errors, one enum per operation a caller can tell apart.

use std::io;
use std::net::SocketAddr;

use crate::handshake::{HelloError, Refusal};
use crate::identity::Identity;
use crate::wire::FrameError;

/// Why a connection ended, in our own terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CloseReason {
    /// Close code, if the other side's application closed the connection.
    pub code: Option<u64>,
    /// The refusal that code stands for.
    pub refusal: Option<Refusal>,
    /// Whether the other side closed the connection, rather than the network or ourselves.
    pub by_other_side: bool,
    /// What was said, or what the transport found.
    pub reason: String,
}

impl CloseReason {
    fn local(reason: impl ToString) -> CloseReason {
        CloseReason {
            code: None,
            refusal: None,
            by_other_side: false,
            reason: reason.to_string(),
        }
    }

    fn remote(reason: impl ToString) -> CloseReason {
        CloseReason {
            by_other_side: true,
            ..CloseReason::local(reason)
        }
    }

    pub(crate) fn protocol(reason: &str) -> CloseReason {
        CloseReason::local(reason)
    }
}

impl From<quinn::ConnectionError> for CloseReason {
    fn from(error: quinn::ConnectionError) -> CloseReason {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                let refusal = Refusal::from_close(code, &close.reason);
                let said = String::from_utf8_lossy(&close.reason).into_owned();
                let reason = match refusal {
                    Some(refusal) if said.is_empty() => refusal.to_string(),
                    Some(_) | None => said,
                };
                CloseReason {
                    code: Some(code),
                    refusal,
                    by_other_side: true,
                    reason,
                }
            }
            // A failed TLS handshake of the other side ends here; its reason says what was wrong with us.
            E::ConnectionClosed(close) if close.reason.is_empty() => CloseReason::remote(close),
            E::ConnectionClosed(close) => {
                CloseReason::remote(String::from_utf8_lossy(&close.reason))
            }
            E::TransportError(error) if error.reason.is_empty() => CloseReason::local(error),
            E::TransportError(error) => CloseReason::local(error.reason),
            E::TimedOut => CloseReason::local("nothing was heard from the other side"),
            E::Reset => CloseReason::local("the other side restarted"),
            E::VersionMismatch | E::LocallyClosed | E::CidsExhausted => CloseReason::local(error),
        }
    }
}

impl From<quinn::ReadError> for CloseReason {
    fn from(error: quinn::ReadError) -> CloseReason {
        match error {
            quinn::ReadError::ConnectionLost(error) => error.into(),
            quinn::ReadError::Reset(_)
            | quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => CloseReason::local(error),
        }
    }
}

impl From<quinn::WriteError> for CloseReason {
    fn from(error: quinn::WriteError) -> CloseReason {
        match error {
            quinn::WriteError::ConnectionLost(error) => error.into(),
            quinn::WriteError::Stopped(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected => CloseReason::local(error),
        }
    }
}

impl From<CloseReason> for io::Error {
    fn from(reason: CloseReason) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, reason)
    }
}

/// An error of a reader or writer: ours by [`CloseReason`], anyone else's by kind and text.
pub(crate) fn frame_error(error: io::Error) -> FrameError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<CloseReason>())
    {
        Some(close) => FrameError::Closed {
            code: close.code,
            reason: close.reason.clone(),
        },
        None => FrameError::Io {
            kind: error.kind(),
            reason: error.to_string(),
        },
    }
}

/// Why the endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The UDP socket could not be made; `AddrInUse` and `AddrNotAvailable` are the usual kinds.
    #[error("cannot listen on {listen}: {source}")]
    Socket {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate, key and CA do not make a TLS configuration.
    #[error("certificates: {reason}")]
    Tls {
        /// What rustls said.
        reason: String,
    },
    /// Only a node can be an endpoint, and its hello must agree with its certificate.
    #[error(
        "hello of node {node:016x} in cluster {cluster:08x} with the certificate of {identity}"
    )]
    Identity {
        /// Node id of the hello.
        node: u64,
        /// Cluster id of the hello.
        cluster: u32,
        /// Owner of the certificate.
        identity: Identity,
    },
}

/// Why new credentials were not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// They make no TLS configuration.
    #[error("certificates: {reason}")]
    Tls {
        /// What rustls said.
        reason: String,
    },
    /// They belong to someone else. Identity never changes in a running node.
    #[error("the new certificate is that of {found}, this node is {expected}")]
    Identity {
        /// Owner of the new certificate.
        found: Identity,
        /// Who we are.
        expected: Identity,
    },
}

/// Why a message or a snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No link to that peer right now.
    #[error("no link to peer {peer:016x}")]
    Down {
        /// The peer.
        peer: u64,
    },
    /// The lane holds as much as it may; the peer or the network is slow.
    #[error("{queued} bytes queued for peer {peer:016x}, limit {limit}")]
    Full {
        /// The peer.
        peer: u64,
        /// Bytes waiting.
        queued: usize,
        /// Their limit.
        limit: usize,
    },
    /// Not one of the peers last set.
    #[error("unknown peer {peer:016x}")]
    UnknownPeer {
        /// The peer.
        peer: u64,
    },
    /// The message exceeds the frame limit.
    #[error("message of {bytes} bytes, limit {limit}")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// Why a snapshot transfer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// It could not begin.
    #[error("{0}")]
    Send(#[from] SendError),
    /// The link went down in the middle.
    #[error("link lost: {0}")]
    Lost(CloseReason),
    /// The receiver refused or gave up; its reason.
    #[error("refused by the receiver: {reason}")]
    Refused {
        /// What the receiver said.
        reason: String,
    },
    /// The sender gave up before the end.
    #[error("the sender gave up")]
    Abandoned,
    /// The other side broke the protocol.
    #[error("{0}")]
    Protocol(FrameError),
}

impl From<FrameError> for TransferError {
    fn from(error: FrameError) -> TransferError {
        match error {
            FrameError::Closed { code, reason } => TransferError::Lost(CloseReason {
                code,
                refusal: None,
                by_other_side: code.is_some(),
                reason,
            }),
            FrameError::TooLarge { .. } | FrameError::Truncated { .. } | FrameError::Io { .. } => {
                TransferError::Protocol(error)
            }
        }
    }
}

/// Why a client has no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address has no meaning or no answer in the name service.
    #[error("cannot resolve {address:?}: {reason}")]
    Resolve {
        /// What was to be resolved.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// No local socket could be made.
    #[error("no UDP socket: {0}")]
    Socket(io::Error),
    /// Our own certificates make no TLS configuration.
    #[error("certificates: {reason}")]
    Tls {
        /// What rustls said.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("no answer from {address} within {} ms", .timeout.as_millis())]
    TimedOut {
        /// Who was asked.
        address: String,
        /// How long.
        timeout: std::time::Duration,
    },
    /// The server's certificate is not good for us: another CA, expired, or of another node than expected.
    #[error("the server is not who it should be: {reason}")]
    BadServer {
        /// What was wrong with it.
        reason: String,
    },
    /// The server refused us; its reason. Our certificate, our role, or its limits.
    #[error("refused by the server: {0}")]
    Rejected(CloseReason),
    /// The connection was lost while it was being made.
    #[error("{0}")]
    Lost(CloseReason),
}

/// Why a handshake between two nodes did not make a link. For logs and events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("refused by the other side: {0}")]
    RefusedBy(Refusal),
    #[error("{0}")]
    Closed(CloseReason),
    #[error("{0}")]
    Hello(#[from] HelloError),
    #[error("{0}")]
    Frame(FrameError),
    #[error("handshake not finished in time")]
    TimedOut,
    #[error("no answer")]
    NoAnswer,
    #[error("{0}")]
    Address(String),
    #[error("knocked, the other side dials")]
    Knocked,
    #[error("a newer connection took over")]
    Replaced,
    #[error("the endpoint is closing")]
    Stopping,
}

impl HandshakeError {
    /// Whether it was we who found something wrong.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            HandshakeError::Refused(_)
            | HandshakeError::Hello(_)
            | HandshakeError::Frame(_)
            | HandshakeError::TimedOut => true,
            HandshakeError::RefusedBy(_)
            | HandshakeError::Closed(_)
            | HandshakeError::NoAnswer
            | HandshakeError::Address(_)
            | HandshakeError::Knocked
            | HandshakeError::Replaced
            | HandshakeError::Stopping => false,
        }
    }
}

impl From<FrameError> for HandshakeError {
    fn from(error: FrameError) -> HandshakeError {
        match error {
            FrameError::Closed { code, reason } => {
                let refusal = code.and_then(|code| Refusal::from_close(code, reason.as_bytes()));
                CloseReason {
                    code,
                    refusal,
                    by_other_side: code.is_some(),
                    reason,
                }
                .into()
            }
            FrameError::TooLarge { .. } | FrameError::Truncated { .. } | FrameError::Io { .. } => {
                HandshakeError::Frame(error)
            }
        }
    }
}

impl From<CloseReason> for HandshakeError {
    fn from(reason: CloseReason) -> HandshakeError {
        use crate::handshake::close_code::{KNOCKED, REPLACED};
        match (reason.refusal, reason.code) {
            (Some(refusal), _) => HandshakeError::RefusedBy(refusal),
            (None, Some(code)) if code == u64::from(KNOCKED) => HandshakeError::Knocked,
            (None, Some(code)) if code == u64::from(REPLACED) => HandshakeError::Replaced,
            (None, _) => HandshakeError::Closed(reason),
        }
    }
}

impl From<quinn::ConnectionError> for HandshakeError {
    fn from(error: quinn::ConnectionError) -> HandshakeError {
        CloseReason::from(error).into()
    }
}

impl From<quinn::WriteError> for HandshakeError {
    fn from(error: quinn::WriteError) -> HandshakeError {
        CloseReason::from(error).into()
    }
}
