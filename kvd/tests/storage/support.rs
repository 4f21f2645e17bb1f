//! A small history of a cluster, a data directory for one of its nodes, and ways to stop the machine.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use kvd::identity::{log_dir, snapshot_dir};
use kvd::kv::Store;
use kvd::kv::auth::{PrincipalRef, Role};
use kvd::kv::command::{Command, Op, command_crc};
use kvd::kv::envelope::{Envelope, SessionRef};
use kvd::kv::limits::StoreLimits;
use kvd::kv::snapshot::{SnapshotContext, SnapshotWriter};
use kvd::log_cache::LogCache;
use kvd::recover::{RecoverError, RecoverOptions, Recovered, recover};
use kvd::snapshots::{SnapshotDir, SnapshotDirError, SnapshotOptions};
use raft_core::{
    Configuration, Entry, EntryId, EntryKind, HardState, LogIndex, NodeId, Persist, PersistId,
    SnapshotMeta, Storage, StorageError, Term,
};
use raft_log::fs::{Fs, SimFs, is_stopped};
use raft_log::record::{HEADER_BYTES, decode, payload_checksum};
use raft_log::{Binding, OpenError, Options, ReadError, Wal, WalError};

use crate::crash::rng;

pub const CLUSTER: u32 = 0x00c0_ffee;
pub const BINDING: Binding = Binding {
    cluster: CLUSTER,
    node: 1,
};

/// Keys of the store; small enough that each is written often.
const KEYS: u64 = 23;
/// Bytes of each value; together a snapshot is several units of a disk.
const VALUE_BYTES: usize = 120;

pub fn data() -> PathBuf {
    PathBuf::from("/data")
}

pub fn id(index: u64, term: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

pub fn hard_state(term: u64, vote: Option<u64>) -> Option<HardState> {
    let (term, vote) = (Term(term), vote.map(NodeId));
    Some(HardState { term, vote })
}

/// A put whose value names the entry, so that two histories never give the same store.
pub fn entry(index: u64, term: u64) -> Entry {
    let mut value = format!("{index}@{term} ").into_bytes();
    value.resize(VALUE_BYTES, b'.');
    let command = Command::Op(Op::Put {
        key: format!("key-{:02}", index % KEYS).into_bytes().into(),
        value: value.into(),
        want_previous: false,
    })
    .encode();
    let envelope = Envelope {
        principal: PrincipalRef {
            role: Role::Internal,
            name: "test",
        },
        session: SessionRef::None,
        sequence: 0,
        done_below: 0,
        log_time_ms: index,
        command_crc: command_crc(&command),
        command: &command,
    };
    entry_of(index, term, EntryKind::Command, envelope.encode())
}

pub fn entry_of(index: u64, term: u64, kind: EntryKind, payload: Bytes) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        kind,
        checksum: payload_checksum(CLUSTER, &payload),
        payload,
    }
}

pub fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

/// What the cache answers when the core asks for entries.
pub fn cached(
    cache: &LogCache,
    range: std::ops::Range<LogIndex>,
    max_bytes: u64,
) -> Result<Vec<Entry>, StorageError> {
    let mut entries = Vec::new();
    cache.entries(range, max_bytes, &mut entries)?;
    Ok(entries)
}

pub fn persist(part: u64, hard_state: Option<HardState>, entries: Vec<Entry>) -> Persist {
    Persist {
        id: PersistId(part),
        hard_state,
        snapshot: None,
        snapshot_keeps_log: false,
        repaired: Vec::new(),
        entries,
    }
}

/// Applies as the driver does.
pub fn apply(store: &mut Store, entry: &Entry) {
    match entry.kind {
        EntryKind::Command => drop(store.apply(entry.index.0, &entry.payload)),
        EntryKind::Noop | EntryKind::Configuration => store.skip(entry.index.0),
    }
}

/// The store after all entries up to `index`, each of the term that `term_of` says.
pub fn store_at(index: u64, term_of: impl Fn(u64) -> u64) -> Store {
    let mut store = Store::new(StoreLimits::default());
    for at in 1..=index {
        apply(&mut store, &entry(at, term_of(at)));
    }
    store
}

pub fn founding() -> Configuration {
    Configuration::new([NodeId(1), NodeId(2), NodeId(3)])
}

pub fn meta(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta {
        id: id(index, term),
        configuration: founding(),
        configuration_index: LogIndex(0),
    }
}

/// The bytes of a snapshot as a peer sends them.
pub fn snapshot_bytes(view: &Store, meta: &SnapshotMeta) -> Vec<u8> {
    let context = SnapshotContext {
        term: meta.id.term.0,
        configuration: meta.configuration.encode().into(),
        configuration_index: meta.configuration_index.0,
        members: Vec::new(),
        cluster: CLUSTER,
        cluster_version: 1,
    };
    SnapshotWriter::new(view.clone(), context)
        .flat_map(|block| block.to_vec())
        .collect()
}

pub fn snapshot_options() -> SnapshotOptions {
    SnapshotOptions {
        cluster: CLUSTER,
        members: Vec::new(),
        keep: 2,
        reserve_bytes: 0,
        received_bytes_max: 1 << 20,
    }
}

