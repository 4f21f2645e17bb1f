//! The one that writes the log: takes what waits, writes it, syncs once, says what is durable.
//!
//! ```text
//!  jobs --> term and vote --> snapshot, repaired entries, truncation, entries of every part --> one sync --> purge --> report
//!           (durable first)        (as far as there is space)
//! ```
//!
//! Repaired entries do not wait for space, nor behind parts that do.
//!
//! Term and vote come first, and the newest ones of all parts that wait at once: everything that follows was asked for by a
//! leader of that term or an earlier one, so a crash in between leaves a node that knows the term and has lost only what it
//! never acknowledged. The other way round, entries of term 7 could be durable on n1 while its vote is of term 5, and n1
//! would vote again in term 6 for a log that it has just overwritten.

use std::collections::VecDeque;

use raft_core::{Entry, EntryId, HardState, LogIndex, NodeId, Persist, PersistId, Term};
use raft_log::{EntryRef, Fs, Preparer, Reader, Wal, WalError};

use crate::exit::Failure;

/// Something for the log to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogJob {
    /// Make this durable: term and vote, then the snapshot's place, then the repaired entries, then the new ones. The
    /// snapshot itself must be durable in the snapshot directory already.
    Persist(Persist),
    /// Drop what is at or below this entry. Every kept snapshot must be at or above it, durable and verified.
    Purge {
        /// The last entry that nobody needs.
        through: EntryId,
    },
    /// The log is committed up to here; a hint for the next start.
    NoteCommit(LogIndex),
}

/// What the log says after its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The newest persist part that is durable, with all before it; `None` if this call completed none.
    pub persisted: Option<PersistId>,
    /// Up to this part, which itself waits for space, all copies of damaged entries are durable; `None` if none waits.
    pub repaired: Option<PersistId>,
    /// Bytes that can be appended without allocating.
    pub prepared_bytes: u64,
    /// Bytes that the log takes on the disk.
    pub size_bytes: u64,
    /// The entry before the first one of the log.
    pub floor: EntryId,
    /// Parts wait for space on the disk; they are tried again at the next call.
    pub full: bool,
    /// How long the work took, set by a caller that has a clock.
    pub sync_us: Option<u32>,
}

/// The log failed, for good: nobody knows what the disk holds, and nothing after it may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log failed: {0}")]
pub struct LogFailure(
    /// How the process must end.
    pub Failure,
);

impl From<WalError> for LogFailure {
    fn from(error: WalError) -> LogFailure {
        LogFailure(error.into())
    }
}

impl From<LogFailure> for Failure {
    fn from(failure: LogFailure) -> Failure {
        failure.0
    }
}

/// Owns the log, and does jobs in order.
#[derive(Debug)]
pub struct LogWorker<F: Fs> {
    wal: Wal<F>,
    persists: VecDeque<Persist>,
    purge: Option<EntryId>,
    /// The last part that was handed to the log, synced or not.
    written: PersistId,
    /// The last part that was reported durable.
    reported: PersistId,
    /// Up to this part, written or not, no copy of a damaged entry waits.
    repaired: PersistId,
}

impl<F: Fs> LogWorker<F> {
    /// A worker over an opened log.
    #[must_use]
    pub fn new(wal: Wal<F>) -> LogWorker<F> {
        LogWorker {
            wal,
            persists: VecDeque::new(),
            purge: None,
            written: PersistId(0),
            reported: PersistId(0),
            repaired: PersistId(0),
        }
    }

    /// Queues a job for the next [`work`](LogWorker::work).
    ///
    /// # Panics
    /// If parts come out of order.
    pub fn push(&mut self, job: LogJob) {
        match job {
            LogJob::Persist(persist) => {
                let before = self.persists.back().map_or(self.written, |last| last.id);
                assert!(persist.id > before, "{} after {before}", persist.id);
                self.persists.push_back(persist);
            }
            LogJob::Purge { through } => {
                if self.purge.is_none_or(|queued| queued.index < through.index) {
                    self.purge = Some(through);
                }
            }
            LogJob::NoteCommit(index) => self.wal.note_commit(index.0),
        }
    }

