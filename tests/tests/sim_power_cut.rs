//! Power cuts at every storage call of a running cluster: the real driver, store and log over simulated disks.

use std::time::{Duration, Instant};

use kvd_sim::sim::{Fault, Outcome, Scenario, Timeline, World, run};

/// How long the clients of a run write, in milliseconds of the world.
const MS: u64 = 3_000;

/// How long a node without power stays away.
const DOWN_MS: u64 = 400;

/// How long the whole test may take; the number of calls that were cut is printed.
const DEFAULT_SECONDS: u64 = 12;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// Many writes, and snapshots all the time.
fn busy(seed: u64) -> Scenario {
    Scenario {
        ms: MS,
        rest_ms: 50,
        snapshot_bytes: 6 << 10,
        ..Scenario::new(seed)
    }
}

/// Storage calls of each node in a run without a cut: those of its start, and all.
fn calls(scenario: &Scenario) -> Vec<(u64, u64)> {
    let mut world = World::new(scenario, Timeline::off());
    let count = |world: &World| -> Vec<u64> {
        let nodes = 0..world.nodes();
        nodes.map(|place| world.storage_calls(place)).collect()
    };
    world.run_to(0).expect("a quiet run");
    let begin = count(&world);
    world.run_to(scenario.ms * 1_000).expect("a quiet run");
    begin.into_iter().zip(count(&world)).collect()
}

fn all_cuts(scenario: &Scenario) -> Vec<Fault> {
    let mut cuts = Vec::new();
    for (node, (begin, end)) in calls(scenario).into_iter().enumerate() {
        for calls in 1..=end - begin {
            let down_ms = DOWN_MS;
            cuts.push(Fault::PowerCutAtCall {
                node,
                calls,
                down_ms,
            });
            cuts.push(Fault::BlackoutAtCall {
                node,
                calls,
                down_ms,
            });
        }
    }
    cuts
}

#[test]
fn a_power_cut_at_any_storage_call_loses_nothing_acknowledged() {
    let seed = number("KVD_SIM_SEED", rand::random::<u32>().into());
    println!("KVD_SIM_SEED={seed}");
    let budget = Duration::from_secs(number("KVD_SIM_SECONDS", DEFAULT_SECONDS));
    let plan = all_cuts(&busy(seed));
    assert!(plan.len() > 1_000, "{} calls can be cut", plan.len());
    // A stride that shares no factor with the length visits all of them, and spreads what a short budget allows.
    let stride = (7_919..).find(|stride| gcd(*stride, plan.len()) == 1);
    let stride = stride.expect("there is always one");
    let begun = Instant::now();
    let (mut done, mut cuts) = (0, 0);
    while done < plan.len() && begun.elapsed() < budget {
        let scenario = busy(seed).with(0, plan[done * stride % plan.len()]);
        let Outcome { result, .. } = run(&scenario, Timeline::off());
        match result {
            Ok(figures) => cuts += figures.counts.power_cuts,
            Err(failure) => panic!("{scenario}\n{failure}"),
        }
        done += 1;
    }
    println!(
        "{done} of {} planned power cuts run, {cuts} nodes lost power",
        plan.len()
    );
    assert!(cuts > 0, "no cut happened");
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
