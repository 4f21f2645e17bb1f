//! Random reads of single entries out of a log of 1 GiB that the page cache holds; one reader.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::PAYLOAD_BYTES;
use crate::engine::{Log, RAFT_ENGINE, RAFT_LOG, REF_PWRITE};
use crate::filled::{ENGINES, ENTRIES, filled, open};
use crate::payloads::Payloads;
use crate::rounds::{order, print_ratio, print_rows, rows};

const TURN: Duration = Duration::from_millis(25);
/// Reads between two looks at the clock.
const READS_PER_LOOK: usize = 16;

pub fn run(dir: &Path, seconds: f64, round_count: usize, batch: usize) {
    let logs = ENGINES.map(|engine| open(&engine, &filled(&engine, dir, batch)));
    let mut indexes = Payloads::new(2);
    round(&logs, seconds, &mut indexes);
    println!("\nread: single entries of 1 GiB, appended in batches of {batch}");
    let rows = rows(&ENGINES, round_count, |_| {
        round(&logs, seconds, &mut indexes)
    });
    print_rows(&rows, "reads/s");
    for peer in [REF_PWRITE, RAFT_ENGINE] {
        print_ratio(&rows, RAFT_LOG.name, peer.name, false);
    }
    logs.into_iter().for_each(Log::close);
}

fn round(logs: &[Box<dyn Log>], seconds: f64, indexes: &mut Payloads) -> Vec<f64> {
    let mut done = vec![(0, 0.0); logs.len()];
    let turns = (seconds / TURN.as_secs_f64()).ceil() as usize;
    for turn in 0..turns {
        for at in order(logs.len(), turn) {
            let begin = Instant::now();
            while begin.elapsed() < TURN {
                for _ in 0..READS_PER_LOOK {
                    let read = logs[at].read(indexes.next() % ENTRIES + 1);
                    assert_eq!(read, PAYLOAD_BYTES);
                }
                done[at].0 += READS_PER_LOOK;
            }
            done[at].1 += begin.elapsed().as_secs_f64();
        }
    }
    done.into_iter()
        .map(|(reads, seconds)| reads as f64 / seconds)
        .collect()
}
