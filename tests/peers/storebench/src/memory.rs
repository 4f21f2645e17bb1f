//! Peers in memory: imbl's persistent map, and a `BTreeMap` under a lock as the limit of what a plain map does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use imbl::OrdMap;

use crate::engine::{Batch, Engine, Key, number};
use crate::file;
use crate::published::{Persistent, Published};

pub type Imbl = Published<OrdMap<Key, Bytes>>;

impl Persistent for OrdMap<Key, Bytes> {
    const NAME: &'static str = "imbl";

    fn empty() -> Self {
        OrdMap::new()
    }

    fn insert(&mut self, key: Key, value: Bytes) {
        OrdMap::insert(self, key, value);
    }

    fn get(&self, key: &Key) -> Option<&Bytes> {
        OrdMap::get(self, key)
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        OrdMap::iter(self)
    }

    fn len(&self) -> usize {
        OrdMap::len(self)
    }
}

/// No views: a consistent look holds the lock, and writes wait.
pub struct Plain {
    map: RwLock<BTreeMap<Key, Bytes>>,
    dir: PathBuf,
}

impl Engine for Plain {
    const NAME: &'static str = "BTreeMap";
    type Prepared = Batch;

    fn open(dir: &Path) -> Plain {
        let mut map = BTreeMap::new();
        file::read(dir, |key, value| {
            map.insert(key, value);
        });
        Plain {
            map: RwLock::new(map),
            dir: dir.to_owned(),
        }
    }

    fn prepare(batch: Batch) -> Batch {
        batch
    }

    fn apply(&self, batch: Batch) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.extend(batch);
    }

    fn get(&self, key: &Key) -> Option<u64> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.get(key).map(|value| number(value))
    }

    fn scan(&self) -> (usize, u64) {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let sum = map
            .values()
            .fold(0, |sum: u64, value| sum.wrapping_add(number(value)));
        (map.len(), sum)
    }

    /// A copy, which is all that there is.
    fn hold_view(&self, during: impl FnOnce()) {
        let view = self
            .map
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        during();
        drop(view);
    }

    fn close(self) {
        let map = self
            .map
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        file::write(&self.dir, map.iter().map(|(key, value)| (key, &value[..])));
    }
}
