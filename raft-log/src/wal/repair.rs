//! Putting damaged entries back.

use super::{EntryRef, Wal};
use crate::error::WalError;
use crate::fs::Fs;

impl<F: Fs> Wal<F> {
    /// Puts back entries that were damaged, durable on return. From then on readers get these copies.
    ///
    /// They are the entries that the log lost, from a node that has them: same index, same term. Any entry of the log
    /// may be put back, also one whose damage shows only when it is read.
    ///
    /// # Errors
    /// [`WalError::OutOfRange`] if the log does not hold such an entry, or it is not synced;
    /// [`WalError::TooLarge`], [`WalError::PayloadChecksum`], [`WalError::NoKind`] and [`WalError::NoSpace`]
    /// leave the log as it is, but for entries before the refused one. After [`WalError::Io`] it is poisoned.
    pub fn repair(&mut self, entries: &[EntryRef<'_>]) -> Result<(), WalError> {
        self.check_usable()?;
        for entry in entries {
            self.check_repair(entry)?;
        }
        let mut rest = entries;
        while !rest.is_empty() {
            let fitting = self.repairs.fitting(rest);
            if fitting == 0 {
                self.begin_repair_file()?;
                continue;
            }
            let (now, later) = rest.split_at(fitting);
            self.write_repairs(now)?;
            rest = later;
        }
        Ok(())
    }

    fn check_repair(&self, entry: &EntryRef<'_>) -> Result<(), WalError> {
        self.check_content(entry)?;
        let view = self.shared.view();
        let is_synced = (view.first_index()..=view.last_index).contains(&entry.index);
        let is_other = view
            .term(entry.index)
            .is_some_and(|term| term != entry.term);
        if !is_synced || is_other || entry.term == 0 {
            drop(view);
            return Err(self.out_of_range(entry.index, Some(entry.term)));
        }
        Ok(())
    }

    pub(super) fn begin_repair_file(&mut self) -> Result<(), WalError> {
        self.reserve_spare_for_copies()?;
        let spare = self
            .shared
            .pool()
            .ready
            .pop()
            .expect("one was reserved above");
        let generation = self.control.slot().generation;
        self.repairs
            .begin_file(&self.fs, &self.dir, self.binding, generation, spare)
            .map_err(|fault| self.shared.fail(fault))
    }

    fn write_repairs(&mut self, entries: &[EntryRef<'_>]) -> Result<(), WalError> {
        let generation = self.control.slot().generation;
        let parts = self
            .repairs
            .write(self.binding.cluster, generation, entries)
            .map_err(|fault| self.shared.fail(fault))?;
        let mut view = self.shared.view();
        for (entry, part) in entries.iter().zip(parts) {
            if view.faulty.remove(&entry.index).is_some() {
                view.terms.set(entry.index, entry.term);
                self.terms.set(entry.index, entry.term);
            }
            view.repaired.insert(entry.index, part);
        }
        Ok(())
    }
}
