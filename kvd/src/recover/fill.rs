//! Reading the log into what the consensus core is told of it.

use std::collections::VecDeque;
use std::ops::Range;

use raft_core::{
    Configuration, Entry, EntryKind, HardState, InitialState, LogIndex, NodeId, SnapshotMeta, Term,
};
use raft_log::{Corruption, FaultyEntry, Fs, Opened, Reader, Wal};

use super::damage::{Damaged, has_peers};
use super::{RecoverError, RecoverOptions, core_entries, floor_of};
use crate::log_cache::LogCache;

/// The log is read in pieces of this size.
const READ_BYTES: u64 = 4 << 20;

/// The log as the core sees it, and what is damaged in it.
pub(super) struct Filled {
    pub(super) cache: LogCache,
    pub(super) faulty: Vec<Corruption>,
}

/// Reads what lies above the snapshot: configurations of all of it, the newest entries for the memory.
pub(super) fn fill_cache<F: Fs>(
    wal: &Wal<F>,
    log: &Opened,
    snapshot: Option<SnapshotMeta>,
    options: &RecoverOptions,
) -> Result<Filled, RecoverError> {
    let applied = snapshot.as_ref().map_or(LogIndex(0), |meta| meta.id.index);
    let last = LogIndex(wal.last_index());
    let mut scanned = scan(wal, &log.faulty, applied.next(), last, options.cache_bytes)?;
    let (term, vote) = wal.hard_state();
    let (configuration, configuration_index) = match &snapshot {
        Some(meta) => (meta.configuration.clone(), meta.configuration_index),
        None => (options.founding.clone(), LogIndex(0)),
    };
    let changes = scanned.configurations.iter().map(|(_, it)| it);
    let peers = has_peers(changes.chain([&configuration]), options.binding.node);
    if let Some(first) = scanned.faulty.first().filter(|_| !peers) {
        return Err(RecoverError::Alone(first.corruption.clone()));
    }
    let initial = InitialState {
        hard_state: HardState {
            term: Term(term),
            vote: vote.map(NodeId),
        },
        configuration,
        configuration_index,
        applied,
        commit: LogIndex(log.commit).min(last).max(applied),
        configurations: scanned.configurations,
        faulty: scanned.faulty.iter().map(|it| it.entry).collect(),
    };
    let mut cache = LogCache::new(initial, floor_of(wal), snapshot, options.cache_bytes);
    let in_memory = scanned
        .recent
        .front()
        .map_or(last.next(), |entry| entry.index);
    note_runs(wal, &mut cache, in_memory);
    cache.append(scanned.recent.make_contiguous());
    let faulty = scanned.faulty.into_iter().map(|it| it.corruption);
    Ok(Filled {
        cache,
        faulty: faulty.collect(),
    })
}

/// What a pass over the log found.
#[derive(Default)]
struct Scanned {
    configurations: Vec<(LogIndex, Configuration)>,
    /// In the order of the log.
    faulty: Vec<Damaged>,
    /// The newest entries, as many as fit; none in front of a damaged one.
    recent: VecDeque<Entry>,
    recent_bytes: u64,
}

/// Reads all entries from `first` to `last`. `known` is what was found damaged when the log was opened.
fn scan<F: Fs>(
    wal: &Wal<F>,
    known: &[FaultyEntry],
    first: LogIndex,
    last: LogIndex,
    cache_bytes: u64,
) -> Result<Scanned, RecoverError> {
    let reader = wal.reader();
    // First as the medium gives it: what it does not give back is damage here, and a signal to who reads it mapped.
    let mut scrub = reader.scrub_from(first.0);
    let mut scanned = Scanned::default();
    let mut next = first;
    while next <= last {
        let looked = scrub.step(READ_BYTES)?;
        let end = LogIndex(looked.indexes.end);
        match looked.damaged.into_iter().next() {
            None => scanned.read(&reader, next..end, cache_bytes)?,
            // It is the last one that was looked at.
            Some(corruption) => {
                scanned.read(&reader, next..end.prev(), cache_bytes)?;
                scanned.skip(Damaged::new(wal, known, end.prev(), corruption)?);
            }
        }
        next = end;
    }
    Ok(scanned)
}

impl Scanned {
    fn read<F: Fs>(
        &mut self,
        reader: &Reader<F>,
        range: Range<LogIndex>,
        cache_bytes: u64,
    ) -> Result<(), RecoverError> {
        let mut next = range.start;
        while next < range.end {
            let stored = reader.entries(next.0..range.end.0, READ_BYTES)?;
            for entry in core_entries(stored)? {
                next = entry.index.next();
                self.take(entry, cache_bytes)?;
            }
        }
        Ok(())
    }

    /// The entries in memory must follow each other without a gap.
    fn skip(&mut self, damaged: Damaged) {
        self.faulty.push(damaged);
        self.recent.clear();
        self.recent_bytes = 0;
    }

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

/// Tells the cache the terms of the entries before `from`.
fn note_runs<F: Fs>(wal: &Wal<F>, cache: &mut LogCache, from: LogIndex) {
    let mut first = wal.first_index();
    while first < from.0 {
        match wal.term(first) {
            Some(term) => first = note_run(wal, cache, first..from.0, term),
            None => {
                cache.note_unknown();
                first += 1;
            }
        }
    }
}

/// Notes a run of entries of `term` at the beginning of `range`, and returns where it ends: terms never fall, so that is found
/// by halving. An entry of unknown term may end it too early, which costs no more than another run.
fn note_run<F: Fs>(wal: &Wal<F>, cache: &mut LogCache, range: Range<u64>, term: u64) -> u64 {
    let (mut through, mut beyond) = (range.start, range.end);
    while beyond - through > 1 {
        let middle = through + (beyond - through) / 2;
        if wal.term(middle) == Some(term) {
            through = middle;
        } else {
            beyond = middle;
        }
    }
    cache.note_stored(LogIndex(through), Term(term));
    beyond
}
