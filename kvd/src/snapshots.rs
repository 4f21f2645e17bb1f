//! The snapshots of a node, as files of one directory.
//!
//! ```text
//!  N.tmp                     being written or received; a crash leaves it, and the next open removes it
//!  suspect                   a mark: the state of this node is not to be trusted, nor are its snapshots
//!  snapshot-INDEX-TERM       complete, read back and durable: written --> synced --> read back --> renamed --> named durably
//! ```
//!
//! A file gets its name only when it is whole and its bytes are durable, so there is never a part of a snapshot to be seen.
//! Afterwards it can only rot. Each use checks it: the checksum over the whole file is remembered from when it was last known
//! to be good, and a rotten file is neither loaded nor sent nor relied on when older ones are removed.
//!
//! Two kinds of snapshots lie here. Those at or below the *horizon*, the newest one that this node has written or was started
//! from, stand for state that its own log also reached. Those above were received, and whether the core installs one is
//! decided elsewhere; they never make the log shorter by themselves.

mod error;
mod file;
mod load;
mod receive;
mod send;
mod suspect;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{Configuration, EntryId, LogIndex, SnapshotMeta, Term};
use raft_log::fs::{File, Fs};
use raft_net::ClusterId;

use self::error::fault;
pub use self::error::{Damage, SnapshotDirError};
use self::file::{Draft, Known, read_back};
pub use self::load::{Loaded, Rotten};
pub use self::receive::Incoming;
pub use self::send::Outgoing;
pub use self::suspect::Suspect;
use crate::driver::{SnapshotOrder, WrittenSnapshot};
use crate::kv::snapshot::{SnapshotContext, SnapshotHeader, SnapshotWriter};
use crate::kv::store::Store;
use crate::wire::client::MemberAddress;

/// What a complete snapshot is called: this, the index and the term of its last entry.
const PREFIX: &str = "snapshot-";
/// What the name of an unfinished one ends with.
const TEMPORARY: &str = ".tmp";
/// Digits of each number in a name, so that names sort as the numbers do.
const NAME_DIGITS: usize = 20;

/// Version of the cluster that snapshots are marked with; the first, and so far the only one.
const CLUSTER_VERSION: u32 = 1;

/// Largest snapshot that is received, unless configured otherwise: a store lives in memory, and no machine for which this
/// program is meant has more.
pub const RECEIVED_BYTES_MAX: u64 = 64 << 30;

/// What a snapshot directory must know.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// The cluster.
    pub cluster: u32,
    /// The members with their addresses, written into each snapshot.
    pub members: Vec<MemberAddress>,
    /// How many snapshots are kept; at least one.
    pub keep: usize,
    /// Bytes of the file system that are left free: a snapshot that would leave less is given up.
    pub reserve_bytes: u64,
    /// Largest snapshot that is received.
    pub received_bytes_max: u64,
}

/// A complete snapshot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last entry in it.
    pub id: EntryId,
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The directory. Clones share it; all of it can be used from several threads at once.
#[derive(Debug)]
pub struct SnapshotDir<F: Fs> {
    fs: F,
    dir: PathBuf,
    options: Arc<SnapshotOptions>,
    state: Arc<Mutex<State>>,
}

impl<F: Fs> Clone for SnapshotDir<F> {
    fn clone(&self) -> SnapshotDir<F> {
        SnapshotDir {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            options: Arc::clone(&self.options),
            state: Arc::clone(&self.state),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Files that were read whole and found good in this process.
    known: BTreeMap<Name, Known>,
    /// Files that were found bad.
    rotten: BTreeSet<Name>,
    /// The newest snapshot that was written here or that this node was started from.
    horizon: u64,
    next_temporary: u64,
    /// None of the files may be shown to anybody.
    suspect: bool,
    poisoned: bool,
}

/// The two numbers of a file's name; they order as the entries do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    index: u64,
    term: u64,
}

impl Name {
    fn of(id: EntryId) -> Name {
        Name {
            index: id.index.0,
            term: id.term.0,
        }
    }

    fn id(self) -> EntryId {
        EntryId {
            index: LogIndex(self.index),
            term: Term(self.term),
        }
    }

    fn parse(name: &str) -> Option<Name> {
        let (index, term) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let number = |digits: &str| {
            let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        Some(Name {
            index: number(index)?,
            term: number(term)?,
        })
    }

    fn path(self, dir: &Path) -> PathBuf {
        let Name { index, term } = self;
        dir.join(format!("{PREFIX}{index:020}-{term:020}"))
    }
}

impl<F: Fs> SnapshotDir<F> {
    /// Opens the directory, making it if needed, and removes what a crash left unfinished. The data directory must be
    /// locked: what looks unfinished may be another process at work.
    ///
    /// # Errors
    /// The file system failed.
    pub fn open(
        fs: &F,
        dir: &Path,
        options: SnapshotOptions,
    ) -> Result<SnapshotDir<F>, SnapshotDirError> {
        assert!(options.keep > 0, "a log without its snapshot is not whole");
        let opened = SnapshotDir {
            fs: fs.clone(),
            dir: dir.to_path_buf(),
            options: Arc::new(options),
            state: Arc::default(),
        };
        fs.create_dir_all(dir)
            .map_err(|source| opened.fail(dir, "create", source))?;
        for name in opened.names()? {
            if name.ends_with(TEMPORARY) {
                opened.remove_file(&dir.join(name))?;
            }
        }
        // The last process may have died between giving a file its name and making the name durable. What is seen here is
        // relied on: without this, n1 would install the snapshot at 60, forget its log, lose power, and have neither.
        opened.sync_names()?;
        let suspect = opened.suspect()?.is_some();
        opened.state().suspect = suspect;
        Ok(opened)
    }

