//! What readers see: the synced part of the log.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{IoFault, ReadError, WalError};
use crate::fs::Fs;
use crate::segment::{Pool, Segment};
use crate::terms::Terms;

/// Shared by the writer, its readers and its preparers.
#[derive(Debug)]
pub(crate) struct Shared<F: Fs> {
    pub(crate) cluster: u32,
    pub(crate) view: Mutex<View<F>>,
    pub(crate) pool: Mutex<Pool<F>>,
    /// Bytes of all segments and spares.
    pub(crate) bytes: AtomicU64,
    pub(crate) poisoned: AtomicBool,
}

impl<F: Fs> Shared<F> {
    /// Held for a look-up or a publication only, never during a read or write of a file.
    pub(crate) fn view(&self) -> MutexGuard<'_, View<F>> {
        // A panic elsewhere leaves the view as of the last completed publication or one entry further;
        // both are synced.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// The file system failed: from now on nothing is taken any more.
    pub(crate) fn fail(&self, fault: IoFault) -> WalError {
        self.poisoned.store(true, Ordering::Relaxed);
        WalError::Io(fault)
    }

    /// An error while allocating: final, unless there was only no room.
    pub(crate) fn fail_unless_full(&self, error: WalError) -> WalError {
        if let WalError::Io(fault) = error {
            self.fail(fault)
        } else {
            error
        }
    }
}

/// The synced part of the log.
#[derive(Debug)]
pub(crate) struct View<F: Fs> {
    /// (index, term): everything at or below is purged or in a snapshot.
    pub(crate) floor: (u64, u64),
    pub(crate) last_index: u64,
    pub(crate) terms: Terms,
    pub(crate) segments: VecDeque<Listed<F>>,
}

/// A segment with the places of its records.
#[derive(Debug)]
pub(crate) struct Listed<F: Fs> {
    pub(crate) segment: Arc<Segment<F>>,
    /// Offset of each record, from index `segment.base` on.
    pub(crate) offsets: Vec<u32>,
    /// Offset behind the last one.
    pub(crate) end: u64,
}

/// Records of one segment that a reader is going to read. Holding it keeps the bytes unchanged.
#[derive(Debug)]
pub(crate) struct Part<F: Fs> {
    pub(crate) segment: Arc<Segment<F>>,
    pub(crate) indexes: Range<u64>,
    pub(crate) bytes: Range<u64>,
}

impl<F: Fs> Listed<F> {
    fn offset(&self, index: u64) -> u64 {
        let at = (index - self.segment.base) as usize;
        self.offsets
            .get(at)
            .map_or(self.end, |offset| u64::from(*offset))
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.segment.base + self.offsets.len() as u64
    }

    /// The longest run of records from `start` on that ends before `end` and has at most `budget` bytes;
    /// at least one record if `force`.
    fn part(&self, start: u64, end: u64, budget: u64, force: bool) -> Option<Part<F>> {
        let end = end.min(self.next_index());
        let from = self.offset(start);
        let first = (start - self.segment.base) as usize + 1;
        let last = (end - self.segment.base) as usize;
        // Offsets ascend, so the ends of the records do too.
        let behind_first = self.offsets.get(first..last).unwrap_or(&[]);
        let fitting = behind_first.partition_point(|offset| u64::from(*offset) - from <= budget);
        let mut count = fitting as u64;
        if start + count + 1 == end && self.offset(end) - from <= budget {
            count += 1;
        }
        if count == 0 && force {
            count = 1;
        }
        let end = start + count;
        (count > 0).then(|| Part {
            segment: Arc::clone(&self.segment),
            indexes: start..end,
            bytes: from..self.offset(end),
        })
    }
}

impl<F: Fs> View<F> {
    pub(crate) fn first_index(&self) -> u64 {
        self.floor.0 + 1
    }

    /// Term of an entry, or of the one before the first.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.floor.0 {
            return Some(self.floor.1);
        }
        let present = index > self.floor.0 && index <= self.last_index;
        present.then(|| self.terms.term(index)).flatten()
    }

    /// Finds the records of a prefix of `range`.
    pub(crate) fn locate(
        &self,
        range: Range<u64>,
        max_bytes: u64,
    ) -> Result<Vec<Part<F>>, ReadError> {
        let mut parts = Vec::new();
        if range.is_empty() {
            return Ok(parts);
        }
        if range.start < self.first_index() {
            return Err(ReadError::Compacted {
                first_index: self.first_index(),
            });
        }
        if range.end > self.last_index + 1 {
            return Err(ReadError::Unavailable {
                last_index: self.last_index,
            });
        }
        let (mut next, mut budget) = (range.start, max_bytes);
        for at in self.segment_of(next)..self.segments.len() {
            let listed = &self.segments[at];
            if listed.next_index() <= next {
                continue;
            }
            let Some(part) = listed.part(next, range.end, budget, parts.is_empty()) else {
                break;
            };
            budget = budget.saturating_sub(part.bytes.end - part.bytes.start);
            next = part.indexes.end;
            let segment_done = next == listed.next_index();
            parts.push(part);
            if next == range.end || !segment_done {
                break;
            }
        }
        Ok(parts)
    }

    /// Position in the list of the segment that holds `index`.
    pub(crate) fn segment_of(&self, index: u64) -> usize {
        // Of several segments with the same base, all but the last are empty.
        self.segments
            .partition_point(|listed| listed.segment.base <= index)
            .saturating_sub(1)
    }

    /// Offset of `index`, or the end if it is the next one.
    pub(crate) fn offset_in(&self, segment: usize, index: u64) -> u64 {
        self.segments[segment].offset(index)
    }
}
