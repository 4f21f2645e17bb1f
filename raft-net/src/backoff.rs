//! How long to wait before the next attempt to reach a peer. Pure: the seed comes in, the delay goes out.

use std::time::Duration;

/// Delays that double from `first` to `max`, each drawn evenly from the upper half of its step.
///
/// Jitter keeps two nodes that lost each other at the same moment from trying in step for ever.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
    state: u64,
}

impl Backoff {
    /// A back-off that starts with `first`, never exceeds `max` and jitters by `seed`.
    #[must_use]
    pub fn new(first: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff {
            first,
            max: max.max(first),
            attempt: 0,
            state: seed,
        }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let step = self
            .first
            .saturating_mul(1 << self.attempt.min(16))
            .min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64(self.fraction())
    }

    /// Attempts since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// The peer was reached: the next failure starts again with the shortest delay.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// SplitMix64, as a number in 0..1. Not for secrets.
    fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 53 bits fit a double exactly.
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_within_bounds_and_start_over_after_a_success() {
        let (first, max) = (Duration::from_millis(50), Duration::from_millis(500));
        for seed in 0..200 {
            let mut backoff = Backoff::new(first, max, seed);
            for attempt in 0..40_u32 {
                let delay = backoff.next_delay();
                let step = first.saturating_mul(1 << attempt.min(10)).min(max);
                assert!(
                    delay >= step / 2,
                    "seed {seed} attempt {attempt}: {delay:?} below {step:?} / 2"
                );
                assert!(
                    delay <= step,
                    "seed {seed} attempt {attempt}: {delay:?} above {step:?}"
                );
            }
            backoff.reset();
            assert!(backoff.next_delay() <= first);
        }
    }

    #[test]
    fn same_seed_gives_the_same_delays_and_another_seed_others() {
        let delays = |seed| {
            let mut backoff =
                Backoff::new(Duration::from_millis(50), Duration::from_millis(500), seed);
            (0..8).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }
}
