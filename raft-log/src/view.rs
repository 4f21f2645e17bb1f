//! What readers see: the synced part of the log.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Corruption, IoContext, IoFault, ReadError, WalError};
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
    /// Held for a look-up or a publication only, never during a read or write of a file: not even of a
    /// mapped one, because a reader whose page is not in memory would hold up the writer.
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
    /// Entries that are damaged and not put back.
    pub(crate) faulty: BTreeMap<u64, Corruption>,
    /// Where the copies of damaged entries lie that were put back.
    pub(crate) repaired: BTreeMap<u64, Part<F>>,
    /// Grows with each truncation and reset.
    pub(crate) cuts: u64,
}

/// A segment with the places of its records.
#[derive(Debug)]
pub(crate) struct Listed<F: Fs> {
    pub(crate) segment: Arc<Segment<F>>,
    pub(crate) places: Places,
    /// Records that are part of the log, from index `segment.base` on.
    pub(crate) count: u64,
    /// Offset behind the last one.
    pub(crate) end: u64,
    /// It has its index, even if that is not used.
    pub(crate) is_sealed: bool,
    /// A record of it rotted before it got its index.
    pub(crate) cannot_be_sealed: bool,
}

/// Where the records of a segment begin.
#[derive(Debug)]
pub(crate) enum Places {
    /// In memory, as long as the segment has no index.
    Listed(Vec<u32>),
    /// In the index at the segment's end, which has so many lines.
    Indexed { lines: u64 },
}

/// Records of one segment that a reader is going to read. Holding it keeps the bytes unchanged.
#[derive(Debug)]
pub(crate) struct Part<F: Fs> {
    pub(crate) segment: Arc<Segment<F>>,
    pub(crate) indexes: Range<u64>,
    pub(crate) bytes: Range<u64>,
}

impl<F: Fs> Clone for Part<F> {
    fn clone(&self) -> Part<F> {
        Part {
            segment: Arc::clone(&self.segment),
            indexes: self.indexes.clone(),
            bytes: self.bytes.clone(),
        }
    }
}

/// Records of one segment, whose places may still have to be looked up in its index.
#[derive(Debug)]
pub(crate) enum Span<F: Fs> {
    Placed(Part<F>),
    Indexed {
        segment: Arc<Segment<F>>,
        indexes: Range<u64>,
        lines: u64,
        /// Offset behind the segment's last record.
        end: u64,
    },
}

impl<F: Fs> Span<F> {
    /// The longest run of records from its start on that has at most `budget` bytes; at least one record if
    /// `force`.
    pub(crate) fn fit(self, budget: u64, force: bool) -> Result<Option<Part<F>>, IoFault> {
        let (segment, indexes, lines, end) = match self {
            Span::Placed(part) => {
                let bytes = part.bytes.end - part.bytes.start;
                return Ok((force || bytes <= budget).then_some(part));
            }
            Span::Indexed {
                segment,
                indexes,
                lines,
                end,
            } => (segment, indexes, lines, end),
        };
        let offset = |index: u64| match index - segment.base {
            at if at < lines => segment
                .line(at, lines)
                .map(|line| u64::from(line.offset))
                .during("read", &segment.path),
            _ => Ok(end),
        };
        let from = offset(indexes.start)?;
        let least = indexes.start + u64::from(force);
        let (mut fits, mut exceeds) = (least, indexes.end + 1);
        while fits + 1 < exceeds {
            let middle = fits.midpoint(exceeds);
            // Places ascend; one that does not is rotten, and what lies there does not fit.
            let place = offset(middle)?;
            if place > from && place - from <= budget {
                fits = middle;
            } else {
                exceeds = middle;
            }
        }
        let to = offset(fits)?;
        Ok((fits > indexes.start).then_some(Part {
            indexes: indexes.start..fits,
            bytes: from..to.max(from),
            segment,
        }))
    }
}

impl<F: Fs> Listed<F> {
    pub(crate) fn next_index(&self) -> u64 {
        self.segment.base + self.count
    }

    /// Records of a non-empty range of which the first lies here.
    fn span(&self, range: Range<u64>, budget: u64, force: bool) -> Option<Span<F>> {
        let range = range.start..range.end.min(self.next_index());
        match &self.places {
            Places::Listed(offsets) => self.part(offsets, range, budget, force).map(Span::Placed),
            Places::Indexed { lines } => Some(Span::Indexed {
                segment: Arc::clone(&self.segment),
                indexes: range,
                lines: *lines,
                end: self.end,
            }),
        }
    }

