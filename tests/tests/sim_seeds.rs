//! Worlds that nobody has seen before: swarm scenarios of fresh seeds, until the time is over.

use std::io::Write as _;
use std::time::Duration;

use kvd_sim::sim::campaign::{Campaign, run_seeds};
use kvd_sim::sim::{Timeline, run, shrink, swarm};

/// How long the test plays.
const DEFAULT_SECONDS: u64 = 110;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Says which seeds were played also if all went well, when nobody sees what a test prints.
fn show(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr can be written to");
}

/// `KVD_SIM_FIRST=n` begins with that seed, `KVD_SIM_SECONDS=n` plays for so long.
#[test]
fn fresh_seeds_keep_every_promise() {
    let first = number("KVD_SIM_FIRST").unwrap_or_else(|| rand::random::<u32>().into());
    let limit = Duration::from_secs(number("KVD_SIM_SECONDS").unwrap_or(DEFAULT_SECONDS));
    show(&format!("KVD_SIM_FIRST={first}"));
    let Campaign { totals, failure } = run_seeds(first..u64::MAX, limit);
    show(&totals.to_string());
    if let Some((seed, failure)) = failure {
        let (scenario, shortest) = shrink(&swarm(seed), failure.clone());
        let story = run(&scenario, Timeline::of_events()).timeline;
        panic!("seed {seed}: {failure}\nthe shortest found:\n{scenario}{story}{shortest}");
    }
    assert!(totals.runs > 10, "only {} runs", totals.runs);
}

/// The same scenario gives the same run, down to each message.
#[test]
fn same_seed_gives_the_same_run() {
    let story = |seed| {
        run(&swarm(seed), Timeline::with_messages())
            .timeline
            .to_string()
    };
    let seed = rand::random::<u32>().into();
    assert_eq!(story(seed), story(seed), "seed {seed}");
    assert_ne!(story(seed), story(seed + 1));
}
