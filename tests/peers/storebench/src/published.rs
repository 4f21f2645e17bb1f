//! A persistent map behind the engine's face: a view is published after each batch, as a program with readers on other threads would
//! do it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::engine::{Batch, Engine, Key, number};
use crate::file;

/// A map whose copies share what is equal.
pub trait Persistent: Clone + Send + Sync {
    const NAME: &'static str;

    fn empty() -> Self;

    fn insert(&mut self, key: Key, value: Bytes);

    fn get(&self, key: &Key) -> Option<&Bytes>;

    fn iter(&self) -> impl Iterator<Item = (&Key, &Bytes)>;

    fn len(&self) -> usize;
}

pub struct Published<M> {
    current: Mutex<M>,
    published: RwLock<M>,
    dir: PathBuf,
}

impl<M: Persistent> Published<M> {
    fn view(&self) -> M {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl<M: Persistent> Engine for Published<M> {
    const NAME: &'static str = M::NAME;
    type Prepared = Batch;

    fn open(dir: &Path) -> Published<M> {
        let mut map = M::empty();
        file::read(dir, |key, value| map.insert(key, value));
        Published {
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
