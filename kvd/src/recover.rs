//! From a data directory to a log, a store and a consensus core's view of them.
//!
//! The newest good snapshot and the log must fit together. What a crash can leave, and what is made of it:
//!
//! ```text
//!  the log ...
//!  holds the snapshot's last entry                   nothing to do; entries after it are applied again
//!  ends before it                                    a received snapshot was not installed to the end: now it is
//!  has another entry there, not known committed      the same; the log goes its own way from there and is dropped
//!  begins after it                                   entries are missing: refused, exit 65
//!  has another entry there, known to be committed    two histories: refused, exit 65
//! ```
//!
//! A received snapshot holds committed state, so taking it never loses anything that was promised; that the core had not yet
//! decided to install it makes no difference.
//!
//! Entries that were synced and are damaged come back from the peers, so the log is used all the same: the core is told of
//! them, and holds back until it has them. A node that has no peers does not start. What lies at or below the snapshot needs
//! none: it is purged.

mod damage;
mod error;
mod fill;

use std::fmt;
use std::path::Path;

use raft_core::{
    Configuration, Entry, EntryId, EntryKind, LogIndex, SnapshotMeta, Term, UnknownEntryKind,
};
use raft_log::{Binding, Corruption, Fs, Opened, Options, StoredEntry, Tail, Wal};

use self::damage::{Fit, fit, purge_covered, stored_from};
pub use self::error::RecoverError;
use self::fill::{Filled, fill_cache};
use crate::identity::{log_dir, snapshot_dir};
use crate::kv::limits::StoreLimits;
use crate::kv::store::Store;
use crate::log_cache::LogCache;
use crate::snapshots::{
    Loaded, RECEIVED_BYTES_MAX, Rotten, SnapshotDir, SnapshotDirError, SnapshotOptions, Suspect,
    meta_of,
};
use crate::wire::client::MemberAddress;

/// What recovery must know.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// Whose log it is.
    pub binding: Binding,
    /// Limits of the log. Its reserve is left free by snapshots too.
    pub wal: Options,
    /// How many snapshots are kept.
    pub snapshots_kept: usize,
    /// The configuration that the cluster was founded with.
    pub founding: Configuration,
    /// The members with their addresses, written into snapshots.
    pub members: Vec<MemberAddress>,
    /// Bytes of recent entries that are kept in memory, see [`CACHE_BYTES`](crate::log_cache::CACHE_BYTES).
    pub cache_bytes: u64,
}

/// A data directory in use.
#[derive(Debug)]
pub struct Recovered<F: Fs> {
    /// The log. It holds the lock of the data directory.
    pub wal: Wal<F>,
    /// What the consensus core reads of it.
    pub cache: LogCache,
    /// The state at the newest good snapshot. Committed entries after it come from the core.
    pub store: Store,
    /// The snapshots.
    pub snapshots: SnapshotDir<F>,
    /// The state is not that of the majority: it must not be shown, and is to be rebuilt from a peer.
    pub suspect: Option<Suspect>,
    /// What was found.
    pub opened: Findings,
}

/// What recovery found and did, for the log of the process.
#[derive(Debug)]
pub struct Findings {
    /// What the log said when it was opened.
    pub log: Opened,
    /// The last entry of the snapshot that the store starts from.
    pub snapshot: Option<EntryId>,
    /// Whether an interrupted installation of that snapshot was finished.
    pub finished_install: bool,
    /// Newer snapshots that cannot be used.
    pub damaged: Vec<Rotten>,
    /// Newer snapshots that cannot be told to be of this log, because the entry that they end with is damaged in it.
    pub undecided: Vec<EntryId>,
    /// How many damaged entries of the log that snapshot covers.
    pub covered: usize,
    /// What is damaged behind the snapshot, to be repaired from the peers.
    pub faulty: Vec<Corruption>,
}

impl Findings {
    /// Where the log was found damaged, in its order: what the snapshot covers, and what is to be repaired.
    pub fn damage(&self) -> impl Iterator<Item = &Corruption> {
        let covered = self.log.faulty.iter().take(self.covered);
        covered.map(|faulty| &faulty.corruption).chain(&self.faulty)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opened {
            term,
            first_index,
            last_index,
            ..
        } = &self.log;
        write!(f, "entries {first_index}..={last_index}, term {term}")?;
        if let Tail::TornDropped {
            segment,
            offset,
            bytes,
        } = &self.log.tail
        {
            let segment = segment.display();
            write!(
                f,
                ", {bytes} unsynced bytes dropped at {offset} of {segment}"
            )?;
        }
        for report in &self.log.reports {
            write!(f, ", {report}")?;
        }
        match self.snapshot {
            None => write!(f, ", no snapshot")?,
            Some(id) if self.finished_install => {
                write!(f, ", snapshot {id} installed in place of the log")?;
            }
            Some(id) => write!(f, ", snapshot {id}")?,
        }
        for rotten in &self.damaged {
            write!(f, ", {}", rotten.error)?;
        }
        for id in &self.undecided {
            write!(f, ", snapshot {id} may be of another log")?;
        }
        if self.covered > 0 {
            write!(f, ", {} damaged entries covered by it", self.covered)?;
        }
        if !self.faulty.is_empty() {
            let count = self.faulty.len();
            write!(f, ", {count} damaged entries to be repaired from peers")?;
        }
        Ok(())
    }
}

