//! Finding the live segments of a directory and reading them back. Changes nothing but copies of what is
//! there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Tail;
use crate::control::Control;
use crate::dir::{self, Name};
use crate::error::{Corruption, IoContext, IoFault, OpenError};
use crate::format::{
    Check, ControlSlot, Cut, Fault, Mark, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_USED, SegmentHeader,
};
use crate::fs::{File, Fs};
use crate::options::{Binding, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::recovery::{Damage, Rules, Scan, scan};
use crate::segment::{Segment, Spare};
use crate::twin::EIO;

/// Segments are read in pieces of this size, and around an unreadable place in units.
const READ_BYTES: usize = 1 << 20;
const UNIT_BYTES: usize = 512;

/// A live segment, read back.
pub(super) struct Live<F: Fs> {
    pub(super) segment: Arc<Segment<F>>,
    pub(super) scan: Scan,
}

pub(super) struct Recovered<F: Fs> {
    pub(super) live: Vec<Live<F>>,
    pub(super) floor: (u64, u64),
    pub(super) watermark: Mark,
    pub(super) commit: u64,
    pub(super) last_index: u64,
    pub(super) last_term: u64,
    pub(super) highest_number: u64,
}

pub(super) struct Opener<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) dir: &'a Path,
    pub(super) binding: Binding,
    pub(super) slot: ControlSlot,
    /// One segment's bytes; reused.
    pub(super) buffer: Vec<u8>,
}

/// A segment file whose header was read.
struct Found<F: Fs> {
    header: SegmentHeader,
    path: PathBuf,
    file: F::File,
}

