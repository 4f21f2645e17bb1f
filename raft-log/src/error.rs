//! What can go wrong, one enum per operation the caller can tell apart.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::format::{BlockError, Check, Fault};
use crate::options::{Binding, OptionsError};

/// A call to the file system that failed.
#[derive(Debug, Error)]
#[error("{operation} {}: {source}", file.display())]
pub struct IoFault {
    /// The file or directory.
    pub file: PathBuf,
    /// What was asked of it: `write`, `sync`, `rename`...
    pub operation: &'static str,
    /// What the system said.
    pub source: io::Error,
}

impl IoFault {
    pub(crate) fn new(file: &Path, operation: &'static str, source: io::Error) -> IoFault {
        IoFault {
            file: file.to_path_buf(),
            operation,
            source,
        }
    }
}

/// Attaches the file and the operation to an error of the file system.
pub(crate) trait IoContext<T> {
    fn during(self, operation: &'static str, file: &Path) -> Result<T, IoFault>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during(self, operation: &'static str, file: &Path) -> Result<T, IoFault> {
        self.map_err(|source| IoFault::new(file, operation, source))
    }
}

/// Bytes that a completed sync had covered are not what was written. Never a torn write.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "corrupt: {} at offset {offset}{}: {check:?}, expected {expected:#x}, found {found:#x}",
    file.display(), self.names()
)]
pub struct Corruption {
    /// The damaged file.
    pub file: PathBuf,
    /// Where the damaged record or block begins.
    pub offset: u64,
    /// Index of the entry that is lost, if known.
    pub index: Option<u64>,
    /// Its term, if known.
    pub term: Option<u64>,
    /// What did not check.
    pub check: Check,
    /// The value that would be right.
    pub expected: u64,
    /// The value that is there.
    pub found: u64,
}

impl Corruption {
    pub(crate) fn of_block(file: &Path, offset: u64, fault: Fault) -> Corruption {
        let Fault {
            check,
            expected,
            found,
        } = fault;
        Corruption {
            file: file.to_path_buf(),
            offset,
            index: None,
            term: None,
            check,
            expected,
            found,
        }
    }

    fn names(&self) -> String {
        match (self.index, self.term) {
            (Some(index), Some(term)) => format!(", entry {index} of term {term}"),
            (Some(index), None) => format!(", entry {index}"),
            (None, _) => String::new(),
        }
    }
}

/// Why a log could not be created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// A complete log of this or another node is there already.
    #[error("{} holds a log already", dir.display())]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has the directory.
    #[error("{} is locked by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The disk is full.
    #[error("no space in {}", dir.display())]
    NoSpace {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoFault),
}

/// Why a log, or a file that is stored twice, could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is locked by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// No log was ever completely created here.
    #[error("{} holds no log", dir.display())]
    NotCreated {
        /// The directory.
        dir: PathBuf,
    },
    /// The files belong to another node or cluster.
    #[error(
        "{} belongs to node {:x} of cluster {:08x}, not to node {:x} of cluster {:08x}",
        file.display(), found.node, found.cluster, expected.node, expected.cluster
    )]
    WrongBinding {
        /// The file.
        file: PathBuf,
        /// To whom it should belong.
        expected: Binding,
        /// To whom it belongs.
        found: Binding,
    },
    /// A later version of this program wrote the file.
    #[error("{} has format version {found}, this program knows up to {known}", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Version of the file.
        found: u32,
        /// Latest version known here.
        known: u32,
    },
    /// Something that had been synced is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A file or entries that must be there are not.
    #[error("missing: {}, needed for entries from {index} on", file.display())]
    Missing {
        /// The file, or the directory if it cannot be known which file held the entries.
        file: PathBuf,
        /// First entry that is missing; 0 if none is known to be.
        index: u64,
    },
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoFault),
}

