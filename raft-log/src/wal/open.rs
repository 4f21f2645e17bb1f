//! Creating and opening a log directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::Wal;
use super::shrink::remove_all;
use crate::control::Control;
use crate::dir::{self, Name};
use crate::error::{Corruption, CreateError, IoContext, IoFault, OpenError, TwinError};
use crate::fs::{Fs, is_no_space};
use crate::hard_state::HardState;
use crate::options::{Binding, Options};
use crate::pending::Buffer;
use crate::repairs::Repairs;
use crate::segment::{Pool, Spare, TailSegment};
use crate::twin::Report;
use crate::view::{Shared, View};

mod copies;
mod find;
mod look;
mod recover;
mod repaired;

use recover::{Mode, Opener, Recovered};

pub use look::{Depth, Inspection, SegmentInfo, inspect};

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
    /// Entries that were synced and are damaged, ascending. They cannot be read until they are put back with
    /// [`Wal::repair`]; a node with any of them may not claim to hold its log.
    pub faulty: Vec<FaultyEntry>,
    /// What was found damaged and mended.
    pub reports: Vec<Report>,
}

/// An entry of the log whose bytes are damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyEntry {
    /// Position in the log.
    pub index: u64,
    /// Term, if that can still be told. Of the last entry of a log it always can.
    pub term: Option<u64>,
    /// Kind, if the header is intact.
    pub kind: Option<u8>,
    /// What did not check, and where.
    pub corruption: Corruption,
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

    /// Opens the log, drops a torn tail, lists what is damaged, and makes durable what it found.
    ///
    /// Segments that have their index are not read; their records are checked whenever they are read, and by
    /// [`Reader::scrub`](crate::Reader::scrub).
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong that cannot be repaired entry by entry; nothing was changed then but
    /// copies of what is there.
    pub fn open(
        fs: &F,
        dir: &Path,
        binding: Binding,
        options: Options,
    ) -> Result<(Wal<F>, Opened), OpenError> {
        options.check()?;
        check_created(fs, dir)?;
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
            reports: control_report.into_iter().chain(vote_report).collect(),
            mode: Mode::Use,
        };
        let mut recovered = opener.recover(&names)?;
        let mut leftovers = opener.leftovers(&names, &recovered);
        let mut spares = opener.find_spares(&names, options.segment_bytes, &mut leftovers)?;
        let repairs = opener.overlay_copies(
            &names,
            &mut recovered,
            &mut spares,
            &options,
            &mut leftovers,
        )?;
        let reports = opener.reports;
        // Names that were seen are durable before the control file speaks of them, and the control file before anything
        // goes: an earlier slot may still name a segment that is among the leftovers.
        fs.sync_dir(dir).during("sync", dir)?;
        recovered.settle(&mut control)?;
        let tail_state = recovered.tail_state(control.slot().closed);
        control.change(|slot| slot.closed = false);
        control.store()?;
        remove_all(fs, dir, &leftovers)?;
        let parts = Parts {
            fs,
            dir,
            binding,
            options,
            lock,
            control,
            hard_state,
            repairs,
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
fn check_created<F: Fs>(fs: &F, dir: &Path) -> Result<(), OpenError> {
    let not_created = || OpenError::NotCreated {
        dir: dir.to_path_buf(),
    };
    let names = match fs.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_created()),
        result => result.during("list", dir)?,
    };
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
    Err(not_created())
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
    repairs: Repairs<F>,
}

impl<F: Fs> Parts<'_, F> {
    fn assemble(
        self,
        recovered: Recovered<F>,
        spares: Vec<(u64, Spare<F>)>,
        tail: Tail,
        reports: Vec<Report>,
    ) -> (Wal<F>, Opened) {
        let opened = self.opened(&recovered, tail, reports);
        let Recovered {
            view,
            last_term,
            highest_number,
            is_full,
            ..
        } = recovered;
        let tail = view.segments.back().map(|last| TailSegment {
            segment: Arc::clone(&last.segment),
            end: last.end,
            count: last.count,
            full: is_full,
        });
        let terms = view.terms.clone();
        let shared = self.shared(view, spares);
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
            repairs: self.repairs,
            terms,
            last_index: opened.last_index,
            last_term,
            commit: opened.commit,
            next_segment: highest_number + 1,
            idle_buffer: Buffer::default(),
            lock: Arc::new(self.lock),
        };
        (wal, opened)
    }

    fn opened(&self, recovered: &Recovered<F>, tail: Tail, reports: Vec<Report>) -> Opened {
        let view = &recovered.view;
        Opened {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit: recovered.commit,
            floor: view.floor,
            first_index: view.first_index(),
            last_index: view.last_index,
            tail,
            faulty: faulty_of(view, &recovered.kinds),
            reports,
        }
    }

    fn shared(&self, view: View<F>, spares: Vec<(u64, Spare<F>)>) -> Shared<F> {
        let segments = view.segments.iter().map(|listed| listed.segment.bytes);
        let bytes = segments.sum::<u64>()
            + self.repairs.size_bytes()
            + spares.iter().map(|(_, spare)| spare.bytes).sum::<u64>();
        let next_number = spares.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let pool = Pool {
            ready: spares.into_iter().map(|(_, spare)| spare).collect(),
            preparing: 0,
            next_number,
        };
        Shared {
            cluster: self.binding.cluster,
            view: Mutex::new(view),
            pool: Mutex::new(pool),
            bytes: AtomicU64::new(bytes),
            poisoned: AtomicBool::new(false),
        }
    }
}

pub(super) fn faulty_of<F: Fs>(view: &View<F>, kinds: &[(u64, u8)]) -> Vec<FaultyEntry> {
    let kind_of = |index| {
        let named = kinds.iter().find(|(named, _)| *named == index);
        named.map(|(_, kind)| *kind)
    };
    let faulty = view.faulty.iter().map(|(index, corruption)| FaultyEntry {
        index: *index,
        term: corruption.term,
        kind: kind_of(*index),
        corruption: corruption.clone(),
    });
    faulty.collect()
}