    /// Complete snapshots, oldest first, damaged or not.
    ///
    /// # Errors
    /// The file system failed.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotDirError> {
        let mut list = Vec::new();
        for name in self.complete()? {
            let file = name.path(&self.dir);
            let bytes = self.fs.open(&file).and_then(|opened| opened.len());
            match bytes.map_err(|source| SnapshotDirError::read(&file, source)) {
                Ok(bytes) => list.push(SnapshotInfo {
                    id: name.id(),
                    file,
                    bytes,
                }),
                Err(SnapshotDirError::Removed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    /// Writes a snapshot of this view, reads it back and makes it durable.
    ///
    /// `meta` says what the view is: the state after `meta.id` was applied. It must not be ahead of the synced log.
    ///
    /// # Errors
    /// Nothing new is visible then. See [`SnapshotDirError::is_fatal`].
    ///
    /// # Panics
    /// If the view is of another index.
    pub fn write(
        &self,
        view: &Store,
        meta: &SnapshotMeta,
    ) -> Result<SnapshotInfo, SnapshotDirError> {
        assert_eq!(
            view.applied_index(),
            meta.id.index.0,
            "the view is not of {}",
            meta.id
        );
        let context = SnapshotContext {
            term: meta.id.term.0,
            configuration: meta.configuration.encode().into(),
            configuration_index: meta.configuration_index.0,
            members: self.options.members.clone(),
            cluster: self.options.cluster,
            cluster_version: CLUSTER_VERSION,
        };
        let mut draft = Draft::begin(self)?;
        for block in SnapshotWriter::new(view.clone(), context) {
            draft.push(&block)?;
        }
        let name = Name::of(meta.id);
        let info = draft.complete(name)?;
        let mut state = self.state();
        state.horizon = state.horizon.max(name.index);
        Ok(info)
    }

    /// As [`SnapshotDir::write`], unless there is one of the same entry that is still good: it is read again to tell.
    ///
    /// # Errors
    /// As for [`SnapshotDir::write`].
    ///
    /// # Panics
    /// As for [`SnapshotDir::write`].
    pub fn write_unless_good(
        &self,
        view: &Store,
        meta: &SnapshotMeta,
    ) -> Result<(), SnapshotDirError> {
        let name = Name::of(meta.id);
        if self.complete()?.contains(&name) {
            match self.verify(name) {
                Ok(_) => {
                    // It may have been received; what this node would write itself counts as its own.
                    let mut state = self.state();
                    state.horizon = state.horizon.max(name.index);
                    return Ok(());
                }
                Err(SnapshotDirError::Damaged { .. } | SnapshotDirError::Removed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.write(view, meta).map(drop)
    }

    /// Does what the driver has ordered: a snapshot of the view, and those that it makes needless removed.
    ///
    /// # Errors
    /// As for [`SnapshotDir::write`].
    ///
    /// # Panics
    /// As for [`SnapshotDir::write`].
    pub fn carry_out(&self, order: &SnapshotOrder) -> Result<WrittenSnapshot, SnapshotDirError> {
        self.write_unless_good(&order.view, &order.meta)?;
        let oldest_kept = if order.only_one {
            self.prune_to(1)?
        } else {
            self.prune()?
        };
        Ok(WrittenSnapshot {
            meta: order.meta.clone(),
            oldest_kept,
        })
    }

    /// Removes the snapshots that are not needed any more, and returns the last entry of the oldest one that is kept: the
    /// log must be kept from there on.
    ///
    /// The newest one is read back first. If it has rotted, nothing is removed.
    ///
    /// # Errors
    /// [`SnapshotDirError::NotFound`] if this node has none yet. See [`SnapshotDirError::is_fatal`].
    pub fn prune(&self) -> Result<EntryId, SnapshotDirError> {
        self.prune_to(self.options.keep)
    }

    /// As [`SnapshotDir::prune`], keeping only this many, at least one: when the log has no room to be kept for more.
    ///
    /// # Errors
    /// As for [`SnapshotDir::prune`].
    pub fn prune_to(&self, keep: usize) -> Result<EntryId, SnapshotDirError> {
        self.check_usable()?;
        let complete = self.complete()?;
        let (own, rotten) = {
            let state = self.state();
            let good = |name: &&Name| name.index <= state.horizon && !state.rotten.contains(name);
            let own: Vec<Name> = complete.iter().rev().filter(good).copied().collect();
            let rotten = complete.iter().filter(|name| state.rotten.contains(name));
            (own, rotten.copied().collect::<Vec<_>>())
        };
        let newest = own.first().ok_or_else(|| self.not_found(0))?;
        self.verify(*newest)?;
        let (kept, needless) = own.split_at(keep.clamp(1, own.len()));
        self.remove_names(needless.iter().chain(&rotten))?;
        Ok(kept.last().expect("at least one is kept").id())
    }

    /// Reads a file again and compares it with what it was when it was last good.
    fn verify(&self, name: Name) -> Result<Known, SnapshotDirError> {
        let known = self.state().known.get(&name).copied();
        let result = match known {
            Some(known) => read_back(&self.fs, &name.path(&self.dir), known).map(|()| known),
            None => self.load(name).map(|(_, _, known)| known),
        };
        match &result {
            Ok(known) => self.note_good(name, *known),
            Err(error) => self.note_failure(name, error),
        }
        result
    }

    fn note_good(&self, name: Name, known: Known) {
        let mut state = self.state();
        state.known.insert(name, known);
        state.rotten.remove(&name);
    }

    /// Remembers a file as rotten if that is what the error says.
    fn note_failure(&self, name: Name, error: &SnapshotDirError) {
        if let SnapshotDirError::Damaged { .. } = error {
            let mut state = self.state();
            state.known.remove(&name);
            state.rotten.insert(name);
        }
    }

    fn names(&self) -> Result<Vec<String>, SnapshotDirError> {
        let listed = self.fs.list(&self.dir);
        listed.map_err(|source| SnapshotDirError::Read(fault(&self.dir, "list", source)))
    }

    /// Names of complete snapshots, oldest first.
    fn complete(&self) -> Result<Vec<Name>, SnapshotDirError> {
        let mut complete: Vec<Name> = self
            .names()?
            .iter()
            .filter_map(|name| Name::parse(name))
            .collect();
        complete.sort_unstable();
        Ok(complete)
    }

    /// Removes snapshots, durably.
    fn remove_names<'a>(
        &self,
        names: impl Iterator<Item = &'a Name>,
    ) -> Result<(), SnapshotDirError> {
        let mut names = names.peekable();
        if names.peek().is_none() {
            return Ok(());
        }
        for name in names {
            self.remove_file(&name.path(&self.dir))?;
            let mut state = self.state();
            state.known.remove(name);
            state.rotten.remove(name);
        }
        self.sync_names()
    }

    /// Removes a file. One that is gone already was removed by another thread's pruning.
    fn remove_file(&self, file: &Path) -> Result<(), SnapshotDirError> {
        match self.fs.remove(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.fail(file, "remove", source)),
        }
    }

    /// Makes the names in the directory durable.
    fn sync_names(&self) -> Result<(), SnapshotDirError> {
        self.fs
            .sync_dir(&self.dir)
            .map_err(|source| self.fail(&self.dir, "sync", source))
    }

    /// An error of a write: either there is no room, or the directory is not to be used any more.
    fn fail(
        &self,
        file: &Path,
        operation: &'static str,
        source: std::io::Error,
    ) -> SnapshotDirError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded) {
            return self.no_space();
        }
        self.state().poisoned = true;
        SnapshotDirError::Io(fault(file, operation, source))
    }

    fn no_space(&self) -> SnapshotDirError {
        SnapshotDirError::NoSpace {
            dir: self.dir.clone(),
        }
    }

    fn not_found(&self, index: u64) -> SnapshotDirError {
        SnapshotDirError::NotFound {
            dir: self.dir.clone(),
            index,
        }
    }

    fn check_usable(&self) -> Result<(), SnapshotDirError> {
        if self.state().poisoned {
            return Err(SnapshotDirError::Poisoned);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it whole: each change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks what the codec cannot know: that a snapshot is of this cluster and of the entry that was expected.
    fn check_header(&self, header: &SnapshotHeader, expected: EntryId) -> Result<(), Damage> {
        let (found, cluster) = (header.cluster, self.options.cluster);
        if found != cluster {
            let (expected, found) = (ClusterId(cluster), ClusterId(found));
            return Err(Damage::OtherCluster { expected, found });
        }
        let meta = meta_of(header)?;
        if meta.id != expected {
            let found = meta.id;
            return Err(Damage::OtherEntry { expected, found });
        }
        Ok(())
    }
}

/// What a snapshot stands for in the consensus core.
///
/// # Errors
/// The configuration in it makes no sense.
pub fn meta_of(header: &SnapshotHeader) -> Result<SnapshotMeta, Damage> {
    let configuration =
        Configuration::decode(&header.configuration).map_err(Damage::Configuration)?;
    Ok(SnapshotMeta {
        id: EntryId {
            index: LogIndex(header.index),
            term: Term(header.term),
        },
        configuration,
        configuration_index: LogIndex(header.configuration_index),
    })
}
