//! A disk that is made slow on purpose, to see what a cluster does about it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the log thread waits before it writes and syncs. The loop sets it; the log thread waits.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskDelay {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    delay: Duration,
    is_over: bool,
}

impl DiskDelay {
    /// Sets the delay, also of a wait that has begun.
    pub(super) fn set(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Ends all waiting, for good: the node stops as in a crash.
    pub(super) fn end(&self) {
        self.change(|state| state.is_over = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.shared.changed.notify_all();
    }

    /// Waits as long as was set; false if [`DiskDelay::end`] came, after which nothing may be written.
    pub(super) fn wait(&self) -> bool {
        let begun = Instant::now();
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = state.delay.saturating_sub(begun.elapsed());
            if state.is_over || left.is_zero() {
                return !state.is_over;
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
