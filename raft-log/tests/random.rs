//! Random scripts with random crashes, one after the other on the same disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Instant;

use raft_log::fs::{SimFs, UnitFate};
use support::random::Random;
use support::{Model, Step, Subject, budget, recovered, small};

/// A step that the log in this state takes.
fn random_step(random: &mut Random, model: &Model) -> Step {
    let (first, last) = (model.floor.0 + 1, model.last_index());
    let term = model.last_term().max(1) + u64::from(random.one_in(4));
    match random.below(20) {
        0 => Step::HardState(
            model.hard_state.0 + 1 + random.below(2),
            random.one_in(2).then_some(7),
        ),
        1 => Step::Flush,
        2 => Step::Prepare,
        3 => Step::Reopen,
        4 | 5 => Step::Kill,
        6..=8 if last >= first => Step::Truncate(first + random.below(last + 2 - first)),
        9 | 10 if last >= first => Step::Purge(first + random.below(last + 1 - first)),
        11 if random.one_in(3) => Step::Reset(last + 1 + random.below(10), term),
        _ => {
            // Often the same size, so that leftovers lie exactly where a record would.
            let bytes = |random: &mut Random| match random.below(4) {
                0 => random.below(8000) as usize,
                1 => random.below(50) as usize,
                _ => 300,
            };
            let count = 1 + random.below(8);
            Step::Append((0..count).map(|_| (term, bytes(random))).collect())
        }
    }
}

/// Case 17, over random scripts: after each crash, power cut or kill, the log holds what was acknowledged
/// and the scripts go on. Prints its seed; `RAFT_LOG_SEED` runs one seed alone.
#[test]
fn random_scripts_with_random_crashes_lose_nothing_acknowledged() {
    if let Some(seed) = std::env::var("RAFT_LOG_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        one_life(seed);
        return;
    }
    let end = Instant::now() + budget();
    let mut seed = 0;
    while seed < 10 || Instant::now() < end {
        seed += 1;
        let result = std::panic::catch_unwind(|| one_life(seed));
        assert!(result.is_ok(), "failed with RAFT_LOG_SEED={seed}");
    }
    println!("seeds 1..={seed}");
}

/// Eight crashes in the life of one disk.
fn one_life(seed: u64) {
    let mut random = Random(seed);
    let mut subject = Subject::new(SimFs::new(seed), small());
    for crash in 0..8 {
        let stop = subject.fs.calls() + 1 + random.below(250);
        subject.fs.stop_at_call(stop);
        while subject.interrupted.is_none() {
            let step = random_step(&mut random, &subject.acknowledged);
            // Now and then a reader holds what is cut.
            let held = subject
                .wal
                .as_ref()
                .filter(|_| random.one_in(3))
                .map(|wal| {
                    let reader = wal.reader();
                    reader.hold(reader.first_index()..reader.last_index() + 1, u64::MAX)
                });
            subject.run(&[step]);
            drop(held);
        }
        power_or_process(&mut random, &subject.fs);
        let possible = subject.possible();
        let what = format!(
            "seed {seed}, crash {crash} at call {stop} in {:?}",
            subject.interrupted
        );
        let (wal, found) =
            recovered(&subject.fs, &small()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(possible.contains(&found), "{what}");
        drop(wal);
        subject
            .fs
            .power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
        let (wal, again) =
            recovered(&subject.fs, &small()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(again == found, "{what}: what was found was in memory only");
        drop(wal);
        subject.acknowledged = again;
        subject.interrupted = None;
    }
}

fn power_or_process(random: &mut Random, fs: &SimFs) {
    if random.one_in(4) {
        return fs.crash_process();
    }
    // Mixed, or all of one kind.
    let kind = random.below(6);
    let mut bits = Random(random.below(u64::MAX));
    let mut names = Random(random.below(u64::MAX));
    fs.power_cut_with(&mut |_| names.one_in(2), &mut |_| match kind {
        0..=3 => UnitFate::ALL[kind as usize],
        _ => UnitFate::ALL[bits.below(4) as usize],
    });
}
