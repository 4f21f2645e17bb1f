//! A disk in memory that can lose power.
//!
//! The model: what a completed sync covered is kept. Every other 512-byte unit may end up old, new, zero
//! or garbage after a power cut; a unit that already holds synced bytes ends up old or new (disks write a
//! unit whole). A name is durable once its directory was synced; each unsynced change of a name may be
//! kept or lost by itself. The death of the process alone loses nothing that was written. After a failed
//! sync the cache holds the new bytes, marked clean, and the disk the old ones.
//!
//! Units that hold nothing but synced zeros count as never written, which is harsher than the model: a
//! prepared segment may be full of garbage behind the last synced record.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;

use super::{File, Fs, Map};

const UNIT_BYTES: usize = 512;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A unit that was written but not synced when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The file.
    pub file: PathBuf,
    /// Number of the unit in it.
    pub number: u64,
    /// Holds synced bytes: ends up old or new.
    pub protected: bool,
}

/// How a unit ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitFate {
    /// As it was at the last completed sync.
    Old,
    /// As it was written.
    New,
    /// Zeros; for a protected unit as `Old`.
    Zero,
    /// Random bytes; for a protected unit as `Old`.
    Garbage,
}

/// The simulated file system. Clones are handles to the same disk.
#[derive(Clone, Debug)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

/// A file of a [`SimFs`].
#[derive(Debug)]
pub struct SimFile {
    handle: Handle,
}

/// A mapping of a [`SimFile`]: reads go through to the cache.
#[derive(Debug)]
pub struct SimMap {
    handle: Handle,
    bytes: u64,
}

/// A lock of a [`SimFs`].
#[derive(Debug)]
pub struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    epoch: u64,
}

#[derive(Debug)]
struct Handle {
    disk: Arc<Mutex<Disk>>,
    inode: Arc<Mutex<Inode>>,
    /// Files opened by a process that died are of no use to the next one.
    epoch: u64,
}

#[derive(Debug)]
struct Disk {
    bits: Bits,
    dirs: BTreeMap<PathBuf, Dir>,
    locks: BTreeSet<PathBuf>,
    epoch: u64,
    calls: u64,
    syncs: u64,
    stop_at: Option<u64>,
    stopped: bool,
    cut_on_restart: bool,
    fail_calls: BTreeMap<u64, i32>,
    fail_syncs: BTreeMap<u64, i32>,
    capacity: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Dir {
    cached: Names,
    durable: Names,
    /// Changes of names since the last sync of this directory.
    pending: Vec<NameChange>,
    mode: u32,
}

type Names = BTreeMap<String, Arc<Mutex<Inode>>>;

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, Arc<Mutex<Inode>>),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<u64>,
    length_dirty: bool,
    mode: u32,
    unreadable: BTreeSet<u64>,
}

/// Random bits (SplitMix64): the same for a seed whatever version a library has.
#[derive(Clone, Debug)]
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next() as u8;
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the simulated machine has stopped")]
struct Stopped;

fn stopped() -> io::Error {
    io::Error::other(Stopped)
}

/// Whether an error came from a stopped [`SimFs`] and not from a fault the caller has to deal with.
#[must_use]
pub fn is_stopped(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Stopped>())
}

enum Refused {
    /// This very call is the one at which the machine stops.
    StopsHere,
    Error(io::Error),
}

impl Refused {
    fn into_error(self) -> io::Error {
        match self {
            Refused::StopsHere => stopped(),
            Refused::Error(error) => error,
        }
    }
}

impl SimFs {
    /// An empty disk. Everything random about it comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SimFs {
        let disk = Disk {
            bits: Bits(seed),
            dirs: BTreeMap::from([(
                PathBuf::from("/"),
                Dir {
                    mode: 0o700,
                    ..Dir::default()
                },
            )]),
            locks: BTreeSet::new(),
            epoch: 0,
            calls: 0,
            syncs: 0,
            stop_at: None,
            stopped: false,
            cut_on_restart: false,
            fail_calls: BTreeMap::new(),
            fail_syncs: BTreeMap::new(),
            capacity: None,
        };
        SimFs {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// A copy of the disk that goes its own way from here.
    #[must_use]
    pub fn fork(&self) -> SimFs {
        let disk = self.disk();
        let mut copies = Copies::default();
        let dirs = disk
            .dirs
            .iter()
            .map(|(path, dir)| (path.clone(), copies.dir(dir)))
            .collect();
        let fork = Disk {
            bits: disk.bits.clone(),
            dirs,
            locks: disk.locks.clone(),
            fail_calls: disk.fail_calls.clone(),
            fail_syncs: disk.fail_syncs.clone(),
            ..*disk
        };
        SimFs {
            disk: Arc::new(Mutex::new(fork)),
        }
    }

    /// Calls made so far. Every call that could fail counts, reads through a mapping excepted.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.disk().calls
    }

