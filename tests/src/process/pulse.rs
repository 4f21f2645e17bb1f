//! How long clients waited.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Answers that clients got, and the longest time that each went without one.
#[derive(Debug)]
pub(super) struct Pulses {
    clients: Vec<Mutex<Pulse>>,
}

#[derive(Clone, Copy, Debug)]
struct Pulse {
    answered: u64,
    last: Instant,
    longest: Duration,
}

impl Pulses {
    /// Clients that begin now.
    pub(super) fn of(clients: usize) -> Pulses {
        let pulse = Pulse {
            answered: 0,
            last: Instant::now(),
            longest: Duration::ZERO,
        };
        Pulses {
            clients: (0..clients).map(|_| Mutex::new(pulse)).collect(),
        }
    }

    /// This client has an answer.
    pub(super) fn beat(&self, client: usize) {
        let now = Instant::now();
        self.with(client, |pulse| {
            pulse.answered += 1;
            pulse.longest = pulse.longest.max(now - pulse.last);
            pulse.last = now;
        });
    }

    /// Forgets gaps that are over.
    pub(super) fn begin_span(&self) {
        self.each(|pulse| pulse.longest = Duration::ZERO);
    }

    /// The longest gap of any client that ended in this span, or has not ended yet.
    pub(super) fn longest_gap(&self) -> Duration {
        let now = Instant::now();
        let gaps = self.each(|pulse| pulse.longest.max(now.saturating_duration_since(pulse.last)));
        gaps.into_iter().max().unwrap_or_default()
    }

    /// Answers of each client so far.
    pub(super) fn answered(&self) -> Vec<u64> {
        self.each(|pulse| pulse.answered)
    }

    fn each<T>(&self, look: impl Fn(&mut Pulse) -> T) -> Vec<T> {
        let clients = 0..self.clients.len();
        clients.map(|client| self.with(client, &look)).collect()
    }

    fn with<T>(&self, client: usize, look: impl FnOnce(&mut Pulse) -> T) -> T {
        let pulse = self.clients[client].lock();
        look(&mut pulse.unwrap_or_else(PoisonError::into_inner))
    }
}
