//! The control file: watermark, generation, cut and floor, apart from the data and in two slots.
//!
//! One slot is always the *synced* one; lazy writes go over the other, so that the synced one stays whole
//! whatever happens to them. What may only be raised (the watermark, the commit hint) is written lazily.
//! What lowers something (a cut, a floor, a generation) is stored in both slots, each synced, before any
//! byte, name or segment that it concerns changes.

use std::path::{Path, PathBuf};

use crate::dir;
use crate::error::{Corruption, IoContext, IoFault, OpenError};
use crate::format::{
    BlockError, CONTROL_FILE_BYTES, CONTROL_SLOT_BYTES, CONTROL_SLOT_STRIDE, Check, ControlSlot,
    Fault,
};
use crate::fs::{File, Fs};
use crate::options::Binding;
use crate::twin::{EIO, Report};

#[derive(Debug)]
pub(crate) struct Control<F: Fs> {
    file: F::File,
    path: PathBuf,
    binding: Binding,
    slot: ControlSlot,
    /// Which slot was synced last; the other one takes the next write.
    synced_place: u64,
    /// Whether `slot` differs from what was written last.
    changed: bool,
    /// Whether something was written since the last sync.
    unsynced: bool,
}

impl<F: Fs> Control<F> {
    /// Creates the file, marked as incomplete.
    pub(crate) fn create(fs: &F, dir: &Path, binding: Binding) -> Result<Control<F>, IoFault> {
        let path = dir.join(dir::CONTROL);
        let slot = ControlSlot {
            sequence: 1,
            generation: 1,
            ..ControlSlot::default()
        };
        let mut bytes = vec![0; CONTROL_FILE_BYTES as usize];
        let encoded = slot.encode(binding);
        bytes[..encoded.len()].copy_from_slice(&encoded);
        bytes[CONTROL_SLOT_STRIDE as usize..][..encoded.len()].copy_from_slice(&encoded);
        let file = dir::write_file_atomically(fs, &path, &bytes)?;
        Ok(Control {
            file,
            path,
            binding,
            slot,
            synced_place: 0,
            changed: false,
            unsynced: false,
        })
    }

    /// The newest valid slot, without opening the file for use.
    pub(crate) fn look(
        fs: &F,
        dir: &Path,
        binding: Binding,
    ) -> Result<(ControlSlot, Option<Report>), OpenError> {
        let path = dir.join(dir::CONTROL);
        let file = fs.open(&path).during("open", &path)?;
        let (slot, _, report) = read_newest(&file, &path, binding)?;
        Ok((slot, report))
    }

    /// Opens the file and picks the newest valid slot. Nothing is written yet.
    pub(crate) fn open(
        fs: &F,
        dir: &Path,
        binding: Binding,
    ) -> Result<(Control<F>, Option<Report>), OpenError> {
        let path = dir.join(dir::CONTROL);
        let file = fs.open(&path).during("open", &path)?;
        let (slot, place, report) = read_newest(&file, &path, binding)?;
        let length = file.len().during("measure", &path)?;
        if length != CONTROL_FILE_BYTES {
            file.set_len(CONTROL_FILE_BYTES)
                .during("set length of", &path)?;
        }
        let control = Control {
            file,
            path,
            binding,
            slot,
            synced_place: place,
            changed: true,
            unsynced: true,
        };
        Ok((control, report))
    }

    pub(crate) fn slot(&self) -> &ControlSlot {
        &self.slot
    }

