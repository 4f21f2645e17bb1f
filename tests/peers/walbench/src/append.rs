//! Durable appends per second: one writer with batches, and many writers with single entries.
//!
//! Of many writers it is what they append in a time. Of one writer it is the batch over the time that the quickest tenth of its
//! appends take at most: on a busy machine the others wait for their turn on a processor, whatever the log does.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::PAYLOAD_BYTES;
use crate::engine::{
    Engine, Log, RAFT_ENGINE, RAFT_ENGINE_PREFILLED, RAFT_LOG, RAFT_LOG_GROUP, REF_PWRITE,
    SEGMENT_BYTES, Setup,
};
use crate::payloads::Payloads;
use crate::rounds::{order, print_ratio, print_rows, rows};

/// Writers, and entries per append of each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub writers: usize,
    pub batch: usize,
}

pub const LOADS: [Load; 6] = [
    Load::new(1, 1),
    Load::new(1, 16),
    Load::new(1, 64),
    Load::new(1, 256),
    Load::new(8, 1),
    Load::new(64, 1),
];

/// What an entry takes at most, in any of the formats.
const STORED_BYTES: u64 = PAYLOAD_BYTES as u64 + 64;

/// Turns are short, so that whatever else the machine does meets every engine alike.
const TURN: Duration = Duration::from_millis(25);

impl Load {
    pub const fn new(writers: usize, batch: usize) -> Load {
        Load { writers, batch }
    }

    /// Enough segments for one round, so that nobody allocates or zeroes while the clock runs.
    fn pool_segments(self) -> usize {
        if self.batch < 256 { 2 } else { 4 }
    }

    /// Entries after which an engine has no more turns in a round: raft-log would begin to prepare the next segment.
    fn entries_max(self) -> u64 {
        (self.pool_segments() as u64 - 1) * SEGMENT_BYTES / STORED_BYTES
    }

    /// Many writers have nothing to group them in the engine that belongs to one thread.
    fn engines(self) -> Vec<Engine> {
        let peers = [REF_PWRITE, RAFT_ENGINE, RAFT_ENGINE_PREFILLED];
        let alone = (self.writers == 1).then_some(RAFT_LOG);
        peers
            .into_iter()
            .chain(alone)
            .chain([RAFT_LOG_GROUP])
            .collect()
    }
}

/// An open log, and what was appended to it.
struct Runner {
    dir: PathBuf,
    log: Box<dyn Log>,
    load: Load,
    entries: u64,
    seconds: f64,
    /// Of each append of the first writer, in seconds.
    latencies: Vec<f64>,
}

pub fn run(dir: &Path, load: Load, seconds: f64, round_count: usize) {
    println!(
        "\nappend: {} writers, batches of {}",
        load.writers, load.batch
    );
    let engines = load.engines();
    let rows = rows(&engines, round_count, |_| {
        round(&engines, dir, load, seconds)
    });
    print_rows(&rows, "entries/s");
    for ours in [RAFT_LOG, RAFT_LOG_GROUP] {
        for peer in [REF_PWRITE, RAFT_ENGINE, RAFT_ENGINE_PREFILLED] {
            print_ratio(&rows, ours.name, peer.name, false);
        }
    }
}

/// Entries per second of each engine, into fresh logs.
fn round(engines: &[Engine], dir: &Path, load: Load, seconds: f64) -> Vec<f64> {
    let mut runners: Vec<Runner> = engines
        .iter()
        .enumerate()
        .map(|(number, engine)| Runner::start(engine, dir.join(format!("append-{number}")), load))
        .collect();
    let turns = (seconds / TURN.as_secs_f64()).ceil() as usize;
    for turn in 0..turns {
        for at in order(runners.len(), turn) {
            runners[at].append();
        }
    }
    runners.into_iter().map(Runner::finish).collect()
}

impl Runner {
    fn start(engine: &Engine, dir: PathBuf, load: Load) -> Runner {
        crate::remove(&dir);
        let setup = Setup {
            pool_segments: load.pool_segments(),
        };
        let log = (engine.open)(&dir, setup);
        // Outside of the clock: engines take their first segment into use here.
        log.append(0, Payloads::new(0).batch(1));
        Runner {
            dir,
            log,
            load,
            entries: 0,
            seconds: 0.0,
            latencies: Vec::new(),
        }
    }

    /// One turn.
    fn append(&mut self) {
        if self.entries >= self.load.entries_max() {
            return;
        }
        let Load { writers, batch } = self.load;
        let (log, latencies) = (&*self.log, &mut self.latencies);
        let ready = Barrier::new(writers + 1);
        let (stop, appended) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let mut latencies = Some(latencies);
            for writer in 0..writers {
                let (ready, stop, appended) = (&ready, &stop, &appended);
                let mut latencies = latencies.take();
                scope.spawn(move || {
                    let mut payloads = Payloads::new(writer as u64 + 1);
                    payloads.batch(batch);
                    ready.wait();
                    while !stop.load(Ordering::Relaxed) {
                        let payloads = payloads.batch(batch);
                        let begin = Instant::now();
                        log.append(writer, payloads);
                        if let Some(latencies) = &mut latencies {
                            latencies.push(begin.elapsed().as_secs_f64());
                        }
                        appended.fetch_add(batch as u64, Ordering::Relaxed);
                    }
                });
            }
            ready.wait();
            let begin = Instant::now();
            std::thread::sleep(TURN);
            self.entries += appended.load(Ordering::Relaxed);
            self.seconds += begin.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
        });
    }

    fn finish(self) -> f64 {
        self.log.close();
        crate::remove(&self.dir);
        if self.load.writers == 1 {
            self.load.batch as f64 / quickest_tenth(self.latencies)
        } else {
            self.entries as f64 / self.seconds
        }
    }
}

fn quickest_tenth(mut latencies: Vec<f64>) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies[latencies.len() / 10]
}
