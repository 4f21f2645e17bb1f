//! One snapshot file: on its way to its name, and read back.

use std::path::{Path, PathBuf};

use raft_log::fs::{File, Fs};

use super::error::{Damage, SnapshotDirError, fault};
use super::{Name, SnapshotDir, SnapshotInfo, TEMPORARY};

/// Files are read in pieces of this size.
const READ_BYTES: usize = 1 << 20;
/// After so many bytes the file is synced and the free space looked at again. A single sync of gigabytes at the end would
/// hold up the syncs of the log meanwhile.
const STEP_BYTES: u64 = 8 << 20;

/// What a good file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) bytes: u64,
    /// CRC over the whole file.
    pub(super) crc: u32,
}

/// A file that has no name yet. Dropped before it is complete, it is removed.
#[derive(Debug)]
pub(super) struct Draft<F: Fs> {
    dir: SnapshotDir<F>,
    path: PathBuf,
    file: F::File,
    bytes: u64,
    crc: crc32fast::Hasher,
    next_step: u64,
    named: bool,
}

impl<F: Fs> Draft<F> {
    pub(super) fn begin(dir: &SnapshotDir<F>) -> Result<Draft<F>, SnapshotDirError> {
        dir.check_usable()?;
        let number = {
            let mut state = dir.state();
            state.next_temporary += 1;
            state.next_temporary
        };
        let path = dir.dir.join(format!("{number}{TEMPORARY}"));
        check_space(dir)?;
        let file = dir
            .fs
            .create_new(&path)
            .map_err(|source| dir.fail(&path, "create", source))?;
        Ok(Draft {
            dir: dir.clone(),
            path,
            file,
            bytes: 0,
            crc: crc32fast::Hasher::new(),
            next_step: STEP_BYTES,
            named: false,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotDirError> {
        let written = self.file.write_at(bytes, self.bytes);
        written.map_err(|source| self.dir.fail(&self.path, "write", source))?;
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.bytes >= self.next_step {
            self.next_step = self.bytes + STEP_BYTES;
            let synced = self.file.sync_data();
            synced.map_err(|source| self.dir.fail(&self.path, "sync", source))?;
            check_space(&self.dir)?;
        }
        Ok(())
    }

    /// Makes the file durable, reads it back and gives it its name, durably.
    pub(super) fn complete(mut self, name: Name) -> Result<SnapshotInfo, SnapshotDirError> {
        let known = Known {
            bytes: self.bytes,
            crc: self.crc.clone().finalize(),
        };
        let SnapshotDir { fs, dir, .. } = &self.dir;
        let synced = self.file.sync_all();
        synced.map_err(|source| self.dir.fail(&self.path, "sync", source))?;
        read_back(fs, &self.path, known)?;
        let file = name.path(dir);
        let renamed = fs.rename(&self.path, &file);
        renamed.map_err(|source| self.dir.fail(&self.path, "rename", source))?;
        self.named = true;
        self.dir.sync_names()?;
        self.dir.note_good(name, known);
        Ok(SnapshotInfo {
            id: name.id(),
            file,
            bytes: known.bytes,
        })
    }
}

impl<F: Fs> Drop for Draft<F> {
    fn drop(&mut self) {
        if !self.named {
            // If this fails, the next open removes it.
            let _ = self.dir.fs.remove(&self.path);
        }
    }
}

/// Whether another step may be written without touching the reserve.
fn check_space<F: Fs>(dir: &SnapshotDir<F>) -> Result<(), SnapshotDirError> {
    let available = dir.fs.available_bytes(&dir.dir);
    let available =
        available.map_err(|source| SnapshotDirError::Read(fault(&dir.dir, "measure", source)))?;
    if available < dir.options.reserve_bytes.saturating_add(STEP_BYTES) {
        return Err(dir.no_space());
    }
    Ok(())
}

/// Reads all of a file, in order.
pub(super) fn read_whole<F: Fs>(
    fs: &F,
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), SnapshotDirError>,
) -> Result<Known, SnapshotDirError> {
    let file = fs
        .open(path)
        .map_err(|source| SnapshotDirError::read(path, source))?;
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    let mut crc = crc32fast::Hasher::new();
    loop {
        let read = file.read_at(&mut buffer, bytes);
        let read = read.map_err(|source| SnapshotDirError::read(path, source))?;
        if read == 0 {
            let crc = crc.finalize();
            return Ok(Known { bytes, crc });
        }
        crc.update(&buffer[..read]);
        take(&buffer[..read])?;
        bytes += read as u64;
    }
}

/// Reads a file and compares it with what it must be.
pub(super) fn read_back<F: Fs>(fs: &F, path: &Path, known: Known) -> Result<(), SnapshotDirError> {
    let found = read_whole(fs, path, |_| Ok(()))?;
    if found == known {
        return Ok(());
    }
    Err(SnapshotDirError::damaged(path, changed(known, found)))
}

pub(super) fn changed(expected: Known, found: Known) -> Damage {
    Damage::Changed {
        expected_bytes: expected.bytes,
        expected: expected.crc,
        found_bytes: found.bytes,
        found: found.crc,
    }
}
