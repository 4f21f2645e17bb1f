//! The thread that owns the log, and the one that prepares its next segment.
//!
//! Every sync happens here: a stalled disk holds up neither heartbeats nor answers. The thread takes all jobs that wait, runs
//! them, syncs once and reports; one hand-over each way for a whole batch.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raft_log::WalError;
use raft_log::fs::OsFs;
use tokio::sync::mpsc::UnboundedSender;

use crate::exit::{ExitCode, Failure};
use crate::log_worker::{LogFailure, LogJob, LogReport, LogWorker};

/// How long after the last append the lazy control slot is synced. What is acknowledged does not depend on it; it bounds how
/// much a power cut together with rot of the last group could hide.
const CONTROL_SYNC_DELAY: Duration = Duration::from_millis(50);

/// How long to wait before a full log tries again.
const FULL_RETRY_DELAY: Duration = Duration::from_millis(500);

enum Order {
    Job(LogJob),
    /// A segment was prepared: report how much space there is.
    Look,
    Close,
    /// Stop as a crash would: between two jobs, with nothing more written.
    Abandon,
}

/// What the log thread says.
#[derive(Debug)]
pub(super) enum FromLog {
    Report(LogReport),
    Failed(LogFailure),
}

/// What the loop does next.
enum Next {
    Work,
    Close,
    Abandon,
}

/// A handle on the threads. It must be ended with [`LogThread::close`] or [`LogThread::abandon`]: the threads hold the lock of
/// the data directory.
pub(super) struct LogThread {
    orders: Sender<Order>,
    thread: JoinHandle<Result<(), LogFailure>>,
    preparer: JoinHandle<()>,
}

impl LogThread {
    /// Starts both threads.
    ///
    /// The channels are unbounded, but what is in them is not: the core's windows and the bound on uncommitted bytes limit
    /// what a node is given before it has synced.
    pub(super) fn start(
        worker: LogWorker<OsFs>,
        segment_bytes: u64,
        reports: UnboundedSender<FromLog>,
    ) -> std::io::Result<LogThread> {
        let (orders, inbox) = channel();
        let preparer = worker.preparer();
        let (spares, preparer) = start_preparer(move || preparer.work(), orders.clone())?;
        // The tail may be all but full: a leader would have nothing it may propose into.
        let _ = spares.send(());
        let thread = std::thread::Builder::new()
            .name("kvd-log".into())
            .spawn(move || {
                let result = run_guarded(
                    Loop {
                        worker,
                        segment_bytes,
                        reports: reports.clone(),
                        spares,
                    },
                    &inbox,
                );
                if let Err(failure) = &result {
                    // The loop may be gone already when the process stops; then nobody needs to know.
                    let _ = reports.send(FromLog::Failed(failure.clone()));
                }
                result
            })?;
        Ok(LogThread {
            orders,
            thread,
            preparer,
        })
    }

    pub(super) fn push(&self, job: LogJob) {
        // A log thread that is gone has said why; the loop acts on that.
        let _ = self.orders.send(Order::Job(job));
    }

    /// Finishes what was pushed, syncs everything and closes the log. Blocks.
    pub(super) fn close(self) -> Result<(), LogFailure> {
        self.end(Order::Close)
    }

    /// Stops between two jobs; nothing more is written. Blocks until the directory is free.
    pub(super) fn abandon(self) -> Result<(), LogFailure> {
        self.end(Order::Abandon)
    }

    fn end(self, order: Order) -> Result<(), LogFailure> {
        // A log thread that is gone has said why, and says it again below.
        let _ = self.orders.send(order);
        let result = self.thread.join().expect("the log thread does not panic");
        self.preparer.join().expect("the preparer does not panic");
        result
    }
}

/// Runs the loop. If its own state turns out wrong it fails like any other storage: without a log thread the node would go on
/// as a leader that stores nothing.
fn run_guarded(thread: Loop, inbox: &Receiver<Order>) -> Result<(), LogFailure> {
    // Nothing of the loop is looked at afterwards.
    let run = std::panic::AssertUnwindSafe(|| thread.run(inbox));
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        let what = "the log thread panicked";
        Err(LogFailure(Failure::new(ExitCode::StorageIo, what)))
    })
}

struct Loop {
    worker: LogWorker<OsFs>,
    segment_bytes: u64,
    reports: UnboundedSender<FromLog>,
    spares: Sender<()>,
}