    /// Does everything that is queued, with one sync for all entries, and reports.
    ///
    /// Without space for some part, that part and those behind it stay queued, what came before is durable and reported,
    /// and the report says [`full`](LogReport::full). Call again later: nothing is lost.
    ///
    /// # Errors
    /// The log has failed; nothing that was not reported before may be acknowledged, and the process must end.
    pub fn work(&mut self) -> Result<LogReport, LogFailure> {
        self.store_hard_state()?;
        let mut full = self.write_persists()?;
        self.wal.sync()?;
        let purged = self.run_purge()? || full && self.make_room()?;
        if full && purged {
            // A purge that waits behind entries without space would wait for ever.
            full = self.write_persists()?;
            self.wal.sync()?;
        }
        if full {
            self.repair_early()?;
        }
        Ok(self.report(full))
    }

    /// Makes the lazy parts of the control file durable. Call some 50 ms after the last append.
    ///
    /// # Errors
    /// As for [`work`](LogWorker::work).
    pub fn idle(&mut self) -> Result<(), LogFailure> {
        Ok(self.wal.flush_control()?)
    }

    /// Reads synced entries, from any thread.
    #[must_use]
    pub fn reader(&self) -> Reader<F> {
        self.wal.reader()
    }

    /// Prepares segments ahead, from any thread.
    #[must_use]
    pub fn preparer(&self) -> Preparer<F> {
        self.wal.preparer()
    }

    /// Marks the log as cleanly closed and releases it. What is still queued for want of space was never acknowledged.
    ///
    /// # Errors
    /// As for [`work`](LogWorker::work).
    pub fn close(self) -> Result<(), LogFailure> {
        Ok(self.wal.close()?)
    }

    /// Stores the newest term and vote of all parts that wait.
    ///
    /// The ones in between need no write: what was promised under them is released only together with this one, and a vote
    /// in a term that is over binds nobody.
    fn store_hard_state(&mut self) -> Result<(), LogFailure> {
        let newest = self
            .persists
            .iter()
            .rev()
            .find_map(|persist| persist.hard_state);
        let Some(newest) = newest else { return Ok(()) };
        if newest != hard_state(&self.wal) {
            self.wal
                .set_hard_state(newest.term.0, newest.vote.map(|vote| vote.0))?;
        }
        Ok(())
    }

    /// Hands parts to the log until one finds no space; whether one did.
    fn write_persists(&mut self) -> Result<bool, LogFailure> {
        while let Some(persist) = self.persists.front_mut() {
            match write(&mut self.wal, persist) {
                Err(WalError::NoSpace { .. }) => return Ok(true),
                result => result?,
            }
            self.written = persist.id;
            self.persists.pop_front();
        }
        Ok(false)
    }

    /// Purges what was asked for, if the log reaches that far by now; whether it did.
    fn run_purge(&mut self) -> Result<bool, LogFailure> {
        let reached = LogIndex(self.wal.last_index());
        let Some(through) = self.purge.take_if(|through| through.index <= reached) else {
            return Ok(false);
        };
        self.wal.purge_prefix(through.index.0, through.term.0)?;
        Ok(true)
    }

    /// Does early what waits behind the part without space and makes room; whether there was anything.
    fn make_room(&mut self) -> Result<bool, LogFailure> {
        Ok(self.skip_what_a_snapshot_replaces() || self.purge_what_is_settled()?)
    }

    /// A snapshot that takes the place of the log also takes that of all parts before it. Their terms and votes are stored.
    fn skip_what_a_snapshot_replaces(&mut self) -> bool {
        let replaces = |part: &Persist| part.snapshot.is_some() && !part.snapshot_keeps_log;
        let at = self.persists.iter().rposition(replaces).unwrap_or(0);
        self.persists.drain(..at);
        at > 0
    }