impl<F: Fs> Opener<'_, F> {
    pub(super) fn recover(&mut self, names: &[String]) -> Result<Recovered<F>, OpenError> {
        let numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| match dir::parse_name(name) {
                Name::Segment(number) => Some(number),
                Name::Spare(_) | Name::Temporary | Name::Other => None,
            })
            .collect();
        let mut found = Vec::new();
        for number in &numbers {
            found.extend(self.find_live(*number)?);
        }
        // Whole segments at or below the floor: a purge was interrupted.
        let needless = found
            .iter()
            .skip(1)
            .take_while(|next| next.header.base <= self.slot.floor.0 + 1)
            .count();
        found.drain(..needless);
        self.check_complete(&found)?;
        let live = self.read_all(found)?;
        let highest_number = numbers
            .last()
            .copied()
            .unwrap_or(0)
            .max(self.slot.watermark.segment);
        let highest_number = highest_number.max(self.slot.cut.segment);
        self.conclude(live, highest_number)
    }

    /// Reads a segment's header; `None` if a cut has made all of the segment dead.
    fn find_live(&self, number: u64) -> Result<Option<Found<F>>, OpenError> {
        let path = dir::segment_path(self.dir, number);
        let file = self.fs.open(&path).during("open", &path)?;
        let corrupt = |fault| OpenError::from(Corruption::of_block(&path, 0, fault));
        let mut bytes = [0; SEGMENT_HEADER_USED];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.raw_os_error() == Some(EIO) => {
                return Err(corrupt(Fault::new(
                    Check::Unreadable,
                    0u32,
                    EIO.unsigned_abs(),
                )));
            }
            // A file too short for a header fails its checks on zeros.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => bytes.fill(0),
            result => result.during("read", &path)?,
        }
        let header = SegmentHeader::decode(&bytes, self.binding)
            .map_err(|error| OpenError::of_block(&path, 0, self.binding, error))?;
        if header.number != number {
            return Err(corrupt(Fault::new(Check::Number, number, header.number)));
        }
        if header.generation > self.slot.generation {
            return Err(corrupt(Fault::new(
                Check::Generation,
                self.slot.generation,
                header.generation,
            )));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.segment_bytes) {
            return Err(corrupt(Fault::new(
                Check::Length,
                SEGMENT_BYTES_MAX,
                header.segment_bytes,
            )));
        }
        let length = file.len().during("measure", &path)?;
        if length != header.segment_bytes {
            return Err(corrupt(Fault::new(
                Check::FileLength,
                header.segment_bytes,
                length,
            )));
        }
        let dead = header.generation < self.slot.generation && number > self.slot.cut.segment;
        Ok((!dead).then_some(Found { header, path, file }))
    }

    /// Nothing may be missing in (floor, watermark].
    fn check_complete(&self, found: &[Found<F>]) -> Result<(), OpenError> {
        let (floor, watermark) = (self.slot.floor.0, self.slot.watermark);
        if found.last().map_or(0, |last| last.header.number) < watermark.segment {
            let file = dir::segment_path(self.dir, watermark.segment);
            return Err(OpenError::Missing {
                file,
                index: watermark.index,
            });
        }
        if found
            .first()
            .is_some_and(|first| first.header.base > floor + 1)
        {
            return Err(OpenError::Missing {
                file: self.dir.to_path_buf(),
                index: floor + 1,
            });
        }
        if found.is_empty() && watermark.index > floor {
            return Err(OpenError::Missing {
                file: self.dir.to_path_buf(),
                index: floor + 1,
            });
        }
        Ok(())
    }

    fn read_all(&mut self, found: Vec<Found<F>>) -> Result<Vec<Live<F>>, OpenError> {
        let bases: Vec<u64> = found.iter().map(|found| found.header.base).collect();
        let mut live: Vec<Live<F>> = Vec::with_capacity(found.len());
        for (at, found) in found.into_iter().enumerate() {
            if let Some(before) = live.last() {
                check_follows(before, &found)?;
            }
            let next_base = bases.get(at + 1).copied();
            live.push(self.read_one(found, next_base)?);
        }
        Ok(live)
    }

    fn read_one(&mut self, found: Found<F>, next_base: Option<u64>) -> Result<Live<F>, OpenError> {
        let Found { header, path, file } = found;
        let unreadable = self.read_whole(&file, &path, header.segment_bytes)?;
        let rules = Rules {
            cluster: self.binding.cluster,
            generation: self.slot.generation,
            cut: self.slot.cut,
            watermark: self.slot.watermark,
            next_base,
            unreadable,
        };
        let scan =
            scan(&rules, &header, &self.buffer).map_err(|damage| corruption(&path, &damage))?;
        self.rewrite(&file, &path, header.number, scan.end)?;
        let segment = Arc::new(Segment::new(path, file, &header)?);
        Ok(Live { segment, scan })
    }

    /// Reads a segment with `pread`, so that an unreadable place is an error and not a signal.
    fn read_whole(
        &mut self,
        file: &F::File,
        path: &Path,
        bytes: u64,
    ) -> Result<Option<(u64, i32)>, OpenError> {
        self.buffer.clear();
        self.buffer.resize(bytes as usize, 0);
        let mut offset = 0;
        for piece in self.buffer.chunks_mut(READ_BYTES) {
            match file.read_exact_at(piece, offset) {
                Err(error) if error.raw_os_error() == Some(EIO) => {
                    return Ok(Some((first_unreadable(file, piece, offset), EIO)));
                }
                result => result.during("read", path)?,
            }
            offset += piece.len() as u64;
        }
        Ok(None)
    }

    /// Writes every valid record above the last synced watermark once more and syncs it.
    ///
    /// What was read may be in memory only: after a failed sync the cache holds the new bytes as clean,
    /// the disk the old ones, and a bare sync would do nothing.
    fn rewrite(&self, file: &F::File, path: &Path, number: u64, end: u64) -> Result<(), OpenError> {
        let synced = self.slot.synced_watermark;
        if number < synced.segment {
            return Ok(());
        }
        let from = if number == synced.segment {
            synced.offset
        } else {
            SEGMENT_HEADER_BYTES
        };
        if from >= end {
            return Ok(());
        }
        let bytes = &self.buffer[from as usize..end as usize];
        file.write_at(bytes, from).during("write", path)?;
        file.sync_data().during("sync", path)?;
        Ok(())
    }

    fn conclude(&self, live: Vec<Live<F>>, highest_number: u64) -> Result<Recovered<F>, OpenError> {
        let floor = self.slot.floor;
        let (mut last_index, mut last_term) = floor;
        if let Some(last) = live.last() {
            let next = last.segment.base + last.scan.offsets.len() as u64;
            if next <= floor.0 {
                // A purge goes no further than what was synced.
                return Err(OpenError::Missing {
                    file: last.segment.path.clone(),
                    index: next,
                });
            }
            if next > floor.0 + 1 {
                (last_index, last_term) = (next - 1, last.scan.last_term);
            }
        }
        let watermark = match live.last() {
            Some(last) => {
                let (segment, offset) = (last.segment.number, last.scan.end);
                Mark {
                    segment,
                    offset,
                    index: last_index,
                    term: last_term,
                }
            }
            None => Mark {
                segment: 0,
                offset: 0,
                index: last_index,
                term: last_term,
            },
        };
        self.check_watermark_term(&live)?;
        let commit = self.slot.commit.min(last_index).max(floor.0);
        Ok(Recovered {
            live,
            floor,
            watermark,
            commit,
            last_index,
            last_term,
            highest_number,
        })
    }

    /// The entry the watermark names must be the one that is there.
    fn check_watermark_term(&self, live: &[Live<F>]) -> Result<(), OpenError> {
        for (index, term) in [
            self.slot.floor,
            (self.slot.watermark.index, self.slot.watermark.term),
        ] {
            let holder = live.iter().rev().find(|live| live.segment.base <= index);
            let Some(holder) = holder else { continue };
            let found = holder.scan.terms.term(index).filter(|_| index != 0);
            if let Some(found) = found
                && found != term
            {
                let at = (index - holder.segment.base) as usize;
                let offset = holder
                    .scan
                    .offsets
                    .get(at)
                    .map_or(0, |offset| u64::from(*offset));
                let fault = Fault::new(Check::Term, term, found);
                let damage = Damage {
                    offset,
                    index,
                    term: Some(found),
                    fault,
                };
                return Err(corruption(&holder.segment.path, &damage));
            }
        }
        Ok(())
    }

    /// Spares of the right size; others go to the leftovers.
    pub(super) fn find_spares(
        &self,
        names: &[String],
        segment_bytes: u64,
        leftovers: &mut Vec<PathBuf>,
    ) -> Result<Vec<(u64, Spare<F>)>, OpenError> {
        let mut spares = Vec::new();
        for name in names {
            let Name::Spare(number) = dir::parse_name(name) else {
                continue;
            };
            let path = dir::spare_path(self.dir, number);
            let file = self.fs.open(&path).during("open", &path)?;
            let bytes = file.len().during("measure", &path)?;
            if bytes == segment_bytes {
                spares.push((number, Spare { path, file, bytes }));
            } else {
                leftovers.push(path);
            }
        }
        Ok(spares)
    }

    /// Files that an interrupted purge, truncation, reset or preparation left. Newest segment first: a
    /// crash in between must not leave a gap.
    pub(super) fn leftovers(&self, names: &[String], recovered: &Recovered<F>) -> Vec<PathBuf> {
        let is_live = |number: u64| {
            recovered
                .live
                .iter()
                .any(|live| live.segment.number == number)
        };
        let mut paths: Vec<PathBuf> = names
            .iter()
            .filter(|name| match dir::parse_name(name) {
                Name::Segment(number) => !is_live(number),
                Name::Temporary => true,
                Name::Spare(_) | Name::Other => false,
            })
            .map(|name| self.dir.join(name))
            .collect();
        paths.reverse();
        paths
    }
}

