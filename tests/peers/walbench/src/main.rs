//! Durable logs side by side, in turns within one run: raft-log, raft-engine, and a minimal log.

mod append;
mod engine;
mod filled;
mod open;
mod ours;
mod payloads;
mod peer;
mod read;
mod reference;
mod rounds;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use append::{LOADS, Load};

pub const PAYLOAD_BYTES: usize = 256;

const USAGE: &str = "\
walbench append DIR [SECONDS [ROUNDS [WRITERS BATCH]]]
walbench open DIR [ROUNDS [BATCH]]
walbench read DIR [SECONDS [ROUNDS [BATCH]]]

DIR is on the disk to be measured; SECONDS are per engine and round.";

const SECONDS: f64 = 0.5;
const ROUNDS: usize = 7;
/// Entries per append in a log that is filled to be opened and read.
const FILL_BATCH: usize = 256;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if run(&args).is_some() {
        ExitCode::SUCCESS
    } else {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    }
}

/// `None` if the arguments make no sense.
fn run(args: &[String]) -> Option<()> {
    let dir = PathBuf::from(args.get(1)?);
    match args[0].as_str() {
        "append" => {
            let (seconds, rounds) = (number(args, 2, SECONDS)?, number(args, 3, ROUNDS)?);
            let only = Load::new(number(args, 4, 0)?, number(args, 5, 1)?);
            let wanted = |load: &Load| only.writers == 0 || *load == only;
            for load in LOADS.into_iter().filter(wanted) {
                append::run(&dir, load, seconds, rounds);
            }
        }
        "open" => open::run(&dir, number(args, 2, ROUNDS)?, number(args, 3, FILL_BATCH)?),
        "read" => {
            let (seconds, rounds) = (number(args, 2, SECONDS)?, number(args, 3, ROUNDS)?);
            read::run(&dir, seconds, rounds, number(args, 4, FILL_BATCH)?);
        }
        _ => return None,
    }
    Some(())
}

/// The argument at a place, or what stands for it if there is none.
fn number<T: FromStr>(args: &[String], at: usize, default: T) -> Option<T> {
    match args.get(at) {
        Some(arg) => arg.parse().ok(),
        None => Some(default),
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove(dir: &Path) {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("{}: {error}", dir.display())
        }
        Ok(()) | Err(_) => {}
    }
}
