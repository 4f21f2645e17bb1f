//! Looking at a log directory without using it: nothing is written, no lock is taken.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::recover::{Mode, Opener};
use super::{FaultyEntry, Tail, check_created, faulty_of};
use crate::control::Control;
use crate::dir::{self, Name};
use crate::error::{IoContext, OpenError};
use crate::fs::Fs;
use crate::hard_state::{HardState, StoredVote};
use crate::options::Binding;
use crate::reader::Reader;
use crate::segment::Pool;
use crate::twin::Report;
use crate::view::Shared;

/// How often a directory is read again whose owner changed it meanwhile.
const ATTEMPTS: usize = 5;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Headers and indexes, and the records of segments that have no index.
    Headers,
    /// Every record.
    Records,
}

/// What a log directory holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection<F: Fs> {
    /// To whom it belongs.
    pub binding: Binding,
    /// Stored term.
    pub term: u64,
    /// Vote in that term.
    pub vote: Option<u64>,
    /// Generation: how often the log was opened or cut.
    pub generation: u64,
    /// Commit index, a hint.
    pub commit: u64,
    /// (index, term): everything at or below is purged or in a snapshot.
    pub floor: (u64, u64),
    /// (index, term) of the last entry of which the control file says that it was synced.
    pub watermark: (u64, u64),
    /// Last entry.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// The log was closed, and nothing was written since.
    pub closed: bool,
    /// How the log ends.
    pub tail: Tail,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Segments prepared ahead.
    pub spares: usize,
    /// Damaged entries that were put back.
    pub repaired: Vec<u64>,
    /// Damaged entries.
    pub faulty: Vec<FaultyEntry>,
    /// Copies and indexes that are damaged.
    pub reports: Vec<Report>,
    shared: Arc<Shared<F>>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its file.
    pub file: PathBuf,
    /// Its number.
    pub number: u64,
    /// Index of its first entry.
    pub base: u64,
    /// Its entries.
    pub count: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Offset behind its last record.
    pub end: u64,
    /// It takes no more records and has its index.
    pub sealed: bool,
}

impl<F: Fs> Inspection<F> {
    /// A reader of the entries, as they were when the directory was looked at.
    #[must_use]
    pub fn reader(&self) -> Reader<F> {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Looks at a log directory, also at that of a running process.
///
/// # Errors
/// As for [`Wal::open`](crate::Wal::open), except `Locked`.
pub fn inspect<F: Fs>(fs: &F, dir: &Path, depth: Depth) -> Result<Inspection<F>, OpenError> {
    let mut attempts = 1;
    loop {
        let before = generation_of(fs, dir);
        let result = attempt(fs, dir, depth);
        // Whoever owns the directory may have cut the log, or purged a file, while it was read.
        let is_stable = before.ok() == generation_of(fs, dir).ok();
        if is_stable || attempts == ATTEMPTS {
            return result;
        }
        attempts += 1;
    }
}

/// What changes before any file of the directory goes.
fn generation_of<F: Fs>(fs: &F, dir: &Path) -> Result<(u64, (u64, u64)), OpenError> {
    let binding = HardState::look(fs, dir)?.binding;
    let (slot, _) = Control::look(fs, dir, binding)?;
    Ok((slot.generation, slot.floor))
}

fn attempt<F: Fs>(fs: &F, dir: &Path, depth: Depth) -> Result<Inspection<F>, OpenError> {
    check_created(fs, dir)?;
    let StoredVote {
        binding,
        term,
        vote,
        report,
    } = HardState::look(fs, dir)?;
    let (slot, control_report) = Control::look(fs, dir, binding)?;
    // Not before: whatever is named by the slot has its name by now.
    let names = fs.list(dir).during("list", dir)?;
    let mut opener = Opener {
        fs,
        dir,
        binding,
        slot,
        buffer: Vec::new(),
        reports: control_report.into_iter().chain(report).collect(),
        mode: match depth {
            Depth::Headers => Mode::Look,
            Depth::Records => Mode::Verify,
        },
    };
    let mut recovered = opener.recover(&names)?;
    opener.look_at_copies(&names, &mut recovered)?;
    let is_spare = |name: &&String| matches!(dir::parse_name(name), Name::Spare(_));
    let tail = recovered.tail_state(slot.closed);
    let faulty = faulty_of(&recovered.view, &recovered.kinds);
    let (view, last_term) = (recovered.view, recovered.last_term);
    let segments = view.segments.iter().map(|listed| SegmentInfo {
        file: listed.segment.path.clone(),
        number: listed.segment.number,
        base: listed.segment.base,
        count: listed.count,
        bytes: listed.segment.bytes,
        end: listed.end,
        sealed: listed.is_sealed,
    });
    Ok(Inspection {
        binding,
        term,
        vote,
        generation: slot.generation,
        commit: recovered.commit,
        floor: view.floor,
        watermark: (slot.watermark.index, slot.watermark.term),
        last_index: view.last_index,
        last_term,
        closed: slot.closed,
        tail,
        segments: segments.collect(),
        spares: names.iter().filter(is_spare).count(),
        repaired: view.repaired.keys().copied().collect(),
        faulty,
        reports: opener.reports,
        shared: Arc::new(Shared {
            cluster: binding.cluster,
            view: Mutex::new(view),
            pool: Mutex::new(Pool::empty()),
            bytes: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
        }),
    })
}
