//! The thread that owns the log, and the one that prepares its next segment.
//!
//! Every sync happens here: a stalled disk holds up neither heartbeats nor answers. The thread takes all jobs that wait, runs
//! them, syncs once and reports; one hand-over each way for a whole batch.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use raft_log::Preparer;
use raft_log::fs::OsFs;
use tokio::sync::mpsc::UnboundedSender;

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
        let (spares, preparer) = start_preparer(worker.preparer(), orders.clone())?;
        // The tail may be all but full: a leader would have nothing it may propose into.
        let _ = spares.send(());
        let thread = std::thread::Builder::new()
            .name("kvd-log".into())
            .spawn(move || {
                let result = Loop {
                    worker,
                    segment_bytes,
                    reports: reports.clone(),
                    spares,
                }
                .run(&inbox);
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
    preparer: Preparer<OsFs>,
    orders: Sender<Order>,
) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
    let (wanted, inbox) = channel::<()>();
    let thread = std::thread::Builder::new()
        .name("kvd-prepare".into())
        .spawn(move || {
            while inbox.recv().is_ok() {
                while inbox.try_recv().is_ok() {}
                match preparer.prepare_spare() {
                    Ok(true) => {
                        if orders.send(Order::Look).is_err() {
                            return;
                        }
                    }
                    // There was one already, or the log is as large as it may be. To look again would end up here again.
                    Ok(false) => {}
                    // The log itself refuses writes when it runs out of prepared space; this is only early notice.
                    Err(error) => tracing::warn!(%error, "no segment could be prepared ahead"),
                }
            }
        })?;
    Ok((wanted, thread))
}
