//! The real file system for a process that dies in place of a sync.
//!
//! A process killed inside a sync finishes it in the kernel first, and between two calls there is hardly any time:
//! `kill -9` by the clock nearly never meets written bytes that are not synced. Here it always does.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft_log::fs::{File, Fs, OsFile, OsFs, OsLock};
use rustix::process::{Signal, getpid, kill_process};

/// Counts syncs down.
#[derive(Clone, Debug)]
struct Fuse(Arc<AtomicU64>);

impl Fuse {
    fn burn(&self) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill_process(getpid(), Signal::KILL).expect("every process may kill itself");
            // The signal is taken on the way back from the call; whoever gets here all the same goes no further.
            loop {
                std::thread::park();
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct CutFs {
    fuse: Fuse,
}

impl CutFs {
    /// The process dies in place of sync `syncs`, counted from 1.
    pub fn new(syncs: u64) -> CutFs {
        CutFs {
            fuse: Fuse(Arc::new(AtomicU64::new(syncs))),
        }
    }

    /// From now on at most `syncs` more, and the last of them not.
    pub fn limit(&self, syncs: u64) {
        self.fuse.0.fetch_min(syncs, Ordering::Relaxed);
    }

    fn file(&self, file: OsFile) -> CutFile {
        CutFile {
            file,
            fuse: self.fuse.clone(),
        }
    }
}

impl Fs for CutFs {
    type File = CutFile;
    type Lock = OsLock;

    fn create_new(&self, path: &Path) -> io::Result<CutFile> {
        OsFs.create_new(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<CutFile> {
        OsFs.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFs.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsFs.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsFs.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fuse.burn();
        OsFs.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsFs.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<OsLock> {
        OsFs.lock(path)
    }

    fn permissions(&self, path: &Path) -> io::Result<u32> {
        OsFs.permissions(path)
    }

    fn set_permissions(&self, path: &Path, mode: u32) -> io::Result<()> {
        OsFs.set_permissions(path, mode)
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsFs.available_bytes(dir)
    }

    fn random_u64(&self) -> u64 {
        OsFs.random_u64()
    }
}

#[derive(Debug)]
pub struct CutFile {
    file: OsFile,
    fuse: Fuse,
}

impl File for CutFile {
    type Map = <OsFile as File>::Map;

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fuse.burn();
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.fuse.burn();
        self.file.sync_all()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn map(&self, bytes: u64) -> io::Result<Self::Map> {
        self.file.map(bytes)
    }
}
