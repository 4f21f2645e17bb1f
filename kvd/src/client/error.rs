//! What a failed call means, and what was found out on the way.

use std::fmt;
use std::time::Duration;

use crate::wire::client::Refusal;
use crate::wire::status::NodeRole;

/// How a call failed. The variants are the exit codes of `kvctl`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody could be reached. Nothing was sent, so nothing was written.
    #[error("nobody could be reached")]
    Unreachable(Evidence),
    /// No leader or quorum in time. Every attempt was definitely refused or never sent: nothing was written.
    #[error("no quorum: {detail}")]
    NoQuorum {
        /// What the nodes said.
        detail: String,
        /// Who answered and who did not.
        evidence: Evidence,
    },
    /// Some attempt may have taken effect, or may still.
    #[error("outcome unknown: {why}")]
    Unknown {
        /// Why nobody knows.
        why: String,
        /// Who answered and who did not.
        evidence: Evidence,
    },
    /// The certificate, or the rights of its owner, are not enough. Nothing was written.
    #[error("not authorised: {why}")]
    NotAuthorised {
        /// Which right is missing, or what is wrong with the certificate.
        why: String,
        /// Who said so.
        evidence: Evidence,
    },
    /// The request was refused for good. Nothing was written.
    #[error("{0}")]
    Refused(Refusal),
    /// The client was closed before there was an answer, and nothing had been sent.
    #[error("the client was closed")]
    Closed,
}

impl ClientError {
    /// Who answered and who did not, where that was of importance.
    #[must_use]
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            ClientError::Unreachable(evidence)
            | ClientError::NoQuorum { evidence, .. }
            | ClientError::Unknown { evidence, .. }
            | ClientError::NotAuthorised { evidence, .. } => Some(evidence),
            ClientError::Refused(_) | ClientError::Closed => None,
        }
    }
}

/// What was found at each endpoint during a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// One for each endpoint that was asked.
    pub findings: Vec<Finding>,
    /// How long the call went on.
    pub waited: Duration,
    /// Number of voters, if a node told.
    pub voters: Option<usize>,
}

impl Evidence {
    /// Number of voters needed for a decision, if it is known.
    #[must_use]
    pub fn quorum(&self) -> Option<usize> {
        self.voters.map(|voters| voters / 2 + 1)
    }

    /// Number of endpoints that answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.found.is_answer())
            .count()
    }
}

/// What was found at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its address as it was dialled.
    pub endpoint: String,
    /// The node behind it, if that is known.
    pub node: Option<String>,
    /// What happened.
    pub found: Found,
}

/// What happened at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// It said what it is.
    Answered {
        /// The part it plays.
        role: NodeRole,
        /// Its term.
        term: u64,
        /// The leader it knows of.
        leader: Option<String>,
    },
    /// Nobody listens there.
    ConnectionRefused,
    /// Nothing came back.
    TimedOut,
    /// It does not accept our certificate, with its reason.
    CertificateRejected(String),
    /// Its certificate is not that of a node of this cluster.
    NotTrusted(String),
    /// The name has no address.
    Unresolved(String),
    /// The connection broke, or what came over it was not the protocol.
    Lost(String),
    /// The client speaks with the node of its own process only.
    NotAsked,
    /// The node of this process has ended; it will not come back for this client.
    Ended,
}

impl Found {
    /// Whether a node of the cluster said something.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Found::Answered { .. })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Answered { role, term, .. } => {
                write!(f, "answered ({}, term {term})", role.as_str())
            }
            Found::ConnectionRefused => f.write_str("connection refused"),
            Found::TimedOut => f.write_str("timed out"),
            Found::CertificateRejected(reason) => write!(f, "rejected the certificate: {reason}"),
            Found::NotTrusted(reason) => write!(f, "not trusted: {reason}"),
            Found::Unresolved(reason) => write!(f, "no such host: {reason}"),
            Found::Lost(reason) => write!(f, "connection lost: {reason}"),
            Found::NotAsked => f.write_str("was not asked"),
            Found::Ended => f.write_str("has ended"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.node.as_deref().unwrap_or(&self.endpoint);
        write!(f, "{name} {}", self.found)
    }
}
