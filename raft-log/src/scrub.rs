//! Reading the log through, a piece at a time, to find rot before somebody needs the entry.

use std::ops::Range;

use crate::error::{Corruption, IoFault, ReadError};
use crate::format::{Check, Fault};
use crate::fs::{File, Fs};
use crate::reader::{Reader, check_part, check_place};
use crate::twin::EIO;
use crate::view::Part;

/// A walk over the whole log that begins anew when it has come to the end.
///
/// It reads with `pread`, so that a place which the medium does not give back is damage like any other. How fast it
/// goes is the caller's: so many bytes with each [`step`](Scrub::step), and a pause in between.
#[derive(Debug)]
pub struct Scrub<F: Fs> {
    reader: Reader<F>,
    next: u64,
}

/// What one step found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// The entries that were looked at.
    pub indexes: Range<u64>,
    /// Their stored bytes.
    pub bytes: u64,
    /// Those that are damaged.
    pub damaged: Vec<Corruption>,
    /// The log's end was reached: the next step begins at its front.
    pub is_round_done: bool,
}

impl<F: Fs> Reader<F> {
    /// A walk over all entries that verifies each.
    #[must_use]
    pub fn scrub(&self) -> Scrub<F> {
        self.scrub_from(0)
    }

    /// The same, of which the first round begins at `index`.
    #[must_use]
    pub fn scrub_from(&self, index: u64) -> Scrub<F> {
        Scrub {
            reader: self.clone(),
            next: index,
        }
    }
}

impl<F: Fs> Scrub<F> {
    /// Verifies the next entries, of about `max_bytes` stored bytes and at least one.
    ///
    /// # Errors
    /// [`ReadError::Io`] if the file system failed otherwise than by not giving bytes back.
    pub fn step(&mut self, max_bytes: u64) -> Result<Scrubbed, ReadError> {
        let start = self.next.max(self.reader.first_index());
        let end = self.reader.last_index() + 1;
        let mut found = Scrubbed {
            indexes: start..start,
            ..Scrubbed::default()
        };
        if start < end {
            self.verify(start..end, max_bytes, &mut found)?;
        }
        found.is_round_done = found.indexes.end >= end;
        self.next = if found.is_round_done {
            0
        } else {
            found.indexes.end
        };
        Ok(found)
    }

    fn verify(
        &self,
        range: Range<u64>,
        max_bytes: u64,
        found: &mut Scrubbed,
    ) -> Result<(), ReadError> {
        let held = match self.reader.hold(range.clone(), max_bytes) {
            Ok(held) => held,
            // Purged or cut off meanwhile: the next step looks where the log is then.
            Err(ReadError::Compacted { .. } | ReadError::Unavailable { .. }) => {
                found.indexes.end = range.end;
                return Ok(());
            }
            Err(ReadError::Corrupt(corruption)) => {
                found.indexes.end = range.start + 1;
                found.damaged.push(corruption);
                return Ok(());
            }
            Err(error @ ReadError::Io(_)) => return Err(error),
        };
        for part in held.parts() {
            let good = self.verify_part(part, found)?;
            if !good {
                break;
            }
        }
        Ok(())
    }

    /// Verifies records that lie together, up to the first damaged one. Returns whether there was none.
    fn verify_part(&self, part: &Part<F>, found: &mut Scrubbed) -> Result<bool, ReadError> {
        if let Err(corruption) = check_place(part) {
            found.indexes.end = part.indexes.start + 1;
            found.damaged.push(corruption);
            return Ok(false);
        }
        let (path, length) = (&part.segment.path, part.bytes.end - part.bytes.start);
        let mut bytes = vec![0; length as usize];
        let read = part
            .segment
            .file
            .read_exact_at(&mut bytes, part.bytes.start);
        let (end, damage) = match read {
            Ok(()) => match check_part(part, self.reader.shared.cluster, &bytes) {
                Ok(()) => (part.indexes.end, None),
                Err(corruption) => {
                    let index = corruption.index.unwrap_or(part.indexes.start);
                    (index + 1, Some(corruption))
                }
            },
            // Which of them cannot be read shows when each is read alone.
            Err(error)
                if error.raw_os_error() == Some(EIO)
                    && part.indexes.end - part.indexes.start > 1 =>
            {
                let index = part.indexes.start;
                let alone = self.reader.hold(index..index + 1, 0)?;
                for part in alone.parts() {
                    self.verify_part(part, found)?;
                }
                return Ok(false);
            }
            Err(error) if error.raw_os_error() == Some(EIO) => {
                let fault = Fault::new(Check::Unreadable, 0u32, EIO.unsigned_abs());
                let block = Corruption::of_block(path, part.bytes.start, fault);
                let index = part.indexes.start;
                let corruption = Corruption {
                    index: Some(index),
                    term: self.reader.term(index),
                    ..block
                };
                (part.indexes.end, Some(corruption))
            }
            Err(error) => return Err(IoFault::new(path, "read", error).into()),
        };
        found.indexes.end = end;
        found.bytes += length;
        let is_good = damage.is_none();
        found.damaged.extend(damage);
        Ok(is_good)
    }
}
