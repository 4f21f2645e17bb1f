//! The thread that owns the log, and the one that prepares its next segment.
//!
//! Every sync happens here: a stalled disk holds up neither heartbeats nor answers. The thread takes all jobs that wait, runs
//! them, syncs once and reports; one hand-over each way for a whole batch.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raft_log::{Fs, Preparer, PreparerThread, WalError};
use tokio::sync::mpsc::UnboundedSender;

use super::disk_delay::DiskDelay;
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
    End(End),
}

/// How the loop ends.
enum End {
    Close,
    Abandon,
}

/// A handle on the threads. It must be ended with [`LogThread::close`] or [`LogThread::abandon`]: the threads hold the lock of
/// the data directory.
pub(super) struct LogThread {
    orders: Sender<Order>,
    delay: DiskDelay,
    thread: JoinHandle<Result<(), LogFailure>>,
}

impl LogThread {
    /// Starts both threads.
    ///
    /// The channels are unbounded, but what is in them is not: the core's windows and the bound on uncommitted bytes limit
    /// what a node is given before it has synced.
    pub(super) fn start<F: Fs>(
        worker: LogWorker<F>,
        reports: UnboundedSender<FromLog>,
    ) -> std::io::Result<LogThread> {
        let (orders, inbox) = channel();
        let delay = DiskDelay::default();
        let waits = delay.clone();
        let spares = start_preparer(worker.preparer(), orders.clone())?;
        let thread = std::thread::Builder::new()
            .name("kvd-log".into())
            .spawn(move || {
                let result = run_guarded(
                    Loop {
                        worker,
                        reports: reports.clone(),
                        spares,
                        delay: waits,
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
            delay,
            thread,
        })
    }

    /// Makes the disk slow: from now on the thread waits this long before it writes and syncs what it was given.
    pub(super) fn slow_down(&self, delay: Duration) {
        self.delay.set(delay);
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
        self.delay.end();
        self.end(Order::Abandon)
    }

    fn end(self, order: Order) -> Result<(), LogFailure> {
        // A log thread that is gone has said why, and says it again below.
        let _ = self.orders.send(order);
        self.thread.join().expect("the log thread does not panic")
    }
}

/// Runs the loop. If its own state turns out wrong it fails like any other storage: without a log thread the node would go on
/// as a leader that stores nothing.
fn run_guarded<F: Fs>(thread: Loop<F>, inbox: &Receiver<Order>) -> Result<(), LogFailure> {
    // Nothing of the loop is looked at afterwards.
    let run = std::panic::AssertUnwindSafe(|| thread.run(inbox));
    std::panic::catch_unwind(run).unwrap_or_else(|_| {
        let what = "the log thread panicked";
        Err(LogFailure(Failure::new(ExitCode::StorageIo, what)))
    })
}

struct Loop<F: Fs> {
    worker: LogWorker<F>,
    reports: UnboundedSender<FromLog>,
    spares: PreparerThread,
    delay: DiskDelay,
}

impl<F: Fs> Loop<F> {
    fn run(mut self, inbox: &Receiver<Order>) -> Result<(), LogFailure> {
        let end = self.serve(inbox);
        match self.spares.stop() {
            // It met a log that this thread found failed.
            Ok(()) | Err(WalError::Poisoned) => {}
            // This thread only found the log poisoned; here is why.
            Err(error) => return Err(error.into()),
        }
        match end? {
            End::Close => self.worker.close(),
            End::Abandon => Ok(()),
        }
    }

    /// Does what is ordered, until an order to end.
    fn serve(&mut self, inbox: &Receiver<Order>) -> Result<End, LogFailure> {
        let mut full = false;
        let mut dirty = false;
        loop {
            let patience = match (full, dirty) {
                (true, _) => FULL_RETRY_DELAY,
                (false, true) => CONTROL_SYNC_DELAY,
                (false, false) => Duration::from_secs(3600),
            };
            let mut writes = full;
            let next = match inbox.recv_timeout(patience) {
                Ok(first) => self.take(first, inbox, &mut writes),
                Err(RecvTimeoutError::Timeout) if full => Next::Work,
                Err(RecvTimeoutError::Timeout) => {
                    if std::mem::take(&mut dirty) {
                        if !self.delay.wait() {
                            return Ok(End::Abandon);
                        }
                        self.worker.idle()?;
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => Next::End(End::Abandon),
            };
            if let Next::End(End::Abandon) = next {
                return Ok(End::Abandon);
            }
            if writes && !self.delay.wait() {
                return Ok(End::Abandon);
            }
            full = self.work()?;
            dirty = true;
            if let Next::End(end) = next {
                return Ok(end);
            }
        }
    }

    /// Takes everything that waits; tells whether there is something to write among it.
    fn take(&mut self, first: Order, inbox: &Receiver<Order>, writes: &mut bool) -> Next {
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Job(job) => {
                    *writes |= !matches!(job, LogJob::NoteCommit(_));
                    self.worker.push(job);
                }
                Order::Look => {}
                Order::Close => return Next::End(End::Close),
                Order::Abandon => return Next::End(End::Abandon),
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
        self.spares.top_up(report.prepared_bytes);
        let _ = self.reports.send(FromLog::Report(report));
        Ok(full)
    }
}

/// Starts the thread that allocates and zeroes segments ahead of need, so that an append never waits for it, and makes the log
/// look at what became of it.
///
/// It begins at once: the tail may be all but full, and a leader would have nothing it may propose into. Without proposals the
/// log has no work after which it could want a segment, so a full disk is tried again without being asked.
fn start_preparer<F: Fs>(
    preparer: Preparer<F>,
    orders: Sender<Order>,
) -> std::io::Result<PreparerThread> {
    let mut full = false;
    PreparerThread::start(preparer, move |result| {
        let look = match result {
            // Without a new one there is enough, or the log is as large as it may be: nothing has changed.
            Ok(made) => {
                full = false;
                *made
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
                true
            }
        };
        if look {
            // A log thread that is gone has said why.
            let _ = orders.send(Order::Look);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use raft_core::{Persist, PersistId};
    use raft_log::fs::{OsFs, SimFs};
    use raft_log::{Binding, Options, Wal};
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);
    const EIO: i32 = 5;

    /// The log in `dir`, new if there is none.
    fn log<F: Fs>(fs: &F, dir: &Path, segment_bytes: u64) -> Wal<F> {
        let binding = Binding {
            cluster: 1,
            node: 1,
        };
        let options = Options {
            segment_bytes,
            max_bytes: 16 * segment_bytes,
            reserve_bytes: 0,
            spare_segments: 8,
        };
        if !fs.exists(dir).unwrap() {
            Wal::create(fs, dir, binding, &options).unwrap();
        }
        Wal::open(fs, dir, binding, options).unwrap().0
    }

    fn simulated(disk: &SimFs) -> Wal<SimFs> {
        log(disk, Path::new("/data/log"), 64 << 10)
    }

    /// Looks again and again until there is something.
    fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < DEADLINE, "no {what}");
            std::thread::yield_now();
        }
    }

    /// The failure that the log thread tells.
    fn failure(mut told: UnboundedReceiver<FromLog>) -> LogFailure {
        wait_for("failure", || match told.try_recv() {
            Ok(FromLog::Failed(failure)) => Some(failure),
            Ok(FromLog::Report(_)) | Err(_) => None,
        })
    }

    #[test]
    fn space_that_returns_is_noticed_without_any_work() {
        let disk = SimFs::new(1);
        let wal = simulated(&disk);
        let (orders, looks) = channel();
        disk.set_capacity(Some(0));
        let calls = disk.calls();
        let spares = start_preparer(wal.preparer(), orders).unwrap();
        wait_for("attempt", || (disk.calls() > calls).then_some(()));
        assert!(looks.try_recv().is_err(), "a look without a segment");
        disk.set_capacity(None);
        assert!(matches!(looks.recv_timeout(DEADLINE), Ok(Order::Look)));
        assert!(wal.prepared_bytes() > 0, "a look without a segment");
        spares.stop().unwrap();
    }

    #[test]
    fn failed_preparation_makes_the_log_look_at_once() {
        let disk = SimFs::new(2);
        let wal = simulated(&disk);
        let (orders, looks) = channel();
        disk.fail_call(disk.calls() + 2, EIO);
        let spares = start_preparer(wal.preparer(), orders).unwrap();
        assert!(matches!(looks.recv_timeout(DEADLINE), Ok(Order::Look)));
        assert!(matches!(spares.stop(), Err(WalError::Io(_))));
    }

    /// Not that the log is poisoned, which is all that its own thread finds.
    #[test]
    fn failed_preparation_is_the_failure_of_the_node() {
        let disk = SimFs::new(3);
        let worker = LogWorker::new(simulated(&disk));
        disk.fail_call(disk.calls() + 2, EIO);
        let (reports, told) = tokio::sync::mpsc::unbounded_channel();
        let thread = LogThread::start(worker, reports).unwrap();
        let failed = failure(told);
        assert!(failed.0.file.is_some(), "{failed}");
        assert_eq!(thread.close(), Err(failed));
    }

    #[test]
    fn directory_is_free_when_the_log_was_ended_while_a_segment_was_prepared() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("log");
        for closes in [true, false, true] {
            let worker = LogWorker::new(log(&OsFs, &dir, 8 << 20));
            let (reports, _told) = tokio::sync::mpsc::unbounded_channel();
            let thread = LogThread::start(worker, reports).unwrap();
            wait_for("segment in the making", || {
                let names = OsFs.list(&dir).unwrap();
                names.into_iter().find(|name| name.ends_with(".tmp"))
            });
            match closes {
                true => thread.close().unwrap(),
                false => thread.abandon().unwrap(),
            }
        }
    }

    fn part(id: u64) -> LogJob {
        LogJob::Persist(Persist {
            id: PersistId(id),
            hard_state: None,
            snapshot: None,
            snapshot_keeps_log: false,
            repaired: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// Waits until this part is reported durable.
    fn wait_persisted(told: &mut UnboundedReceiver<FromLog>, id: u64) {
        wait_for("report", || match told.try_recv() {
            Ok(FromLog::Report(report)) if report.persisted == Some(PersistId(id)) => Some(()),
            Ok(FromLog::Report(_)) | Err(_) => None,
            Ok(FromLog::Failed(failure)) => panic!("{failure}"),
        });
    }

    /// The delays are longer than anybody waits for a test: only a change of them lets it end.
    #[test]
    fn slow_disk_holds_up_the_log_until_it_is_quick_again_or_the_node_crashes() {
        let ever = Duration::from_secs(24 * 3600);
        let disk = SimFs::new(5);
        let worker = LogWorker::new(simulated(&disk));
        let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
        let thread = LogThread::start(worker, reports).unwrap();
        thread.slow_down(ever);
        thread.push(part(1));
        thread.slow_down(Duration::ZERO);
        wait_persisted(&mut told, 1);
        thread.slow_down(ever);
        for id in 2..1000 {
            // Enough of them for a thread that does not wait to write some before it is told to stop.
            thread.push(part(id));
            std::thread::yield_now();
        }
        thread.abandon().unwrap();
        while let Ok(said) = told.try_recv() {
            let FromLog::Report(report) = said else {
                panic!("{said:?}")
            };
            assert_eq!(report.persisted, None, "written on a disk that hangs");
        }
    }

    #[test]
    fn log_thread_that_panics_is_a_failure_of_the_node() {
        let worker = LogWorker::new(simulated(&SimFs::new(4)));
        let (reports, told) = tokio::sync::mpsc::unbounded_channel();
        let thread = LogThread::start(worker, reports).unwrap();
        thread.push(part(2));
        thread.push(part(1));
        failure(told);
        assert!(thread.abandon().is_err());
    }
}
