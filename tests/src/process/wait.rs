//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// How long tests wait for what should take a second or two: a busy machine must not make them fail.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer.
///
/// # Panics
/// There is none within `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            start.elapsed() < patience,
            "waited {patience:?} in vain for {what}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// Asks until it is so, for at most [`PATIENCE`].
///
/// # Panics
/// It does not become so.
pub fn eventually(what: &str, mut ask: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || ask().then_some(()));
}
