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

/// All syncs take long from now on, on no two nodes equally long.
fn slow_all_disks(world: &mut World) -> Played {
    for (node, more_ms) in (0..world.nodes()).zip((0..).step_by(100)) {
        let (sync_ms, ms) = (SYNC_MS + more_ms, 600_000);
        world.hit(Fault::SlowDisk { node, sync_ms, ms })?;
    }
    Ok(())
}

/// Waits until so many more writes are answered.
fn wait_written(world: &mut World, more: usize) -> Played {
    let written = |world: &World| {
        let calls = world.calls();
        let is_written = |told: &Told| matches!(told, Told::Written(_));
        calls.iter().filter(|call| is_written(&call.told)).count()
    };
    let goal = written(world) + more;
    wait(world, 20 * SYNC_MS, "writes go on", |it| {
        written(it) >= goal
    })
}

/// Case 54: all disks need five election timeouts for a sync. Nobody is better off, so leadership stays, and writes go on slowly.
#[test]
fn leadership_stays_where_all_disks_are_slow() {
    for seed in seeds(8) {
        play(&busy(seed), |world| {
            let node = leader(world)?;
            pass(world, 1_000 + 17 * seed)?;
            let elections = world.counts().elections;
            slow_all_disks(world)?;
            for _ in 0..8 {
                wait_written(world, 8)?;
                assert_eq!(world.leader(), Some(node), "leadership moved");
            }
            assert_eq!(world.counts().elections, elections, "leadership moved");
            Ok(())
        });
    }
}

/// Case 54: the leader dies where a vote needs five election timeouts to reach a disk. Another one is found, and leads.
#[test]
fn leader_is_found_where_all_disks_are_slow() {
    for seed in seeds(30) {
        play(&busy(seed), |world| {
            let node = leader(world)?;
            slow_all_disks(world)?;
            pass(world, 2 * SYNC_MS)?;
            let down_ms = 3_000;
            world.hit(Fault::Kill { node, down_ms })?;
            let killed_us = world.now();
            wait(world, 10 * SYNC_MS, "another leader", |it| {
                it.leader().is_some_and(|it| it != node)
            })?;
            let us = world.now() - killed_us;
            println!("seed {seed}: after {} syncs", us / 1_000 / SYNC_MS);
            wait_written(world, 20)
        });
    }
}
