//! Power cuts at every storage call of a running cluster: the real driver, store and log over simulated disks.

use std::time::{Duration, Instant};

use kvd_sim::sim::{PowerCut, World, WorldOptions};

/// Writes of each client in a run.
const WRITES: u64 = 12;

/// Ticks within which a run must come to its end; an election takes some twenty.
const TICKS_MAX: u64 = 20_000;

/// How long the whole test may take; the number of calls that were cut is printed.
const DEFAULT_SECONDS: u64 = 25;

fn budget() -> Duration {
    let seconds = std::env::var("KVD_SIM_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS))
}

/// One run: clients write, the power goes, everything comes back, and what was acknowledged is there, once, everywhere.
fn run(seed: u64, cut: Option<PowerCut>) -> World {
    let mut world = World::new(seed, WorldOptions::default());
    if let Some(cut) = cut {
        world.plan(cut);
    }
    let story = format!("seed {seed}, {cut:?}");
    world.run_until(
        &format!("{story}: all writes answered"),
        TICKS_MAX,
        |world| world.clients_have(WRITES),
    );
    world.stop_clients();
    world.run_until(
        &format!("{story}: all nodes level"),
        TICKS_MAX,
        World::is_level,
    );
    world.check_promises();
    world
}

#[test]
fn a_quiet_cluster_keeps_every_promise() {
    for seed in 0..5 {
        let world = run(seed, None);
        assert_eq!(world.power_cuts(), 0);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let picture = |seed| run(seed, None).picture();
    assert_eq!(picture(7), picture(7));
    assert_ne!(picture(7), picture(8));
}

#[test]
fn a_power_cut_at_any_storage_call_loses_nothing_acknowledged() {
    let seed = std::env::var("KVD_SIM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let quiet = run(seed, None);
    let mut plan: Vec<PowerCut> = Vec::new();
    for node in 0..3 {
        let first = World::new(seed, WorldOptions::default()).storage_calls(node) + 1;
        for call in first..=quiet.storage_calls(node) {
            plan.extend([false, true].map(|everywhere| PowerCut {
                node,
                call,
                everywhere,
            }));
        }
    }
    // A stride that shares no factor with the length visits all of them, and spreads what a short budget allows.
    let stride = (1..)
        .map(|k| 7919 + k)
        .find(|stride| gcd(*stride, plan.len()) == 1)
        .expect("there is always one");
    let begun = Instant::now();
    let mut done = 0;
    let mut cuts = 0;
    while done < plan.len() && begun.elapsed() < budget() {
        let cut = plan[done * stride % plan.len()];
        cuts += run(seed, Some(cut)).power_cuts();
        done += 1;
    }
    println!(
        "seed {seed}: {done} of {} planned power cuts run, {cuts} nodes lost power",
        plan.len()
    );
    assert!(cuts > 0, "no cut happened");
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
