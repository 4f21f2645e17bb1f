//! Group commit for many writers: threads that append at the same time share one sync.
//!
//! There is no log thread. A writer that finds the log free leads: it gathers who is about to come, writes what waits, its
//! own entries among it, syncs once, and wakes the others in one go. So a lone writer is handed over to nobody.
//!
//! ```text
//! w1  append --> leads: [gather | write w1 w2 w3 | sync] --> gives the log back, wakes w2 w3
//! w2     append --> queue, sleeps ..............................................| returns
//! w3        append --> queue, sleeps ...........................................| returns
//! w4                             append --> queue of the next group, sleeps ....| is called to lead it
//! ```

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::error::WalError;
use crate::fs::Fs;
use crate::options::Binding;
use crate::preparer_thread::PreparerThread;
use crate::reader::Reader;
use crate::record::payload_checksum;
use crate::wal::Wal;

mod lease;
mod queue;
mod turn;

use lease::Lease;
use queue::{Queue, Queued, queued_bytes};
use turn::Turn;

/// How long a leader waits at most for the writers that were woken a moment ago. They come back within a few tens of
/// microseconds if they come back at all, while those that a group starts without wait for two syncs.
const GATHER_PATIENCE_MAX: Duration = Duration::from_micros(100);

/// Limits of a group, and the term of what it appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// Term of the entries. Not lower than the log's last one, or every append is refused.
    pub term: u64,
    /// Bytes that wait for the next group: payloads and a few words per entry. Who comes when there are as many waits until
    /// that group is on its way; a single append may be larger. As much again is being written meanwhile.
    pub queue_bytes_max: usize,
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions {
            term: 1,
            queue_bytes_max: 4 << 20,
        }
    }
}

/// Why an append to a group failed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// Definite: nothing of this append was taken, now or later.
    #[error("not taken: {0}")]
    Refused(Arc<WalError>),
    /// The write or sync failed: nobody knows whether the entries are on the disk, and the next start may find them or not.
    /// The log is poisoned.
    #[error("unknown whether it is durable: {0}")]
    Unknown(Arc<WalError>),
    /// Definite: the group was closed, or closes; nothing of this append was taken.
    #[error("the group is closed")]
    Closed,
}

/// A log that many threads append to. Clones are handles to the same one.
#[derive(Debug)]
pub struct Group<F: Fs> {
    inner: Arc<Inner<F>>,
}

impl<F: Fs> Clone for Group<F> {
    fn clone(&self) -> Group<F> {
        Group {
            inner: Arc::clone(&self.inner),
        }
    }
}

#[derive(Debug)]
struct Inner<F: Fs> {
    state: Mutex<State<F>>,
    /// The queue was taken, so there is room.
    room: Condvar,
    /// The log is free for somebody with a claim, or lost.
    free: Condvar,
    /// Writers in the queue, for those who look without the lock.
    waiting: AtomicUsize,
    cluster: u32,
    options: GroupOptions,
    reader: Reader<F>,
}

#[derive(Debug)]
struct State<F: Fs> {
    /// Whoever takes it out has the log for itself.
    log: Option<Box<Log<F>>>,
    /// What the next group writes.
    queue: Queue,
    /// Where the writers in the queue wait.
    turn: Arc<Turn>,
    /// Empty; kept for its memory.
    idle: Queue,
    /// Threads that wait for room in the queue.
    crowd: usize,
    /// Writers that the next group probably gets: those that wait, and those that were just woken.
    expected: usize,
    /// How long to wait for them: no longer than the last group took to be written and synced.
    patience: Duration,
    /// Threads that want the log for themselves; no writer takes it before them.
    claims: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
    /// A thread panicked while it had the log.
    Lost,
}

#[derive(Debug)]
struct Log<F: Fs> {
    wal: Wal<F>,
    spares: PreparerThread,
}

impl<F: Fs> Group<F> {
    /// Shares a log. `binding` is the one it was opened with, and `spares` its preparer.
    #[must_use]
    pub fn new(
        wal: Wal<F>,
        binding: Binding,
        spares: PreparerThread,
        options: GroupOptions,
    ) -> Group<F> {
        let reader = wal.reader();
        let state = State {
            log: Some(Box::new(Log { wal, spares })),
            queue: Queue::default(),
            turn: Arc::default(),
            idle: Queue::default(),
            crowd: 0,
            expected: 0,
            patience: Duration::ZERO,
            claims: 0,
            phase: Phase::Open,
        };
        let inner = Inner {
            state: Mutex::new(state),
            room: Condvar::new(),
            free: Condvar::new(),
            waiting: AtomicUsize::new(0),
            cluster: binding.cluster,
            options,
            reader,
        };
        Group {
            inner: Arc::new(inner),
        }
    }

    /// Appends one entry and returns its index when it is durable.
    ///
    /// # Errors
    /// [`GroupError::Refused`] and [`GroupError::Closed`] are definite; [`GroupError::Unknown`] is not.
    pub fn append(&self, kind: u8, payload: &[u8]) -> Result<u64, GroupError> {
        Ok(self.append_all(kind, &[payload])?.start)
    }