    /// Syncs of files and directories that were asked for so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Lets the call with number `call` (the first is 1) fail with `errno`, without effect. If that call
    /// is a sync, the bytes are lost as with [`fail_sync`](SimFs::fail_sync).
    pub fn fail_call(&self, call: u64, errno: i32) {
        self.disk().fail_calls.insert(call, errno);
    }

    /// Lets the sync with number `sync` fail with `errno`: the cache keeps the new bytes, marked clean,
    /// and the disk keeps the old ones.
    pub fn fail_sync(&self, sync: u64, errno: i32) {
        self.disk().fail_syncs.insert(sync, errno);
    }

    /// Stops the machine at call `call`: it and all later ones fail, see [`is_stopped`], until
    /// [`restart`](SimFs::restart), [`crash_process`](SimFs::crash_process) or
    /// [`power_cut`](SimFs::power_cut). Of a write at that call a part may reach the cache.
    pub fn stop_at_call(&self, call: u64) {
        self.disk().stop_at = Some(call);
    }

    /// As [`stop_at_call`](SimFs::stop_at_call); [`restart`](SimFs::restart) then cuts the power.
    pub fn power_cut_at_call(&self, call: u64) {
        let mut disk = self.disk();
        disk.stop_at = Some(call);
        disk.cut_on_restart = true;
    }

    /// Whether the machine stands still.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.disk().stopped
    }

    /// Starts the machine again, after a power cut if one was planned.
    pub fn restart(&self) {
        let cut = self.disk().cut_on_restart;
        if cut {
            let seed = self.random_u64();
            self.mix(seed);
        } else {
            self.crash_process();
        }
    }

    /// The process dies and may be started again: what was written is in the cache, open files and locks
    /// are gone, planned faults are forgotten.
    pub fn crash_process(&self) {
        self.disk().restart();
    }

    /// The power goes and comes back: everything unsynced is mixed at random.
    pub fn power_cut(&self, rng: &mut impl Rng) {
        self.mix(rng.next_u64());
    }

    fn mix(&self, seed: u64) {
        let (mut bits, mut coin) = (Bits(seed), Bits(!seed));
        let mut fate = |_: &Unit| match bits.below(4) {
            0 => UnitFate::Old,
            1 => UnitFate::New,
            2 => UnitFate::Zero,
            _ => UnitFate::Garbage,
        };
        self.power_cut_with(&mut |_| coin.coin(), &mut fate);
    }

    /// The power goes and comes back: `keep` decides for each unsynced change of a name, `fate` for each
    /// unsynced unit.
    pub fn power_cut_with(
        &self,
        keep: &mut dyn FnMut(usize) -> bool,
        fate: &mut dyn FnMut(&Unit) -> UnitFate,
    ) {
        let mut disk = self.disk();
        let disk = &mut *disk;
        for (path, inode) in disk.reachable() {
            inode_lock(&inode).power_cut(&path, &mut disk.bits, fate);
        }
        let mut number = 0;
        for dir in disk.dirs.values_mut() {
            dir.power_cut(|| {
                number += 1;
                keep(number - 1)
            });
        }
        disk.restart();
    }

    /// Units that a power cut now would decide about.
    #[must_use]
    pub fn unsynced_units(&self) -> Vec<Unit> {
        let disk = self.disk();
        let units = disk
            .reachable()
            .into_iter()
            .map(|(path, inode)| inode_lock(&inode).unsynced(&path));
        units.flatten().collect()
    }

    /// Number of changes of names that a power cut now would decide about.
    #[must_use]
    pub fn unsynced_names(&self) -> usize {
        self.disk().dirs.values().map(|dir| dir.pending.len()).sum()
    }

    /// Forgets what is cached and clean, so that reads see the disk.
    pub fn drop_caches(&self) {
        for (_, inode) in self.disk().reachable() {
            inode_lock(&inode).drop_cache();
        }
    }

    /// Limits the bytes of all files; what would go beyond fails with "no space".
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Flips one bit of a file, in cache and on disk.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut bytes = self.bytes(path);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        self.set_bytes(path, &bytes);
    }

    /// Content of a file. Empty if there is none.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let inode = self.disk().find(path);
        inode.map_or_else(|_| Vec::new(), |inode| inode_lock(&inode).cached.clone())
    }

    /// Replaces the content of a file, in cache and on disk.
    pub fn set_bytes(&self, path: &Path, bytes: &[u8]) {
        if let Ok(inode) = self.disk().find(path) {
            let mut inode = inode_lock(&inode);
            inode.cached = bytes.to_vec();
            inode.durable = bytes.to_vec();
        }
    }

    /// Makes the unit at `offset` unreadable: reads that touch it end in an I/O error.
    pub fn set_unreadable(&self, path: &Path, offset: u64) {
        if let Ok(inode) = self.disk().find(path) {
            inode_lock(&inode)
                .unreadable
                .insert(offset / UNIT_BYTES as u64);
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, disk: &Disk, inode: Arc<Mutex<Inode>>) -> SimFile {
        SimFile {
            handle: Handle {
                disk: Arc::clone(&self.disk),
                inode,
                epoch: disk.epoch,
            },
        }
    }

    fn entered(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk();
        disk.enter().map_err(Refused::into_error)?;
        Ok(disk)
    }
}

