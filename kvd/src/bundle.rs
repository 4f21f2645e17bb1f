//! The secret bundle: everything one node needs to join, in one file of mode 0600.
//!
//! `kvctl cluster init` writes one per node, `kvd join` reads it. It is text that can be looked
//! at: a first line with the version, a TOML body, a last line with a checksum over all before it,
//! so that a copy that lost its end or was changed on the way is told apart from a wrong one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use raft_net::ClusterId;
use serde::{Deserialize, Serialize};

use crate::names::{check_address, check_name};

/// First word of the file.
const MAGIC: &str = "kvd-bundle";
/// The highest version that this program reads, and that of the bundle of a later node.
const VERSION: u32 = 2;
/// Version of the bundle of a founder.
const FOUNDER_VERSION: u32 = 1;
/// First word of the last line.
const CHECKSUM: &str = "checksum";
/// Longest file that is read; a bundle of a hundred members has some 10 KiB.
const BUNDLE_BYTES_MAX: u64 = 1 << 20;

/// Content of a bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// Name of the node that this bundle is for.
    pub node: String,
    /// Its id: 64 random bits, never used twice.
    pub node_id: u64,
    /// Where it listens for peers and clients (UDP).
    pub listen: SocketAddr,
    /// Where its HTTP side door listens; `None` for none.
    pub http: Option<SocketAddr>,
    /// All members at the first start, this node among them.
    pub members: Vec<BundleMember>,
    /// The cluster exists already, and takes this node in: it must not found one by itself.
    pub later: bool,
    /// Certificates of the authority.
    pub ca_pem: String,
    /// Certificate of the node.
    pub cert_pem: String,
    /// Private key of the node.
    pub key_pem: String,
}

/// One member as the bundle names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleMember {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Its `host:port`.
    pub address: String,
}

/// The key must not get into a log by way of `{:?}`.
impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("cluster", &self.cluster)
            .field("cluster_name", &self.cluster_name)
            .field("node", &self.node)
            .field("node_id", &self.node_id)
            .field("listen", &self.listen)
            .field("http", &self.http)
            .field("members", &self.members)
            .field("later", &self.later)
            .finish_non_exhaustive()
    }
}

/// Why a bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file could not be read or written.
    #[error("{file}: {source}", file = .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others on this machine can read the key in it.
    #[error("{file} has mode {mode:04o}: it holds a private key; chmod 600 {file}", file = .file.display())]
    Permissions {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not begin like a bundle.
    #[error("this is not a bundle of a node")]
    NotABundle,
    /// It was made by a newer program.
    #[error("the bundle has format {found}, this program reads up to {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// It was damaged on the way here.
    #[error("the bundle was damaged on the way here: copy it again ({why})")]
    Damaged {
        /// What does not fit.
        why: String,
    },
    /// It arrived as it was sent, but says nonsense.
    #[error("the bundle says nonsense: {why}")]
    Invalid {
        /// What is wrong.
        why: String,
    },
}

