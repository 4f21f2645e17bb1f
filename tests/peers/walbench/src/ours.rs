//! raft-log: by the thread that owns the log, and through [`Group`].

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use raft_log::record::payload_checksum;
use raft_log::{
    Binding, EntryRef, Group, GroupOptions, Options, OsFs, PreparerThread, Reader, Wal, WalError,
};

use crate::engine::{Log, SEGMENT_BYTES, Setup};

const BINDING: Binding = Binding {
    cluster: 0x00c0_ffee,
    node: 1,
};
const TERM: u64 = 1;
const KIND: u8 = 2;
const UNSYNCED_ENTRIES_MAX: u64 = 16 << 10;
/// So many entries stay when the log is purged, and about as many come before it is purged again: its segments are
/// recycled, as those of the reference are.
const KEPT_ENTRIES: u64 = 200_000;

/// Appends and syncs on the calling thread.
pub struct RaftLog {
    writing: Mutex<(Wal<OsFs>, PreparerThread)>,
    reader: Reader<OsFs>,
}

pub struct RaftLogGroup(Group<OsFs>);

fn open(dir: &Path, setup: Setup) -> (Wal<OsFs>, PreparerThread) {
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        max_bytes: 64 * SEGMENT_BYTES,
        spare_segments: setup.pool_segments,
        ..Options::default()
    };
    if !dir.exists() {
        Wal::create(&OsFs, dir, BINDING, &options).expect("raft-log creates its directory");
    }
    let (wal, _) = Wal::open(&OsFs, dir, BINDING, options).expect("raft-log opens");
    let preparer = wal.preparer();
    while preparer.work().expect("room for spares") {}
    let spares = PreparerThread::start(preparer, end_on_error).expect("a thread");
    (wal, spares)
}

fn append(wal: &mut Wal<OsFs>, payloads: &[Vec<u8>]) {
    let entries: Vec<EntryRef<'_>> = (wal.last_index() + 1..)
        .zip(payloads)
        .map(|(index, payload)| EntryRef {
            index,
            term: TERM,
            kind: KIND,
            payload,
            payload_crc: payload_checksum(BINDING.cluster, payload),
        })
        .collect();
    wal.append(&entries).expect("raft-log takes the entries");
}

fn end_on_error(prepared: &Result<bool, WalError>) {
    if let Err(error) = prepared {
        panic!("raft-log prepares no spare: {error}");
    }
}

fn close(wal: Wal<OsFs>, spares: PreparerThread) {
    spares.stop().expect("raft-log prepared spares");
    wal.close().expect("raft-log closes");
}

fn read(reader: &Reader<OsFs>, index: u64) -> usize {
    let entries = reader.entries(index..index + 1, u64::MAX);
    entries.expect("raft-log reads")[0].payload.len()
}

impl RaftLog {
    pub fn open(dir: &Path, setup: Setup) -> RaftLog {
        let (wal, spares) = open(dir, setup);
        RaftLog {
            reader: wal.reader(),
            writing: Mutex::new((wal, spares)),
        }
    }

    fn writing(&self) -> MutexGuard<'_, (Wal<OsFs>, PreparerThread)> {
        self.writing.lock().expect("no thread panicked")
    }
}

impl Log for RaftLog {
    fn append(&self, _: usize, payloads: &[Vec<u8>]) {
        let (wal, spares) = &mut *self.writing();
        append(wal, payloads);
        wal.sync().expect("raft-log syncs");
        spares.top_up(wal.prepared_bytes());
        let last = wal.last_index();
        if last > wal.first_index() + 2 * KEPT_ENTRIES {
            let purged = wal.purge_prefix(last - KEPT_ENTRIES, TERM);
            purged.expect("raft-log purges what is synced");
        }
    }

    fn append_lazily(&self, payloads: &[Vec<u8>]) {
        let (wal, _) = &mut *self.writing();
        append(wal, payloads);
        // What is not synced is in memory.
        if wal.last_index() - self.reader.last_index() >= UNSYNCED_ENTRIES_MAX {
            wal.sync().expect("raft-log syncs");
        }
    }

    fn read(&self, index: u64) -> usize {
        read(&self.reader, index)
    }

    fn last_index(&self) -> u64 {
        self.reader.last_index()
    }

    fn close(self: Box<Self>) {
        let (wal, spares) = self.writing.into_inner().expect("no thread panicked");
        close(wal, spares);
    }
}

impl RaftLogGroup {
    pub fn open(dir: &Path, setup: Setup) -> RaftLogGroup {
        let (wal, spares) = open(dir, setup);
        RaftLogGroup(Group::new(wal, BINDING, spares, GroupOptions::default()))
    }
}

impl Log for RaftLogGroup {
    fn append(&self, _: usize, payloads: &[Vec<u8>]) {
        let appended = self.0.append_all(KIND, payloads);
        appended.expect("raft-log takes and syncs the entries");
    }

    fn append_lazily(&self, payloads: &[Vec<u8>]) {
        self.append(0, payloads);
    }

    fn read(&self, index: u64) -> usize {
        read(&self.0.reader(), index)
    }

    fn last_index(&self) -> u64 {
        self.0.reader().last_index()
    }

    fn close(self: Box<Self>) {
        let (wal, spares) = self.0.close().expect("nobody else closes it");
        close(wal, spares);
    }
}
