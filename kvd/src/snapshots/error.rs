//! Why a snapshot could not be written, read, received or sent.

use std::path::{Path, PathBuf};

use raft_core::{ConfigurationError, EntryId};
use raft_log::IoFault;
use raft_net::ClusterId;

use crate::exit::{ExitCode, Failure};
use crate::kv::snapshot::SnapshotError;

/// Number of the I/O error that a medium answers for a place it cannot read.
const EIO: i32 = 5;

/// What went wrong with a snapshot file or the directory of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotDirError {
    /// A write, sync, rename or removal failed. Nobody knows what the disk holds; the process must end.
    #[error(transparent)]
    Io(IoFault),
    /// A file or the directory could not be read, or not now. Nothing is known to be wrong with what is there.
    #[error(transparent)]
    Read(IoFault),
    /// Something failed before as in [`SnapshotDirError::Io`].
    #[error("the snapshot directory failed before and takes nothing more")]
    Poisoned,
    /// No room. Nothing is left of what was begun, and it may be tried again.
    #[error("no space for a snapshot in {}", dir.display())]
    NoSpace {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is not what was written.
    #[error("snapshot {}: {damage}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Bytes from a peer are no snapshot, or not the one that was announced.
    #[error("received snapshot refused: {damage}")]
    Refused {
        /// What is wrong with them.
        damage: Damage,
    },
    /// A snapshot from a peer is larger than any may be.
    #[error("received snapshot is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Written by a newer program.
    #[error("snapshot {}: {error}", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Which version it has.
        error: SnapshotError,
    },
    /// Another thread has removed the file, because newer ones made it needless.
    #[error("snapshot {} was removed meanwhile", file.display())]
    Removed {
        /// The file.
        file: PathBuf,
    },
    /// The state of this node is not that of the majority, so none of its snapshots is sent.
    #[error("the snapshots in {} are not to be trusted", dir.display())]
    Suspect {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no snapshot of this index, or none at all.
    #[error("no snapshot of index {index} in {}", dir.display())]
    NotFound {
        /// The directory.
        dir: PathBuf,
        /// The index; 0 for any.
        index: u64,
    },
}

/// What is wrong with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The bytes do not check.
    #[error(transparent)]
    Format(#[from] SnapshotError),
    /// It checked before and has other bytes now.
    #[error(
        "{found_bytes} bytes with checksum {found:08x}, expected {expected_bytes} with {expected:08x}"
    )]
    Changed {
        /// Its length when it was written or last read whole.
        expected_bytes: u64,
        /// The checksum over all of it then.
        expected: u32,
        /// Its length now.
        found_bytes: u64,
        /// The checksum over all of it now.
        found: u32,
    },
    /// The medium cannot read it.
    #[error("unreadable")]
    Unreadable,
    /// It is of another entry than its name or its announcement says.
    #[error("it ends with entry {found}, expected {expected}")]
    OtherEntry {
        /// The entry that was to be its last.
        expected: EntryId,
        /// Its last entry.
        found: EntryId,
    },
    /// It belongs to another cluster.
    #[error("it belongs to cluster {found}, expected {expected}")]
    OtherCluster {
        /// This cluster.
        expected: ClusterId,
        /// Its cluster.
        found: ClusterId,
    },
    /// The configuration in it makes no sense.
    #[error("its configuration: {0}")]
    Configuration(ConfigurationError),
    /// It has another configuration than was announced.
    #[error("it has another configuration than was announced")]
    OtherConfiguration,
}

impl SnapshotDirError {
    /// Whether the process must end, because nobody knows what the disk holds.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, SnapshotDirError::Io(_) | SnapshotDirError::Poisoned)
    }

    pub(super) fn damaged(file: &Path, damage: impl Into<Damage>) -> SnapshotDirError {
        let (file, damage) = (file.to_path_buf(), damage.into());
        if let Damage::Format(
            error @ (SnapshotError::NewerVersion { .. } | SnapshotError::UnknownHash { .. }),
        ) = damage
        {
            return SnapshotDirError::NewerFormat { file, error };
        }
        SnapshotDirError::Damaged { file, damage }
    }

    /// An error while a snapshot is read: a place that the medium cannot read is damage like any other.
    pub(super) fn read(file: &Path, source: std::io::Error) -> SnapshotDirError {
        if source.raw_os_error() == Some(EIO) {
            return SnapshotDirError::damaged(file, Damage::Unreadable);
        }
        if source.kind() == std::io::ErrorKind::NotFound {
            return SnapshotDirError::Removed {
                file: file.to_path_buf(),
            };
        }
        SnapshotDirError::Read(fault(file, "read", source))
    }
}

pub(super) fn fault(file: &Path, operation: &'static str, source: std::io::Error) -> IoFault {
    IoFault {
        file: file.to_path_buf(),
        operation,
        source,
    }
}

impl From<&SnapshotDirError> for Failure {
    fn from(error: &SnapshotDirError) -> Failure {
        let plain = |code| Failure::new(code, error);
        match error {
            SnapshotDirError::Io(fault) | SnapshotDirError::Read(fault) => Failure {
                what: fault.to_string(),
                ..Failure::storage(&fault.file, &fault.source)
            },
            SnapshotDirError::NoSpace { dir } => plain(ExitCode::StorageIo).in_file(dir),
            SnapshotDirError::Poisoned => plain(ExitCode::StorageIo),
            SnapshotDirError::Damaged { file, .. } | SnapshotDirError::Removed { file } => {
                plain(ExitCode::DataDamaged).in_file(file)
            }
            SnapshotDirError::NewerFormat { file, .. } => {
                plain(ExitCode::FormatNewer).in_file(file)
            }
            SnapshotDirError::NotFound { dir, .. } | SnapshotDirError::Suspect { dir } => {
                plain(ExitCode::DataDamaged).in_file(dir)
            }
            SnapshotDirError::Refused { .. } | SnapshotDirError::TooLarge { .. } => {
                plain(ExitCode::DataDamaged)
            }
        }
    }
}
