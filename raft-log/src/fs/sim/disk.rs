//! What a simulated disk does with names and bytes, and what a power cut leaves of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Dir, Disk, ENOSPC, Inode, NameChange, Names, Refused, UNIT_BYTES, Unit, UnitFate, is_stopped,
    stopped,
};

/// Random bits (SplitMix64): the same for a seed whatever version a library has.
#[derive(Clone, Debug)]
pub(super) struct Bits(pub(super) u64);

impl Bits {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next() as u8;
        }
    }
}

pub(super) fn inode_lock(inode: &Mutex<Inode>) -> MutexGuard<'_, Inode> {
    inode.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies each inode once, however many names it has.
#[derive(Default)]
pub(super) struct Copies {
    made: Vec<[Arc<Mutex<Inode>>; 2]>,
}

impl Copies {
    pub(super) fn inode(&mut self, inode: &Arc<Mutex<Inode>>) -> Arc<Mutex<Inode>> {
        if let Some([_, copy]) = self.made.iter().find(|[from, _]| Arc::ptr_eq(from, inode)) {
            return Arc::clone(copy);
        }
        let copy = Arc::new(Mutex::new(inode_lock(inode).clone()));
        self.made.push([Arc::clone(inode), Arc::clone(&copy)]);
        copy
    }

    pub(super) fn names(&mut self, names: &Names) -> Names {
        names
            .iter()
            .map(|(name, inode)| (name.clone(), self.inode(inode)))
            .collect()
    }

    pub(super) fn dir(&mut self, dir: &Dir) -> Dir {
        let pending = dir
            .pending
            .iter()
            .map(|change| match change {
                NameChange::Link(name, inode) => NameChange::Link(name.clone(), self.inode(inode)),
                NameChange::Unlink(name) => NameChange::Unlink(name.clone()),
                NameChange::Rename(from, to) => NameChange::Rename(from.clone(), to.clone()),
            })
            .collect();
        Dir {
            cached: self.names(&dir.cached),
            durable: self.names(&dir.durable),
            pending,
            mode: dir.mode,
        }
    }
}

impl Disk {
    pub(super) fn enter(&mut self) -> Result<(), Refused> {
        if self.stopped {
            return Err(Refused::Error(stopped()));
        }
        self.calls += 1;
        if self.stop_at == Some(self.calls) {
            self.stopped = true;
            return Err(Refused::StopsHere);
        }
        match self.fail_calls.remove(&self.calls) {
            Some(errno) => Err(Refused::Error(io::Error::from_raw_os_error(errno))),
            None => Ok(()),
        }
    }

    /// Counts a sync; the error it is to end with, if any.
    pub(super) fn enter_sync(&mut self) -> Result<Option<io::Error>, io::Error> {
        self.syncs += 1;
        let planned = self.fail_syncs.remove(&self.syncs);
        match self.enter() {
            Ok(()) => Ok(planned.map(io::Error::from_raw_os_error)),
            Err(Refused::Error(error)) if !is_stopped(&error) => Ok(Some(error)),
            Err(refused) => Err(refused.into_error()),
        }
    }

    pub(super) fn restart(&mut self) {
        self.epoch += 1;
        self.locks.clear();
        self.stop_at = None;
        self.stopped = false;
        self.cut_on_restart = false;
        self.fail_calls.clear();
        self.fail_syncs.clear();
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        let (dir, name) = split(path)?;
        let inode = self.dirs.get(dir).and_then(|dir| dir.cached.get(name));
        inode.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn dir_of(&mut self, path: &Path) -> io::Result<(&mut Dir, String)> {
        let (dir, name) = split(path)?;
        let dir = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok((dir, name.to_owned()))
    }

    /// All files that have or may get a name, each once, under one of its names.
    pub(super) fn reachable(&self) -> Vec<(PathBuf, Arc<Mutex<Inode>>)> {
        let mut found: Vec<(PathBuf, Arc<Mutex<Inode>>)> = Vec::new();
        let mut add = |path: PathBuf, inode: &Arc<Mutex<Inode>>| {
            if !found.iter().any(|(_, known)| Arc::ptr_eq(known, inode)) {
                found.push((path, Arc::clone(inode)));
            }
        };
        for (path, dir) in &self.dirs {
            for (name, inode) in dir.cached.iter().chain(&dir.durable) {
                add(path.join(name), inode);
            }
            for change in &dir.pending {
                if let NameChange::Link(name, inode) = change {
                    add(path.join(name), inode);
                }
            }
        }
        found
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.reachable()
            .iter()
            .map(|(_, inode)| inode_lock(inode).cached.len() as u64)
            .sum()
    }

    pub(super) fn check_room(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if more > 0 && self.used_bytes() + more > capacity => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            Some(_) | None => Ok(()),
        }
    }
}

