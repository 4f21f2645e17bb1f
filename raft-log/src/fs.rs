//! Every access to files goes through [`Fs`], so that a test can stand in for the disk.
//!
//! [`OsFs`] is the real one. `SimFs` (feature `testing`) keeps durable and pending bytes apart and can
//! lose power at any call. What the traits promise is what the log relies on, and no more:
//!
//! - bytes written with [`File::write_at`] are durable only after [`File::sync_data`] or
//!   [`File::sync_all`] has returned `Ok`;
//! - a name that was created, renamed or removed is durable only after [`Fs::sync_dir`] of its directory;
//! - after a failed sync nobody knows what the disk holds, and a second sync proves nothing.

use std::fmt;
use std::io;
use std::path::Path;

mod os;
#[cfg(feature = "testing")]
mod sim;

pub use os::{OsFile, OsFs, OsLock};
#[cfg(feature = "testing")]
pub use sim::{SimFile, SimFs, SimLock, SimMap, Unit, UnitFate, is_stopped};

/// A file system, as far as a log needs one.
pub trait Fs: Clone + Send + Sync + fmt::Debug + 'static {
    /// An open file.
    type File: File;
    /// Held as long as this process owns a directory; dropping it releases the lock.
    type Lock: Send + Sync + fmt::Debug + 'static;

    /// Creates a file that must not exist yet, readable and writable by the owner only (0600).
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, or whatever the system says.
    fn create_new(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none, or whatever the system says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Gives `from` the name `to`, replacing what had that name, in one step.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file. Who has the file open or mapped keeps it.
    ///
    /// # Errors
    /// `NotFound` if there is none, or whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of everything in `dir`, sorted. Names that are not UTF-8 are none of ours and left out.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory, or whatever the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates `dir` (0700) and what is missing above it, and syncs the parent of each one created.
    ///
    /// # Errors
    /// Whatever the system says; an existing directory is not an error.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// Whatever the system says. After an error nobody knows which names are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whether something has this name.
    ///
    /// # Errors
    /// Whatever the system says, except "not found".
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes the exclusive lock on the file `path`, creating the file if needed.
    ///
    /// # Errors
    /// `WouldBlock` if another holder has it, at once; or whatever the system says.
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;

    /// Permission bits (`0o600`, `0o700`...) of a file or directory.
    ///
    /// # Errors
    /// Whatever the system says.
    fn permissions(&self, path: &Path) -> io::Result<u32>;

    /// Sets the permission bits of a file or directory.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_permissions(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Bytes that an unprivileged process may still allocate where `dir` lies.
    ///
    /// # Errors
    /// Whatever the system says.
    fn available_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Sixty-four bits that were never drawn before; from a seed in the simulated one.
    fn random_u64(&self) -> u64;
}

/// An open file. All methods take `&self`: positions are always given, never remembered.
pub trait File: Send + Sync + fmt::Debug + 'static {
    /// A read-only mapping of this file.
    type Map: Map;

    /// Reads at most `bytes.len()` bytes at `offset`; fewer only at the end of the file (`pread`).
    ///
    /// # Errors
    /// Whatever the system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset` (`pwrite`), extending the file if needed.
    ///
    /// # Errors
    /// Whatever the system says; then any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the bytes of the file durable (`fdatasync`), with its length if that changed.
    ///
    /// # Errors
    /// Whatever the system says. Then nobody knows what the disk holds, and asking again proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](File::sync_data), with all of the file's metadata (`fsync`).
    ///
    /// # Errors
    /// As for [`sync_data`](File::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// Reserves room for `bytes` bytes from the start and makes the file at least that long.
    ///
    /// # Errors
    /// `StorageFull` if there is no room, or whatever the system says.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or extends the file to `bytes` bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Length of the file in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no byte.
    ///
    /// # Errors
    /// Whatever the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Maps the first `bytes` bytes, read-only. The file must be at least that long and must never get
    /// shorter while the mapping lives.
    ///
    /// # Errors
    /// Whatever the system says; `InvalidInput` if the file is shorter.
    fn map(&self, bytes: u64) -> io::Result<Self::Map>;

    /// Reads exactly `bytes.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before, or whatever the system says.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

/// A read-only mapping of a file.
pub trait Map: Send + Sync + fmt::Debug + 'static {
    /// Copies the bytes at `offset` out of the mapping.
    ///
    /// The caller asks only for bytes that no one writes meanwhile (published bytes of a segment).
    ///
    /// # Errors
    /// `UnexpectedEof` if the range leaves the mapping.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// Whether an error means that the disk (or the simulated disk) has no room.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