    /// Appends entries with nothing between them, all or none, and returns their indexes when they are durable.
    ///
    /// # Errors
    /// As for [`append`](Group::append).
    pub fn append_all<P: AsRef<[u8]>>(
        &self,
        kind: u8,
        payloads: &[P],
    ) -> Result<Range<u64>, GroupError> {
        let inner = &*self.inner;
        // Once and for all: nothing says that `as_ref` answers the same each time.
        let payloads: Vec<&[u8]> = payloads.iter().map(AsRef::as_ref).collect();
        let entries = describe(inner.cluster, kind, &payloads);
        let mut state = inner.wait_for_room(queued_bytes(&entries))?;
        let writer = state.queue.push(&entries, &payloads);
        inner
            .waiting
            .store(state.queue.writers(), Ordering::Relaxed);
        let turn = Arc::clone(&state.turn);
        loop {
            match state.log_for_writer() {
                Some(log) => inner.lead(state, log),
                None => {
                    drop(state);
                    turn.wait();
                }
            }
            if let Some(outcome) = turn.outcome(writer) {
                return outcome;
            }
            state = inner.state();
        }
    }

    /// Writers whose entries wait for the next group. A figure for the curious: it may have changed already.
    #[must_use]
    pub fn waiting_writers(&self) -> usize {
        self.inner.waiting.load(Ordering::Relaxed)
    }

    /// A reader of what is durable.
    #[must_use]
    pub fn reader(&self) -> Reader<F> {
        self.inner.reader.clone()
    }

    /// Lends the log between two groups: to purge, to note a commit index, to flush the control file. Writers wait meanwhile;
    /// entries that are left without a sync are synced with the next group. Whoever calls the group from `change` waits for
    /// itself.
    ///
    /// # Errors
    /// [`GroupError::Closed`], or [`GroupError::Refused`] if the log was lost by a panic.
    pub fn with_log<R>(&self, change: impl FnOnce(&mut Wal<F>) -> R) -> Result<R, GroupError> {
        let mut lease = self.inner.claim(Phase::Open)?;
        let result = change(&mut lease.log().wal);
        lease.give_back();
        Ok(result)
    }

    /// Refuses new appends, finishes those that wait, and gives log and preparer back. The log is open and synced; appends
    /// of other handles answer [`GroupError::Closed`].
    ///
    /// # Errors
    /// [`GroupError::Closed`] if another handle closed it, or [`GroupError::Refused`] if the log was lost by a panic.
    pub fn close(self) -> Result<(Wal<F>, PreparerThread), GroupError> {
        let mut lease = self.inner.claim(Phase::Closed)?;
        let (turn, outcomes) = lease.write_group();
        turn.settle(outcomes);
        let Log { wal, spares } = *lease.keep();
        Ok((wal, spares))
    }
}

/// The checksums are made here, on the writers' threads and without the lock.
fn describe(cluster: u32, kind: u8, payloads: &[&[u8]]) -> Vec<Queued> {
    let describe = |payload: &&[u8]| Queued {
        kind,
        payload_bytes: payload.len(),
        payload_crc: payload_checksum(cluster, payload),
    };
    payloads.iter().map(describe).collect()
}

impl<F: Fs> Inner<F> {
    fn state(&self) -> MutexGuard<'_, State<F>> {
        // Nothing is called under the lock that could panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_room(&self, bytes: usize) -> Result<MutexGuard<'_, State<F>>, GroupError> {
        let mut state = self.state();
        loop {
            state.check_open()?;
            if state.queue.has_room(bytes, self.options.queue_bytes_max) {
                return Ok(state);
            }
            // Writers wait in the queue, so somebody leads or was called to.
            state.crowd += 1;
            let waited = self.room.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.crowd -= 1;
        }
    }

    /// Writes the next group, on the thread of one of its writers.
    fn lead(&self, state: MutexGuard<'_, State<F>>, log: Box<Log<F>>) {
        let (expected, patience) = (state.expected, state.patience);
        drop(state);
        let mut lease = Lease::new(self, log);
        self.gather(expected, patience);
        let (turn, outcomes) = lease.write_group();
        // The next group may start before this one wakes up.
        lease.give_back();
        turn.settle(outcomes);
    }

    /// Gives the processor to the writers that are expected. It neither sleeps, because to be woken takes as long as all of
    /// this may, nor waits for a writer without others: then nobody is expected.
    fn gather(&self, expected: usize, patience: Duration) {
        let begin = Instant::now();
        while self.waiting.load(Ordering::Relaxed) < expected && begin.elapsed() < patience {
            std::thread::yield_now();
        }
    }

    /// Waits until nobody has the log. With [`Phase::Closed`] nobody else is let in from now on.
    fn claim(&self, phase: Phase) -> Result<Lease<'_, F>, GroupError> {
        let mut state = self.state();
        state.check_open()?;
        if phase == Phase::Closed {
            state.phase = phase;
            self.room.notify_all();
            self.free.notify_all();
        }
        state.claims += 1;
        let taken = |state: &mut State<F>| state.log.is_none() && state.phase == phase;
        let waited = self.free.wait_while(state, taken);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.claims -= 1;
        if state.phase != phase {
            return Err(state.check_open().expect_err("somebody closed or lost it"));
        }
        let log = state.log.take().expect("waited for it");
        Ok(Lease::new(self, log))
    }
}

impl<F: Fs> State<F> {
    fn check_open(&self) -> Result<(), GroupError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Closed => Err(GroupError::Closed),
            Phase::Lost => Err(GroupError::Refused(Arc::new(WalError::Poisoned))),
        }
    }

    /// The log, if nobody else has it or comes first.
    fn log_for_writer(&mut self) -> Option<Box<Log<F>>> {
        if self.claims > 0 {
            return None;
        }
        self.log.take()
    }

    fn take_queue(&mut self) -> (Queue, Arc<Turn>) {
        let queue = std::mem::take(&mut self.idle);
        let queue = std::mem::replace(&mut self.queue, queue);
        (queue, std::mem::take(&mut self.turn))
    }
}