    /// Changes what the next write stores.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut ControlSlot)) {
        let before = self.slot;
        change(&mut self.slot);
        self.changed |= before != self.slot;
    }

    /// Writes the slot without syncing it: survives the process, not the power.
    pub(crate) fn write(&mut self) -> Result<(), IoFault> {
        if self.changed {
            self.write_slot()
        } else {
            Ok(())
        }
    }

    /// Writes the slot if it changed, and syncs it.
    pub(crate) fn flush(&mut self) -> Result<(), IoFault> {
        self.write()?;
        if self.unsynced { self.sync() } else { Ok(()) }
    }

    /// Writes what was read once more, where it was read: it may have been in memory only, and after a failed sync it would not be
    /// written by itself. The next [`store`](Control::store) syncs it together with the first of its own writes; until then nothing
    /// changes that either slot speaks of.
    pub(crate) fn settle(&mut self) -> Result<(), IoFault> {
        let bytes = self.slot.encode(self.binding);
        self.file
            .write_at(&bytes, self.synced_place * CONTROL_SLOT_STRIDE)
            .during("write", &self.path)
    }

    /// Stores the slot in both places, each synced, so that neither place alone knows an older cut,
    /// generation or floor: if the newest rots, the other one is not a step back.
    pub(crate) fn store(&mut self) -> Result<(), IoFault> {
        for _ in 0..2 {
            self.write_slot()?;
            self.sync()?;
        }
        Ok(())
    }

    fn write_slot(&mut self) -> Result<(), IoFault> {
        self.slot.sequence += 1;
        let place = 1 - self.synced_place;
        let bytes = self.slot.encode(self.binding);
        self.file
            .write_at(&bytes, place * CONTROL_SLOT_STRIDE)
            .during("write", &self.path)?;
        self.changed = false;
        self.unsynced = true;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), IoFault> {
        self.file.sync_data().during("sync", &self.path)?;
        self.synced_place = 1 - self.synced_place;
        self.unsynced = false;
        // Only now is it known; the next slot written says so.
        self.slot.synced_watermark = self.slot.watermark;
        Ok(())
    }
}

type SlotResult = Result<ControlSlot, BlockError>;

/// The slot that counts, its place, and what is wrong with the other.
fn read_newest<T: File>(
    file: &T,
    path: &Path,
    binding: Binding,
) -> Result<(ControlSlot, u64, Option<Report>), OpenError> {
    let first = read_slot(file, path, binding, 0)?;
    let second = read_slot(file, path, binding, 1)?;
    choose(path, binding, first, second)
}

fn read_slot<T: File>(
    file: &T,
    path: &Path,
    binding: Binding,
    place: u64,
) -> Result<SlotResult, IoFault> {
    let mut bytes = [0; CONTROL_SLOT_BYTES];
    match file.read_exact_at(&mut bytes, place * CONTROL_SLOT_STRIDE) {
        Ok(()) => Ok(ControlSlot::decode(&bytes, binding)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Err(Fault::new(
            Check::FileLength,
            CONTROL_FILE_BYTES,
            place * CONTROL_SLOT_STRIDE,
        )
        .into())),
        Err(error) if error.raw_os_error() == Some(EIO) => {
            Ok(Err(
                Fault::new(Check::Unreadable, 0u32, EIO.unsigned_abs()).into()
            ))
        }
        Err(error) => Err(IoFault::new(path, "read", error)),
    }
}

fn choose(
    path: &Path,
    binding: Binding,
    first: SlotResult,
    second: SlotResult,
) -> Result<(ControlSlot, u64, Option<Report>), OpenError> {
    let damaged = |place: u64, fault| {
        Some(Report::CopyRewritten(Corruption::of_block(
            path,
            place * CONTROL_SLOT_STRIDE,
            fault,
        )))
    };
    match (first, second) {
        (Ok(first), Ok(second)) if second.sequence > first.sequence => Ok((second, 1, None)),
        (Ok(first), Ok(_)) => Ok((first, 0, None)),
        (Ok(slot), Err(BlockError::Fault(fault))) => Ok((slot, 0, damaged(1, fault))),
        (Err(BlockError::Fault(fault)), Ok(slot)) => Ok((slot, 1, damaged(0, fault))),
        (Err(error @ (BlockError::Newer { .. } | BlockError::Foreign { .. })), _) => {
            Err(OpenError::of_block(path, 0, binding, error))
        }
        (_, Err(error @ (BlockError::Newer { .. } | BlockError::Foreign { .. }))) => Err(
            OpenError::of_block(path, CONTROL_SLOT_STRIDE, binding, error),
        ),
        (Err(error @ BlockError::Fault(_)), Err(BlockError::Fault(_))) => {
            Err(OpenError::of_block(path, 0, binding, error))
        }
    }
}
