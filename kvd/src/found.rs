//! Founding a cluster and planning new nodes: ids, addresses, certificates, bundles.
//!
//! `kvctl cluster init`, `kvctl member add` and `kvd demo` are made of this, and so are programs that embed a node:
//!
//! ```no_run
//! use kvd::found::Founding;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::path::Path::new("prod");
//! let founding = Founding::new("prod", [("n1", "10.0.0.1:7400"), ("n2", "10.0.0.2:7400"), ("n3", "10.0.0.3:7400")])?;
//! founding.write(dir)?; // The keys of the cluster, and a secret bundle for each node.
//! # #[cfg(feature = "server")] {
//! // On each server, once:
//! let bundle = kvd::bundle::Bundle::read_file(&dir.join("n1.kvd"))?;
//! let config = kvd::join::join(&bundle, Some("/srv/n1".as_ref()))?.config;
//! let node = kvd::node::Node::start(config)?;
//! # }
//! # Ok(())
//! # }
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use raft_net::pki::{AUTHORITY_DAYS, Authority, CERTIFICATE_DAYS, PkiError};
use raft_net::{ClusterId, CredentialError, Credentials};

use crate::bundle::{Bundle, BundleError, BundleMember};
use crate::names::{check_address, check_name};
use crate::wire::client::MemberAddress;

#[cfg(test)]
mod tests;

/// Port of peers and clients where an address has none.
pub const DEFAULT_PORT: u16 = 7400;

/// Name in the certificate of the first administrator.
pub const ADMIN: &str = "admin";

/// Why a cluster was not founded, or a node not planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundError {
    /// A name that nothing can have.
    #[error("the name {name} {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An address that no node can have.
    #[error("the address of {node} {why}")]
    Address {
        /// The node.
        node: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two nodes share a name or an address.
    #[error("{node} repeats {twin}")]
    Repeated {
        /// The later one.
        node: String,
        /// The earlier one, as `NAME=ADDRESS`.
        twin: String,
    },
    /// The directory has files: keys of a cluster are never overwritten.
    #[error("{} is not empty", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Certificates(#[from] PkiError),
    /// A certificate that was just made cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file could not be read or written.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A node that does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub name: String,
    /// Its id: 64 random bits, never used twice.
    pub id: u64,
    /// Where others reach it: `host:port`.
    pub address: String,
    /// Where it listens for peers and clients.
    pub listen: SocketAddr,
    /// Where its HTTP side door listens; `None` for none.
    pub http: Option<SocketAddr>,
}

impl NewNode {
    /// A node with a random id, without a side door. An address without a port gets [`DEFAULT_PORT`]. It will listen on all
    /// addresses of its machine, because they may change; one that is reached over loopback only there.
    ///
    /// # Errors
    /// The name or the address is none.
    pub fn new(name: &str, address: &str) -> Result<NewNode, FoundError> {
        check_name(name).map_err(|why| FoundError::Name {
            name: name.to_owned(),
            why,
        })?;
        let wrong = |why: String| FoundError::Address {
            node: name.to_owned(),
            why,
        };
        let address = with_port(address);
        check_address(&address).map_err(wrong)?;
        let (host, port) = split(&address).ok_or_else(|| wrong("is not HOST:PORT".to_owned()))?;
        Ok(NewNode {
            name: name.to_owned(),
            id: rand::random_range(1..=u64::MAX),
            listen: SocketAddr::from((listen_ip(host), port)),
            http: None,
            address,
        })
    }

    /// What the cluster is told of it.
    #[must_use]
    pub fn member(&self) -> MemberAddress {
        MemberAddress {
            name: self.name.clone(),
            id: self.id,
            address: self.address.clone(),
        }
    }

    /// The host of its address.
    #[must_use]
    pub fn host(&self) -> &str {
        split(&self.address).map_or(&self.address, |(host, _)| host)
    }

