//! The log in the hands of one thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::fs::Fs;
use crate::group::queue::Queue;
use crate::group::turn::{Outcomes, Turn};
use crate::group::{GATHER_PATIENCE_MAX, Inner, Log, Phase};

/// The log, taken out of the state. Dropped with the log still in it, its thread panicked; then everybody who waits is told
/// that the log is lost, instead of sleeping for ever.
pub(super) struct Lease<'a, F: Fs> {
    inner: &'a Inner<F>,
    log: Option<Box<Log<F>>>,
    /// The group that is being written.
    group: Option<(Queue, Arc<Turn>)>,
}

impl<'a, F: Fs> Lease<'a, F> {
    pub(super) fn new(inner: &'a Inner<F>, log: Box<Log<F>>) -> Lease<'a, F> {
        Lease {
            inner,
            log: Some(log),
            group: None,
        }
    }

    pub(super) fn log(&mut self) -> &mut Log<F> {
        self.log.as_mut().expect("it goes with the lease")
    }

    /// Writes and syncs what waits. The caller settles the turn.
    pub(super) fn write_group(&mut self) -> (Arc<Turn>, Outcomes) {
        self.take_group();
        let (queue, _) = self.group.as_ref().expect("taken above");
        let log = self.log.as_mut().expect("it goes with the lease");
        let begin = Instant::now();
        let outcomes = queue.write(&mut log.wal, self.inner.options.term);
        let took = begin.elapsed();
        log.spares.top_up(log.wal.prepared_bytes());
        (self.put_group_away(took), outcomes)
    }

    fn take_group(&mut self) {
        let mut state = self.inner.state();
        self.group = Some(state.take_queue());
        self.inner.waiting.store(0, Ordering::Relaxed);
        // To notify nobody is a system call too.
        if state.crowd > 0 {
            self.inner.room.notify_all();
        }
    }

    fn put_group_away(&mut self, took: Duration) -> Arc<Turn> {
        let (mut queue, turn) = self.group.take().expect("taken before it was written");
        let mut state = self.inner.state();
        state.expected = queue.writers() + state.queue.writers();
        state.patience = took.min(GATHER_PATIENCE_MAX);
        queue.clear(self.inner.options.queue_bytes_max);
        state.idle = queue;
        turn
    }

    /// Lets the next one have the log, whoever that is: a thread with a claim, a writer that waits, or the next one to come.
    pub(super) fn give_back(mut self) {
        let mut state = self.inner.state();
        state.log = self.log.take();
        if state.claims > 0 {
            self.inner.free.notify_all();
        } else if !state.queue.is_empty() {
            let turn = Arc::clone(&state.turn);
            drop(state);
            turn.call_for_leader();
        }
    }

    /// Nobody gets the log any more.
    pub(super) fn keep(mut self) -> Box<Log<F>> {
        self.log.take().expect("it goes with the lease")
    }
}

impl<F: Fs> Drop for Lease<'_, F> {
    fn drop(&mut self) {
        if self.log.is_none() {
            return;
        }
        let mut state = self.inner.state();
        state.phase = Phase::Lost;
        let (queue, turn) = state.take_queue();
        drop(state);
        self.inner.room.notify_all();
        self.inner.free.notify_all();
        turn.settle(queue.refuse());
        if let Some((queue, turn)) = self.group.take() {
            turn.settle(queue.unknown());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fs::OsFs;
    use crate::group::{Group, GroupError, GroupOptions};
    use crate::{Binding, Options, PreparerThread, Wal};

    /// A panic while a group is written: nobody knows how far it came.
    #[test]
    fn group_that_was_being_written_when_its_leader_panicked_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("log");
        let binding = Binding {
            cluster: 1,
            node: 1,
        };
        let options = Options {
            segment_bytes: 16 << 10,
            max_bytes: 1 << 20,
            reserve_bytes: 0,
            ..Options::default()
        };
        Wal::create(&OsFs, &dir, binding, &options).unwrap();
        let (wal, _) = Wal::open(&OsFs, &dir, binding, options).unwrap();
        let spares = PreparerThread::start(wal.preparer(), |_| {}).unwrap();
        let group = Group::new(wal, binding, spares, GroupOptions::default());
        let mut lease = group.inner.claim(super::Phase::Open).unwrap();
        let outcome = std::thread::scope(|scope| {
            let writer = scope.spawn(|| group.append(1, b"payload"));
            while group.waiting_writers() == 0 {
                std::thread::yield_now();
            }
            lease.take_group();
            drop(lease);
            writer.join().unwrap()
        });
        assert!(matches!(outcome, Err(GroupError::Unknown(_))));
        assert!(matches!(group.append(1, b"x"), Err(GroupError::Refused(_))));
        assert!(matches!(group.close(), Err(GroupError::Refused(_))));
    }
}
