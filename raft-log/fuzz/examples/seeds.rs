//! Writes inputs to begin with into `corpus/TARGET` of the current directory: intact logs, and random inputs.
//!
//! libFuzzer finds no checksum by itself, so `open` needs logs that the real code made.
#![forbid(unsafe_code)]

use std::path::Path;

use raft_log_fuzz::fuzzing::input::Random;
use raft_log_fuzz::fuzzing::{MUTATE, OPEN, RECORD, Target, open};

const COUNT: u64 = 200;
/// A fuzzer gets through short inputs faster.
const BYTES_MAX: usize = 4 << 10;

fn main() -> std::io::Result<()> {
    for target in [OPEN, MUTATE, RECORD] {
        let dir = Path::new("corpus").join(target.name);
        std::fs::create_dir_all(&dir)?;
        for number in 0..COUNT {
            let file = dir.join(format!("seed-{number:03}"));
            std::fs::write(file, seed(&target, number))?;
        }
    }
    Ok(())
}

fn seed(target: &Target, number: u64) -> Vec<u8> {
    let mut random = Random(number);
    loop {
        let input = if target.name == OPEN.name && number.is_multiple_of(2) {
            open::valid(&mut random)
        } else {
            (target.random)(&mut random)
        };
        if input.len() <= BYTES_MAX {
            return input;
        }
    }
}