    /// Its secret bundle with a certificate for `days`. `members` are all members, itself included. `later`: the cluster exists
    /// already and takes it in; it must never found one.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn bundle(
        &self,
        authority: &Authority,
        cluster_name: &str,
        members: impl IntoIterator<Item = MemberAddress>,
        later: bool,
        days: u32,
    ) -> Result<Bundle, PkiError> {
        let issued = authority.issue_node(&self.name, self.id, days, &[])?;
        let members = members.into_iter().map(|member| BundleMember {
            name: member.name,
            id: member.id,
            address: member.address,
        });
        Ok(Bundle {
            cluster: authority.cluster(),
            cluster_name: cluster_name.to_owned(),
            node: self.name.clone(),
            node_id: self.id,
            listen: self.listen,
            http: self.http,
            members: members.collect(),
            later,
            ca_pem: authority.ca_pem().to_owned(),
            cert_pem: issued.cert_pem,
            key_pem: issued.key_pem,
        })
    }
}

/// A cluster that does not exist yet: its authority and its first nodes.
#[derive(Debug)]
pub struct Founding {
    name: String,
    nodes: Vec<NewNode>,
    days: u32,
    authority: Authority,
}

impl Founding {
    /// A cluster of these nodes, each a name and an address, with a random id and an authority of its own.
    ///
    /// # Errors
    /// A name or address is none, or is there twice.
    pub fn new<'a>(
        name: &str,
        nodes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Founding, FoundError> {
        let nodes = nodes.into_iter();
        let nodes = nodes.map(|(name, address)| NewNode::new(name, address));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        Founding::of(name, nodes, CERTIFICATE_DAYS)
    }

    /// A cluster of `count` nodes n1, n2... on ports of this machine's loopback that are free now.
    ///
    /// # Errors
    /// There is no free port, or a certificate cannot be made.
    pub fn on_loopback(name: &str, count: usize) -> Result<Founding, FoundError> {
        let addresses = free_addresses(count).map_err(|source| FoundError::Io {
            file: PathBuf::from("a free port"),
            source,
        })?;
        let nodes = addresses.iter().zip(1..);
        let nodes = nodes
            .map(|(address, number)| NewNode::new(&format!("n{number}"), &address.to_string()));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        Founding::of(name, nodes, CERTIFICATE_DAYS)
    }

    /// A cluster of planned nodes, with certificates for `days`.
    ///
    /// # Errors
    /// As for [`Founding::new`].
    pub fn of(name: &str, nodes: Vec<NewNode>, days: u32) -> Result<Founding, FoundError> {
        check_name(name).map_err(|why| FoundError::Name {
            name: name.to_owned(),
            why,
        })?;
        check_distinct(&nodes)?;
        let cluster = ClusterId(rand::random_range(1..=u32::MAX));
        Ok(Founding {
            authority: Authority::create(cluster, name, AUTHORITY_DAYS)?,
            name: name.to_owned(),
            nodes,
            days,
        })
    }

    /// Its id.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.authority.cluster()
    }

    /// Its first nodes.
    #[must_use]
    pub fn nodes(&self) -> &[NewNode] {
        &self.nodes
    }

    /// What signs certificates of nodes and clients. Its key belongs off the servers.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A secret bundle for each node, for `join::join`. Each call makes other certificates.
    ///
    /// # Errors
    /// A certificate cannot be made.
    pub fn bundles(&self) -> Result<Vec<Bundle>, FoundError> {
        let members = || self.nodes.iter().map(NewNode::member);
        let bundle = |node: &NewNode| {
            node.bundle(&self.authority, &self.name, members(), false, self.days)
                .map_err(FoundError::from)
        };
        self.nodes.iter().map(bundle).collect()
    }

    /// Writes everything into a new or empty directory, the key of the authority last: a directory with it is complete.
    ///
    /// `ca.pem` and `ca.key`: the authority; `admin.pem` and `admin.key`: an administrator; `NODE.kvd`: a bundle for each node. Returns
    /// these bundles.
    ///
    /// # Errors
    /// The directory is not empty, or something cannot be made or written.
    pub fn write(&self, dir: &Path) -> Result<Vec<Bundle>, FoundError> {
        make_dir(dir)?;
        let bundles = self.bundles()?;
        for bundle in &bundles {
            bundle.write_file(&bundle_file(dir, &bundle.node))?;
        }
        let admin = self.authority.issue_admin(ADMIN, self.days)?;
        write(&dir.join("ca.pem"), self.authority.ca_pem(), 0o644)?;
        write(&dir.join("admin.pem"), &admin.cert_pem, 0o644)?;
        write(&dir.join("admin.key"), &admin.key_pem, 0o600)?;
        write(&dir.join("ca.key"), self.authority.key_pem(), 0o600)?;
        let synced = File::open(dir).and_then(|handle| handle.sync_all());
        synced.map_err(|source| io_error(dir, source))?;
        Ok(bundles)
    }
}

