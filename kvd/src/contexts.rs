//! The clusters that this user knows: name, endpoints and certificate files of each, and which one is meant by default.
//!
//! The file is `$KVCTL_CONFIG`, else `kvctl/contexts.toml` below `$XDG_CONFIG_HOME`, else below `~/.config`. It holds no
//! secret, only where the secrets lie.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the file in its directory.
const FILE: &str = "contexts.toml";

/// All contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contexts {
    /// The one that is meant when nobody says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// How to reach one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// `host:port` of nodes, or `unix:/path` of an admin socket.
    pub endpoints: Vec<String>,
    /// Certificates of the authority.
    pub ca: PathBuf,
    /// Certificate of the user.
    pub cert: PathBuf,
    /// Private key of the user.
    pub key: PathBuf,
}

/// Why contexts cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The file could not be read or written.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {why}", .file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is no place for the file: neither of the variables is set, nor `$HOME`.
    #[error("there is no home directory; set KVCTL_CONFIG to a file")]
    NoPlace,
}

/// Where the contexts of this user lie; `None` without a home.
#[must_use]
pub fn default_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    place(
        variable("KVCTL_CONFIG"),
        variable("XDG_CONFIG_HOME"),
        variable("HOME"),
    )
}

fn place(
    own: Option<std::ffi::OsString>,
    config_home: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    if let Some(own) = own {
        let path = PathBuf::from(own);
        return Some(if path.is_dir() { path.join(FILE) } else { path });
    }
    let base = config_home
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(home?).join(".config")))?;
    Some(base.join("kvctl").join(FILE))
}

/// Reads the contexts; none if there is no file.
///
/// # Errors
/// The file cannot be read, or is not what it should be.
pub fn read(file: &Path) -> Result<Contexts, ContextError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(error) => return Err(io_error(file)(error)),
    };
    toml::from_str(&text).map_err(|error| ContextError::Malformed {
        file: file.to_owned(),
        why: error.message().to_owned(),
    })
}

/// Changes the contexts, as one step that other processes see whole or not at all; two that change at the same time wait for
/// each other.
///
/// # Errors
/// The file cannot be read or written, or is not what it should be; or what `change` returned.
pub fn update<T, E: From<ContextError>>(
    file: &Path,
    change: impl FnOnce(&mut Contexts) -> Result<T, E>,
) -> Result<T, E> {
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    let lock_file = file.with_extension("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_file)
        .map_err(io_error(&lock_file))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|errno| io_error(&lock_file)(errno.into()))?;
    let mut contexts = read(file)?;
    let result = change(&mut contexts)?;
    write(file, &contexts)?;
    Ok(result)
}

fn write(file: &Path, contexts: &Contexts) -> Result<(), ContextError> {
    let text = toml::to_string(contexts).map_err(|error| ContextError::Malformed {
        file: file.to_owned(),
        why: error.to_string(),
    })?;
    let temporary = file.with_extension("tmp");
    let write = || {
        let mut handle = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()?;
        fs::rename(&temporary, file)?;
        File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(io_error(file))
}

fn io_error(file: &Path) -> impl FnOnce(io::Error) -> ContextError {
    move |source| ContextError::Io {
        file: file.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            endpoints: vec!["10.0.0.1:7400".to_owned()],
            ca: PathBuf::from("/c/ca.pem"),
            cert: PathBuf::from("/c/admin.pem"),
            key: PathBuf::from("/c/admin.key"),
        }
    }

    #[test]
    fn contexts_are_kept_and_changed_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/contexts.toml");
        assert_eq!(read(&file).unwrap(), Contexts::default());
        for name in ["prod", "demo"] {
            update(&file, |contexts| {
                contexts.default.get_or_insert(name.to_owned());
                contexts.contexts.insert(name.to_owned(), context());
                Ok::<_, ContextError>(())
            })
            .unwrap();
        }
        let contexts = read(&file).unwrap();
        assert_eq!(contexts.default.as_deref(), Some("prod"));
        assert_eq!(contexts.contexts.len(), 2);
        assert_eq!(contexts.contexts["demo"], context());
    }

    #[test]
    fn a_broken_file_is_reported_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("contexts.toml");
        fs::write(&file, "contexts = 3").unwrap();
        let changed = update(&file, |_| Ok::<_, ContextError>(()));
        assert!(matches!(changed, Err(ContextError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "contexts = 3");
    }

    #[test]
    fn the_own_variable_wins_over_the_configuration_directory_over_the_home() {
        let set = |text: &str| Some(std::ffi::OsString::from(text));
        let file = |text: &str| Some(PathBuf::from(text));
        let own = place(set("/a/b.toml"), set("/x"), set("/h"));
        assert_eq!(own, file("/a/b.toml"));
        assert_eq!(place(set("/"), None, None), file("/contexts.toml"));
        let below_config = place(None, set("/x"), set("/h"));
        assert_eq!(below_config, file("/x/kvctl/contexts.toml"));
        let below_home = place(None, None, set("/h"));
        assert_eq!(below_home, file("/h/.config/kvctl/contexts.toml"));
        assert_eq!(place(None, None, None), None);
    }
}
