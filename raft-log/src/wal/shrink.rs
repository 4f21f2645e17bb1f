//! Making the log shorter: from the back, from the front, and all of it.
//!
//! One order for all three: what the control file must say is synced there first, and only then does
//! anything change that it speaks of. A crash in between leaves a control file that makes the leftovers
//! dead, and `open` removes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Wal;
use crate::error::{IoContext, IoFault, WalError};
use crate::format::{Cut, Mark};
use crate::fs::Fs;
use crate::segment::TailSegment;
use crate::view::Listed;

/// The list of segments and the tail each hold one reference; any other is a reader's.
const OWN_REFERENCES: usize = 2;

impl<F: Fs> Wal<F> {
    /// Drops all entries from `from` on, durable on return.
    ///
    /// The story without the generation: n1 led term 8 over (101, t7) and (102, t7), which it overwrites
    /// with (101, t8). If the leftover (102, t7) still looked like the log's end, n1 would win elections
    /// with a last entry it no longer has.
    ///
    /// # Errors
    /// [`WalError::OutOfRange`] if `from` is purged; after [`WalError::Io`] the log is poisoned.
    pub fn truncate_suffix(&mut self, from: u64) -> Result<(), WalError> {
        self.check_usable()?;
        if from < self.first_index() {
            return Err(self.out_of_range(from, None));
        }
        if from > self.last_index {
            return Ok(());
        }
        // What is not yet written is written first: rare, and one way less to get it wrong.
        self.sync()?;
        let (dropped, keep) = self.unlist(from);
        self.lower(from, &keep)
            .map_err(|fault| self.shared.fail(fault))?;
        self.remove_segments(dropped)
            .map_err(|fault| self.shared.fail(fault))?;
        self.tail = Some(keep);
        Ok(())
    }

    /// Drops what is at or below `through_index` as far as whole segments go. The floor is durable before
    /// the first segment goes; from then on nothing at or below it is promised.
    ///
    /// # Errors
    /// [`WalError::OutOfRange`] if the index is not synced yet or has another term; after
    /// [`WalError::Io`] the log is poisoned.
    pub fn purge_prefix(&mut self, through_index: u64, through_term: u64) -> Result<(), WalError> {
        self.check_usable()?;
        if through_index <= self.floor().0 {
            return Ok(());
        }
        let known = self.shared.view().term(through_index);
        if known != Some(through_term) {
            return Err(self.out_of_range(through_index, Some(through_term)));
        }
        self.raise_watermark();
        self.control
            .change(|slot| slot.floor = (through_index, through_term));
        self.control
            .store()
            .map_err(|fault| self.shared.fail(fault))?;
        let dropped = self.unlist_before(through_index, through_term);
        self.remove_segments(dropped)
            .map_err(|fault| self.shared.fail(fault))
    }

    /// Empties the log: a snapshot that ends with `index` replaces all of it, and the next entry is
    /// `index + 1`. The snapshot must be durable before this is called.
    ///
    /// # Errors
    /// [`WalError::OutOfRange`] if `index` is below the floor, or at it with another term; after [`WalError::Io`] the log is poisoned.
    pub fn reset(&mut self, index: u64, term: u64) -> Result<(), WalError> {
        self.check_usable()?;
        let (floor, floor_term) = self.floor();
        if index < floor || (index == floor && term != floor_term) {
            return Err(self.out_of_range(index, Some(term)));
        }
        self.drop_pending();
        // The cut lies before everything: every segment of a lower generation is dead from now on.
        self.commit = index;
        self.control.change(|slot| {
            slot.generation += 1;
            slot.cut = Cut::default();
            slot.floor = (index, term);
            slot.watermark = Mark {
                segment: 0,
                offset: 0,
                index,
                term,
            };
            slot.commit = index;
        });
        self.control
            .store()
            .map_err(|fault| self.shared.fail(fault))?;
        let dropped = {
            let mut view = self.shared.view();
            view.floor = (index, term);
            view.last_index = index;
            view.terms.clear();
            view.segments.drain(..).rev().collect()
        };
        self.tail = None;
        self.terms.clear();
        self.last_index = index;
        self.last_term = term;
        self.remove_segments(dropped)
            .map_err(|fault| self.shared.fail(fault))
    }

