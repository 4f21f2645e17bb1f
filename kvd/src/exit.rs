//! Exit codes of `kvd`, and the last line of a run that ends with one.

use std::fmt;
use std::path::PathBuf;

use raft_log::{Corruption, CreateError, IoFault, OpenError, TwinError, WalError};
use raft_net::{BindError, CredentialError};

use crate::bundle::BundleError;
use crate::config::ConfigError;
use crate::identity::IdentityError;
use crate::join::JoinError;
use crate::kv::DecodeError;

/// How a run of `kvd` ends. The numbers are a promise to service managers and scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// A clean stop.
    Clean = 0,
    /// A line of a demo script failed.
    ScriptFailed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Data is damaged and cannot be repaired here.
    DataDamaged = 65,
    /// Data was written by a newer program.
    FormatNewer = 66,
    /// A state machine of the user panicked.
    MachineFailed = 70,
    /// It could not bind or start.
    CannotStart = 71,
    /// A storage call failed.
    StorageIo = 74,
    /// Another process uses the directory.
    DirectoryInUse = 75,
    /// The directory has no identity, or that of another node or cluster, or is older than the cluster has seen.
    NoIdentity = 76,
    /// Keys or data can be read by others.
    Permissions = 77,
    /// The configuration or the certificates are wrong.
    Configuration = 78,
}

impl ExitCode {
    /// Every code, for documents and tests.
    pub const ALL: [ExitCode; 12] = [
        ExitCode::Clean,
        ExitCode::ScriptFailed,
        ExitCode::Usage,
        ExitCode::DataDamaged,
        ExitCode::FormatNewer,
        ExitCode::MachineFailed,
        ExitCode::CannotStart,
        ExitCode::StorageIo,
        ExitCode::DirectoryInUse,
        ExitCode::NoIdentity,
        ExitCode::Permissions,
        ExitCode::Configuration,
    ];

    /// The number for the operating system.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// Why `kvd` ends with something else than [`ExitCode::Clean`].
///
/// Its text is the last line of the log: code, reason, and file, offset and index where they apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: ExitCode,
    /// What happened, in one line.
    pub what: String,
    /// The file concerned.
    pub file: Option<PathBuf>,
    /// Where in that file.
    pub offset: Option<u64>,
    /// Which log index.
    pub index: Option<u64>,
    /// What to do next.
    pub help: Option<String>,
}

impl Failure {
    /// A failure without a place.
    #[must_use]
    pub fn new(code: ExitCode, what: impl fmt::Display) -> Failure {
        Failure {
            code,
            what: what.to_string(),
            file: None,
            offset: None,
            index: None,
            help: None,
        }
    }

    /// The same with the file it concerns.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Failure {
        self.file = Some(file.into());
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// Something that is needed to start could not be had.
    #[must_use]
    pub fn start(what: &str, error: &dyn fmt::Display) -> Failure {
        Failure::new(
            ExitCode::CannotStart,
            format!("cannot start: {what}: {error}"),
        )
    }

