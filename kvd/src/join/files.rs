//! The files outside the data directory: certificates and configuration, whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::JoinError;
use crate::bundle::Bundle;

fn io_error(file: &Path) -> impl FnOnce(io::Error) -> JoinError {
    move |source| JoinError::Io {
        file: file.to_owned(),
        source,
    }
}

/// Makes a directory of mode 0700 and what is missing above it, durably. One that exists is closed to others.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), JoinError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error(dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(io_error(dir))?;
    sync_names_above(dir)
}

/// Syncs the directories that may have got a new name while `path` was made.
fn sync_names_above(path: &Path) -> Result<(), JoinError> {
    for dir in path.ancestors().skip(1).take(3) {
        // Directories above ours that we may not open have got no new name from us either.
        match File::open(dir) {
            Ok(handle) => handle.sync_all().map_err(io_error(dir))?,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) if dir.as_os_str().is_empty() || error.kind() == io::ErrorKind::NotFound => {
            }
            Err(error) => return Err(io_error(dir)(error)),
        }
    }
    Ok(())
}

/// Writes a file under a temporary name, syncs it and gives it its name; an older one is replaced in one step.
fn write_file(file: &Path, text: &str, mode: u32) -> Result<(), JoinError> {
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = file.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(&temporary)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut handle = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(io_error(&temporary))?;
    handle
        .write_all(text.as_bytes())
        .map_err(io_error(&temporary))?;
    // The umask may have taken bits away that readers of the configuration need.
    handle
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(io_error(&temporary))?;
    handle.sync_all().map_err(io_error(&temporary))?;
    fs::rename(&temporary, file).map_err(io_error(file))?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(io_error(dir))
}

/// Writes `ca.pem node.pem node.key deny` with the key readable by its owner only.
pub(super) fn write_certificates(dir: &Path, bundle: &Bundle) -> Result<(), JoinError> {
    make_private_dir(dir)?;
    write_file(&dir.join("ca.pem"), &bundle.ca_pem, 0o644)?;
    write_file(&dir.join("node.pem"), &bundle.cert_pem, 0o644)?;
    write_file(&dir.join("node.key"), &bundle.key_pem, 0o600)?;
    let deny = "# Names and serial numbers of certificates that are not served, one per line.\n";
    write_file(&dir.join("deny"), deny, 0o644)
}

/// Writes the configuration. One with another content is kept under another name, which is returned.
pub(super) fn write_config(file: &Path, text: &str) -> Result<Option<PathBuf>, JoinError> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    let kept = match fs::read_to_string(file) {
        Ok(old) if old == text => None,
        Ok(_) => {
            let kept = file.with_extension("toml.before-join");
            fs::rename(file, &kept).map_err(io_error(&kept))?;
            Some(kept)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(file)(error)),
    };
    write_file(file, text, 0o644)?;
    Ok(kept)
}

/// Gives directories and all in them to a user of the system, if this is root and there is one: the unit runs as that user.
pub(super) fn give_to(user: &str, dirs: &[&Path]) -> Result<(), JoinError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some((uid, gid)) = look_up(user)? else {
        return Ok(());
    };
    dirs.iter().try_for_each(|dir| give(dir, uid, gid))
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<(), JoinError> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(io_error(path))?;
    if !fs::symlink_metadata(path).map_err(io_error(path))?.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        give(&entry.map_err(io_error(path))?.path(), uid, gid)?;
    }
    Ok(())
}

/// User and group id out of the list of users; one that another directory service knows is not found.
fn look_up(user: &str) -> Result<Option<(u32, u32)>, JoinError> {
    let list = Path::new("/etc/passwd");
    let text = match fs::read_to_string(list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(list)(error)),
    };
    Ok(text.lines().find_map(|line| entry_of(user, line)))
}

fn entry_of(user: &str, line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    if fields.next()? != user {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        assert_eq!(
            entry_of("kvd", "kvd:x:998:997:kvd:/var/lib/kvd:/bin/false"),
            Some((998, 997))
        );
        assert_eq!(entry_of("kvd", "kvdx:x:998:997::/:"), None);
        assert_eq!(entry_of("kvd", "kvd:x:a:b"), None);
        assert_eq!(entry_of("kvd", ""), None);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_has_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.key");
        fs::write(dir.path().join("node.key.tmp"), "left over").unwrap();
        write_file(&file, "one", 0o600).unwrap();
        write_file(&file, "two", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_configuration_is_kept_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kvd.toml");
        assert_eq!(write_config(&file, "a").unwrap(), None);
        assert_eq!(write_config(&file, "a").unwrap(), None);
        let kept = write_config(&file, "b").unwrap().unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), "a");
        assert_eq!(fs::read_to_string(file).unwrap(), "b");
    }
}
