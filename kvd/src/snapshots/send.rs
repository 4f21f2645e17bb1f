//! A snapshot that goes to a peer.

use bytes::Bytes;
use raft_log::fs::{File, Fs};

use super::file::{Known, changed};
use super::{Name, SnapshotDir, SnapshotDirError};

/// Bytes that are handed out at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// The bytes of a snapshot, in order.
///
/// The file was read whole and found good before the first byte is handed out. It may still rot meanwhile: the last bytes are
/// held back until all of them, as they were handed out, have the right checksum. So a receiver never gets a bad snapshot to
/// its end.
#[derive(Debug)]
pub struct Outgoing<F: Fs> {
    dir: SnapshotDir<F>,
    name: Name,
    file: F::File,
    known: Known,
    offset: u64,
    crc: crc32fast::Hasher,
    ended: bool,
}

impl<F: Fs> SnapshotDir<F> {
    /// Opens the snapshot of this index to be sent, after reading all of it once. It stays readable if it is removed
    /// meanwhile.
    ///
    /// # Errors
    /// [`SnapshotDirError::NotFound`], or [`SnapshotDirError::Damaged`]: then a new one should be written.
    pub fn open_send(&self, index: u64) -> Result<Outgoing<F>, SnapshotDirError> {
        let complete = self.complete()?;
        let of_index = |name: &&Name| name.index == index;
        let name = complete.iter().rev().find(of_index);
        let name = *name.ok_or_else(|| self.not_found(index))?;
        let path = name.path(&self.dir);
        let file = self
            .fs
            .open(&path)
            .map_err(|source| SnapshotDirError::read(&path, source))?;
        let known = self.verify(name)?;
        Ok(Outgoing {
            dir: self.clone(),
            name,
            file,
            known,
            offset: 0,
            crc: crc32fast::Hasher::new(),
            ended: false,
        })
    }
}

impl<F: Fs> Outgoing<F> {
    /// Bytes of the whole snapshot.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.known.bytes
    }

    fn chunk(&mut self) -> Result<Bytes, SnapshotDirError> {
        // It may have become suspect meanwhile: then the receiver must not get it to its end.
        self.dir.check_trusted()?;
        let left = self.known.bytes - self.offset;
        let mut chunk = vec![0; left.min(CHUNK_BYTES as u64) as usize];
        let path = self.name.path(&self.dir.dir);
        let read = self.file.read_exact_at(&mut chunk, self.offset);
        read.map_err(|source| {
            if source.kind() == std::io::ErrorKind::UnexpectedEof {
                // Shorter than before.
                return self.rotten(self.offset);
            }
            SnapshotDirError::read(&path, source)
        })?;
        self.crc.update(&chunk);
        self.offset += chunk.len() as u64;
        if self.offset == self.known.bytes && self.crc.clone().finalize() != self.known.crc {
            return Err(self.rotten(self.offset));
        }
        Ok(chunk.into())
    }

    fn rotten(&self, bytes: u64) -> SnapshotDirError {
        let crc = self.crc.clone().finalize();
        let damage = changed(self.known, Known { bytes, crc });
        SnapshotDirError::damaged(&self.name.path(&self.dir.dir), damage)
    }
}

impl<F: Fs> Iterator for Outgoing<F> {
    type Item = Result<Bytes, SnapshotDirError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.offset == self.known.bytes {
            return None;
        }
        let chunk = self.chunk();
        if let Err(error) = &chunk {
            self.ended = true;
            self.dir.note_failure(self.name, error);
        }
        Some(chunk)
    }
}
