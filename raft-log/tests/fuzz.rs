//! What the fuzz targets check, in every run of the tests: the committed inputs, and random ones for a few
//! seconds (`RAFT_LOG_FUZZ_SECONDS`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fuzzing;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzzing::input::{Input, Random};
use fuzzing::{MUTATE, OPEN, RECORD, Target, oracle, script};

/// Larger ones would fill the repository; `cargo fuzz cmin` finds those that are needed.
const COMMITTED_BYTES_MAX: u64 = 1 << 20;

/// Minimised inputs that reach each part of the code, and inputs that showed a bug or a broken rule.
const DIRS: [&str; 2] = ["corpus", "regressions"];

fn committed(target: &Target) -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let dirs = DIRS.map(|dir| tests.join(dir).join(target.name));
    let entries = dirs.iter().filter_map(|dir| dir.read_dir().ok()).flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs one input; where a broken promise came from is said before it is passed on.
fn run(target: &Target, input: &[u8], from: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if let Err(broken) = outcome {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-broken", target.name));
        std::fs::write(&file, input).unwrap();
        println!("{}, {from}: kept as {}", target.name, file.display());
        resume_unwind(broken);
    }
}

fn replay(target: &Target) {
    let files = committed(target);
    assert!(files.len() > 10, "inputs of {} are gone", target.name);
    for file in files {
        let input = std::fs::read(&file).unwrap();
        run(target, &input, &file.display().to_string());
    }
}

fn budget() -> Duration {
    let seconds = std::env::var("RAFT_LOG_FUZZ_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs_f64(seconds.unwrap_or(3.0))
}

/// `RAFT_LOG_FUZZ_SEED` repeats a run; input number n depends on nothing but seed and n.
fn seed() -> u64 {
    match std::env::var("RAFT_LOG_FUZZ_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => rand::random(),
    }
}

fn run_random(target: &Target) {
    let (begin, seed, mut number) = (Instant::now(), seed(), 0);
    println!("{}: RAFT_LOG_FUZZ_SEED={seed}", target.name);
    while begin.elapsed() < budget() || number < 20 {
        let mut random = Random(seed ^ Random(number).long());
        let input = (target.random)(&mut random);
        run(target, &input, &format!("input {number} of seed {seed}"));
        number += 1;
    }
    println!("{}: {number} random inputs", target.name);
}

/// Case 62, log directory.
#[test]
fn committed_directories_are_refused_or_work() {
    replay(&OPEN);
}

/// Case 62, log directory.
#[test]
fn random_directories_are_refused_or_work() {
    run_random(&OPEN);
}

/// Cases 48 and 49: committed scripts and damages.
#[test]
fn committed_damage_is_harmless_or_refused() {
    replay(&MUTATE);
}

/// Cases 48 and 49: random scripts and damages.
#[test]
fn random_damage_is_harmless_or_refused() {
    run_random(&MUTATE);
}

/// Case 62, entry record.
#[test]
fn committed_records_decode_or_are_refused_and_encode_back() {
    replay(&RECORD);
}

/// Case 62, entry record.
#[test]
fn random_records_decode_or_are_refused_and_encode_back() {
    run_random(&RECORD);
}

#[test]
fn committed_inputs_stay_small() {
    let files = [OPEN, MUTATE, RECORD];
    let files = files.iter().flat_map(committed);
    let bytes: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < COMMITTED_BYTES_MAX, "{bytes} bytes of inputs");
}

/// The oracle itself: it notices an entry that is gone, and one that is another.
#[test]
fn fewer_or_other_entries_are_noticed() {
    // Two steps: seven entries of 100 bytes, then five more.
    let script = [0, 2, 12, 0x46, 5, 12, 0x44, 5];
    let script::Closed { fs, model, .. } = script::run(&mut Input::new(&script));
    assert_eq!(model.last_index(), 12);
    let (wal, opened) = oracle::open(&fs).unwrap();
    let found = oracle::read_back(&wal, &opened);
    oracle::check_complete(&found, &model, "as it was");
    let mut longer = model.clone();
    longer.entries.insert(13, (1, vec![1]));
    let mut other = model.clone();
    other.entries.get_mut(&12).unwrap().1[0] ^= 1;
    let mut shorter = model.clone();
    shorter.entries.remove(&12);
    for wrong in [longer, other, shorter] {
        let check = || oracle::check_complete(&found, &wrong, "expected to be noticed");
        assert!(catch_unwind(AssertUnwindSafe(check)).is_err());
    }
}