    /// Purges as much as there is of a purge, also of one that comes with a snapshot and waits behind the part without space.
    ///
    /// A follower has applied 815 entries, its full log holds 793: only a snapshot at 815 makes room, and the rest of the
    /// purge waits for entries that wait for this room. What a waiting part replaces stays, for the part to cut off.
    fn purge_what_is_settled(&mut self) -> Result<bool, LogFailure> {
        let firsts = self.persists.iter().filter_map(|part| part.entries.first());
        let settled = firsts.map(|entry| entry.index.0 - 1).min();
        let settled = settled.unwrap_or(u64::MAX).min(self.wal.last_index());
        let snapshots = self
            .persists
            .iter()
            .filter_map(|part| part.snapshot.as_ref());
        let wanted = snapshots
            .map(|meta| meta.id.index)
            .chain(self.purge.map(|it| it.index));
        let through = wanted.max().map_or(0, |index| index.0).min(settled);
        match self.wal.term(through) {
            Some(term) if through > self.wal.floor().0 => {
                self.wal.purge_prefix(through, term)?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Writes the copies of damaged entries that wait with or behind the part without space.
    ///
    /// n3 lost 11 and has 423 and more in its full log, which waits for room. Only a purge makes room, the purge needs a snapshot,
    /// the snapshot the state after 11, and that the copy of 11. The entries that the copies replace are synced and survive every
    /// part before them, or the core would not have asked for copies; so there is nothing that they could overtake but a snapshot.
    fn repair_early(&mut self) -> Result<(), LogFailure> {
        for part in self
            .persists
            .iter_mut()
            .take_while(|it| it.snapshot.is_none())
        {
            match repair(&mut self.wal, part) {
                Err(WalError::NoSpace { .. }) => return Ok(()),
                result => result?,
            }
            self.repaired = part.id;
        }
        Ok(())
    }

    fn report(&mut self, full: bool) -> LogReport {
        let persisted = Some(self.written).filter(|written| *written > self.reported);
        self.reported = self.written;
        let (index, term) = self.wal.floor();
        LogReport {
            persisted,
            repaired: Some(self.repaired).filter(|repaired| *repaired > self.written),
            prepared_bytes: self.wal.prepared_bytes(),
            size_bytes: self.wal.size_bytes(),
            floor: EntryId {
                index: LogIndex(index),
                term: Term(term),
            },
            full,
            sync_us: None,
        }
    }
}

fn hard_state<F: Fs>(wal: &Wal<F>) -> HardState {
    let (term, vote) = wal.hard_state();
    HardState {
        term: Term(term),
        vote: vote.map(NodeId),
    }
}

/// Hands one part to the log. After `NoSpace` it can be handed over again: what was done is not done twice.
fn write<F: Fs>(wal: &mut Wal<F>, persist: &mut Persist) -> Result<(), WalError> {
    if let Some(meta) = persist.snapshot.take() {
        let EntryId { index, term } = meta.id;
        if persist.snapshot_keeps_log {
            // The core hands it out only when the log up to it is synced.
            wal.purge_prefix(index.0, term.0)?;
        } else {
            wal.reset(index.0, term.0)?;
        }
    }
    repair(wal, persist)?;
    let Some(first) = persist.entries.first() else {
        return Ok(());
    };
    if first.index.0 <= wal.last_index() {
        wal.truncate_suffix(first.index.0)?;
    }
    let entries: Vec<EntryRef<'_>> = persist.entries.iter().map(entry_ref).collect();
    wal.append(&entries)
}

/// Puts back what was damaged, as far as it is still part of the log.
fn repair<F: Fs>(wal: &mut Wal<F>, persist: &mut Persist) -> Result<(), WalError> {
    let purged = wal.floor().0;
    let needed = persist.repaired.iter();
    let copies: Vec<EntryRef<'_>> = needed
        .filter(|entry| entry.index.0 > purged)
        .map(entry_ref)
        .collect();
    if !copies.is_empty() {
        wal.repair(&copies)?;
    }
    persist.repaired.clear();
    Ok(())
}

fn entry_ref(entry: &Entry) -> EntryRef<'_> {
    EntryRef {
        index: entry.index.0,
        term: entry.term.0,
        kind: entry.kind as u8,
        payload: &entry.payload,
        payload_crc: entry.checksum,
    }
}
