//! Creating and opening a log directory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::Wal;
use super::shrink::remove_all;
use crate::control::Control;
use crate::dir::{self, Name};
use crate::error::{CreateError, IoContext, IoFault, OpenError, TwinError};
use crate::fs::{Fs, is_no_space};
use crate::hard_state::HardState;
use crate::options::{Binding, Options};
use crate::pending::Buffer;
use crate::segment::{Pool, Spare, TailSegment};
use crate::terms::Terms;
use crate::twin::Report;
use crate::view::{Listed, Shared, View};

mod recover;

use recover::{Live, Opener, Recovered};

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
        // What was decided from the names and slots as they are seen now must hold after a power cut too, so both are
        // durable before anything goes: an earlier slot may still name a segment that is among the leftovers.
        fs.sync_dir(dir).during("sync", dir)?;
        recovered.settle(&mut control)?;
        let tail_state = recovered.tail_state(control.slot().closed);
        control.change(|slot| slot.closed = false);
        control.store()?;
        remove_all(fs, dir, &leftovers)?;
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
            lock: Arc::new(self.lock),
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