impl Loop {
    fn run(mut self, inbox: &Receiver<Order>) -> Result<(), LogFailure> {
        let mut full = false;
        let mut dirty = false;
        loop {
            let patience = match (full, dirty) {
                (true, _) => FULL_RETRY_DELAY,
                (false, true) => CONTROL_SYNC_DELAY,
                (false, false) => Duration::from_secs(3600),
            };
            let next = match inbox.recv_timeout(patience) {
                Ok(first) => self.take(first, inbox),
                Err(RecvTimeoutError::Timeout) if full => Next::Work,
                Err(RecvTimeoutError::Timeout) => {
                    if std::mem::take(&mut dirty) {
                        self.worker.idle()?;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => Next::Abandon,
            };
            if let Next::Abandon = next {
                return Ok(());
            }
            full = self.work()?;
            dirty = true;
            if let Next::Close = next {
                return self.worker.close();
            }
        }
    }

    /// Takes everything that waits.
    fn take(&mut self, first: Order, inbox: &Receiver<Order>) -> Next {
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Job(job) => self.worker.push(job),
                Order::Look => {}
                Order::Close => return Next::Close,
                Order::Abandon => return Next::Abandon,
            }
            next = inbox.try_recv().ok();
        }
        Next::Work
    }

    fn work(&mut self) -> Result<bool, LogFailure> {
        let begun = Instant::now();
        let mut report = self.worker.work()?;
        report.sync_us = Some(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        let full = report.full;
        if report.prepared_bytes < self.segment_bytes {
            let _ = self.spares.send(());
        }
        let _ = self.reports.send(FromLog::Report(report));
        Ok(full)
    }
}

/// Starts the thread that allocates and zeroes segments ahead of need, so that an append never waits for it.
fn start_preparer(
    prepare: impl FnMut() -> Result<bool, WalError> + Send + 'static,
    orders: Sender<Order>,
) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
    let (wanted, inbox) = channel::<()>();
    let thread = std::thread::Builder::new()
        .name("kvd-prepare".into())
        .spawn(move || prepare_when_wanted(prepare, &inbox, &orders))?;
    Ok((wanted, thread))
}

/// Prepares a segment whenever one is wanted, and tries again for as long as there is no space.
///
/// Nobody else would: a leader proposes only into prepared space, and without proposals the log has no work after which it
/// could want a segment.
fn prepare_when_wanted(
    mut prepare: impl FnMut() -> Result<bool, WalError>,
    inbox: &Receiver<()>,
    orders: &Sender<Order>,
) {
    let mut full = false;
    loop {
        let wanted = match full {
            true => inbox.recv_timeout(FULL_RETRY_DELAY),
            false => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if let Err(RecvTimeoutError::Disconnected) = wanted {
            return;
        }
        while inbox.try_recv().is_ok() {}
        let look = match prepare() {
            Ok(made) => {
                full = false;
                // Without one there is enough, or the log is as large as it may be: to look again would end up here again.
                made
            }
            Err(error @ WalError::NoSpace { .. }) => {
                if !full {
                    tracing::warn!(%error, "no segment could be prepared ahead");
                }
                full = true;
                false
            }
            // The log is not to be used any more; its own thread says so when it looks.
            Err(error) => {
                tracing::error!(%error, "no segment could be prepared ahead");
                full = false;
                true
            }
        };
        if look && orders.send(Order::Look).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Persist, PersistId};
    use raft_log::{Binding, Options, Wal};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn space_that_returns_is_noticed_without_any_work() {
        let mut tries = 0;
        let prepare = move || {
            tries += 1;
            match tries {
                1 | 2 => Err(WalError::NoSpace {
                    needed: 1,
                    available: 0,
                }),
                _ => Ok(true),
            }
        };
        let (orders, looks) = channel();
        let (wanted, thread) = start_preparer(prepare, orders).unwrap();
        wanted.send(()).unwrap();
        assert!(matches!(looks.recv_timeout(DEADLINE), Ok(Order::Look)));
        drop(wanted);
        thread.join().unwrap();
    }

    #[test]
    fn failed_preparation_makes_the_log_look_at_once() {
        let (orders, looks) = channel();
        let (wanted, thread) = start_preparer(|| Err(WalError::Poisoned), orders).unwrap();
        wanted.send(()).unwrap();
        assert!(matches!(looks.recv_timeout(DEADLINE), Ok(Order::Look)));
        drop(wanted);
        thread.join().unwrap();
    }

    #[test]
    fn log_thread_that_panics_is_a_failure_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let binding = Binding {
            cluster: 1,
            node: 1,
        };
        let options = Options {
            segment_bytes: 64 << 10,
            max_bytes: 1 << 20,
            reserve_bytes: 0,
            ..Options::default()
        };
        let log = dir.path().join("log");
        Wal::create(&OsFs, &log, binding, &options).unwrap();
        let (wal, _) = Wal::open(&OsFs, &log, binding, options).unwrap();
        let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
        let thread = LogThread::start(LogWorker::new(wal), 64 << 10, reports).unwrap();
        let part = |id| {
            LogJob::Persist(Persist {
                id: PersistId(id),
                hard_state: None,
                snapshot: None,
                snapshot_keeps_log: false,
                repaired: Vec::new(),
                entries: Vec::new(),
            })
        };
        thread.push(part(2));
        thread.push(part(1));
        let failed = std::iter::from_fn(|| told.blocking_recv())
            .any(|said| matches!(said, FromLog::Failed(_)));
        assert!(failed);
        assert!(thread.abandon().is_err());
    }
}
