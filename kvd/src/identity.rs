//! Whose data directory this is, and which incarnation of its node is running.
//!
//! The record is made once, by `kvd join`, and stored twice. A directory without it is refused, and so is one of another
//! node or cluster: an empty directory that took part in elections would have forgotten its votes.
//!
//! Each start increments the boot counter and draws a boot id before the first packet leaves. Peers remember the highest
//! pair they have seen per member, durably, so a directory that was restored from a copy is recognised: its counter is lower,
//! or equal with another id. A story: n3's directory is copied, n3 votes for n1 in term 7, dies, and is started from the copy.
//! Without the memory it would vote again in term 7, for n2, and two leaders would share a term.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_log::{Binding, Fs, IoFault, OpenError, Report, TwinError, TwinFile};
use raft_net::ClusterId;
use serde::{Deserialize, Serialize};

use crate::kv::{DecodeError, codec};

/// Name of the file in the data directory.
const FILE: &str = "identity";
/// Name of the file whose lock says that a process uses the directory.
const LOCK: &str = "lock";
/// How often the lock is tried: a node that has just ended in this process may still be writing the incarnation of a peer.
const LOCK_TRIES: u32 = 20;
/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// First bytes of each of its copies.
const MAGIC: [u8; 8] = *b"kvdident";
/// Version of the record inside. 1 had no memory of members that came and went.
const RECORD_VERSION: u8 = 2;
/// Epoch of a cluster that was never recovered by force.
const FIRST_EPOCH: u32 = 1;

/// Where the write-ahead log lies in a data directory.
#[must_use]
pub fn log_dir(data: &Path) -> PathBuf {
    data.join("log")
}

/// Where the snapshots lie in a data directory.
#[must_use]
pub fn snapshot_dir(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// A member as the bundle named it: what the first configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Its `host:port`.
    pub address: String,
}

/// What `kvd join` knows about a new node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// Id of the node.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// All members at the first start, this node among them if it founded the cluster.
    pub members: Vec<InitialMember>,
}

/// The members as this node knew them last.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
struct KnownMembers {
    members: Vec<InitialMember>,
    /// Ids that were members once.
    removed: BTreeSet<u64>,
}

/// The content of the file since version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    first: FirstRecord,
    /// None as long as the members are those of the first start.
    known: Option<KnownMembers>,
}

/// The content of the file in version 1, and its beginning ever since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FirstRecord {
    cluster: u32,
    cluster_name: String,
    epoch: u32,
    node: u64,
    name: String,
    boot_counter: u64,
    boot_id: u64,
    members: Vec<InitialMember>,
    seen: BTreeMap<u64, (u64, u64)>,
}

/// What the memory of incarnations says about a peer that presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As new as any seen before; recorded durably.
    Admitted,
    /// Older than one seen before, or its twin.
    Stale {
        /// The highest boot counter seen of this member.
        counter: u64,
        /// The boot id seen with it.
        boot_id: u64,
    },
    /// Not a member of the cluster.
    Unknown,
    /// Was a member once, and never will be again.
    Removed,
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// `kvd join` has not been completed here.
    #[error("{} has no identity", .dir.display())]
    Missing {
        /// The data directory.
        dir: PathBuf,
    },
    /// It was made before, and is made once.
    #[error("{} has an identity already: a bundle is used once", .dir.display())]
    Exists {
        /// The data directory.
        dir: PathBuf,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process", .dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory belongs to another node or cluster than the certificate.
    #[error(
        "{} belongs to node {found_node:016x} of cluster {found_cluster}, the certificate to node {node:016x} of cluster {cluster}",
        .file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Cluster of the certificate.
        cluster: ClusterId,
        /// Node of the certificate.
        node: u64,
        /// Cluster of the directory.
        found_cluster: ClusterId,
        /// Node of the directory.
        found_node: u64,
    },
    /// Others can read or write the data.
    #[error("{} has mode {mode:04o}, expected 0700: others can read the data", .dir.display())]
    WidePermissions {
        /// The data directory.
        dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Intact, but written by a newer program or not by kvd.
    #[error("{}: {reason}", .file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// What is wrong with the record.
        reason: DecodeError,
    },
    /// The file itself is damaged, newer, or cannot be read.
    #[error(transparent)]
    Open(OpenError),
    /// The file could not be written. Nobody knows what the disk holds; the process must end.
    #[error(transparent)]
    Write(TwinError),
    /// The file system failed.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl IdentityError {
    fn io(file: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
        move |source| IdentityError::Io {
            file: file.to_owned(),
            source,
        }
    }
}

impl From<IoFault> for IdentityError {
    fn from(fault: IoFault) -> Self {
        IdentityError::Write(TwinError::Io(fault))
    }
}

/// The identity of an opened data directory.
#[derive(Debug)]
pub struct Identity<F: Fs> {
    file: TwinFile<F>,
    path: PathBuf,
    record: Record,
    /// Held as long as the node runs. Opening writes both copies anew, so a second process must not even open: it could
    /// put back what it read before this one recorded a peer.
    _lock: F::Lock,
}