impl OpenError {
    pub(crate) fn of_block(
        file: &Path,
        offset: u64,
        expected: Binding,
        error: BlockError,
    ) -> OpenError {
        let file = file.to_path_buf();
        match error {
            BlockError::Newer { found, known } => OpenError::NewerFormat { file, found, known },
            BlockError::Foreign { found } => OpenError::WrongBinding {
                file,
                expected,
                found,
            },
            BlockError::Fault(fault) => Corruption::of_block(&file, offset, fault).into(),
        }
    }
}

/// Why the log refused or failed to change.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalError {
    /// A write or sync failed before. Nobody knows what the disk holds; the process must end.
    #[error("the log failed before and takes nothing more")]
    Poisoned,
    /// No room for another segment. Definite: nothing of this call was taken, everything else still
    /// works, and the same call succeeds once there is room again.
    #[error("no space for another segment: {needed} bytes needed, {available} available")]
    NoSpace {
        /// Bytes that were needed, with the reserve that stays free.
        needed: u64,
        /// Bytes there were.
        available: u64,
    },
    /// The file system failed. The log is poisoned from now on.
    #[error(transparent)]
    Io(#[from] IoFault),
    /// The entry is not the next one, or its term is lower than the one before.
    #[error("entry {index} of term {term} after entry {last_index} of term {last_term}")]
    OutOfOrder {
        /// Index of the refused entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Index of the last entry.
        last_index: u64,
        /// Its term.
        last_term: u64,
    },
    /// The entry does not fit into a segment.
    #[error("entry {index} has {bytes} bytes, at most {limit} fit into a segment")]
    TooLarge {
        /// Index of the refused entry.
        index: u64,
        /// Bytes of its payload.
        bytes: u64,
        /// Most bytes a payload may have.
        limit: u64,
    },
    /// The entry's payload does not match the checksum that came with it.
    #[error("payload of entry {index} has checksum {found:08x}, not {expected:08x}")]
    PayloadChecksum {
        /// Index of the refused entry.
        index: u64,
        /// Checksum that came with the entry.
        expected: u32,
        /// Checksum of the payload.
        found: u32,
    },
    /// The entry's kind is 0, which no entry has.
    #[error("entry {index} of kind 0")]
    NoKind {
        /// Index of the refused entry.
        index: u64,
    },
    /// The index lies outside the log, or its term is another.
    #[error("index {index} with term {term:?} in a log from {first_index} to {last_index}")]
    OutOfRange {
        /// The index asked for.
        index: u64,
        /// The term that was to be there.
        term: Option<u64>,
        /// First entry of the log.
        first_index: u64,
        /// Last entry of the log.
        last_index: u64,
    },
    /// The log would end with a damaged entry of which not even the term is known.
    #[error("the log would end with entry {index}, whose term is not known")]
    UnknownEnd {
        /// The entry.
        index: u64,
    },
    /// The term would fall, or a vote of the same term would change.
    #[error("term {term} with vote {vote:?} after term {last_term} with vote {last_vote:?}")]
    VoteChanged {
        /// Term that was to be stored.
        term: u64,
        /// Vote that was to be stored.
        vote: Option<u64>,
        /// Stored term.
        last_term: u64,
        /// Stored vote.
        last_vote: Option<u64>,
    },
}

/// Why entries could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The first entry asked for was purged or replaced by a snapshot.
    #[error("purged: the log begins at {first_index}")]
    Compacted {
        /// First entry of the log.
        first_index: u64,
    },
    /// The range ends behind the last synced entry.
    #[error("not there: the log ends at {last_index}")]
    Unavailable {
        /// Last synced entry.
        last_index: u64,
    },
    /// An entry rotted since it was written.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoFault),
}

/// Why a file that is stored twice could not be created or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TwinError {
    /// The file exists already.
    #[error("{} exists already", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The content is too long.
    #[error("{bytes} bytes, at most {} fit", crate::format::TWIN_CONTENT_BYTES_MAX)]
    TooLarge {
        /// Bytes of the content.
        bytes: usize,
    },
    /// A write or sync failed before. Nobody knows what the disk holds; the process must end.
    #[error("{} failed before and takes nothing more", file.display())]
    Poisoned {
        /// The file.
        file: PathBuf,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoFault),
}
