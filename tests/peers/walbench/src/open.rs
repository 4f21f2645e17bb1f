//! How long it takes to open a log of 1 GiB that the page cache holds.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::engine::{RAFT_ENGINE, RAFT_LOG, REF_PWRITE};
use crate::filled::{ENGINES, filled, open};
use crate::rounds::{order, print_ratio, print_rows, rows};

pub fn run(dir: &Path, round_count: usize, batch: usize) {
    let dirs = ENGINES.map(|engine| filled(&engine, dir, batch));
    // Once without the clock: what was just filled or lies on the disk only gets into the page cache.
    round(&dirs, 0);
    println!("\nopen: 1 GiB, appended in batches of {batch}");
    let rows = rows(&ENGINES, round_count, |number| round(&dirs, number));
    print_rows(&rows, "s");
    for peer in [REF_PWRITE, RAFT_ENGINE] {
        print_ratio(&rows, RAFT_LOG.name, peer.name, true);
    }
}

fn round(dirs: &[PathBuf], number: usize) -> Vec<f64> {
    let mut seconds = vec![0.0; ENGINES.len()];
    for at in order(ENGINES.len(), number) {
        let begin = Instant::now();
        let log = open(&ENGINES[at], &dirs[at]);
        seconds[at] = begin.elapsed().as_secs_f64();
        log.close();
    }
    seconds
}
