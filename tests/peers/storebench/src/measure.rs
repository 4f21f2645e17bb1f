//! The measurements. Engines take turns within a round, so that a slow moment of the machine meets all of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{Batch, Engine, key, mix, value};

/// What is measured in each round, one figure each.
pub const FIGURES: [&str; 9] = [
    "puts/s alone",
    "puts/s beside a reader",
    "reads/s beside the writer",
    "read p99, us",
    "scan beside the writer, s",
    "puts/s beside the scan",
    "longest batch beside the scan, ms",
    "view, us",
    "longest batch under a view, ms",
];

/// One engine of whatever kind.
pub trait Contestant {
    fn name(&self) -> &'static str;
    /// One figure for each of [`FIGURES`].
    fn round(&mut self, window: Duration) -> Vec<f64>;
    /// Seconds to close, and to open again until a key is found.
    fn reopen(self: Box<Self>) -> (f64, f64);
}

pub struct Filled<E: Engine> {
    engine: E,
    dir: PathBuf,
    keys: u64,
    batch: u64,
    /// Number of the next batch.
    next: AtomicU64,
}

/// What a window of writing came to.
struct Written {
    puts_per_s: f64,
    longest: Duration,
}

impl<E: Engine> Filled<E> {
    /// An engine with this many keys, and puts per second while it was filled.
    pub fn new(dir: &Path, keys: u64, batch: u64) -> (Filled<E>, f64) {
        let dir = dir.join(E::NAME.replace(' ', "-"));
        // A run that was interrupted may have left one.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("our directory");
        let engine = E::open(&dir);
        let mut took = Duration::ZERO;
        for start in (0..keys).step_by(batch as usize) {
            let end = keys.min(start + batch);
            let batch: Batch = (start..end).map(|n| (key(n), value(n))).collect();
            let prepared = E::prepare(batch);
            let began = Instant::now();
            engine.apply(prepared);
            took += began.elapsed();
        }
        let filled = Filled {
            engine,
            dir,
            keys,
            batch,
            next: AtomicU64::new(1),
        };
        assert_eq!(filled.engine.scan().0 as u64, keys);
        (filled, keys as f64 / took.as_secs_f64())
    }

    /// Random puts until told to stop, or for a while. Making a batch does not count.
    fn write(&self, stop: &AtomicBool, window: Duration) -> Written {
        let began = Instant::now();
        let (mut taken, mut longest, mut puts) = (Duration::ZERO, Duration::ZERO, 0);
        while began.elapsed() < window && !stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed) << 20;
            let batch = (0..self.batch)
                .map(|at| (key(mix(seed + at) % self.keys), value(seed + at)))
                .collect();
            let prepared = E::prepare(batch);
            let began = Instant::now();
            self.engine.apply(prepared);
            let took = began.elapsed();
            taken += took;
            longest = longest.max(took);
            puts += self.batch;
        }
        Written {
            puts_per_s: puts as f64 / taken.as_secs_f64(),
            longest,
        }
    }

    /// Random reads until told to stop: reads per second, and the 99th percentile.
    fn read(&self, stop: &AtomicBool) -> (f64, Duration) {
        let began = Instant::now();
        let mut taken = Vec::new();
        let mut state = 1;
        while !stop.load(Ordering::Relaxed) {
            state = mix(state);
            let key = key(state % self.keys);
            let began = Instant::now();
            assert!(self.engine.get(&key).is_some());
            taken.push(began.elapsed());
        }
        let rate = taken.len() as f64 / began.elapsed().as_secs_f64();
        taken.sort_unstable();
        let p99 = taken.get(taken.len() * 99 / 100).copied();
        (rate, p99.unwrap_or_default())
    }

    fn beside_a_reader(&self, window: Duration) -> (Written, f64, Duration) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.read(&stop));
            let written = self.write(&AtomicBool::new(false), window);
            stop.store(true, Ordering::Relaxed);
            let (rate, p99) = reader.join().expect("a reader does not panic");
            (written, rate, p99)
        })
    }

    fn beside_a_scan(&self) -> (Written, Duration) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let scan = scope.spawn(|| {
                let began = Instant::now();
                let (count, _) = self.engine.scan();
                let took = began.elapsed();
                stop.store(true, Ordering::Relaxed);
                assert_eq!(count as u64, self.keys);
                took
            });
            let written = self.write(&stop, Duration::MAX);
            (written, scan.join().expect("a scan does not panic"))
        })
    }

    /// Time to take a view, and the longest batch while it is held.
    fn under_a_view(&self, window: Duration) -> (Duration, Duration) {
        let began = Instant::now();
        let mut took = Duration::ZERO;
        let mut longest = Duration::ZERO;
        self.engine.hold_view(|| {
            took = began.elapsed();
            longest = self.write(&AtomicBool::new(false), window).longest;
        });
        (took, longest)
    }
}

impl<E: Engine> Contestant for Filled<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn round(&mut self, window: Duration) -> Vec<f64> {
        let alone = self.write(&AtomicBool::new(false), window);
        let (beside, reads, p99) = self.beside_a_reader(window);
        let (scanning, scan) = self.beside_a_scan();
        let (view, longest) = self.under_a_view(window);
        vec![
            alone.puts_per_s,
            beside.puts_per_s,
            reads,
            p99.as_secs_f64() * 1e6,
            scan.as_secs_f64(),
            scanning.puts_per_s,
            scanning.longest.as_secs_f64() * 1e3,
            view.as_secs_f64() * 1e6,
            longest.as_secs_f64() * 1e3,
        ]
    }

    fn reopen(self: Box<Self>) -> (f64, f64) {
        let Filled { engine, dir, .. } = *self;
        let before = engine.scan();
        let began = Instant::now();
        engine.close();
        let closed = began.elapsed();
        let began = Instant::now();
        let engine = E::open(&dir);
        assert!(engine.get(&key(0)).is_some());
        let opened = began.elapsed();
        assert_eq!(engine.scan(), before, "{} has lost something", E::NAME);
        std::fs::remove_dir_all(&dir).expect("our directory");
        (closed.as_secs_f64(), opened.as_secs_f64())
    }
}
