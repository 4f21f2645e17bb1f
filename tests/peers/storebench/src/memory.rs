//! Peers in memory: imbl's persistent map, and a `BTreeMap` under a lock as the limit of what a plain map does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;
use imbl::OrdMap;

use crate::engine::{Batch, Engine, Key, number};
use crate::file;

pub struct Imbl {
    current: Mutex<OrdMap<Key, Bytes>>,
    published: RwLock<OrdMap<Key, Bytes>>,
    dir: PathBuf,
}

impl Imbl {
    fn view(&self) -> OrdMap<Key, Bytes> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Engine for Imbl {
    const NAME: &'static str = "imbl";
    type Prepared = Batch;

    fn open(dir: &Path) -> Imbl {
        let mut map = OrdMap::new();
        file::read(dir, |key, value| {
            map.insert(key, value);
        });
        Imbl {
            published: RwLock::new(map.clone()),
            current: Mutex::new(map),
            dir: dir.to_owned(),
        }
    }

    fn prepare(batch: Batch) -> Batch {
        batch
    }

    fn apply(&self, batch: Batch) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            current.insert(key, value);
        }
        let next = current.clone();
        let mut published = self
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *published, next);
        drop(published);
        drop(old);
    }

    fn get(&self, key: &Key) -> Option<u64> {
        let published = self
            .published
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        published.get(key).map(|value| number(value))
    }

    fn scan(&self) -> (usize, u64) {
        let view = self.view();
        let sum = view
            .iter()
            .fold(0, |sum: u64, (_, value)| sum.wrapping_add(number(value)));
        (view.len(), sum)
    }

    fn hold_view(&self, during: impl FnOnce()) {
        let view = self.view();
        during();
        drop(view);
    }

    fn close(self) {
        let view = self.view();
        file::write(&self.dir, view.iter().map(|(key, value)| (key, &value[..])));
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