/// Checks that no two nodes share a name or an address.
///
/// # Errors
/// [`FoundError::Repeated`].
pub fn check_distinct(nodes: &[NewNode]) -> Result<(), FoundError> {
    for (at, node) in nodes.iter().enumerate() {
        let mut before = nodes[..at].iter();
        let same = |other: &&NewNode| other.name == node.name || other.address == node.address;
        if let Some(twin) = before.find(same) {
            return Err(FoundError::Repeated {
                node: format!("{}={}", node.name, node.address),
                twin: format!("{}={}", twin.name, twin.address),
            });
        }
    }
    Ok(())
}

/// The bundle of a node in a directory that [`Founding::write`] made.
#[must_use]
pub fn bundle_file(dir: &Path, node: &str) -> PathBuf {
    dir.join(format!("{node}.kvd"))
}

/// The administrator of a directory that [`Founding::write`] made.
///
/// # Errors
/// A file is missing, or not what it should be.
pub fn load_admin(dir: &Path) -> Result<Credentials, CredentialError> {
    Credentials::load_files(
        &dir.join("ca.pem"),
        &dir.join("admin.pem"),
        &dir.join("admin.key"),
    )
}

/// The authority of a directory that [`Founding::write`] made; `cluster` is its id, as certificates and greetings name it.
///
/// # Errors
/// A file is missing, or not what it should be.
pub fn load_authority(dir: &Path, cluster: ClusterId) -> Result<Authority, FoundError> {
    let read = |name: &str| {
        let file = dir.join(name);
        fs::read_to_string(&file).map_err(|source| io_error(&file, source))
    };
    Ok(Authority::from_pem(
        cluster,
        &read("ca.pem")?,
        &read("ca.key")?,
    )?)
}

/// An address without a port gets the default one.
#[must_use]
pub fn with_port(address: &str) -> String {
    if address.parse::<Ipv6Addr>().is_ok() {
        return format!("[{address}]:{DEFAULT_PORT}");
    }
    let has_port = address
        .rfind(':')
        .is_some_and(|colon| !address[colon..].contains(']'));
    match has_port {
        true => address.to_owned(),
        false => format!("{address}:{DEFAULT_PORT}"),
    }
}

/// Host and port of an address.
#[must_use]
pub fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// A node listens on all its addresses, because they may change; one that is reached over loopback only there.
fn listen_ip(host: &str) -> IpAddr {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Ok(IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Err(_) if bare == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Loopback addresses that are free now. Another program could take one before a node does; then the start says so.
///
/// # Errors
/// There is no free port.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    // All are held until the last is found, so that none is found twice.
    let sockets = (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    sockets.iter().map(UdpSocket::local_addr).collect()
}

/// A new directory, or an empty one: keys of another cluster are never overwritten.
fn make_dir(dir: &Path) -> Result<(), FoundError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| io_error(dir, source))?;
    let mut files = fs::read_dir(dir).map_err(|source| io_error(dir, source))?;
    match files.next() {
        Some(_) => Err(FoundError::NotEmpty {
            dir: dir.to_owned(),
        }),
        None => Ok(()),
    }
}

fn write(file: &Path, text: &str, mode: u32) -> Result<(), FoundError> {
    let write = || {
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(file)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()
    };
    write().map_err(|source| io_error(file, source))
}

fn io_error(file: &Path, source: io::Error) -> FoundError {
    FoundError::Io {
        file: file.to_owned(),
        source,
    }
}
