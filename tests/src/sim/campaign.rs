//! Many seeds on all processors, until one fails or the time is over.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::run::{Failure, Figures, run};
use super::swarm::swarm;
use super::timeline::Timeline;

/// Figures of many runs together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// The first seed, and the one after the last that was begun.
    pub seeds: (u64, u64),
    /// Runs that kept every promise.
    pub runs: u64,
    /// Sums over all of them.
    pub sums: Figures,
    /// How long it took.
    pub elapsed: Duration,
    /// Threads that played side by side.
    pub threads: usize,
}

/// What came of a campaign.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Figures of what succeeded.
    pub totals: Totals,
    /// The lowest seed that failed, and how.
    pub failure: Option<(u64, Failure)>,
}

/// Plays seeds in order until one fails, all are done, or `limit` is over.
pub fn run_seeds(seeds: Range<u64>, limit: Duration) -> Campaign {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shared = Mutex::new((Totals::default(), None::<(u64, Failure)>));
    let play = || {
        while begun.elapsed() < limit {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || shared.lock().expect("no holder panics").1.is_some() {
                return;
            }
            let result = run(&swarm(seed), Timeline::off()).result;
            let mut shared = shared.lock().expect("no holder panics");
            let (totals, failure) = &mut *shared;
            totals.seeds.1 = totals.seeds.1.max(seed + 1);
            match result {
                Ok(figures) => totals.add(&figures),
                Err(new) if failure.as_ref().is_none_or(|(known, _)| seed < *known) => {
                    *failure = Some((seed, new));
                }
                Err(_) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(play);
        }
    });
    let (mut totals, failure) = shared.into_inner().expect("no holder panics");
    totals.seeds.0 = seeds.start;
    totals.elapsed = begun.elapsed();
    totals.threads = threads;
    Campaign { totals, failure }
}

impl Totals {
    fn add(&mut self, figures: &Figures) {
        self.runs += 1;
        self.sums.add(figures);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, end) = self.seeds;
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "seeds {first}..{end}: {} runs passed in {seconds:.0} s on {} threads, {:.0} seeds a minute",
            self.runs,
            self.threads,
            self.runs as f64 / seconds * 60.0
        )?;
        let simulated = self.sums.us as f64 / 1e6;
        writeln!(
            f,
            "{simulated:.0} simulated cluster-seconds, {:.0} in a second of one thread",
            simulated / seconds / self.threads as f64
        )?;
        write!(f, "{}", self.sums)
    }
}
