//! Finding the live segments of a directory and reading them back. Changes nothing but copies of what is
//! there.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Tail;
use super::copies;
use super::find::Found;
use crate::control::Control;
use crate::dir::{self, Name};
use crate::error::{Corruption, IoContext, IoFault, OpenError};
use crate::format::{Check, ControlSlot, Cut, Fault, Mark, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::fs::{File, Fs};
use crate::options::Binding;
use crate::recovery::{Damage, Next, Rules, scan};
use crate::segment::{Segment, Spare};
use crate::terms::Terms;
use crate::twin::{EIO, Report};
use crate::view::{Listed, Places, View};

/// Segments are read in pieces of this size, and around an unreadable place in units.
const READ_BYTES: usize = 1 << 20;
const UNIT_BYTES: usize = 512;

/// A live segment, read back.
pub(super) struct Live<F: Fs> {
    pub(super) segment: Arc<Segment<F>>,
    pub(super) places: Places,
    /// Its entries, damaged ones included.
    pub(super) count: u64,
    pub(super) terms: Terms,
    pub(super) faulty: Vec<Damage>,
    pub(super) end: u64,
    pub(super) last_term: u64,
    pub(super) torn_bytes: u64,
    /// It has its index, so it takes no more records.
    pub(super) is_sealed: bool,
}

impl<F: Fs> Live<F> {
    fn next_index(&self) -> u64 {
        self.segment.base + self.count
    }
}

pub(super) struct Recovered<F: Fs> {
    pub(super) view: View<F>,
    pub(super) watermark: Mark,
    pub(super) commit: u64,
    pub(super) last_term: u64,
    pub(super) highest_number: u64,
    /// Whether the last segment takes no more records.
    pub(super) is_full: bool,
    /// File, place and number of the bytes behind the end, if there are any.
    torn: Option<(PathBuf, u64, u64)>,
    /// Damaged entries, with the kinds of those whose headers are intact.
    pub(super) kinds: Vec<(u64, u8)>,
}

pub(super) struct Opener<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) dir: &'a Path,
    pub(super) binding: Binding,
    pub(super) slot: ControlSlot,
    /// One segment's bytes; reused.
    pub(super) buffer: Vec<u8>,
    /// What was found damaged and mended.
    pub(super) reports: Vec<Report>,
    pub(super) mode: Mode,
}

/// What the directory is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// To be used: what was read is written once more, damaged copies are written anew.
    Use,
    /// To be looked at, perhaps beside its owner: nothing is written.
    Look,
    /// As `Look`, with every record read, also where there is an index.
    Verify,
}

