//! A snapshot that comes from a peer.

use raft_core::SnapshotMeta;
use raft_log::fs::Fs;

use super::file::Draft;
use super::{Damage, Name, SnapshotDir, SnapshotDirError, meta_of};
use crate::kv::limits::StoreLimits;
use crate::kv::snapshot::{SnapshotError, SnapshotHeader, SnapshotReader};
use crate::kv::store::Store;

/// A snapshot that is being received. Dropped before it is finished, nothing of it stays.
///
/// Every block is checked as it comes, so a transfer that goes wrong ends early, and the store is ready at the end.
#[derive(Debug)]
pub struct Incoming<F: Fs> {
    dir: SnapshotDir<F>,
    announced: SnapshotMeta,
    draft: Draft<F>,
    reader: SnapshotReader,
}

impl<F: Fs> SnapshotDir<F> {
    /// Begins to receive the snapshot that was announced.
    ///
    /// # Errors
    /// See [`SnapshotDirError::is_fatal`].
    pub fn begin_receive(&self, announced: &SnapshotMeta) -> Result<Incoming<F>, SnapshotDirError> {
        Ok(Incoming {
            dir: self.clone(),
            announced: announced.clone(),
            draft: Draft::begin(self)?,
            reader: SnapshotReader::new(StoreLimits::default()),
        })
    }

    /// Removes received snapshots that newer received ones have made needless.
    fn prune_received(&self) -> Result<(), SnapshotDirError> {
        let horizon = self.state().horizon;
        let mut received = self.complete()?;
        received.retain(|name| name.index > horizon);
        let needless = received.len().saturating_sub(self.options.keep);
        self.remove_names(received[..needless].iter())
    }
}

impl<F: Fs> Incoming<F> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The bytes are no snapshot, or too many; or see [`SnapshotDirError::is_fatal`]. Drop it then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotDirError> {
        let limit = self.dir.options.received_bytes_max;
        if self.draft.bytes() + bytes.len() as u64 > limit {
            return Err(SnapshotDirError::TooLarge { limit });
        }
        self.reader.push(bytes).map_err(refused)?;
        self.draft.push(bytes)
    }

    /// Checks that all of the announced snapshot is there, and makes it durable under its name. From then on a crash
    /// followed by a start installs it, if it is ahead of the log.
    ///
    /// # Errors
    /// As [`Incoming::write`].
    pub fn finish(self) -> Result<(SnapshotHeader, Store), SnapshotDirError> {
        let Incoming {
            dir,
            announced,
            draft,
            reader,
        } = self;
        let (header, store) = reader.finish().map_err(refused)?;
        check_announced(&dir, &header, &announced)
            .map_err(|damage| SnapshotDirError::Refused { damage })?;
        draft.complete(Name::of(announced.id))?;
        dir.prune_received()?;
        Ok((header, store))
    }
}

fn refused(error: SnapshotError) -> SnapshotDirError {
    let damage = Damage::Format(error);
    SnapshotDirError::Refused { damage }
}

fn check_announced<F: Fs>(
    dir: &SnapshotDir<F>,
    header: &SnapshotHeader,
    announced: &SnapshotMeta,
) -> Result<(), Damage> {
    dir.check_header(header, announced.id)?;
    if meta_of(header)? != *announced {
        return Err(Damage::OtherConfiguration);
    }
    Ok(())
}