/// Whether `kvd join` has been completed for a data directory.
///
/// # Errors
/// Whatever the system says, except that there is none.
pub fn exists<F: Fs>(fs: &F, data: &Path) -> Result<bool, IdentityError> {
    let file = data.join(FILE);
    fs.exists(&file).map_err(IdentityError::io(&file))
}

/// Makes the identity of a data directory, durable on return. It is the last step of joining: a directory that
/// has one is complete.
///
/// # Errors
/// [`IdentityError::Exists`] if there is one already, or a failed write.
pub fn create<F: Fs>(fs: &F, data: &Path, new: &NewIdentity) -> Result<(), IdentityError> {
    let first = FirstRecord {
        cluster: new.cluster.0,
        cluster_name: new.cluster_name.clone(),
        epoch: FIRST_EPOCH,
        node: new.node,
        name: new.name.clone(),
        boot_counter: 0,
        boot_id: 0,
        members: new.members.clone(),
        seen: BTreeMap::new(),
    };
    let record = Record { first, known: None };
    let binding = Binding {
        cluster: new.cluster.0,
        node: new.node,
    };
    let content = codec::encode(RECORD_VERSION, &record);
    match TwinFile::create(fs, &data.join(FILE), MAGIC, binding, &content) {
        Ok(_) => Ok(()),
        Err(TwinError::Exists { .. }) => Err(IdentityError::Exists {
            dir: data.to_owned(),
        }),
        Err(error) => Err(IdentityError::Write(error)),
    }
}

impl<F: Fs> Identity<F> {
    /// Opens the identity of a data directory that must belong to this node of this cluster: the ones in the certificate.
    ///
    /// A damaged copy is mended and reported.
    ///
    /// # Errors
    /// Told apart: none there, in use, another node's, readable by others, damaged, newer.
    pub fn open(
        fs: &F,
        data: &Path,
        cluster: ClusterId,
        node: u64,
    ) -> Result<(Identity<F>, Option<Report>), IdentityError> {
        let path = data.join(FILE);
        if !exists(fs, data)? {
            return Err(IdentityError::Missing {
                dir: data.to_owned(),
            });
        }
        check_permissions(fs, data)?;
        let lock = lock(fs, data)?;
        let binding = Binding {
            cluster: cluster.0,
            node,
        };
        let opened = TwinFile::open(fs, &path, MAGIC, binding);
        let (file, content, report) = opened.map_err(|error| refused(error, data))?;
        let record = decode(&content).map_err(|reason| IdentityError::Record {
            file: path.clone(),
            reason,
        })?;
        let identity = Identity {
            file,
            path,
            record,
            _lock: lock,
        };
        Ok((identity, report))
    }

    /// Begins a new life of this node: increments the boot counter and draws a boot id, durable on return. To be called
    /// once per start, before the first packet leaves.
    ///
    /// # Errors
    /// The write failed; then the node must not start.
    pub fn begin_incarnation(&mut self, fs: &F) -> Result<(u64, u64), IdentityError> {
        let mut next = self.record.clone();
        next.first.boot_counter += 1;
        next.first.boot_id = fs.random_u64();
        self.write(next)?;
        Ok((self.boot_counter(), self.boot_id()))
    }

    /// Compares the incarnation that a peer presents with the highest one seen of it, and remembers a higher one.
    /// `Admitted` is returned only when what it says is durable.
    ///
    /// # Errors
    /// The write failed; then the peer must not be let in.
    pub fn record_seen(
        &mut self,
        node: u64,
        counter: u64,
        boot_id: u64,
    ) -> Result<Seen, IdentityError> {
        let known = self.record.known.as_ref();
        if known.is_some_and(|known| known.removed.contains(&node)) {
            return Ok(Seen::Removed);
        }
        if node == self.node() || !self.known_members().iter().any(|m| m.id == node) {
            return Ok(Seen::Unknown);
        }
        let known = self.record.first.seen.get(&node).copied();
        if let Some((seen_counter, seen_id)) = known {
            if (seen_counter, seen_id) == (counter, boot_id) {
                return Ok(Seen::Admitted);
            }
            if counter <= seen_counter {
                return Ok(Seen::Stale {
                    counter: seen_counter,
                    boot_id: seen_id,
                });
            }
        }
        let mut next = self.record.clone();
        next.first.seen.insert(node, (counter, boot_id));
        self.write(next)?;
        Ok(Seen::Admitted)
    }