impl<F: Fs> Opener<'_, F> {
    pub(super) fn recover(&mut self, names: &[String]) -> Result<Recovered<F>, OpenError> {
        let numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| match dir::parse_name(name) {
                Name::Segment(number) => Some(number),
                Name::Spare(_) | Name::Repair(_) | Name::Temporary | Name::Other => None,
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
        self.buffer = Vec::new(); // It may be as long as a segment.
        let highest_number = numbers
            .last()
            .copied()
            .unwrap_or(0)
            .max(self.slot.watermark.segment);
        let highest_number = highest_number.max(self.slot.cut.segment);
        self.conclude(live, highest_number)
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
        for pair in found.windows(2) {
            let (before, header) = (&pair[0].header, &pair[1].header);
            // Entries that were cut off could end just where the lost ones did.
            if header.follows != 0 && header.follows != before.number as u32 {
                let number = (header.number >> 32 << 32) | u64::from(header.follows);
                return Err(OpenError::Missing {
                    file: dir::segment_path(self.dir, number),
                    index: header.base - 1,
                });
            }
        }
        Ok(())
    }

    fn read_all(&mut self, found: Vec<Found<F>>) -> Result<Vec<Live<F>>, OpenError> {
        let headers: Vec<SegmentHeader> = found.iter().map(|found| found.header).collect();
        let mut live: Vec<Live<F>> = Vec::with_capacity(found.len());
        for (at, found) in found.into_iter().enumerate() {
            if let Some(before) = live.last() {
                check_follows(before, &found)?;
            }
            let next = headers.get(at + 1).map(Next::of);
            live.push(self.read_one(found, next)?);
        }
        Ok(live)
    }

    fn read_one(&mut self, found: Found<F>, next: Option<Next>) -> Result<Live<F>, OpenError> {
        // All of it was synced before the next segment got its name, so nothing has to be written once more.
        if let Some((footer, next)) = found.footer.zip(next) {
            match copies::read_index(&found.file, &found.path, &found.header, &footer, next)? {
                Ok(_) if self.mode == Mode::Verify => {}
                Ok(index) => {
                    let Found {
                        header, path, file, ..
                    } = found;
                    return Ok(Live {
                        segment: Arc::new(Segment::new(path, file, &header)?),
                        places: Places::Indexed {
                            lines: u64::from(footer.count),
                        },
                        count: next.base - header.base,
                        terms: index.terms,
                        faulty: Vec::new(),
                        end: index.end,
                        last_term: next.previous_term,
                        torn_bytes: 0,
                        is_sealed: true,
                    });
                }
                Err(corruption) => self.reports.push(Report::IndexDamaged(corruption)),
            }
        }
        self.read_records(found, next)
    }

    fn read_records(&mut self, found: Found<F>, next: Option<Next>) -> Result<Live<F>, OpenError> {
        let Found {
            header,
            path,
            file,
            footer,
        } = found;
        let unreadable = self.read_whole(&file, &path, header.segment_bytes)?;
        let rules = Rules {
            cluster: self.binding.cluster,
            generation: self.slot.generation,
            cut: self.slot.cut,
            watermark: self.slot.watermark,
            next,
            unreadable: &unreadable,
        };
        let scan =
            scan(&rules, &header, &self.buffer).map_err(|damage| corruption(&path, &damage))?;
        self.rewrite(&file, &path, header.number, scan.end, &unreadable)?;
        Ok(Live {
            segment: Arc::new(Segment::new(path, file, &header)?),
            count: scan.offsets.len() as u64,
            places: Places::Listed(scan.offsets),
            terms: scan.terms,
            faulty: scan.faulty,
            end: scan.end,
            last_term: scan.last_term,
            torn_bytes: scan.torn_bytes,
            is_sealed: footer.is_some(),
        })
    }

    /// Reads a segment with `pread`, so that an unreadable place is an error and not a signal. Returns the
    /// unreadable places, which are zero in the buffer.
    fn read_whole(
        &mut self,
        file: &F::File,
        path: &Path,
        bytes: u64,
    ) -> Result<Vec<Range<u64>>, OpenError> {
        self.buffer.clear();
        self.buffer.resize(bytes as usize, 0);
        let (mut offset, mut unreadable) = (0, Vec::new());
        for piece in self.buffer.chunks_mut(READ_BYTES) {
            match file.read_exact_at(piece, offset) {
                Err(error) if error.raw_os_error() == Some(EIO) => {
                    unreadable.extend(read_in_units(file, piece, offset));
                }
                result => result.during("read", path)?,
            }
            offset += piece.len() as u64;
        }
        Ok(unreadable)
    }

    /// Writes every valid record above the last synced watermark once more and syncs it.
    ///
    /// What was read may be in memory only: after a failed sync the cache holds the new bytes as clean,
    /// the disk the old ones, and a bare sync would do nothing.
    fn rewrite(
        &self,
        file: &F::File,
        path: &Path,
        number: u64,
        end: u64,
        unreadable: &[Range<u64>],
    ) -> Result<(), OpenError> {
        let synced = self.slot.synced_watermark;
        if number < synced.segment || self.mode != Mode::Use {
            return Ok(());
        }
        let mut from = if number == synced.segment {
            synced.offset
        } else {
            SEGMENT_HEADER_BYTES
        };
        if from >= end {
            return Ok(());
        }
        // What could not be read is not replaced by zeros: it stays what it is.
        let behind = end..end;
        for hole in unreadable.iter().chain([&behind]) {
            let to = hole.start.min(end);
            if from < to {
                let bytes = &self.buffer[from as usize..to as usize];
                file.write_at(bytes, from).during("write", path)?;
            }
            from = from.max(hole.end);
        }
        file.sync_data().during("sync", path)?;
        Ok(())
    }

    fn conclude(&self, live: Vec<Live<F>>, highest_number: u64) -> Result<Recovered<F>, OpenError> {
        let floor = self.slot.floor;
        let (mut last_index, mut last_term) = floor;
        if let Some(last) = live.last() {
            let next = last.next_index();
            if next <= floor.0 {
                // A purge goes no further than what was synced.
                return Err(OpenError::Missing {
                    file: last.segment.path.clone(),
                    index: next,
                });
            }
            if next > floor.0 + 1 {
                (last_index, last_term) = (next - 1, last.last_term);
            }
        }
        let (segment, offset) = live
            .last()
            .map_or((0, 0), |last| (last.segment.number, last.end));
        let watermark = Mark {
            segment,
            offset,
            index: last_index,
            term: last_term,
        };
        let torn = live.last().filter(|last| last.torn_bytes > 0);
        let torn = torn.map(|last| (last.segment.path.clone(), last.end, last.torn_bytes));
        let is_full = live.last().is_some_and(|last| last.is_sealed);
        let damages = live.iter().flat_map(|live| &live.faulty);
        let kinds = damages.filter_map(|damage| Some((damage.index, damage.kind?)));
        let kinds = kinds.collect();
        let view = view_of(live, floor, last_index);
        self.check_watermark_term(&view)?;
        Ok(Recovered {
            view,
            watermark,
            commit: self.slot.commit.min(last_index).max(floor.0),
            last_term,
            highest_number,
            is_full,
            torn,
            kinds,
        })
    }

    /// The entries that floor and watermark name must be those that are there.
    fn check_watermark_term(&self, view: &View<F>) -> Result<(), OpenError> {
        let mark = (self.slot.watermark.index, self.slot.watermark.term);
        for (index, term) in [self.slot.floor, mark] {
            let listed = view.segments.get(view.segment_of(index));
            let holder =
                listed.filter(|listed| (listed.segment.base..listed.next_index()).contains(&index));
            let Some(holder) = holder else { continue };
            // The floor may lie inside of a segment, where its entry still is.
            let found = match view.faulty.get(&index) {
                Some(corruption) => corruption.term,
                None => view.terms.term(index),
            };
            if let Some(found) = found
                && found != term
            {
                let path = &holder.segment.path;
                let offset = holder.offset(index).during("read", path)?;
                let block =
                    Corruption::of_block(path, offset, Fault::new(Check::Term, term, found));
                return Err(Corruption {
                    index: Some(index),
                    term: Some(found),
                    ..block
                }
                .into());
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
                let mut front = [0; 8];
                file.read_exact_at(&mut front, SEGMENT_HEADER_BYTES)
                    .during("read", &path)?;
                let recycled = front != [0; 8];
                let spare = Spare {
                    path,
                    file,
                    bytes,
                    recycled,
                };
                spares.push((number, spare));
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
                .view
                .segments
                .iter()
                .any(|listed| listed.segment.number == number)
        };
        let mut paths: Vec<PathBuf> = names
            .iter()
            .filter(|name| match dir::parse_name(name) {
                Name::Segment(number) => !is_live(number),
                Name::Temporary => true,
                Name::Spare(_) | Name::Repair(_) | Name::Other => false,
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
    if header.previous_term != before.last_term {
        let fault = Fault::new(Check::Term, before.last_term, header.previous_term);
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
    corruption_of(path, damage).into()
}

fn corruption_of(path: &Path, damage: &Damage) -> Corruption {
    let block = Corruption::of_block(path, damage.offset, damage.fault);
    Corruption {
        index: Some(damage.index),
        term: damage.term,
        ..block
    }
}

/// Reads a piece unit by unit. Those that cannot be read are returned, and zero.
fn read_in_units<T: File>(file: &T, piece: &mut [u8], offset: u64) -> Vec<Range<u64>> {
    let mut unreadable = Vec::new();
    let mut place = offset;
    for unit in piece.chunks_mut(UNIT_BYTES) {
        let end = place + unit.len() as u64;
        if file.read_exact_at(unit, place).is_err() {
            unit.fill(0);
            unreadable.push(place..end);
        }
        place = end;
    }
    unreadable
}

fn view_of<F: Fs>(live: Vec<Live<F>>, floor: (u64, u64), last_index: u64) -> View<F> {
    let mut view = View {
        floor,
        last_index,
        terms: Terms::default(),
        segments: VecDeque::with_capacity(live.len()),
        faulty: BTreeMap::new(),
        repaired: BTreeMap::new(),
        cuts: 0,
    };
    for live in live {
        view.terms.extend(&live.terms);
        let damages = live.faulty.iter().filter(|damage| damage.index > floor.0);
        let path = &live.segment.path;
        let faulty = damages.map(|damage| (damage.index, corruption_of(path, damage)));
        view.faulty.extend(faulty);
        view.segments.push_back(Listed {
            segment: live.segment,
            places: live.places,
            count: live.count,
            end: live.end,
            is_sealed: live.is_sealed,
            cannot_be_sealed: false,
        });
    }
    view.terms.drop_before(floor.0 + 1);
    view
}

impl<F: Fs> Recovered<F> {
    /// Prepares the control file for what was found. The cut at the end makes everything behind it dead,
    /// torn or not: it must not come back to life behind the next record.
    pub(super) fn settle(&self, control: &mut Control<F>) -> Result<(), IoFault> {
        control.settle()?;
        let (watermark, floor, commit) = (self.watermark, self.view.floor, self.commit);
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
        match &self.torn {
            Some((segment, offset, bytes)) if !closed => Tail::TornDropped {
                segment: segment.clone(),
                offset: *offset,
                bytes: *bytes,
            },
            Some(_) | None => Tail::Clean,
        }
    }
}