pub(super) fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(invalid)?;
    Ok((path.parent().ok_or_else(invalid)?, name))
}

impl Dir {
    pub(super) fn link(&mut self, name: String, inode: Arc<Mutex<Inode>>) {
        self.cached.insert(name.clone(), Arc::clone(&inode));
        self.pending.push(NameChange::Link(name, inode));
    }

    pub(super) fn power_cut(&mut self, mut keep: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if keep() {
                apply(&mut self.durable, change);
            }
        }
        self.cached = self.durable.clone();
    }
}

/// Applies a change as far as what it needs is there: the change before it may have been lost.
fn apply(names: &mut Names, change: NameChange) {
    match change {
        NameChange::Link(name, inode) => {
            names.insert(name, inode);
        }
        NameChange::Unlink(name) => {
            names.remove(&name);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
    }
}

impl Inode {
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let start = offset as usize;
        let end = start + bytes.len();
        if end > self.cached.len() {
            self.cached.resize(end, 0);
            self.length_dirty = true;
        }
        self.cached[start..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            let units = (start / UNIT_BYTES) as u64..=((end - 1) / UNIT_BYTES) as u64;
            if bytes.iter().any(|byte| *byte != 0) {
                self.written.extend(units.clone());
            }
            self.dirty.extend(units);
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for unit in std::mem::take(&mut self.dirty) {
            let range = unit_range(unit, self.cached.len());
            self.durable[range.clone()].copy_from_slice(&self.cached[range]);
        }
        self.held.append(&mut self.written);
        self.length_dirty = false;
    }

    /// What a sync that failed leaves: nothing is dirty any more, and nothing reached the disk.
    pub(super) fn lose(&mut self) {
        self.dirty.clear();
        self.written.clear();
        self.length_dirty = false;
    }

    pub(super) fn is_protected(&self, unit: u64) -> bool {
        if self.held.contains(&unit) {
            return true;
        }
        let range = unit_range(unit, self.durable.len());
        self.durable[range].iter().any(|byte| *byte != 0)
    }

    pub(super) fn unsynced(&self, path: &Path) -> Vec<Unit> {
        let unit = |number: &u64| Unit {
            file: path.to_path_buf(),
            number: *number,
            protected: self.is_protected(*number),
        };
        self.dirty.iter().map(unit).collect()
    }

    pub(super) fn power_cut(
        &mut self,
        path: &Path,
        bits: &mut Bits,
        fate: &mut dyn FnMut(&Unit) -> UnitFate,
    ) {
        let units = self.unsynced(path);
        // Without the new length the units behind the old one are gone, whatever their fate.
        if self.length_dirty && bits.coin() {
            self.durable.resize(self.cached.len(), 0);
        }
        for unit in units {
            let chosen = fate(&unit);
            let range = unit_range(unit.number, self.durable.len().min(self.cached.len()));
            match chosen {
                UnitFate::New => self.durable[range.clone()].copy_from_slice(&self.cached[range]),
                UnitFate::Zero if !unit.protected => self.durable[range].fill(0),
                UnitFate::Garbage if !unit.protected => bits.fill(&mut self.durable[range]),
                UnitFate::Old | UnitFate::Zero | UnitFate::Garbage => {}
            }
        }
        self.dirty.clear();
        self.written.clear();
        self.length_dirty = false;
        self.cached = self.durable.clone();
    }

    pub(super) fn drop_cache(&mut self) {
        let dirty: Vec<(u64, Vec<u8>)> = self
            .dirty
            .iter()
            .map(|unit| {
                (
                    *unit,
                    self.cached[unit_range(*unit, self.cached.len())].to_vec(),
                )
            })
            .collect();
        let length = if self.length_dirty {
            self.cached.len()
        } else {
            self.durable.len()
        };
        self.cached = self.durable.clone();
        self.cached.resize(length, 0);
        for (unit, bytes) in dirty {
            let range = unit_range(unit, length);
            let kept = range.len();
            self.cached[range].copy_from_slice(&bytes[..kept]);
        }
    }

    pub(super) fn is_unreadable(&self, offset: u64, bytes: usize) -> bool {
        let units =
            offset / UNIT_BYTES as u64..=(offset + (bytes as u64).max(1) - 1) / UNIT_BYTES as u64;
        self.unreadable.range(units).next().is_some()
    }
}

fn unit_range(unit: u64, length: usize) -> std::ops::Range<usize> {
    let start = (unit as usize * UNIT_BYTES).min(length);
    start..(start + UNIT_BYTES).min(length)
}
