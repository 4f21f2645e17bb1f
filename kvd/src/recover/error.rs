//! Why a data directory cannot be used.

use std::path::PathBuf;

use raft_core::{ConfigurationError, EntryId, LogIndex, UnknownEntryKind};
use raft_log::{Corruption, OpenError, ReadError, WalError};

use crate::exit::{ExitCode, Failure};
use crate::snapshots::SnapshotDirError;

/// What to do about damage that this node cannot mend by itself.
const REPLACE: &str = "keep the directory for inspection, and replace this node under a new id";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An entry is damaged, and there is no other node that could have a copy.
    #[error("{0}; no other node has a copy")]
    Alone(Corruption),
    /// The log could not be changed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshots could not be read.
    #[error(transparent)]
    Snapshots(#[from] SnapshotDirError),
    /// Entries are missing between the newest good snapshot and the log.
    #[error("entries {} to {} are missing: {} and the log begins after {floor}{}",
        snapshot.index.next(), floor.index,
        if snapshot.index == LogIndex(0) { "there is no good snapshot".to_owned() } else { format!("the newest good snapshot ends with {snapshot}") },
        rotten.as_ref().map(|rotten| format!("; {rotten}")).unwrap_or_default())]
    Gap {
        /// The directory of the snapshots.
        dir: PathBuf,
        /// The last entry of the newest good snapshot; 0 if there is none.
        snapshot: EntryId,
        /// The entry before the first one of the log.
        floor: EntryId,
        /// The newest damaged snapshot and what is wrong with it.
        rotten: Option<String>,
    },
    /// The newest good snapshot and the log are of two histories.
    #[error("the snapshot ends with entry {snapshot}, but entry {stored} of the log was committed")]
    Diverged {
        /// The directory of the log.
        dir: PathBuf,
        /// The last entry of the snapshot.
        snapshot: EntryId,
        /// What the log has in its place.
        stored: EntryId,
    },
    /// A stored configuration makes no sense.
    #[error("the configuration in entry {index}: {error}")]
    Configuration {
        /// The entry.
        index: LogIndex,
        /// What is wrong with it.
        error: ConfigurationError,
    },
    /// A newer program has written to the log.
    #[error("the log was written by a newer program: {0}")]
    UnknownKind(#[from] UnknownEntryKind),
}

impl From<RecoverError> for Failure {
    fn from(error: RecoverError) -> Failure {
        let what = error.to_string();
        let damaged = || Failure::new(ExitCode::DataDamaged, &what).with_help(REPLACE);
        match error {
            RecoverError::Open(error) => error.into(),
            RecoverError::Alone(corruption) => Failure {
                what,
                ..OpenError::Corrupt(corruption).into()
            },
            RecoverError::Wal(error) => error.into(),
            RecoverError::Read(ReadError::Corrupt(corruption)) => {
                OpenError::Corrupt(corruption).into()
            }
            RecoverError::Read(ReadError::Io(fault)) => OpenError::Io(fault).into(),
            RecoverError::Read(_) => damaged(),
            RecoverError::Snapshots(error) => Failure::from(&error),
            RecoverError::Gap { dir, snapshot, .. } => Failure {
                index: Some(snapshot.index.next().0),
                ..damaged().in_file(dir)
            },
            RecoverError::Diverged { dir, snapshot, .. } => Failure {
                index: Some(snapshot.index.0),
                ..damaged().in_file(dir)
            },
            RecoverError::Configuration { index, .. } => Failure {
                index: Some(index.0),
                ..damaged()
            },
            RecoverError::UnknownKind(_) => Failure::new(ExitCode::FormatNewer, what),
        }
    }
}
