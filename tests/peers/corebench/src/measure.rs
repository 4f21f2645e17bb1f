//! Processor time and rates of one cluster.

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

use crate::Cluster;

/// One run of one variant.
pub struct Sample {
    /// Processor time of the thread per commit, for all three nodes.
    pub cpu_us: f64,
    /// By the clock on the wall.
    pub per_second: f64,
    pub messages: f64,
    pub wire_bytes: f64,
}

/// Caches and vectors reach their size in this time.
const WARM_UP: Duration = Duration::from_millis(50);
/// About as many entries between two looks at the clock.
const ENTRIES_PER_LOOK: usize = 1024;

pub fn measure(cluster: &mut dyn Cluster, payload: &Bytes, batch: usize, seconds: f64) -> Sample {
    let begin = Instant::now();
    while begin.elapsed() < WARM_UP {
        cluster.commit(payload, batch);
    }
    let (applied, bytes) = (cluster.applied(), cluster.wire_bytes());
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let mut messages = 0;
    while begin.elapsed().as_secs_f64() < seconds {
        for _ in 0..(ENTRIES_PER_LOOK / batch).max(1) {
            messages += cluster.commit(payload, batch);
        }
    }
    let (cpu, wall) = (cpu_seconds() - cpu, begin.elapsed().as_secs_f64());
    let commits = (cluster.applied() - applied) as f64;
    Sample {
        cpu_us: cpu * 1e6 / commits,
        per_second: commits / wall,
        messages: messages as f64 / commits,
        wire_bytes: (cluster.wire_bytes() - bytes) as f64 / commits,
    }
}

/// Processor time per read in microseconds.
pub fn measure_reads(cluster: &mut dyn Cluster, batch: usize, seconds: f64) -> f64 {
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let mut reads = 0;
    while begin.elapsed().as_secs_f64() < seconds {
        for _ in 0..(ENTRIES_PER_LOOK / batch).max(1) {
            cluster.read(batch);
            reads += batch;
        }
    }
    (cpu_seconds() - cpu) * 1e6 / reads as f64
}

/// The other work of the machine does not count here, except for what it does to the caches.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let values = sorted(values);
    values[values.len() / 2]
}
