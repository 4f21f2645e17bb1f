//! From a scenario that fails to the shortest one that fails in the same way.

use super::run::{Failure, run};
use super::scenario::Scenario;
use super::timeline::Timeline;

/// Runs that shrinking may take at most.
const RUNS_MAX: usize = 600;

/// What is tried, and how many tries are left.
struct Search {
    best: Scenario,
    failure: Failure,
    runs_left: usize,
}

/// Takes out faults, one half, quarter, ... at a time, then makes the weather better and the run shorter, as long as the
/// same rule is broken. What is left may not be the shortest of all, but nothing single of it can go.
pub fn shrink(scenario: &Scenario, failure: Failure) -> (Scenario, Failure) {
    let mut search = Search {
        best: scenario.clone(),
        failure,
        runs_left: RUNS_MAX,
    };
    loop {
        let before = search.best.clone();
        search.take_out_faults();
        search.calm_down();
        search.shorten();
        if search.best == before || search.runs_left == 0 {
            return (search.best, search.failure);
        }
    }
}

impl Search {
    /// Keeps the candidate if it fails in the same way.
    fn try_one(&mut self, candidate: Scenario) -> bool {
        if self.runs_left == 0 || candidate == self.best {
            return false;
        }
        self.runs_left -= 1;
        match run(&candidate, Timeline::off()).result {
            Err(failure) if failure.rule == self.failure.rule => {
                self.best = candidate;
                self.failure = failure;
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    fn take_out_faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.faults.len() {
                let mut candidate = self.best.clone();
                let end = (at + size).min(candidate.faults.len());
                candidate.faults.drain(at..end);
                if !self.try_one(candidate) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn calm_down(&mut self) {
        let calm: [fn(&mut Scenario); 7] = [
            |it| it.loss_permille = 0,
            |it| it.duplicate_permille = 0,
            |it| it.reorder_permille = 0,
            |it| it.delay_ms = 5,
            |it| it.sync_ms = 10,
            |it| it.clients = it.clients.div_ceil(2),
            |it| it.rest_ms = 200,
        ];
        for change in calm {
            let mut candidate = self.best.clone();
            change(&mut candidate);
            self.try_one(candidate);
        }
    }

    fn shorten(&mut self) {
        for (divisor, factor) in [(2, 1), (4, 3), (8, 7)] {
            let mut candidate = self.best.clone();
            candidate.ms = candidate.ms / divisor * factor;
            let ms = candidate.ms;
            candidate.faults.retain(|(at, _)| *at <= ms);
            self.try_one(candidate);
        }
    }
}
