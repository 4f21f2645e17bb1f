//! The mark that the state of this node is not that of the majority, so that none of its snapshots is to be trusted.
//!
//! ```text
//!  none --> marked ---------------> a snapshot from a peer that agreed is here ---> older ones removed --> mark removed
//!           nothing is thrown away  a start still trusts nothing and asks again     durably                durably
//! ```
//!
//! What the snapshots say of the log (where they end, in which configuration) is as true as ever, so a node whose snapshots are
//! suspect starts from them all the same, and only does not show what they hold.

use std::path::PathBuf;

use raft_core::EntryId;
use raft_log::fs::{File, Fs};
use serde::{Deserialize, Serialize};

use super::file::read_whole;
use super::{Name, SnapshotDir, SnapshotDirError, TEMPORARY};
use crate::kv::codec;
use crate::kv::command::HashAt;

/// Name of the mark.
const FILE: &str = "suspect";
/// Version of its content, which is this byte, then postcard, then a CRC-32 (little-endian) of all before it.
const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;

/// Why a node does not trust its own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// What the majority has. Its index is 0 if the mark could not be read: that it is there is what counts.
    pub agreed: HashAt,
    /// What this node had there.
    pub own: u64,
}

impl Suspect {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = codec::encode(VERSION, self);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Suspect> {
        let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        let is_whole = crc32fast::hash(content) == u32::from_le_bytes(*crc);
        codec::decode(VERSION, content).ok().filter(|_| is_whole)
    }
}

impl<F: Fs> SnapshotDir<F> {
    /// Marks all snapshots here as not to be trusted, durably. From now on none is sent.
    ///
    /// # Errors
    /// See [`SnapshotDirError::is_fatal`]. They count as suspect in this process in any case.
    pub fn distrust(&self, suspect: &Suspect) -> Result<(), SnapshotDirError> {
        self.check_usable()?;
        self.state().suspect = true;
        let (path, draft) = (self.mark(), self.dir.join(format!("{FILE}{TEMPORARY}")));
        self.remove_file(&draft)?;
        let fail = |operation, source| self.fail(&path, operation, source);
        let file = self.fs.create_new(&draft);
        let file = file.map_err(|source| fail("create", source))?;
        let written = file.write_at(&suspect.encode(), 0);
        written.map_err(|source| fail("write", source))?;
        file.sync_all().map_err(|source| fail("sync", source))?;
        let renamed = self.fs.rename(&draft, &path);
        renamed.map_err(|source| fail("rename", source))?;
        self.sync_names()
    }

    /// The mark, if it is there.
    ///
    /// # Errors
    /// The file system failed.
    pub fn suspect(&self) -> Result<Option<Suspect>, SnapshotDirError> {
        if !self.names()?.iter().any(|name| name == FILE) {
            return Ok(None);
        }
        let path = self.mark();
        let mut bytes = Vec::new();
        let read = read_whole(&self.fs, &path, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        match read {
            Ok(_) => Ok(Some(Suspect::decode(&bytes).unwrap_or_default())),
            Err(SnapshotDirError::Damaged { .. }) => Ok(Some(Suspect::default())),
            Err(error) => Err(error),
        }
    }

    /// Removes the mark: the state was rebuilt from the snapshot that ends with `id`, which came from a peer that agreed. It is
    /// read again first, and all that is older is removed, durably, because a later start could fall back to it.
    ///
    /// # Errors
    /// The mark stays. See [`SnapshotDirError::is_fatal`].
    pub fn trust_from(&self, id: EntryId) -> Result<(), SnapshotDirError> {
        self.check_usable()?;
        let name = Name::of(id);
        self.verify(name)?;
        {
            let mut state = self.state();
            state.horizon = state.horizon.max(name.index);
        }
        let complete = self.complete()?;
        self.remove_names(complete.iter().filter(|other| **other < name))?;
        self.remove_file(&self.mark())?;
        self.sync_names()?;
        self.state().suspect = false;
        Ok(())
    }

    pub(super) fn check_trusted(&self) -> Result<(), SnapshotDirError> {
        if self.state().suspect {
            let dir = self.dir.clone();
            return Err(SnapshotDirError::Suspect { dir });
        }
        Ok(())
    }

    fn mark(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_comes_back_and_no_part_of_it_is_taken_for_one() {
        let suspect = Suspect {
            agreed: HashAt {
                index: 4096,
                algorithm: 1,
                hash: 7,
            },
            own: 8,
        };
        let bytes = suspect.encode();
        assert_eq!(Suspect::decode(&bytes), Some(suspect));
        for len in 0..bytes.len() {
            assert_eq!(Suspect::decode(&bytes[..len]), None);
        }
    }
}