    /// A storage call outside the log failed: permission problems are told apart, as nothing is broken then.
    #[must_use]
    pub fn storage(file: impl Into<PathBuf>, error: &std::io::Error) -> Failure {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied {
            ExitCode::CannotStart
        } else {
            ExitCode::StorageIo
        };
        Failure::new(code, error).in_file(file)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {}", self.code, self.what.replace('\n', " "))?;
        if let Some(file) = &self.file {
            write!(f, " file={}", file.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " offset={offset}")?;
        }
        if let Some(index) = self.index {
            write!(f, " index={index}")?;
        }
        if let Some(help) = &self.help {
            write!(f, " help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn fault(fault: &IoFault) -> Failure {
        let mut failure = Failure::storage(&fault.file, &fault.source);
        failure.what = fault.to_string();
        failure
    }

    fn corrupt(corruption: &Corruption) -> Failure {
        Failure {
            offset: Some(corruption.offset),
            index: corruption.index,
            ..Failure::new(ExitCode::DataDamaged, corruption).in_file(&corruption.file)
        }
        .with_help("the data was synced and has changed since; replace this node under a new id, and keep the directory for inspection")
    }

    /// What it means for this process that a peer does not let it in: mostly nothing, as the peer may be wrong or will
    /// learn better. That its directory is older than one the peer has seen cannot mend itself. A node that was removed
    /// keeps running and says so.
    #[must_use]
    pub fn of_refusal(peer: u64, refusal: &raft_net::Refusal) -> Option<Failure> {
        use raft_net::Refusal as R;
        let help = match refusal {
            R::StaleIncarnation { .. } => {
                "this data directory is a copy or was restored: replace the node under a new id"
            }
            // One misled peer must not take a healthy node down.
            R::WrongCluster
            | R::WrongEpoch
            | R::UnknownMember
            | R::Removed
            | R::WrongVersion
            | R::WrongRole
            | R::WrongIdentity
            | R::Denied
            | R::TooManyConnections => return None,
        };
        let what = format!("node {peer:016x} refuses this node: {refusal}");
        Some(Failure::new(ExitCode::NoIdentity, what).with_help(help))
    }
}

impl From<&ConfigError> for Failure {
    fn from(error: &ConfigError) -> Self {
        let failure = Failure::new(ExitCode::Configuration, error);
        match error {
            ConfigError::Unreadable { file, .. } => failure.in_file(file),
            ConfigError::Invalid(invalid) => Failure {
                file: invalid.file.clone(),
                ..failure
            },
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::from(&error)
    }
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        if let CredentialError::WidePermissions { path, .. } = &error {
            return Failure::new(ExitCode::Permissions, &error).in_file(path);
        }
        let failure = Failure::new(ExitCode::Configuration, &error);
        if let CredentialError::Missing { path } | CredentialError::Unreadable { path, .. } = &error
        {
            return failure.in_file(path);
        }
        failure
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        let code = match &error {
            BundleError::Permissions { .. } => ExitCode::Permissions,
            BundleError::Newer { .. } => ExitCode::FormatNewer,
            BundleError::Io { .. }
            | BundleError::NotABundle
            | BundleError::Damaged { .. }
            | BundleError::Invalid { .. } => ExitCode::Configuration,
        };
        Failure::new(code, &error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let plain = |code| Failure::new(code, &error);
        match &error {
            OpenError::Locked { dir } => plain(ExitCode::DirectoryInUse).in_file(dir),
            OpenError::NotCreated { dir } => plain(ExitCode::NoIdentity).in_file(dir),
            OpenError::WrongBinding { file, .. } => plain(ExitCode::NoIdentity).in_file(file),
            OpenError::NewerFormat { file, .. } => plain(ExitCode::FormatNewer).in_file(file),
            OpenError::Corrupt(corruption) => Failure::corrupt(corruption),
            OpenError::Missing { file, index } => Failure {
                index: Some(*index).filter(|index| *index != 0),
                ..plain(ExitCode::DataDamaged).in_file(file)
            },
            OpenError::Options(_) => plain(ExitCode::Configuration),
            OpenError::Io(fault) => Failure::fault(fault),
            _ => plain(ExitCode::StorageIo),
        }
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let plain = |code| Failure::new(code, &error);
        match &error {
            CreateError::Exists { dir } => plain(ExitCode::NoIdentity).in_file(dir),
            CreateError::Locked { dir } => plain(ExitCode::DirectoryInUse).in_file(dir),
            CreateError::Options(_) => plain(ExitCode::Configuration),
            CreateError::NoSpace { dir } => plain(ExitCode::StorageIo).in_file(dir),
            CreateError::Io(fault) => Failure::fault(fault),
            _ => plain(ExitCode::StorageIo),
        }
    }
}

impl From<WalError> for Failure {
    fn from(error: WalError) -> Self {
        if let WalError::Io(fault) = &error {
            return Failure::fault(fault);
        }
        // Anything else is a storage call that could not do what the protocol needs; the process cannot go on.
        Failure::new(ExitCode::StorageIo, &error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let plain = |code| Failure::new(code, &error);
        match error {
            IdentityError::Missing { ref dir } => plain(ExitCode::NoIdentity)
                .in_file(dir)
                .with_help("kvd join BUNDLE makes it, once"),
            IdentityError::Exists { ref dir } => plain(ExitCode::NoIdentity)
                .in_file(dir)
                .with_help("a new node needs a new bundle, and an empty directory"),
            IdentityError::InUse { ref dir } => plain(ExitCode::DirectoryInUse).in_file(dir),
            IdentityError::Foreign { ref file, .. } => plain(ExitCode::NoIdentity).in_file(file),
            IdentityError::WidePermissions { ref dir, .. } => plain(ExitCode::Permissions)
                .in_file(dir)
                .with_help("chmod 700 it, and check who may have read it"),
            IdentityError::Record { ref file, reason } => {
                let newer = matches!(reason, DecodeError::NewerVersion { .. });
                let code = if newer {
                    ExitCode::FormatNewer
                } else {
                    ExitCode::DataDamaged
                };
                plain(code).in_file(file)
            }
            IdentityError::Open(error) => error.into(),
            IdentityError::Write(TwinError::Io(ref fault)) => Failure::fault(fault),
            IdentityError::Write(_) => plain(ExitCode::StorageIo),
            IdentityError::Io {
                ref file,
                ref source,
            } => Failure::storage(file, source),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let plain = |code| Failure::new(code, &error);
        match error {
            JoinError::Bundle(error) => error.into(),
            JoinError::Credentials(error) => error.into(),
            JoinError::OtherNode { .. } => plain(ExitCode::Configuration),
            JoinError::Identity(error) => error.into(),
            JoinError::Create(error) => error.into(),
            JoinError::ForeignLog { ref dir } => plain(ExitCode::NoIdentity).in_file(dir),
            JoinError::Open(error) => error.into(),
            JoinError::Config(error) => error.into(),
            JoinError::Io {
                ref file,
                ref source,
            } => Failure::storage(file, source),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let code = match &error {
            BindError::Socket { .. } => ExitCode::CannotStart,
            BindError::Tls { .. } | BindError::Identity { .. } => ExitCode::Configuration,
            _ => ExitCode::CannotStart,
        };
        Failure::new(code, format!("cannot start: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_numbers() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 65, 66, 70, 71, 74, 75, 76, 77, 78]);
    }

    #[test]
    fn the_last_line_names_code_file_offset_and_index_on_one_line() {
        let failure = Failure {
            offset: Some(4096),
            index: Some(17),
            ..Failure::new(ExitCode::DataDamaged, "payload checksum\ndoes not fit")
                .in_file("/d/segment-1")
        };
        assert_eq!(
            failure.to_string(),
            "exit 65: payload checksum does not fit file=/d/segment-1 offset=4096 index=17"
        );
    }

    #[test]
    fn errors_of_a_directory_map_to_their_codes() {
        let dir = PathBuf::from("/d");
        let code = |error: IdentityError| Failure::from(error).code;
        assert_eq!(
            code(IdentityError::Missing { dir: dir.clone() }),
            ExitCode::NoIdentity
        );
        assert_eq!(
            code(IdentityError::Exists { dir: dir.clone() }),
            ExitCode::NoIdentity
        );
        let wide = IdentityError::WidePermissions {
            dir: dir.clone(),
            mode: 0o755,
        };
        assert_eq!(code(wide), ExitCode::Permissions);
        let locked = OpenError::Locked { dir: dir.clone() };
        assert_eq!(Failure::from(locked).code, ExitCode::DirectoryInUse);
        let newer = OpenError::NewerFormat {
            file: dir.clone(),
            found: 9,
            known: 1,
        };
        assert_eq!(code(IdentityError::Open(newer)), ExitCode::FormatNewer);
        let full = CreateError::NoSpace { dir };
        assert_eq!(Failure::from(full).code, ExitCode::StorageIo);
    }

    #[test]
    fn only_a_stale_directory_or_a_removed_node_stops_a_node() {
        use raft_net::Refusal as R;
        let stale = R::StaleIncarnation { seen: (3, 4) };
        assert_eq!(
            Failure::of_refusal(1, &stale).map(|f| f.code),
            Some(ExitCode::NoIdentity)
        );
        assert_eq!(Failure::of_refusal(1, &R::Removed), None);
        assert_eq!(Failure::of_refusal(1, &R::WrongCluster), None);
        assert_eq!(Failure::of_refusal(1, &R::UnknownMember), None);
    }
}