    fn out_of_range(&self, index: u64, term: Option<u64>) -> WalError {
        let (first_index, last_index) = (self.first_index(), self.last_index);
        WalError::OutOfRange {
            index,
            term,
            first_index,
            last_index,
        }
    }

    /// Takes `from` and what follows out of readers' sight. Returns the segments to remove, newest first,
    /// and the new tail.
    fn unlist(&mut self, from: u64) -> (Vec<Listed<F>>, TailSegment<F>) {
        // The old tail's own reference would look like a reader's if the cut lies further back.
        self.tail = None;
        let mut view = self.shared.view();
        let at = view.segment_of(from);
        let dropped = view.segments.drain(at + 1..).rev().collect();
        let end = view.offset_in(at, from);
        view.last_index = from - 1;
        view.terms.truncate(from);
        let listed = &mut view.segments[at];
        let count = from - listed.segment.base;
        listed.offsets.truncate(count as usize);
        listed.end = end;
        let segment = Arc::clone(&listed.segment);
        // Readers take their reference under this mutex, and from now on they find nothing at or above
        // `from` here: whoever holds none by now will never see these bytes.
        let full = Arc::strong_count(&segment) > OWN_REFERENCES;
        (
            dropped,
            TailSegment {
                segment,
                end,
                count,
                full,
            },
        )
    }

    /// Stores the cut before any byte behind it changes.
    fn lower(&mut self, from: u64, keep: &TailSegment<F>) -> Result<(), IoFault> {
        self.terms.truncate(from);
        self.last_index = from - 1;
        self.last_term = self
            .term(self.last_index)
            .expect("the last entry or the floor has a term");
        self.commit = self.commit.min(self.last_index);
        let (segment, offset) = (keep.segment.number, keep.end);
        let watermark = Mark {
            segment,
            offset,
            index: self.last_index,
            term: self.last_term,
        };
        let commit = self.commit;
        self.control.change(|slot| {
            slot.generation += 1;
            slot.cut = Cut { segment, offset };
            slot.watermark = watermark;
            slot.commit = slot.commit.min(commit);
        });
        self.control.store()
    }

    /// Raises the floor for readers; returns the segments that nobody needs any more, oldest first.
    fn unlist_before(&mut self, index: u64, term: u64) -> Vec<Listed<F>> {
        self.terms.drop_before(index + 1);
        let mut view = self.shared.view();
        view.floor = (index, term);
        view.terms.drop_before(index + 1);
        let mut dropped = Vec::new();
        while view
            .segments
            .get(1)
            .is_some_and(|next| next.segment.base <= index + 1)
        {
            dropped.extend(view.segments.pop_front());
        }
        dropped
    }

    fn remove_segments(&mut self, dropped: Vec<Listed<F>>) -> Result<(), IoFault> {
        if dropped.is_empty() {
            return Ok(());
        }
        for listed in dropped {
            let segment = &listed.segment;
            // Who still reads keeps the file; only its name goes.
            self.fs
                .remove(&segment.path)
                .during("remove", &segment.path)?;
            self.shared
                .bytes
                .fetch_sub(segment.bytes, Ordering::Relaxed);
        }
        self.fs.sync_dir(&self.dir).during("sync", &self.dir)
    }

    /// Forgets what was accepted but not written; spares that were meant for it are spares again.
    fn drop_pending(&mut self) {
        for run in std::mem::take(&mut self.pending) {
            if let Some((spare, _)) = run.fresh {
                self.shared.pool().ready.push(spare);
            }
        }
    }
}

/// Removes files by name, in order, and makes that durable.
pub(super) fn remove_all<F: Fs>(
    fs: &F,
    dir: &std::path::Path,
    paths: &[PathBuf],
) -> Result<(), IoFault> {
    for path in paths {
        fs.remove(path).during("remove", path)?;
    }
    fs.sync_dir(dir).during("sync", dir)
}
