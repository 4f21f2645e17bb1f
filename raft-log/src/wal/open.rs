//! Creating and opening a log directory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::Wal;
use super::shrink::remove_all;
use crate::control::Control;
use crate::dir::{self, Name};
use crate::error::{Corruption, CreateError, IoContext, IoFault, OpenError, TwinError};
use crate::format::{
    Check, ControlSlot, Cut, Fault, Mark, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_USED, SegmentHeader,
};
use crate::fs::{File, Fs, is_no_space};
use crate::hard_state::HardState;
use crate::options::{Binding, Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::pending::Buffer;
use crate::recovery::{Damage, Rules, Scan, scan};
use crate::segment::{Pool, Segment, Spare, TailSegment};
use crate::terms::Terms;
use crate::twin::{EIO, Report};
use crate::view::{Listed, Shared, View};

/// Segments are read in pieces of this size, and around an unreadable place in units.
const READ_BYTES: usize = 1 << 20;
const UNIT_BYTES: usize = 512;

/// What `open` found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Stored term; 0 before any election.
    pub term: u64,
    /// Vote in that term.
    pub vote: Option<u64>,
    /// Commit index, a hint: the log is committed at least up to here.
    pub commit: u64,
    /// (index, term) of the last entry that was purged or replaced by a snapshot.
    pub floor: (u64, u64),
    /// First entry; `last_index + 1` if there is none.
    pub first_index: u64,
    /// Last entry. Everything up to here is durable.
    pub last_index: u64,
    /// How the log ended.
    pub tail: Tail,
    /// What was found damaged and mended.
    pub reports: Vec<Report>,
}

/// How the log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tail {
    /// With its last record.
    Clean,
    /// With bytes that no completed sync had covered; they were dropped.
    TornDropped {
        /// The segment's file.
        segment: PathBuf,
        /// Where the dropped bytes begin.
        offset: u64,
        /// How many there are.
        bytes: u64,
    },
}

impl<F: Fs> Wal<F> {
    /// Creates an empty log in `dir`, once in a directory's life. A crash leaves a directory that `open`
    /// refuses as not created and that `create` completes.
    ///
    /// # Errors
    /// [`CreateError::Exists`] if a complete log is there already, and what else [`CreateError`] names.
    pub fn create(
        fs: &F,
        dir: &Path,
        binding: Binding,
        options: &Options,
    ) -> Result<(), CreateError> {
        options.check()?;
        create(fs, dir, binding).map_err(|error| {
            let full = matches!(&error, CreateError::Io(fault) if is_no_space(&fault.source));
            if full {
                CreateError::NoSpace {
                    dir: dir.to_path_buf(),
                }
            } else {
                error
            }
        })
    }

    /// Opens the log, drops a torn tail, refuses anything worse, and makes durable what it found.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong; nothing was changed then but copies of what is there.
    pub fn open(
        fs: &F,
        dir: &Path,
        binding: Binding,
        options: Options,
    ) -> Result<(Wal<F>, Opened), OpenError> {
        options.check()?;
        let names = match fs.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(OpenError::NotCreated {
                    dir: dir.to_path_buf(),
                });
            }
            result => result.during("list", dir)?,
        };
        check_created(dir, &names)?;
        let lock = take_lock(fs, dir)?.ok_or_else(|| OpenError::Locked {
            dir: dir.to_path_buf(),
        })?;
        // Again: the holder of the lock may just have rotated.
        let names = fs.list(dir).during("list", dir)?;
        let (mut control, control_report) = Control::open(fs, dir, binding)?;
        if !control.slot().complete {
            return Err(OpenError::NotCreated {
                dir: dir.to_path_buf(),
            });
        }
        let (hard_state, vote_report) = HardState::open(fs, dir, binding)?;
        let mut opener = Opener {
            fs,
            dir,
            binding,
            slot: *control.slot(),
            buffer: Vec::new(),
        };
        let recovered = opener.recover(&names)?;
        let mut leftovers = opener.leftovers(&names, &recovered);
        let spares = opener.find_spares(&names, options.segment_bytes, &mut leftovers)?;
        remove_all(fs, dir, &leftovers)?;
        recovered.settle(&mut control)?;
        let tail_state = recovered.tail_state(control.slot().closed);
        control.change(|slot| slot.closed = false);
        control.store()?;
        let reports = control_report.into_iter().chain(vote_report).collect();
        let parts = Parts {
            fs,
            dir,
            binding,
            options,
            lock,
            control,
            hard_state,
        };
        Ok(parts.assemble(recovered, spares, tail_state, reports))
    }
}

fn create<F: Fs>(fs: &F, dir: &Path, binding: Binding) -> Result<(), CreateError> {
    fs.create_dir_all(dir).during("create", dir)?;
    fs.set_permissions(dir, 0o700)
        .during("set permissions of", dir)?;
    let exists = || CreateError::Exists {
        dir: dir.to_path_buf(),
    };
    let Some(lock) = take_lock(fs, dir)? else {
        return Err(CreateError::Locked {
            dir: dir.to_path_buf(),
        });
    };
    let names = fs.list(dir).during("list", dir)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let segments = names
        .iter()
        .any(|name| matches!(dir::parse_name(name), Name::Segment(_)));
    if segments || (has(dir::HARD_STATE) && !has(dir::CONTROL)) {
        return Err(exists());
    }
    if has(dir::CONTROL) {
        // Only an unfinished attempt of our own may be continued; anything else is somebody's log.
        match Control::open(fs, dir, binding) {
            Ok((control, _)) if !control.slot().complete => {}
            Ok(_) | Err(_) => return Err(exists()),
        }
    }
    // The control file comes first and says "incomplete": so a vote file without a control file is a
    // damaged log and never a fresh one, and a complete log can never be taken for a fresh one.
    let mut control = Control::create(fs, dir, binding)?;
    if has(dir::HARD_STATE) {
        let path = dir.join(dir::HARD_STATE);
        fs.remove(&path).during("remove", &path)?;
        fs.sync_dir(dir).during("sync", dir)?;
    }
    HardState::create(fs, dir, binding).map_err(|error| match error {
        TwinError::Io(fault) => CreateError::Io(fault),
        TwinError::Exists { .. } | TwinError::TooLarge { .. } | TwinError::Poisoned { .. } => {
            exists()
        }
    })?;
    control.change(|slot| slot.complete = true);
    control.store()?;
    drop(lock);
    Ok(())
}