fn inode_lock(inode: &Mutex<Inode>) -> MutexGuard<'_, Inode> {
    inode.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies each inode once, however many names it has.
#[derive(Default)]
struct Copies {
    made: Vec<[Arc<Mutex<Inode>>; 2]>,
}

impl Copies {
    fn inode(&mut self, inode: &Arc<Mutex<Inode>>) -> Arc<Mutex<Inode>> {
        if let Some([_, copy]) = self.made.iter().find(|[from, _]| Arc::ptr_eq(from, inode)) {
            return Arc::clone(copy);
        }
        let copy = Arc::new(Mutex::new(inode_lock(inode).clone()));
        self.made.push([Arc::clone(inode), Arc::clone(&copy)]);
        copy
    }

    fn names(&mut self, names: &Names) -> Names {
        names
            .iter()
            .map(|(name, inode)| (name.clone(), self.inode(inode)))
            .collect()
    }

    fn dir(&mut self, dir: &Dir) -> Dir {
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
    fn enter(&mut self) -> Result<(), Refused> {
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
    fn enter_sync(&mut self) -> Result<Option<io::Error>, io::Error> {
        self.syncs += 1;
        let planned = self.fail_syncs.remove(&self.syncs);
        match self.enter() {
            Ok(()) => Ok(planned.map(io::Error::from_raw_os_error)),
            Err(Refused::Error(error)) if !is_stopped(&error) => Ok(Some(error)),
            Err(refused) => Err(refused.into_error()),
        }
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.locks.clear();
        self.stop_at = None;
        self.stopped = false;
        self.cut_on_restart = false;
        self.fail_calls.clear();
        self.fail_syncs.clear();
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        let (dir, name) = split(path)?;
        let inode = self.dirs.get(dir).and_then(|dir| dir.cached.get(name));
        inode.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn dir_of(&mut self, path: &Path) -> io::Result<(&mut Dir, String)> {
        let (dir, name) = split(path)?;
        let dir = self.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok((dir, name.to_owned()))
    }

    /// All files that have or may get a name, each once, under one of its names.
    fn reachable(&self) -> Vec<(PathBuf, Arc<Mutex<Inode>>)> {
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

    fn used_bytes(&self) -> u64 {
        self.reachable()
            .iter()
            .map(|(_, inode)| inode_lock(inode).cached.len() as u64)
            .sum()
    }

    fn check_room(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if more > 0 && self.used_bytes() + more > capacity => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(invalid)?;
    Ok((path.parent().ok_or_else(invalid)?, name))
}

impl Dir {
    fn link(&mut self, name: String, inode: Arc<Mutex<Inode>>) {
        self.cached.insert(name.clone(), Arc::clone(&inode));
        self.pending.push(NameChange::Link(name, inode));
    }

    fn power_cut(&mut self, mut keep: impl FnMut() -> bool) {
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
    fn write(&mut self, bytes: &[u8], offset: u64) {
        let start = offset as usize;
        let end = start + bytes.len();
        if end > self.cached.len() {
            self.cached.resize(end, 0);
            self.length_dirty = true;
        }
        self.cached[start..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty
                .extend((start / UNIT_BYTES) as u64..=((end - 1) / UNIT_BYTES) as u64);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for unit in std::mem::take(&mut self.dirty) {
            let range = unit_range(unit, self.cached.len());
            self.durable[range.clone()].copy_from_slice(&self.cached[range]);
        }
        self.length_dirty = false;
    }

    /// What a sync that failed leaves: nothing is dirty any more, and nothing reached the disk.
    fn lose(&mut self) {
        self.dirty.clear();
        self.length_dirty = false;
    }

    fn is_protected(&self, unit: u64) -> bool {
        let range = unit_range(unit, self.durable.len());
        self.durable[range].iter().any(|byte| *byte != 0)
    }

    fn unsynced(&self, path: &Path) -> Vec<Unit> {
        let unit = |number: &u64| Unit {
            file: path.to_path_buf(),
            number: *number,
            protected: self.is_protected(*number),
        };
        self.dirty.iter().map(unit).collect()
    }

    fn power_cut(&mut self, path: &Path, bits: &mut Bits, fate: &mut dyn FnMut(&Unit) -> UnitFate) {
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
        self.length_dirty = false;
        self.cached = self.durable.clone();
    }

    fn drop_cache(&mut self) {
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

    fn is_unreadable(&self, offset: u64, bytes: usize) -> bool {
        let units =
            offset / UNIT_BYTES as u64..=(offset + (bytes as u64).max(1) - 1) / UNIT_BYTES as u64;
        self.unreadable.range(units).next().is_some()
    }
}

fn unit_range(unit: u64, length: usize) -> std::ops::Range<usize> {
    let start = (unit as usize * UNIT_BYTES).min(length);
    start..(start + UNIT_BYTES).min(length)
}

impl Fs for SimFs {
    type File = SimFile;
    type Lock = SimLock;

    fn create_new(&self, path: &Path) -> io::Result<SimFile> {
        let mut disk = self.entered()?;
        let (dir, name) = disk.dir_of(path)?;
        if dir.cached.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Arc::new(Mutex::new(Inode {
            mode: 0o600,
            ..Inode::default()
        }));
        dir.link(name, Arc::clone(&inode));
        Ok(self.handle(&disk, inode))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let disk = self.entered()?;
        let inode = disk.find(path)?;
        Ok(self.handle(&disk, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.entered()?;
        let (to_dir, to_name) = split(to)?;
        let to_name = to_name.to_owned();
        if from.parent() != Some(to_dir) {
            // Nothing here needs it, and its crash states would be another model.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (dir, name) = disk.dir_of(from)?;
        let inode = dir.cached.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        dir.cached.insert(to_name.clone(), inode);
        dir.pending.push(NameChange::Rename(name, to_name));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.entered()?;
        let (dir, name) = disk.dir_of(path)?;
        dir.cached.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        dir.pending.push(NameChange::Unlink(name));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.entered()?;
        let dir = disk.dirs.get(path).ok_or(io::ErrorKind::NotFound)?;
        let mut names: Vec<String> = dir.cached.keys().cloned().collect();
        let children = disk
            .dirs
            .keys()
            .filter(|child| child.parent() == Some(path));
        names.extend(children.filter_map(|child| Some(child.file_name()?.to_str()?.to_owned())));
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.entered()?;
        for ancestor in dir
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
        {
            let entry = disk.dirs.entry(ancestor.to_path_buf());
            entry.or_insert_with(|| Dir {
                mode: 0o700,
                ..Dir::default()
            });
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let planned = disk.enter_sync()?;
        let dir = disk.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        dir.pending.clear();
        if let Some(error) = planned {
            return Err(error);
        }
        dir.durable = dir.cached.clone();
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.entered()?;
        Ok(disk.dirs.contains_key(path) || disk.find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<SimLock> {
        let mut disk = self.entered()?;
        let (dir, name) = disk.dir_of(path)?;
        if !dir.cached.contains_key(&name) {
            dir.link(
                name,
                Arc::new(Mutex::new(Inode {
                    mode: 0o600,
                    ..Inode::default()
                })),
            );
        }
        if !disk.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(SimLock {
            disk: Arc::clone(&self.disk),
            path: path.to_path_buf(),
            epoch: disk.epoch,
        })
    }

    fn permissions(&self, path: &Path) -> io::Result<u32> {
        let disk = self.entered()?;
        if let Some(dir) = disk.dirs.get(path) {
            return Ok(dir.mode);
        }
        let inode = disk.find(path)?;
        let mode = inode_lock(&inode).mode;
        Ok(mode)
    }

    fn set_permissions(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut disk = self.entered()?;
        if let Some(dir) = disk.dirs.get_mut(path) {
            dir.mode = mode;
            return Ok(());
        }
        let inode = disk.find(path)?;
        inode_lock(&inode).mode = mode;
        Ok(())
    }

    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let disk = self.entered()?;
        let used = disk.used_bytes();
        Ok(disk
            .capacity
            .map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(used)))
    }

    fn random_u64(&self) -> u64 {
        self.disk().bits.next()
    }
}

impl Handle {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.epoch == self.epoch {
            Ok(disk)
        } else {
            Err(stopped())
        }
    }

    fn entered(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk()?;
        disk.enter().map_err(Refused::into_error)?;
        Ok(disk)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        let planned = disk.enter_sync()?;
        let mut inode = inode_lock(&self.inode);
        match planned {
            Some(error) => {
                inode.lose();
                Err(error)
            }
            None => {
                inode.sync();
                Ok(())
            }
        }
    }

    fn set_len(&self, disk: &Disk, bytes: u64) -> io::Result<()> {
        let mut inode = inode_lock(&self.inode);
        let length = inode.cached.len() as u64;
        drop(inode);
        disk.check_room(bytes.saturating_sub(length))?;
        inode = inode_lock(&self.inode);
        if length != bytes {
            inode.cached.resize(bytes as usize, 0);
            inode.length_dirty = true;
            let units = bytes.div_ceil(UNIT_BYTES as u64);
            inode.dirty.retain(|unit| *unit < units);
        }
        Ok(())
    }
}

impl File for SimFile {
    type Map = SimMap;

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let _disk = self.handle.entered()?;
        let inode = inode_lock(&self.handle.inode);
        if inode.is_unreadable(offset, bytes.len()) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let start = (offset as usize).min(inode.cached.len());
        let end = start.saturating_add(bytes.len()).min(inode.cached.len());
        bytes[..end - start].copy_from_slice(&inode.cached[start..end]);
        Ok(end - start)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.handle.disk()?;
        match disk.enter() {
            Ok(()) => {}
            Err(Refused::StopsHere) => {
                // The process dies in the middle of the write.
                let part = disk.bits.below(bytes.len() as u64 + 1) as usize;
                inode_lock(&self.handle.inode).write(&bytes[..part], offset);
                return Err(stopped());
            }
            Err(Refused::Error(error)) => return Err(error),
        }
        let length = inode_lock(&self.handle.inode).cached.len() as u64;
        disk.check_room((offset + bytes.len() as u64).saturating_sub(length))?;
        inode_lock(&self.handle.inode).write(bytes, offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.handle.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.handle.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let disk = self.handle.entered()?;
        let length = inode_lock(&self.handle.inode).cached.len() as u64;
        self.handle.set_len(&disk, bytes.max(length))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let disk = self.handle.entered()?;
        self.handle.set_len(&disk, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        let _disk = self.handle.entered()?;
        Ok(inode_lock(&self.handle.inode).cached.len() as u64)
    }

    fn map(&self, bytes: u64) -> io::Result<SimMap> {
        let disk = self.handle.entered()?;
        if (inode_lock(&self.handle.inode).cached.len() as u64) < bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let inode = Arc::clone(&self.handle.inode);
        let handle = Handle {
            disk: Arc::clone(&self.handle.disk),
            inode,
            epoch: disk.epoch,
        };
        Ok(SimMap { handle, bytes })
    }
}

impl Map for SimMap {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let _disk = self.handle.disk()?;
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= self.bytes);
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let inode = inode_lock(&self.handle.inode);
        let source = inode
            .cached
            .get(offset as usize..end as usize)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(source);
        Ok(())
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.epoch == self.epoch {
            disk.locks.remove(&self.path);
        }
    }
}
