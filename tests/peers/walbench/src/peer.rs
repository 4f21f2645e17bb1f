//! raft-engine 0.4.2, used as TiKV uses it: each writer has a region, the engine groups their writes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, LogBatch, MessageExt, ReadableSize};

use crate::engine::Log;

/// More writers than any measurement has.
const WRITERS_MAX: u64 = 256;
const INDEX_BYTES: usize = 8;

#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let (index, _) = entry
            .value
            .split_first_chunk::<INDEX_BYTES>()
            .expect("every entry begins with its index");
        u64::from_le_bytes(*index)
    }
}

pub struct RaftEngine {
    engine: raft_engine::Engine,
    /// Last index of each writer's region.
    last: Vec<AtomicU64>,
}

impl RaftEngine {
    /// `prefill_bytes`: of files that are written ahead, to be recycled.
    pub fn open(dir: &Path, prefill_bytes: Option<u64>) -> RaftEngine {
        let config = Config {
            dir: dir.to_str().expect("a path in UTF-8").to_owned(),
            prefill_for_recycle: prefill_bytes.is_some(),
            prefill_limit: prefill_bytes.map(ReadableSize),
            ..Config::default()
        };
        let engine = raft_engine::Engine::open(config).expect("raft-engine opens");
        let last = (0..WRITERS_MAX)
            .map(|writer| AtomicU64::new(engine.last_index(region(writer)).unwrap_or(0)))
            .collect();
        RaftEngine { engine, last }
    }

    fn write(&self, writer: usize, payloads: &[Vec<u8>], sync: bool) {
        let count = payloads.len() as u64;
        let first = self.last[writer].fetch_add(count, Ordering::Relaxed) + 1;
        let entries: Vec<BytesValue> = (first..)
            .zip(payloads)
            .map(|(index, payload)| encode(index, payload))
            .collect();
        let mut batch = LogBatch::with_capacity(1);
        batch
            .add_entries::<Indexed>(region(writer as u64), &entries)
            .expect("raft-engine takes the entries");
        self.engine
            .write(&mut batch, sync)
            .expect("raft-engine writes");
    }
}

/// Region 0 is none.
fn region(writer: u64) -> u64 {
    writer + 1
}

fn encode(index: u64, payload: &[u8]) -> BytesValue {
    let mut bytes = Vec::with_capacity(INDEX_BYTES + payload.len());
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.extend_from_slice(payload);
    let mut entry = BytesValue::new();
    entry.set_value(bytes);
    entry
}

impl Log for RaftEngine {
    fn append(&self, writer: usize, payloads: &[Vec<u8>]) {
        self.write(writer, payloads, true);
    }

    fn append_lazily(&self, payloads: &[Vec<u8>]) {
        self.write(0, payloads, false);
    }

    fn read(&self, index: u64) -> usize {
        let entry = self
            .engine
            .get_entry::<Indexed>(region(0), index)
            .expect("raft-engine reads")
            .expect("the entry is there");
        entry.value.len() - INDEX_BYTES
    }

    fn last_index(&self) -> u64 {
        self.engine.last_index(region(0)).unwrap_or(0)
    }

    fn close(self: Box<Self>) {
        self.engine.sync().expect("raft-engine syncs");
    }
}