fn take_lock<F: Fs>(fs: &F, dir: &Path) -> Result<Option<F::Lock>, IoFault> {
    let path = dir.join(dir::LOCK);
    match fs.lock(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        result => result.during("lock", &path).map(Some),
    }
}

/// Without a control file a directory holds no log, unless anything else of a log is there.
fn check_created(dir: &Path, names: &[String]) -> Result<(), OpenError> {
    if names.iter().any(|name| name == dir::CONTROL) {
        return Ok(());
    }
    let of_a_log = |name: &String| {
        name == dir::HARD_STATE || matches!(dir::parse_name(name), Name::Segment(_))
    };
    if names.iter().any(of_a_log) {
        return Err(OpenError::Missing {
            file: dir.join(dir::CONTROL),
            index: 0,
        });
    }
    Err(OpenError::NotCreated {
        dir: dir.to_path_buf(),
    })
}

/// A live segment, read back.
struct Live<F: Fs> {
    segment: Arc<Segment<F>>,
    scan: Scan,
}

struct Recovered<F: Fs> {
    live: Vec<Live<F>>,
    floor: (u64, u64),
    watermark: Mark,
    commit: u64,
    last_index: u64,
    last_term: u64,
    highest_number: u64,
}

struct Opener<'a, F: Fs> {
    fs: &'a F,
    dir: &'a Path,
    binding: Binding,
    slot: ControlSlot,
    /// One segment's bytes; reused.
    buffer: Vec<u8>,
}

/// A segment file whose header was read.
struct Found<F: Fs> {
    header: SegmentHeader,
    path: PathBuf,
    file: F::File,
}

impl<F: Fs> Opener<'_, F> {
    fn recover(&mut self, names: &[String]) -> Result<Recovered<F>, OpenError> {
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
    fn find_spares(
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
    fn leftovers(&self, names: &[String], recovered: &Recovered<F>) -> Vec<PathBuf> {
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
    fn settle(&self, control: &mut Control<F>) -> Result<(), IoFault> {
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

    fn tail_state(&self, closed: bool) -> Tail {
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

/// What an open log is made of besides its content.
struct Parts<'a, F: Fs> {
    fs: &'a F,
    dir: &'a Path,
    binding: Binding,
    options: Options,
    lock: F::Lock,
    control: Control<F>,
    hard_state: HardState<F>,
}

impl<F: Fs> Parts<'_, F> {
    fn assemble(
        self,
        recovered: Recovered<F>,
        spares: Vec<(u64, Spare<F>)>,
        tail: Tail,
        reports: Vec<Report>,
    ) -> (Wal<F>, Opened) {
        let Recovered {
            live,
            floor,
            commit,
            last_index,
            last_term,
            highest_number,
            ..
        } = recovered;
        let opened = Opened {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit,
            floor,
            first_index: floor.0 + 1,
            last_index,
            tail,
            reports,
        };
        let bytes = live.iter().map(|live| live.segment.bytes).sum::<u64>()
            + spares.iter().map(|(_, spare)| spare.bytes).sum::<u64>();
        let next_number = spares.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let ready = spares.into_iter().map(|(_, spare)| spare).collect();
        let tail = live.last().map(tail_of);
        let view = view_of(live, floor, last_index);
        let terms = view.terms.clone();
        let shared = Shared {
            cluster: self.binding.cluster,
            view: Mutex::new(view),
            pool: Mutex::new(Pool {
                ready,
                preparing: 0,
                next_number,
            }),
            bytes: AtomicU64::new(bytes),
            poisoned: AtomicBool::new(false),
        };
        let wal = Wal {
            fs: self.fs.clone(),
            dir: self.dir.to_path_buf(),
            binding: self.binding,
            options: self.options,
            shared: Arc::new(shared),
            control: self.control,
            hard_state: self.hard_state,
            tail,
            pending: Vec::new(),
            terms,
            last_index,
            last_term,
            commit,
            next_segment: highest_number + 1,
            idle_buffer: Buffer::default(),
            _lock: self.lock,
        };
        (wal, opened)
    }
}

fn tail_of<F: Fs>(live: &Live<F>) -> TailSegment<F> {
    TailSegment {
        segment: Arc::clone(&live.segment),
        end: live.scan.end,
        count: live.scan.offsets.len() as u64,
        full: false,
    }
}

fn view_of<F: Fs>(live: Vec<Live<F>>, floor: (u64, u64), last_index: u64) -> View<F> {
    let mut terms = Terms::default();
    let mut segments = VecDeque::with_capacity(live.len());
    for Live { segment, scan } in live {
        terms.extend(&scan.terms);
        segments.push_back(Listed {
            segment,
            offsets: scan.offsets,
            end: scan.end,
        });
    }
    terms.drop_before(floor.0 + 1);
    View {
        floor,
        last_index,
        terms,
        segments,
    }
}
