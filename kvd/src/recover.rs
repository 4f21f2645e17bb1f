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

mod error;

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use raft_core::{
    Configuration, Entry, EntryId, EntryKind, HardState, InitialState, LogIndex, NodeId,
    SnapshotMeta, Term, UnknownEntryKind,
};
use raft_log::{Binding, Fs, OpenError, Opened, Options, StoredEntry, Tail, Wal};

pub use self::error::RecoverError;
use crate::identity::{log_dir, snapshot_dir};
use crate::kv::limits::StoreLimits;
use crate::kv::store::Store;
use crate::log_cache::LogCache;
use crate::snapshots::{
    Loaded, RECEIVED_BYTES_MAX, Rotten, SnapshotDir, SnapshotDirError, SnapshotOptions, meta_of,
};
use crate::wire::client::MemberAddress;

/// The log is read in pieces of this size.
const READ_BYTES: u64 = 4 << 20;

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
    if let Some(faulty) = log.faulty.first() {
        return Err(OpenError::Corrupt(faulty.corruption.clone()).into());
    }
    let snapshot_options = SnapshotOptions {
        cluster: options.binding.cluster,
        members: options.members.clone(),
        keep: options.snapshots_kept,
        reserve_bytes: options.wal.reserve_bytes,
        received_bytes_max: RECEIVED_BYTES_MAX,
    };
    let snapshots = SnapshotDir::open(fs, &snapshot_dir(data), snapshot_options)?;
    let Loaded { newest, damaged } = snapshots.load_newest()?;
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
    let cache = fill_cache(&wal, log.commit, snapshot.clone(), options)?;
    Ok(Recovered {
        wal,
        cache,
        store,
        snapshots,
        opened: Findings {
            log,
            snapshot: snapshot.map(|meta| meta.id),
            finished_install,
            damaged,
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
    let stored = wal.term(id.index.0);
    if stored == Some(id.term.0) {
        return Ok(false);
    }
    if let Some(term) = stored
        && (id.index.0 <= commit || id.index == floor.index)
    {
        let stored = EntryId {
            index: id.index,
            term: Term(term),
        };
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

/// Reads what lies above the snapshot: configurations of all of it, the newest entries for the memory.
fn fill_cache<F: Fs>(
    wal: &Wal<F>,
    commit: u64,
    snapshot: Option<SnapshotMeta>,
    options: &RecoverOptions,
) -> Result<LogCache, RecoverError> {
    let applied = snapshot.as_ref().map_or(LogIndex(0), |meta| meta.id.index);
    let last = LogIndex(wal.last_index());
    let mut scanned = scan(wal, applied.next(), last, options.cache_bytes)?;
    let (term, vote) = wal.hard_state();
    let (configuration, configuration_index) = match &snapshot {
        Some(meta) => (meta.configuration.clone(), meta.configuration_index),
        None => (options.founding.clone(), LogIndex(0)),
    };
    let initial = InitialState {
        hard_state: HardState {
            term: Term(term),
            vote: vote.map(NodeId),
        },
        configuration,
        configuration_index,
        applied,
        commit: LogIndex(commit).min(last).max(applied),
        configurations: scanned.configurations,
        faulty: Vec::new(), // This daemon does not start on a damaged log.
    };
    let mut cache = LogCache::new(initial, floor_of(wal), snapshot, options.cache_bytes);
    let in_memory = scanned
        .recent
        .front()
        .map_or(last.next(), |entry| entry.index);
    note_runs(wal, &mut cache, in_memory);
    cache.append(scanned.recent.make_contiguous());
    Ok(cache)
}

/// What a pass over the log found.
#[derive(Default)]
struct Scanned {
    configurations: Vec<(LogIndex, Configuration)>,
    /// The newest entries, as many as fit.
    recent: VecDeque<Entry>,
    recent_bytes: u64,
}

/// Reads all entries from `first` to `last`.
fn scan<F: Fs>(
    wal: &Wal<F>,
    first: LogIndex,
    last: LogIndex,
    cache_bytes: u64,
) -> Result<Scanned, RecoverError> {
    let reader = wal.reader();
    let mut scanned = Scanned::default();
    let mut next = first;
    while next <= last {
        let stored = reader.entries(next.0..last.next().0, READ_BYTES)?;
        for entry in core_entries(stored)? {
            next = entry.index.next();
            scanned.take(entry, cache_bytes)?;
        }
    }
    Ok(scanned)
}

impl Scanned {
    fn take(&mut self, entry: Entry, cache_bytes: u64) -> Result<(), RecoverError> {
        let index = entry.index;
        if entry.kind == EntryKind::Configuration {
            let configuration = Configuration::decode(&entry.payload)
                .map_err(|error| RecoverError::Configuration { index, error })?;
            self.configurations.push((index, configuration));
        }
        self.recent_bytes += entry.bytes();
        self.recent.push_back(entry);
        while self.recent_bytes > cache_bytes {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= oldest.bytes();
        }
        Ok(())
    }
}

/// Tells the cache the terms of the entries before `from`, run by run: terms never fall, so the end of a run is found by
/// halving.
fn note_runs<F: Fs>(wal: &Wal<F>, cache: &mut LogCache, from: LogIndex) {
    let term_of = |index: u64| {
        wal.term(index)
            .expect("the log knows the terms of its entries")
    };
    let mut first = wal.first_index();
    while first < from.0 {
        let term = term_of(first);
        let (mut through, mut beyond) = (first, from.0);
        while beyond - through > 1 {
            let middle = through + (beyond - through) / 2;
            if term_of(middle) == term {
                through = middle;
            } else {
                beyond = middle;
            }
        }
        cache.note_stored(LogIndex(through), Term(term));
        first = beyond;
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
