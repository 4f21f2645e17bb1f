//! Making the log shorter: from the back, from the front, and all of it.
//!
//! One order for all three: what the control file must say is synced there first, and only then does
//! anything change that it speaks of. A crash in between leaves a control file that makes the leftovers
//! dead, and `open` removes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Wal;
use crate::dir;
use crate::error::{IoContext, IoFault, WalError};
use crate::format::{Cut, Mark};
use crate::fs::Fs;
use crate::segment::{Segment, Spare, TailSegment, wipe_headers};
use crate::view::{Listed, Places};

/// Who holds a segment that stays in the list and becomes the tail: the list, and the new tail. Any other reference is that
/// of a reader, or of whoever writes its index.
const OWN_REFERENCES: usize = 2;

impl<F: Fs> Wal<F> {
    /// Drops all entries from `from` on, durable on return.
    ///
    /// The story without the generation: n1 led term 8 over (101, t7) and (102, t7), which it overwrites
    /// with (101, t8). If the leftover (102, t7) still looked like the log's end, n1 would win elections
    /// with a last entry it no longer has.
    ///
    /// # Errors
    /// [`WalError::OutOfRange`] if `from` is purged, and [`WalError::UnknownEnd`] if the log would end with an entry of
    /// which not even the term is known, change nothing, as does [`WalError::NoSpace`], which can come only if repaired
    /// entries are cut off; after [`WalError::Io`] the log is poisoned.
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
        let end_term = self.term(from - 1);
        let end_term = end_term.ok_or(WalError::UnknownEnd { index: from - 1 })?;
        if self.repairs.last() >= from {
            self.reserve_spare_for_copies()?; // For the copies that stay.
        }
        let (dropped, keep) = self.unlist(from).map_err(|fault| self.shared.fail(fault))?;
        self.lower(from, end_term, &keep)
            .map_err(|fault| self.shared.fail(fault))?;
        self.remove_segments(dropped)
            .map_err(|fault| self.shared.fail(fault))?;
        self.tail = Some(keep);
        self.drop_copies_from(from)
    }

    /// Copies of entries that were cut off must not outlive them: one could be taken for that of a later entry of
    /// the same index.
    fn drop_copies_from(&mut self, from: u64) -> Result<(), WalError> {
        if self.repairs.last() < from {
            return Ok(());
        }
        let kept: Vec<_> = self.shared.view().repaired.values().cloned().collect();
        let (cluster, generation) = (self.binding.cluster, self.control.slot().generation);
        let spare = self.shared.pool().ready.pop();
        let (fs, dir, binding) = (&self.fs, &self.dir, self.binding);
        let rewritten = self
            .repairs
            .rewrite(cluster, generation, &kept, |repairs| {
                let spare = spare.expect("one was reserved before anything changed");
                repairs.begin_file(fs, dir, binding, generation, spare)
            })
            .map_err(|fault| self.shared.fail(fault))?;
        {
            let mut view = self.shared.view();
            let moved = rewritten.parts.into_iter();
            let places = moved.map(|part| (part.indexes.start, part));
            view.repaired = places.collect();
        }
        self.remove_all_of(rewritten.old)
            .map_err(|fault| self.shared.fail(fault))
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
        if !self.may_end_at(through_index, through_term) {
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
            .and_then(|()| {
                let copies = self.repairs.take_through(through_index);
                self.remove_all_of(copies)
            })
            .map_err(|fault| self.shared.fail(fault))
    }

    /// Whether the log is synced up to this entry, and holds it or may have held it.
    fn may_end_at(&self, index: u64, term: u64) -> bool {
        let view = self.shared.view();
        let is_unknown = view
            .faulty
            .get(&index)
            .is_some_and(|corruption| corruption.term.is_none());
        is_unknown || view.term(index) == Some(term)
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
            view.forget_damage_from(0);
            view.cuts += 1;
            view.segments.drain(..).rev().collect()
        };
        self.tail = None;
        self.terms.clear();
        self.last_index = index;
        self.last_term = term;
        self.remove_segments(dropped)
            .and_then(|()| {
                let copies = self.repairs.take_through(u64::MAX);
                self.remove_all_of(copies)
            })
            .map_err(|fault| self.shared.fail(fault))
    }

    pub(super) fn out_of_range(&self, index: u64, term: Option<u64>) -> WalError {
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
    fn unlist(&mut self, from: u64) -> Result<(Vec<Listed<F>>, TailSegment<F>), IoFault> {
        // The old tail's own reference would look like a reader's if the cut lies further back.
        self.tail = None;
        let mut view = self.shared.view();
        let at = view.segment_of(from);
        let listed = &view.segments[at];
        let path = &listed.segment.path;
        let end = listed.offset(from).during("read", path)?;
        let dropped = view.segments.drain(at + 1..).rev().collect();
        view.last_index = from - 1;
        view.terms.truncate(from);
        view.forget_damage_from(from);
        view.cuts += 1;
        let listed = &mut view.segments[at];
        let count = from - listed.segment.base;
        listed.count = count;
        listed.end = end;
        if let Places::Listed(offsets) = &mut listed.places {
            offsets.truncate(count as usize);
        }
        let is_sealed = listed.is_sealed;
        let segment = Arc::clone(&listed.segment);
        // Readers take their reference under this mutex, and from now on they find nothing at or above
        // `from` here: whoever holds none by now will never see these bytes.
        let full = is_sealed || Arc::strong_count(&segment) > OWN_REFERENCES;
        let keep = TailSegment {
            segment,
            end,
            count,
            full,
        };
        Ok((dropped, keep))
    }

    /// Stores the cut before any byte behind it changes.
    fn lower(&mut self, from: u64, end_term: u64, keep: &TailSegment<F>) -> Result<(), IoFault> {
        self.terms.truncate(from);
        self.last_index = from - 1;
        self.last_term = end_term;
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
        view.forget_damage_through(index);
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

    /// Segments that nobody needs any more become spares, as far as some are wanted, or go.
    fn remove_segments(&mut self, dropped: Vec<Listed<F>>) -> Result<(), IoFault> {
        let segments = dropped.into_iter().map(|listed| listed.segment);
        self.remove_all_of(segments.collect())
    }

    pub(super) fn remove_all_of(&mut self, segments: Vec<Arc<Segment<F>>>) -> Result<(), IoFault> {
        if segments.is_empty() {
            return Ok(());
        }
        let mut spares = Vec::new();
        for segment in segments {
            let path = segment.path.clone();
            match self.recyclable(segment, spares.len()) {
                Some((number, segment)) => {
                    let spare_path = dir::spare_path(&self.dir, number);
                    self.fs.rename(&path, &spare_path).during("rename", &path)?;
                    spares.push(Spare {
                        path: spare_path,
                        file: segment.file,
                        bytes: segment.bytes,
                        recycled: true,
                    });
                }
                // Who still reads keeps the file; only its name goes.
                None => self.fs.remove(&path).during("remove", &path)?,
            }
        }
        self.fs.sync_dir(&self.dir).during("sync", &self.dir)?;
        for spare in &spares {
            // Not before its new name is durable: under the old one it must have its header.
            wipe_headers(&spare.file, &spare.path, spare.bytes)?;
        }
        self.shared.pool().ready.extend(spares);
        Ok(())
    }

    /// The segment, and a number for it as a spare, if one is wanted and nobody looks at this one. What goes instead
    /// is no longer counted.
    fn recyclable(&self, segment: Arc<Segment<F>>, taken: usize) -> Option<(u64, Segment<F>)> {
        let bytes = segment.bytes;
        let mut pool = self.shared.pool();
        let ahead = pool.ready.len() + pool.preparing + taken;
        let is_wanted = ahead < self.options.spare_segments && bytes == self.options.segment_bytes;
        let free = Some(segment)
            .filter(|_| is_wanted)
            .and_then(Arc::into_inner);
        if free.is_none() {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        free.map(|segment| (pool.take_number(), segment))
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