pub fn options() -> RecoverOptions {
    RecoverOptions {
        binding: BINDING,
        wal: Options {
            segment_bytes: 16 << 10,
            max_bytes: 1 << 20,
            reserve_bytes: 0,
            ..Options::default()
        },
        snapshots_kept: 2,
        founding: founding(),
        members: Vec::new(),
        cache_bytes: 2 << 10,
    }
}

/// A disk with the directory of a node that has never run.
pub fn fresh(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    create(&fs, &data());
    fs
}

pub fn create<F: Fs>(fs: &F, data: &Path) {
    Wal::create(fs, &log_dir(data), BINDING, &options().wal).expect("a healthy disk");
}

pub fn start(fs: &SimFs) -> Result<Recovered<SimFs>, RecoverError> {
    recover(fs, &data(), &options())
}

pub fn open_snapshots(fs: &SimFs) -> SnapshotDir<SimFs> {
    SnapshotDir::open(fs, &snapshot_dir(&data()), snapshot_options()).expect("a healthy disk")
}

/// A segment's header comes before its records, and a local prefix before each of them.
const SEGMENT_HEADER_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 16;

/// What of a record is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing but its neighbours tells what it was.
    Header,
    /// The header still tells term and kind.
    Payload,
}

/// Flips a bit in the record of an entry.
pub fn damage(fs: &SimFs, index: u64, part: Part) {
    let (file, offset) = record_at(fs, index);
    let within = match part {
        Part::Header => 4,
        Part::Payload => HEADER_BYTES as u64 + 5,
    };
    fs.flip_bit(&file, (offset + within) * 8);
}

/// The medium does not give back the beginning of the record of an entry any more.
pub fn make_unreadable(fs: &SimFs, index: u64) {
    let (file, offset) = record_at(fs, index);
    fs.set_unreadable(&file, offset);
}

/// The segment with the record of an entry, and the offset of its header.
fn record_at(fs: &SimFs, index: u64) -> (PathBuf, u64) {
    let dir = log_dir(&data());
    let segments = fs.list(&dir).expect("a healthy disk").into_iter();
    for name in segments.filter(|name| name.starts_with("segment-")) {
        let file = dir.join(name);
        let bytes = fs.bytes(&file);
        let mut at = SEGMENT_HEADER_BYTES + PREFIX_BYTES;
        while let Some(Ok((header, _, used))) = bytes.get(at..).map(|rest| decode(CLUSTER, rest)) {
            if header.index == index {
                return (file, at as u64);
            }
            at = (at + used).next_multiple_of(8) + PREFIX_BYTES;
        }
    }
    panic!("there is no entry {index}")
}

/// Names of what lies in the snapshot directory.
pub fn files(fs: &SimFs) -> Vec<String> {
    fs.list(&snapshot_dir(&data())).unwrap_or_default()
}

pub fn receive(
    dir: &SnapshotDir<SimFs>,
    bytes: &[u8],
    announced: &SnapshotMeta,
) -> Result<Store, SnapshotDirError> {
    let mut incoming = dir.begin_receive(announced)?;
    for chunk in bytes.chunks(700) {
        incoming.write(chunk)?;
    }
    Ok(incoming.finish()?.1)
}

/// Whether an error is only that the simulated machine stands still.
pub trait Stopped {
    fn is_stopped(&self) -> bool;
}

impl Stopped for SnapshotDirError {
    fn is_stopped(&self) -> bool {
        matches!(self, SnapshotDirError::Io(fault) | SnapshotDirError::Read(fault) if is_stopped(&fault.source))
            || matches!(self, SnapshotDirError::Poisoned)
    }
}

impl Stopped for RecoverError {
    fn is_stopped(&self) -> bool {
        if let RecoverError::Snapshots(error) = self {
            return error.is_stopped();
        }
        matches!(self, RecoverError::Open(OpenError::Io(fault)) | RecoverError::Wal(WalError::Io(fault)) | RecoverError::Read(ReadError::Io(fault)) if is_stopped(&fault.source))
    }
}

/// Stops the machine at each storage call of `act`, by death of the process and by power cuts, and lets `check` look at what
/// a restart finds.
pub fn at_each_call(
    base: &SimFs,
    act: impl Fn(&SnapshotDir<SimFs>) -> bool,
    check: impl Fn(&SimFs),
) {
    for call in 1.. {
        let fs = base.fork();
        let dir = open_snapshots(&fs);
        dir.load_newest().expect("a healthy disk");
        fs.stop_at_call(fs.calls() + call);
        let done = act(&dir);
        drop(dir);
        for seed in 0..8 {
            let fs = fs.fork();
            if seed == 0 {
                fs.crash_process();
            } else {
                fs.power_cut(&mut rng(call * 100 + seed));
            }
            check(&fs);
            let left = files(&fs);
            assert!(
                left.iter().all(|name| !name.ends_with(".tmp")),
                "call {call}: {left:?}"
            );
        }
        if done {
            return;
        }
    }
}

/// Whether it was done; a machine that stopped is the only excuse.
pub fn done<T>(result: Result<T, SnapshotDirError>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_stopped(), "{error}");
            false
        }
    }
}
