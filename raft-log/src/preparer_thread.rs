//! The thread that keeps spare segments ready and gives full ones their index.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::WalError;
use crate::fs::Fs;
use crate::segment::Preparer;

/// How long a full disk is left alone before the next attempt. Nobody else would try again: who holds back until there is
/// prepared space appends nothing after which a segment could be asked for.
const NO_SPACE_RETRY: Duration = Duration::from_millis(500);

/// Runs a [`Preparer`] on a thread of its own, so that no append waits until a segment is allocated and zeroed.
///
/// It prepares what [`Options::spare_segments`](crate::Options::spare_segments) asks for at the start and whenever
/// [`top_up`](PreparerThread::top_up) finds too little left. On a full disk it tries again twice a second. Dropping it
/// ends the thread and waits for that, as [`stop`](PreparerThread::stop) does, but loses the error.
#[derive(Debug)]
pub struct PreparerThread {
    signal: Arc<Signal>,
    segment_bytes: u64,
    thread: Option<JoinHandle<Result<(), WalError>>>,
}

/// What the thread is to do.
#[derive(Debug, Default)]
struct Signal {
    orders: Mutex<Orders>,
    given: Condvar,
}

#[derive(Debug, Default)]
struct Orders {
    prepare: bool,
    stop: bool,
}

impl PreparerThread {
    /// Starts the thread. `told` hears the result of every attempt, on that thread: `Ok(true)` is a new spare or an index, `Ok(false)`
    /// means that no more are wanted for now, [`WalError::NoSpace`] that the next attempt follows. Any other error poisons
    /// the log and ends the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start<F: Fs>(
        preparer: Preparer<F>,
        mut told: impl FnMut(&Result<bool, WalError>) + Send + 'static,
    ) -> io::Result<PreparerThread> {
        let signal = Arc::new(Signal::default());
        signal.order(|orders| orders.prepare = true);
        let segment_bytes = preparer.options.segment_bytes;
        let inbox = Arc::clone(&signal);
        let thread = std::thread::Builder::new()
            .name("log-prepare".into())
            .spawn(move || run(&preparer, &inbox, &mut told))?;
        Ok(PreparerThread {
            signal,
            segment_bytes,
            thread: Some(thread),
        })
    }

    /// Wakes the thread if `prepared_bytes` ([`Wal::prepared_bytes`](crate::Wal::prepared_bytes)) are less than a segment has.
    /// Called after each sync; never waits.
    pub fn top_up(&self, prepared_bytes: u64) {
        if prepared_bytes < self.segment_bytes {
            self.signal.order(|orders| orders.prepare = true);
        }
    }

    /// Ends the thread, after the segment that it is preparing. Called before the log is closed: a log that is opened
    /// again meanwhile would be found locked.
    ///
    /// # Errors
    /// The one with which the thread ended and the log was poisoned. A full disk is none.
    ///
    /// # Panics
    /// If `told` panicked.
    pub fn stop(mut self) -> Result<(), WalError> {
        self.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn join(&mut self) -> std::thread::Result<Result<(), WalError>> {
        self.signal.order(|orders| orders.stop = true);
        self.thread.take().map_or(Ok(Ok(())), JoinHandle::join)
    }
}

impl Drop for PreparerThread {
    fn drop(&mut self) {
        // `told` has heard of an error, and a panic of it was printed.
        let _ = self.join();
    }
}

impl Signal {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Two flags: nothing can be half done.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut self.orders());
        self.given.notify_one();
    }

    /// Waits until segments are to be prepared, `patience` at most; `false` when the thread is to stop.
    fn wait(&self, patience: Option<Duration>) -> bool {
        let idle = |orders: &mut Orders| !orders.prepare && !orders.stop;
        let orders = self.orders();
        let mut orders = match patience {
            None => self
                .given
                .wait_while(orders, idle)
                .unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.given.wait_timeout_while(orders, patience, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        orders.prepare = false;
        !orders.stop
    }

    fn must_stop(&self) -> bool {
        self.orders().stop
    }
}

fn run<F: Fs>(
    preparer: &Preparer<F>,
    signal: &Signal,
    told: &mut impl FnMut(&Result<bool, WalError>),
) -> Result<(), WalError> {
    let mut patience = None;
    while signal.wait(patience) {
        patience = match prepare_all(preparer, signal, told) {
            Ok(()) => None,
            Err(WalError::NoSpace { .. }) => Some(NO_SPACE_RETRY),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// Prepares segments until enough are ready.
fn prepare_all<F: Fs>(
    preparer: &Preparer<F>,
    signal: &Signal,
    told: &mut impl FnMut(&Result<bool, WalError>),
) -> Result<(), WalError> {
    while !signal.must_stop() {
        let result = preparer.work();
        told(&result);
        if !result? {
            break;
        }
    }
    Ok(())
}
