//! kvd: the map alone, and the whole store with envelopes, checksums, sessions and the rolling hash.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use kvd::kv::auth::{Principal, Role};
use kvd::kv::command::{Command, KeyRange, Op, RangeQuery, command_crc};
use kvd::kv::envelope::{Envelope, SessionRef};
use kvd::kv::limits::StoreLimits;
use kvd::kv::map::CowMap;
use kvd::kv::snapshot::{SnapshotContext, SnapshotReader, SnapshotWriter};
use kvd::kv::store::{Applied, Store};

use crate::engine::{Batch, Engine, Key, number};
use crate::file;
use crate::published::{Persistent, Published};

pub type Map = Published<CowMap<Key, Bytes>>;

impl Persistent for CowMap<Key, Bytes> {
    const NAME: &'static str = "kvd map";

    fn empty() -> Self {
        CowMap::new()
    }

    fn insert(&mut self, key: Key, value: Bytes) {
        CowMap::insert(self, key, value);
    }

    fn get(&self, key: &Key) -> Option<&Bytes> {
        CowMap::get(self, key)
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        CowMap::iter(self)
    }

    fn len(&self) -> usize {
        CowMap::len(self)
    }
}

/// The store as the daemon has it: one entry of the log is one put. Readers share it with the writer by a lock; in the daemon both
/// are one thread.
pub struct Whole {
    store: RwLock<Store>,
    dir: PathBuf,
}

impl Whole {
    fn view(&self) -> Store {
        self.store
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Engine for Whole {
    const NAME: &'static str = "kvd store";
    type Prepared = Vec<Bytes>;

    fn open(dir: &Path) -> Whole {
        let store = match std::fs::read(dir.join(file::NAME)) {
            Ok(bytes) => {
                let mut reader = SnapshotReader::new(StoreLimits::default());
                reader.push(&bytes).expect("our own snapshot");
                reader.finish().expect("our own snapshot").1
            }
            Err(_) => Store::new(StoreLimits::default()),
        };
        Whole {
            store: RwLock::new(store),
            dir: dir.to_owned(),
        }
    }

    fn prepare(batch: Batch) -> Vec<Bytes> {
        let principal = Principal::new(Role::Internal, "bench");
        let entry = |(key, value): (Key, Bytes)| {
            let op = Op::Put {
                key: Bytes::copy_from_slice(&key),
                value,
                want_previous: false,
            };
            let command = Command::Op(op).encode();
            Envelope {
                principal: principal.borrowed(),
                session: SessionRef::None,
                sequence: 0,
                done_below: 0,
                log_time_ms: 1,
                command_crc: command_crc(&command),
                command: &command,
            }
            .encode()
        };
        batch.into_iter().map(entry).collect()
    }

    fn apply(&self, batch: Vec<Bytes>) {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        for payload in batch {
            let index = store.applied_index() + 1;
            let applied = store.apply(index, &payload);
            assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
        }
    }

    fn get(&self, key: &Key) -> Option<u64> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let found = store.query(&RangeQuery::key(Bytes::copy_from_slice(key)));
        found.items.first().map(|item| number(&item.value))
    }

    fn scan(&self) -> (usize, u64) {
        let view = self.view();
        let mut query = RangeQuery::new(KeyRange::All);
        let (mut count, mut sum) = (0, 0_u64);
        loop {
            let page = view.query(&query);
            count += page.items.len();
            for item in &page.items {
                sum = sum.wrapping_add(number(&item.value));
            }
            query.after = page.items.last().map(|item| item.key.clone());
            if !page.more {
                return (count, sum);
            }
        }
    }

    fn hold_view(&self, during: impl FnOnce()) {
        let view = self.view();
        during();
        drop(view);
    }

    fn close(self) {
        let context = SnapshotContext {
            term: 1,
            configuration: Bytes::new(),
            configuration_index: 0,
            members: Vec::new(),
            cluster: 1,
            cluster_version: 1,
        };
        file::write_blocks(&self.dir, SnapshotWriter::new(self.view(), context));
    }
}