/// The TOML body.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    cluster: BodyCluster,
    node: BodyNode,
    members: Vec<BodyMember>,
    tls: BodyTls,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyCluster {
    id: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyNode {
    name: String,
    id: String,
    listen: SocketAddr,
    http: String,
    /// Since version 2, and only there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    later: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyMember {
    name: String,
    id: String,
    address: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyTls {
    ca: String,
    certificate: String,
    key: String,
}

impl Bundle {
    /// The file's text.
    ///
    /// # Errors
    /// [`BundleError::Invalid`] if it could not be read back.
    pub fn encode(&self) -> Result<String, BundleError> {
        self.check()?;
        let body = toml::to_string(&self.body()).map_err(|error| BundleError::Invalid {
            why: error.to_string(),
        })?;
        let version = match self.later {
            true => VERSION,
            false => FOUNDER_VERSION,
        };
        let text = format!(
            "{MAGIC} {version}\n# Secret: holds the private key of node {}. Used once, by `kvd join`.\n{body}",
            self.node
        );
        let checksum = crc32fast::hash(text.as_bytes());
        Ok(format!("{text}{CHECKSUM} {checksum:08x}\n"))
    }

    fn body(&self) -> Body {
        Body {
            cluster: BodyCluster {
                id: self.cluster.to_string(),
                name: self.cluster_name.clone(),
            },
            node: BodyNode {
                name: self.node.clone(),
                id: format!("{:016x}", self.node_id),
                listen: self.listen,
                http: self.http.map_or_else(String::new, |at| at.to_string()),
                later: self.later,
            },
            members: self
                .members
                .iter()
                .map(|member| BodyMember {
                    name: member.name.clone(),
                    id: format!("{:016x}", member.id),
                    address: member.address.clone(),
                })
                .collect(),
            tls: BodyTls {
                ca: self.ca_pem.clone(),
                certificate: self.cert_pem.clone(),
                key: self.key_pem.clone(),
            },
        }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// Told apart: no bundle at all, a newer one, a damaged one, one that says nonsense.
    pub fn decode(text: &str) -> Result<Bundle, BundleError> {
        let (first, _) = text.split_once('\n').ok_or(BundleError::NotABundle)?;
        let version = first
            .trim_end()
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.trim().parse::<u32>().ok())
            .ok_or(BundleError::NotABundle)?;
        if version > VERSION {
            return Err(BundleError::Newer { found: version });
        }
        let checked = verify_checksum(text)?;
        let body = checked.get(first.len() + 1..).unwrap_or_default();
        let body: Body = toml::from_str(body).map_err(|error| BundleError::Invalid {
            why: error.message().to_owned(),
        })?;
        let bundle = Bundle::from_body(body).map_err(|why| BundleError::Invalid { why })?;
        bundle.check()?;
        Ok(bundle)
    }

    fn from_body(body: Body) -> Result<Bundle, String> {
        let members = body
            .members
            .into_iter()
            .map(|member| {
                Ok(BundleMember {
                    id: node_id(&member.id)?,
                    name: member.name,
                    address: member.address,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let http = match body.node.http.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| format!("`{text}` is not an address to listen on"))?,
            ),
        };
        Ok(Bundle {
            cluster: body
                .cluster
                .id
                .parse()
                .map_err(|_| format!("`{}` is not a cluster id", body.cluster.id))?,
            cluster_name: body.cluster.name,
            node_id: node_id(&body.node.id)?,
            node: body.node.name,
            listen: body.node.listen,
            http,
            members,
            later: body.node.later,
            ca_pem: body.tls.ca,
            cert_pem: body.tls.certificate,
            key_pem: body.tls.key,
        })
    }

    /// What must hold for a bundle that is written or was read.
    fn check(&self) -> Result<(), BundleError> {
        let invalid = |why: String| BundleError::Invalid { why };
        check_name(&self.cluster_name)
            .map_err(|why| invalid(format!("the cluster's name {why}")))?;
        check_name(&self.node).map_err(|why| invalid(format!("the node's name {why}")))?;
        for (at, member) in self.members.iter().enumerate() {
            check_name(&member.name).map_err(|why| invalid(format!("a member's name {why}")))?;
            check_address(&member.address)
                .map_err(|why| invalid(format!("the address of {} {why}", member.name)))?;
            let twin = self.members[..at].iter().find(|other| {
                other.name == member.name
                    || other.id == member.id
                    || other.address == member.address
            });
            if let Some(twin) = twin {
                return Err(invalid(format!(
                    "the members {} and {} share a name, id or address",
                    twin.name, member.name
                )));
            }
        }
        let listed = |m: &BundleMember| m.name == self.node && m.id == self.node_id;
        if !self.members.iter().any(listed) {
            return Err(invalid(format!(
                "node {} is not among the members",
                self.node
            )));
        }
        if self.members.iter().any(|member| member.id == 0) {
            return Err(invalid("a node id is 0".to_owned()));
        }
        Ok(())
    }

    /// Writes a new file of mode 0600 and syncs it; an existing file is left alone.
    ///
    /// # Errors
    /// [`BundleError::Io`], also if the file exists.
    pub fn write_file(&self, file: &Path) -> Result<(), BundleError> {
        let text = self.encode()?;
        let io_error = |source| BundleError::Io {
            file: file.to_owned(),
            source,
        };
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)
            .map_err(io_error)?;
        handle.write_all(text.as_bytes()).map_err(io_error)?;
        handle.sync_all().map_err(io_error)
    }

    /// Reads a file; one that others can read is refused, as its key may be known to them.
    ///
    /// # Errors
    /// Any [`BundleError`].
    pub fn read_file(file: &Path) -> Result<Bundle, BundleError> {
        let io_error = |source| BundleError::Io {
            file: file.to_owned(),
            source,
        };
        let handle = File::open(file).map_err(io_error)?;
        let metadata = handle.metadata().map_err(io_error)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.is_file() && mode & 0o077 != 0 {
            return Err(BundleError::Permissions {
                file: file.to_owned(),
                mode,
            });
        }
        let mut bytes = Vec::new();
        handle
            .take(BUNDLE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(io_error)?;
        let text = String::from_utf8(bytes).map_err(|_| BundleError::NotABundle)?;
        Bundle::decode(&text)
    }
}

/// Checks the last line and returns what stands before it.
fn verify_checksum(text: &str) -> Result<&str, BundleError> {
    let damaged = |why: &str| BundleError::Damaged {
        why: why.to_owned(),
    };
    let start = text
        .trim_end()
        .rfind('\n')
        .map(|newline| newline + 1)
        .ok_or(BundleError::NotABundle)?;
    let expected = text[start..]
        .trim_end()
        .strip_prefix(CHECKSUM)
        .and_then(|rest| u32::from_str_radix(rest.trim(), 16).ok())
        .ok_or_else(|| damaged("the line with the checksum is missing, so the end is"))?;
    let found = crc32fast::hash(&text.as_bytes()[..start]);
    if found != expected {
        return Err(damaged("its checksum does not fit"));
    }
    Ok(&text[..start])
}

fn node_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16)
        .ok()
        .filter(|_| text.len() == 16)
        .ok_or_else(|| format!("`{text}` is not a node id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn bundle() -> Bundle {
        Bundle {
            cluster: ClusterId(0xc0ff_ee42),
            cluster_name: "prod".to_owned(),
            node: "n1".to_owned(),
            node_id: 0x0123_4567_89ab_cdef,
            listen: "0.0.0.0:7400".parse().unwrap(),
            http: Some("127.0.0.1:7480".parse().unwrap()),
            members: vec![
                BundleMember {
                    name: "n1".to_owned(),
                    id: 0x0123_4567_89ab_cdef,
                    address: "10.0.0.1:7400".to_owned(),
                },
                BundleMember {
                    name: "n2".to_owned(),
                    id: u64::MAX,
                    address: "[fd00::2]:7400".to_owned(),
                },
            ],
            later: false,
            ca_pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            cert_pem: "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n".to_owned(),
            key_pem: "-----BEGIN PRIVATE KEY-----\nCCCC\n-----END PRIVATE KEY-----\n".to_owned(),
        }
    }

    #[test]
    fn a_bundle_reads_back_as_it_was_written() {
        let mut written = bundle();
        assert_eq!(Bundle::decode(&written.encode().unwrap()).unwrap(), written);
        written.http = None;
        assert_eq!(Bundle::decode(&written.encode().unwrap()).unwrap(), written);
    }

    /// A program that does not know of later nodes would make one found a cluster: it must stop at the version.
    #[test]
    fn only_the_bundle_of_a_later_node_is_of_version_2() {
        let founder = bundle();
        assert!(founder.encode().unwrap().starts_with("kvd-bundle 1\n"));
        let later = Bundle {
            later: true,
            ..founder
        };
        let text = later.encode().unwrap();
        assert!(text.starts_with("kvd-bundle 2\n"), "{text}");
        assert_eq!(Bundle::decode(&text).unwrap(), later);
    }

    #[test]
    fn every_changed_byte_and_every_cut_of_a_bundle_is_noticed() {
        let text = bundle().encode().unwrap();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            if let Ok(changed) = String::from_utf8(changed) {
                let read = Bundle::decode(&changed);
                // Only white space behind the checksum carries no meaning.
                assert!(read.is_err() || at + 1 == text.len(), "byte {at}");
            }
        }
        for end in 0..text.len() - 1 {
            assert!(Bundle::decode(&text[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_newer_bundle_is_named_and_not_called_damaged() {
        let text = bundle()
            .encode()
            .unwrap()
            .replacen("kvd-bundle 1", "kvd-bundle 3", 1);
        assert!(matches!(
            Bundle::decode(&text),
            Err(BundleError::Newer { found: 3 })
        ));
        assert!(matches!(
            Bundle::decode("hello\n"),
            Err(BundleError::NotABundle)
        ));
    }

    #[test]
    fn a_bundle_that_contradicts_itself_is_refused() {
        let mut twins = bundle();
        twins.members[1].address = twins.members[0].address.clone();
        assert!(matches!(twins.encode(), Err(BundleError::Invalid { .. })));
        let mut stranger = bundle();
        stranger.node_id = 7;
        assert!(matches!(
            stranger.encode(),
            Err(BundleError::Invalid { .. })
        ));
    }

    #[test]
    fn a_bundle_file_is_private_and_one_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("n1.kvd");
        bundle().write_file(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Bundle::read_file(&file).unwrap(), bundle());
        assert!(matches!(
            bundle().write_file(&file),
            Err(BundleError::Io { .. })
        ));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(
            Bundle::read_file(&file),
            Err(BundleError::Permissions { mode: 0o644, .. })
        ));
    }

    #[test]
    fn debug_output_does_not_show_the_key() {
        assert!(!format!("{:?}", bundle()).contains("CCCC"));
    }
}