    /// Remembers who the members are now and who was one, durable on return: the next life of this node must know whom to
    /// dial and whom to let in before it has applied the entries that say so. A story: n4 to n6 took the places of n1 to n3
    /// while n4 ran; the power fails everywhere. Without the memory n4 would dial n1 to n3 and let nobody else in.
    ///
    /// # Errors
    /// The write failed; then the node must end.
    pub fn record_members(
        &mut self,
        members: Vec<InitialMember>,
        removed: BTreeSet<u64>,
    ) -> Result<(), IdentityError> {
        let known = Some(KnownMembers { members, removed });
        if self.record.known == known {
            return Ok(());
        }
        let mut next = self.record.clone();
        next.known = known;
        self.write(next)
    }

    /// What memory says changes only after the disk says the same.
    fn write(&mut self, next: Record) -> Result<(), IdentityError> {
        self.file
            .write(&codec::encode(RECORD_VERSION, &next))
            .map_err(IdentityError::Write)?;
        self.record = next;
        Ok(())
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        ClusterId(self.record.first.cluster)
    }

    /// The cluster's name when this node joined.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.record.first.cluster_name
    }

    /// The cluster's epoch: raised by a forced recovery, so that members left behind are fenced.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.record.first.epoch
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.record.first.node
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.first.name
    }

    /// The members at the first start: what the first configuration is made of.
    #[must_use]
    pub fn members(&self) -> &[InitialMember] {
        &self.record.first.members
    }

    /// The members as this node knew them last.
    #[must_use]
    pub fn known_members(&self) -> &[InitialMember] {
        match &self.record.known {
            Some(known) => &known.members,
            None => self.members(),
        }
    }

    /// Ids of nodes that were members once.
    #[must_use]
    pub fn removed_members(&self) -> BTreeSet<u64> {
        let known = self.record.known.as_ref();
        known.map_or_else(BTreeSet::new, |known| known.removed.clone())
    }

    /// Number of starts so far, this one included.
    #[must_use]
    pub fn boot_counter(&self) -> u64 {
        self.record.first.boot_counter
    }

    /// Random number of this start.
    #[must_use]
    pub fn boot_id(&self) -> u64 {
        self.record.first.boot_id
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a record of this or an earlier version.
fn decode(content: &[u8]) -> Result<Record, DecodeError> {
    match content.first() {
        Some(1) => {
            let first = codec::decode(1, content)?;
            Ok(Record { first, known: None })
        }
        Some(_) | None => codec::decode(RECORD_VERSION, content),
    }
}

fn lock<F: Fs>(fs: &F, data: &Path) -> Result<F::Lock, IdentityError> {
    let file = data.join(LOCK);
    for _ in 1..LOCK_TRIES {
        match fs.lock(&file) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOCK_PAUSE),
            result => return result.map_err(IdentityError::io(&file)),
        }
    }
    Err(IdentityError::InUse {
        dir: data.to_owned(),
    })
}

fn check_permissions<F: Fs>(fs: &F, data: &Path) -> Result<(), IdentityError> {
    let mode = fs.permissions(data).map_err(IdentityError::io(data))?;
    if mode & 0o077 != 0 {
        return Err(IdentityError::WidePermissions {
            dir: data.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Translates what the twin file says; a directory without identity and a foreign one are our own words.
fn refused(error: OpenError, data: &Path) -> IdentityError {
    if let OpenError::WrongBinding {
        file,
        expected,
        found,
    } = error
    {
        return IdentityError::Foreign {
            file,
            cluster: ClusterId(expected.cluster),
            node: expected.node,
            found_cluster: ClusterId(found.cluster),
            found_node: found.node,
        };
    }
    if let OpenError::Missing { .. } = error {
        return IdentityError::Missing {
            dir: data.to_owned(),
        };
    }
    IdentityError::Open(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::golden;

    fn first() -> FirstRecord {
        FirstRecord {
            cluster: 0xc0ff_ee42,
            cluster_name: "prod".to_owned(),
            epoch: FIRST_EPOCH,
            node: 7,
            name: "n7".to_owned(),
            boot_counter: 3,
            boot_id: 300,
            members: vec![InitialMember {
                name: "n7".to_owned(),
                id: 7,
                address: "a:1".to_owned(),
            }],
            seen: BTreeMap::from([(8, (1, 2))]),
        }
    }

    #[test]
    fn golden_bytes_of_both_versions() {
        let record = Record {
            first: first(),
            known: Some(KnownMembers {
                members: first().members,
                removed: BTreeSet::from([8]),
            }),
        };
        let versions = [codec::encode(1, &first()), codec::encode(2, &record)];
        assert_eq!(decode(&versions[1]), Ok(record));
        let expected = Record {
            first: first(),
            known: None,
        };
        assert_eq!(decode(&versions[0]), Ok(expected));
        let [one, two] = versions;
        golden::check(
            "kv/golden/identity.txt",
            &[("version 1".to_owned(), one), ("version 2".to_owned(), two)],
        );
    }

    #[test]
    fn a_record_of_the_future_is_named() {
        let newer = DecodeError::NewerVersion { found: 3, known: 2 };
        assert_eq!(decode(&[3, 0]), Err(newer));
        assert_eq!(decode(&[]), Err(DecodeError::Empty));
    }
}