    fn part(
        &self,
        offsets: &[u32],
        range: Range<u64>,
        budget: u64,
        force: bool,
    ) -> Option<Part<F>> {
        let place = |at: u64| {
            let offset = offsets.get(at as usize);
            offset.map_or(self.end, |offset| u64::from(*offset))
        };
        let (first, last) = (
            range.start - self.segment.base,
            range.end - self.segment.base,
        );
        let from = place(first);
        // Offsets ascend, so the ends of the records do too.
        let behind_first = &offsets[first as usize + 1..(last as usize).max(first as usize + 1)];
        let fitting = behind_first.partition_point(|offset| u64::from(*offset) - from <= budget);
        let mut count = fitting as u64;
        if first + count + 1 == last && place(last) - from <= budget {
            count += 1;
        }
        if count == 0 && force {
            count = 1;
        }
        (count > 0).then(|| Part {
            segment: Arc::clone(&self.segment),
            indexes: range.start..range.start + count,
            bytes: from..place(first + count),
        })
    }

    /// Offset of `index`, or the end if it is the next one.
    pub(crate) fn offset(&self, index: u64) -> io::Result<u64> {
        let at = index - self.segment.base;
        match &self.places {
            Places::Listed(offsets) => Ok(offsets
                .get(at as usize)
                .map_or(self.end, |offset| u64::from(*offset))),
            Places::Indexed { lines } if at < *lines => {
                let line = self.segment.line(at, *lines)?;
                Ok(u64::from(line.offset))
            }
            Places::Indexed { .. } => Ok(self.end),
        }
    }
}

impl<F: Fs> View<F> {
    pub(crate) fn first_index(&self) -> u64 {
        self.floor.0 + 1
    }

    /// Term of an entry, or of the one before the first; none outside, and none for a damaged entry of
    /// which not even that is known.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.floor.0 {
            return Some(self.floor.1);
        }
        if let Some(corruption) = self.faulty.get(&index) {
            return corruption.term;
        }
        let present = index > self.floor.0 && index <= self.last_index;
        present.then(|| self.terms.term(index)).flatten()
    }

    /// Finds records of a prefix of `range` that lie together; none if they do not fit into `budget` bytes
    /// and need not.
    pub(crate) fn find(
        &self,
        range: Range<u64>,
        budget: u64,
        force: bool,
    ) -> Result<Option<Span<F>>, ReadError> {
        let start = range.start;
        if start < self.first_index() {
            return Err(ReadError::Compacted {
                first_index: self.first_index(),
            });
        }
        if range.end > self.last_index + 1 {
            return Err(ReadError::Unavailable {
                last_index: self.last_index,
            });
        }
        let listed = &self.segments[self.segment_of(start)];
        if self.faulty.is_empty() && self.repaired.is_empty() {
            return Ok(listed.span(range, budget, force)); // As mostly.
        }
        if let Some(part) = self.repaired.get(&start) {
            return Ok(Some(Span::Placed(part.clone())));
        }
        if let Some(corruption) = self.faulty.get(&start) {
            return Err(ReadError::Corrupt(corruption.clone()));
        }
        let end = self.end_of_intact(start).min(range.end);
        Ok(listed.span(start..end, budget, force))
    }

    /// First index above `start` that does not lie where it was written.
    fn end_of_intact(&self, start: u64) -> u64 {
        let faulty = self.faulty.range(start..).next().map(|(index, _)| *index);
        let repaired = self.repaired.range(start..).next().map(|(index, _)| *index);
        faulty.unwrap_or(u64::MAX).min(repaired.unwrap_or(u64::MAX))
    }

    /// Position in the list of the segment that holds `index`.
    pub(crate) fn segment_of(&self, index: u64) -> usize {
        // Of several segments with the same base, all but the last are empty.
        self.segments
            .partition_point(|listed| listed.segment.base <= index)
            .saturating_sub(1)
    }

    /// Forgets what was known of damage at or above `index`.
    pub(crate) fn forget_damage_from(&mut self, index: u64) {
        self.faulty.split_off(&index);
        self.repaired.split_off(&index);
    }

    /// Forgets what was known of damage at or below `index`.
    pub(crate) fn forget_damage_through(&mut self, index: u64) {
        self.faulty = self.faulty.split_off(&(index + 1));
        self.repaired = self.repaired.split_off(&(index + 1));
    }
}
