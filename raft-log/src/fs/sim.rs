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

use super::Fs;

mod disk;
mod files;

use disk::{Bits, Copies, inode_lock};

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

impl UnitFate {
    /// Every way in which a unit can end up; first the two of a protected one.
    pub const ALL: [UnitFate; 4] = [
        UnitFate::Old,
        UnitFate::New,
        UnitFate::Zero,
        UnitFate::Garbage,
    ];
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
    /// Units of `dirty` that more was written to than zeros.
    written: BTreeSet<u64>,
    /// Units that hold synced bytes of a write, be they zeros: the end of a record may be. Zeros that a file was
    /// prepared with do not count, so that what is written over them is still at risk.
    held: BTreeSet<u64>,
    length_dirty: bool,
    mode: u32,
    unreadable: BTreeSet<u64>,
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
        let mut fate = |_: &Unit| UnitFate::ALL[bits.below(4) as usize];
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