/// Opens the log and the snapshots below `data`, and makes them fit together.
///
/// # Errors
/// [`RecoverError`] says why this directory cannot be used; `Failure::from` gives the exit code.
pub fn recover<F: Fs>(
    fs: &F,
    data: &Path,
    options: &RecoverOptions,
) -> Result<Recovered<F>, RecoverError> {
    // First, because it takes the lock of the directory.
    let (mut wal, log) = Wal::open(fs, &log_dir(data), options.binding, options.wal.clone())?;
    let snapshot_options = SnapshotOptions {
        cluster: options.binding.cluster,
        members: options.members.clone(),
        keep: options.snapshots_kept,
        reserve_bytes: options.wal.reserve_bytes,
        received_bytes_max: RECEIVED_BYTES_MAX,
    };
    let snapshots = SnapshotDir::open(fs, &snapshot_dir(data), snapshot_options)?;
    let Loaded {
        newest,
        damaged,
        passed_over,
    } = snapshots.load_newest_of(|id| fit(&wal, log.commit, id) != Fit::Undecided)?;
    let (snapshot, store) = match newest {
        None => (None, Store::new(StoreLimits::default())),
        Some((header, store)) => {
            let meta = meta_of(&header).map_err(|damage| SnapshotDirError::Damaged {
                file: snapshot_dir(data),
                damage,
            })?;
            (Some(meta), store)
        }
    };
    let finished_install = join(&mut wal, log.commit, snapshot.as_ref(), &damaged, data)?;
    let id = snapshot.as_ref().map(|meta| meta.id);
    let covered = purge_covered(&mut wal, &log.faulty, id.unwrap_or_default())?;
    let Filled { cache, faulty } = fill_cache(&wal, &log, snapshot, options)?;
    let suspect = snapshots.suspect()?;
    Ok(Recovered {
        wal,
        cache,
        store,
        snapshots,
        suspect,
        opened: Findings {
            log,
            snapshot: id,
            finished_install,
            damaged,
            undecided: passed_over,
            covered,
            faulty,
        },
    })
}

/// Makes the log fit the snapshot; whether an installation had to be finished.
fn join<F: Fs>(
    wal: &mut Wal<F>,
    commit: u64,
    snapshot: Option<&SnapshotMeta>,
    damaged: &[Rotten],
    data: &Path,
) -> Result<bool, RecoverError> {
    let floor = floor_of(wal);
    let id = snapshot.map(|meta| meta.id).unwrap_or_default();
    if id.index < floor.index {
        return Err(RecoverError::Gap {
            dir: snapshot_dir(data),
            snapshot: id,
            floor,
            rotten: damaged.first().map(|rotten| rotten.error.to_string()),
        });
    }
    if fit(wal, commit, id) == Fit::Held {
        return Ok(false);
    }
    let is_stored = id.index.0 <= wal.last_index();
    if is_stored && (id.index.0 <= commit || id.index == floor.index) {
        let stored = stored_from(wal, id.index);
        let dir = log_dir(data);
        let snapshot = id;
        return Err(RecoverError::Diverged {
            dir,
            snapshot,
            stored,
        });
    }
    // The term of the message that brought the snapshot may not have been stored yet. A log that ends in a later term than
    // the node has seen would be a contradiction; that no vote was given in that term is true.
    if wal.hard_state().0 < id.term.0 {
        wal.set_hard_state(id.term.0, None)?;
    }
    wal.reset(id.index.0, id.term.0)?;
    Ok(true)
}

fn floor_of<F: Fs>(wal: &Wal<F>) -> EntryId {
    let (index, term) = wal.floor();
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

/// Entries as the core has them. The bytes are shared.
///
/// # Errors
/// A newer program has written an entry of a kind that this one does not know.
pub fn core_entries(stored: Vec<StoredEntry>) -> Result<Vec<Entry>, UnknownEntryKind> {
    stored
        .into_iter()
        .map(|stored| {
            Ok(Entry {
                index: LogIndex(stored.index),
                term: Term(stored.term),
                kind: EntryKind::try_from(stored.kind)?,
                payload: stored.payload,
                checksum: stored.payload_crc,
            })
        })
        .collect()
}
