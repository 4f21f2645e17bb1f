//! Who is at the other end: read from the subject alternative names of a verified certificate.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;

/// The DNS name every node certificate carries; clients dial it when any node will do.
pub const ANY_NODE_NAME: &str = "node.kvd";

/// The DNS name of one node.
///
/// ```
/// assert_eq!(raft_net::node_dns_name("n1"), "n1.node.kvd");
/// ```
#[must_use]
pub fn node_dns_name(name: &str) -> String {
    format!("{name}.{ANY_NODE_NAME}")
}

/// Identity of a cluster: eight hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u32);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// A text that is not a cluster id or not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct IdentityError {
    /// What was found.
    pub text: String,
    /// What was expected there.
    pub expected: &'static str,
}

impl IdentityError {
    fn new(text: &str, expected: &'static str) -> IdentityError {
        IdentityError {
            text: text.chars().take(200).collect(),
            expected,
        }
    }
}

/// Lower-case hexadecimal of exactly `digits` digits: one spelling only, so that two names never mean one thing.
fn parse_hex(text: &str, digits: usize) -> Option<u64> {
    let lower_hex = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() != digits || !lower_hex {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

impl FromStr for ClusterId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<ClusterId, IdentityError> {
        let id = parse_hex(text, 8).and_then(|id| u32::try_from(id).ok());
        id.map(ClusterId)
            .ok_or_else(|| IdentityError::new(text, "a cluster id (8 hexadecimal digits)"))
    }
}

/// What a certificate says about its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A server of the cluster. `kvd://CLUSTER/node/NAME/ID`, with the id as 16 hexadecimal digits.
    Node {
        /// The cluster it belongs to.
        cluster: ClusterId,
        /// Its name, a DNS label.
        name: String,
        /// Its id, never 0.
        id: u64,
    },
    /// A client. `kvd://CLUSTER/client/NAME`.
    Client {
        /// The cluster it may talk to.
        cluster: ClusterId,
        /// Its name.
        name: String,
    },
    /// A client that may administer the cluster. `kvd://CLUSTER/admin/NAME`.
    Admin {
        /// The cluster it may talk to.
        cluster: ClusterId,
        /// Its name.
        name: String,
    },
}

impl Identity {
    /// The cluster the certificate was made for.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        match self {
            Identity::Node { cluster, .. }
            | Identity::Client { cluster, .. }
            | Identity::Admin { cluster, .. } => *cluster,
        }
    }

    /// The name of the node, client or administrator.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Identity::Node { name, .. }
            | Identity::Client { name, .. }
            | Identity::Admin { name, .. } => name,
        }
    }

    /// `node`, `client` or `admin`.
    #[must_use]
    pub fn role(&self) -> &'static str {
        match self {
            Identity::Node { .. } => "node",
            Identity::Client { .. } => "client",
            Identity::Admin { .. } => "admin",
        }
    }

    /// The identity in a DER certificate, which the caller has verified or is about to verify.
    ///
    /// # Errors
    ///
    /// The bytes are not a certificate, or it names no identity of ours, or more than one.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| {
            IdentityError::new("the certificate", "an X.509 end-entity certificate")
        })?;
        let mut ours = parsed
            .valid_uri_names()
            .filter(|uri| uri.starts_with("kvd://"));
        let Some(uri) = ours.next() else {
            return Err(IdentityError::new(
                "the certificate",
                "one with a URI name kvd://CLUSTER/ROLE/NAME",
            ));
        };
        if ours.next().is_some() {
            return Err(IdentityError::new(
                uri,
                "the only kvd URI name of its certificate",
            ));
        }
        uri.parse()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kvd://{}/{}/{}",
            self.cluster(),
            self.role(),
            self.name()
        )?;
        match self {
            Identity::Node { id, .. } => write!(f, "/{id:016x}"),
            Identity::Client { .. } | Identity::Admin { .. } => Ok(()),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Identity, IdentityError> {
        let wrong = |expected| IdentityError::new(uri, expected);
        let rest = uri
            .strip_prefix("kvd://")
            .ok_or_else(|| wrong("a URI kvd://CLUSTER/ROLE/NAME"))?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [cluster, "node", name, id] => {
                check_node_name(name)?;
                let id = parse_hex(id, 16).filter(|id| *id != 0);
                let id =
                    id.ok_or_else(|| wrong("a URI with a node id (16 hexadecimal digits, not 0)"))?;
                Ok(Identity::Node {
                    cluster: cluster.parse()?,
                    name: (*name).to_owned(),
                    id,
                })
            }
            [cluster, "client", name] => {
                check_client_name(name)?;
                Ok(Identity::Client {
                    cluster: cluster.parse()?,
                    name: (*name).to_owned(),
                })
            }
            [cluster, "admin", name] => {
                check_client_name(name)?;
                Ok(Identity::Admin {
                    cluster: cluster.parse()?,
                    name: (*name).to_owned(),
                })
            }
            _ => Err(wrong(
                "a URI kvd://CLUSTER/node/NAME/ID, kvd://CLUSTER/client/NAME or kvd://CLUSTER/admin/NAME",
            )),
        }
    }
}

/// A node name is a DNS label, because it is dialled as one.
pub(crate) fn check_node_name(name: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
    let bytes = name.as_bytes();
    if bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| allowed(*b))
    {
        return Ok(());
    }
    Err(IdentityError::new(
        name,
        "a node name (1 to 63 of a-z, 0-9 and '-', not at either end)",
    ))
}

/// Names of clients end up in logs, deny lists and URIs: no separators, nothing unprintable.
pub(crate) fn check_client_name(name: &str) -> Result<(), IdentityError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(IdentityError::new(
        name,
        "a client name (1 to 64 of letters, digits, '-', '_', '.' and '@')",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_text_and_back() {
        for uri in [
            "kvd://c0ffee42/node/n1/00000000000000ff",
            "kvd://00000001/client/ops@x",
            "kvd://c0ffee42/admin/a",
        ] {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn identity_with_any_other_spelling_is_refused() {
        let wrong = [
            "kvd://C0FFEE42/client/a",
            "kvd://c0ffee4/client/a",
            "kvd://c0ffee42/client/",
            "kvd://c0ffee42/client/a/b",
            "kvd://c0ffee42/root/a",
            "kvd://c0ffee42/node/n1",
            "kvd://c0ffee42/node/n1/0000000000000000",
            "kvd://c0ffee42/node/n1/+0000000000000ff",
            "kvd://c0ffee42/node/N1/00000000000000ff",
            "kvd://c0ffee42/node/-n/00000000000000ff",
            "https://c0ffee42/client/a",
            "",
        ];
        for uri in wrong {
            assert!(uri.parse::<Identity>().is_err(), "{uri} was accepted");
        }
    }
}
