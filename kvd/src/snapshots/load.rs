//! Reading a snapshot into a store.

use raft_core::EntryId;
use raft_log::fs::Fs;

use super::file::{Known, read_whole};
use super::{Name, SnapshotDir, SnapshotDirError};
use crate::kv::limits::StoreLimits;
use crate::kv::snapshot::{SnapshotHeader, SnapshotReader};
use crate::kv::store::Store;

/// A snapshot that cannot be used.
#[derive(Debug)]
pub struct Rotten {
    /// The last entry that its name says it has.
    pub id: EntryId,
    /// The file, and what is wrong with it.
    pub error: SnapshotDirError,
}

/// What the directory holds to start from.
#[derive(Debug)]
pub struct Loaded {
    /// The newest snapshot that is good; `None` if there is none.
    pub newest: Option<(SnapshotHeader, Store)>,
    /// Newer ones that are not, newest first.
    pub damaged: Vec<Rotten>,
    /// Newer ones that were not asked for, newest first.
    pub passed_over: Vec<EntryId>,
}

impl<F: Fs> SnapshotDir<F> {
    /// Loads the newest snapshot that is good. Damaged ones stay where they are until the next one was written.
    ///
    /// # Errors
    /// The file system failed, or a file was written by a newer program: falling back to an older one would then throw away
    /// what is not damaged at all.
    pub fn load_newest(&self) -> Result<Loaded, SnapshotDirError> {
        self.load_newest_of(|_| true)
    }

    /// As [`SnapshotDir::load_newest`], of those that end with an entry which passes the test. The others stay as well.
    ///
    /// # Errors
    /// As for [`SnapshotDir::load_newest`].
    pub fn load_newest_of(
        &self,
        is_usable: impl Fn(EntryId) -> bool,
    ) -> Result<Loaded, SnapshotDirError> {
        let (mut damaged, mut passed_over) = (Vec::new(), Vec::new());
        for name in self.complete()?.into_iter().rev() {
            if !is_usable(name.id()) {
                passed_over.push(name.id());
                continue;
            }
            match self.load(name) {
                Ok((header, store, known)) => {
                    self.note_good(name, known);
                    let mut state = self.state();
                    state.horizon = state.horizon.max(name.index);
                    let newest = Some((header, store));
                    return Ok(Loaded {
                        newest,
                        damaged,
                        passed_over,
                    });
                }
                Err(error @ SnapshotDirError::Damaged { .. }) => {
                    self.note_failure(name, &error);
                    let id = name.id();
                    damaged.push(Rotten { id, error });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Loaded {
            newest: None,
            damaged,
            passed_over,
        })
    }

    pub(super) fn load(
        &self,
        name: Name,
    ) -> Result<(SnapshotHeader, Store, Known), SnapshotDirError> {
        let path = name.path(&self.dir);
        let damaged = |error| SnapshotDirError::damaged(&path, error);
        let mut reader = SnapshotReader::new(StoreLimits::default());
        let known = read_whole(&self.fs, &path, |bytes| reader.push(bytes).map_err(damaged))?;
        let (header, store) = reader.finish().map_err(damaged)?;
        self.check_header(&header, name.id())
            .map_err(|damage| SnapshotDirError::damaged(&path, damage))?;
        Ok((header, store, known))
    }
}