fn check_follows<F: Fs>(before: &Live<F>, found: &Found<F>) -> Result<(), OpenError> {
    let header = &found.header;
    // The scan of the segment before went exactly up to this base.
    if header.previous_term != before.scan.last_term {
        let fault = Fault::new(Check::Term, before.scan.last_term, header.previous_term);
        let block = Corruption::of_block(&found.path, 0, fault);
        return Err(Corruption {
            index: Some(header.base),
            ..block
        }
        .into());
    }
    Ok(())
}

fn corruption(path: &Path, damage: &Damage) -> OpenError {
    let block = Corruption::of_block(path, damage.offset, damage.fault);
    Corruption {
        index: Some(damage.index),
        term: damage.term,
        ..block
    }
    .into()
}

/// First unit of a piece that cannot be read.
fn first_unreadable<T: File>(file: &T, piece: &mut [u8], offset: u64) -> u64 {
    let mut place = offset;
    for unit in piece.chunks_mut(UNIT_BYTES) {
        if file.read_exact_at(unit, place).is_err() {
            unit.fill(0);
            return place;
        }
        place += unit.len() as u64;
    }
    // It could be read after all, but a medium that answers now and then is not to be trusted.
    offset
}

impl<F: Fs> Recovered<F> {
    /// Prepares the control file for what was found. The cut at the end makes everything behind it dead,
    /// torn or not: it must not come back to life behind the next record.
    pub(super) fn settle(&self, control: &mut Control<F>) -> Result<(), IoFault> {
        control.settle()?;
        let (watermark, floor, commit) = (self.watermark, self.floor, self.commit);
        control.change(|slot| {
            slot.generation += 1;
            slot.cut = Cut {
                segment: watermark.segment,
                offset: watermark.offset,
            };
            slot.watermark = watermark;
            // The records were just written and synced.
            slot.synced_watermark = watermark;
            slot.floor = floor;
            slot.commit = commit;
        });
        Ok(())
    }

    pub(super) fn tail_state(&self, closed: bool) -> Tail {
        match self.live.last() {
            Some(last) if last.scan.torn_bytes > 0 && !closed => Tail::TornDropped {
                segment: last.segment.path.clone(),
                offset: last.scan.end,
                bytes: last.scan.torn_bytes,
            },
            Some(_) | None => Tail::Clean,
        }
    }
}
