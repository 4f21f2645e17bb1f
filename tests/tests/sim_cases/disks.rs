//! Disks that are slow.

use kvd_sim::sim::{Fault, Scenario, Told, Us, World};

use crate::shared::{ET_MS, Played, follower, leader, pass, play, seeds, wait};

/// Time that one sync takes on the slow disk: five election timeouts.
const SYNC_MS: u64 = 5 * ET_MS;
/// How long latencies are measured.
const MEASURED_MS: u64 = 2_000;

fn busy(seed: u64) -> Scenario {
    Scenario {
        rest_ms: 20,
        ..Scenario::new(seed)
    }
}

/// Median time from question to answer of all calls that began and were answered from now on.
fn median_us(world: &mut World) -> Played<Us> {
    let begin = world.now();
    pass(world, MEASURED_MS)?;
    let calls = world.calls();
    let answered = calls.iter().filter(|call| {
        call.begun_us >= begin && matches!(call.told, Told::Written(_) | Told::Read(_))
    });
    let mut times: Vec<Us> = answered
        .filter_map(|call| call.ended_us.map(|end| end - call.begun_us))
        .collect();
    times.sort_unstable();
    assert!(times.len() > 50, "only {} calls were answered", times.len());
    Ok(times[times.len() / 2])
}

/// Case 54: a follower whose syncs take five election timeouts slows nobody else down, and leadership stays.
#[test]
fn slow_disk_of_a_follower_does_not_slow_others() {
    for seed in seeds(2) {
        play(&busy(seed), |world| {
            let node = follower(world)?;
            let fast = median_us(world)?;
            let (elections, sync_ms, ms) = (world.counts().elections, SYNC_MS, MEASURED_MS);
            world.hit(Fault::SlowDisk { node, sync_ms, ms })?;
            let slow = median_us(world)?;
            println!("median {fast} us, with a slow follower {slow} us");
            assert!(slow <= fast + fast / 2, "{fast} us became {slow} us");
            assert_eq!(world.counts().elections, elections, "leadership moved");
            Ok(())
        });
    }
}

/// Case 54: a leader whose syncs take five election timeouts hands over within five election timeouts, and writes go on.
#[test]
fn leadership_leaves_a_slow_disk() {
    for seed in seeds(3) {
        play(&busy(seed), |world| {
            let node = leader(world)?;
            pass(world, 1_000)?;
            let (sync_ms, ms) = (SYNC_MS, 60_000);
            world.hit(Fault::SlowDisk { node, sync_ms, ms })?;
            let slow_us = world.now();
            wait(world, 5 * ET_MS, "leadership leaves a slow disk", |it| {
                it.leader().is_some_and(|it| it != node)
            })?;
            println!("after {} ms", (world.now() - slow_us) / 1_000);
            let median = median_us(world)?;
            assert!(
                median < SYNC_MS * 1_000 / 2,
                "{median} us: the slow disk is waited for"
            );
            assert_ne!(world.leader(), Some(node), "leadership came back");
            Ok(())
        });
    }
}
