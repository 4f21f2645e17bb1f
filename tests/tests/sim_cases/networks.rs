//! Networks that are cut, clogged and lossy.

use kvd_sim::sim::{Fault, Place, Scenario, Told, World};
use rand::RngExt;

use crate::shared::{ET_MS, Played, draws, is_long, leader, pass, play, seeds, shuffled, wait};

/// Within so many election timeouts there is a leader.
const LEADER_TIMEOUTS: u64 = 10;
/// Changes of leadership that are allowed in a hundred election timeouts.
const CHANGES_MAX: u64 = 2;

/// How long leadership is watched, in election timeouts.
fn watched_timeouts() -> u64 {
    if is_long() { 100 } else { 30 }
}

/// A leader comes about within 10 election timeouts, and stays; meanwhile writes succeed.
fn leader_comes_and_stays(world: &mut World) -> Played {
    wait(
        world,
        LEADER_TIMEOUTS * ET_MS,
        "a leader in a broken network",
        |it| it.leader().is_some(),
    )?;
    let (elections, begun_us) = (world.counts().elections, world.now());
    pass(world, watched_timeouts() * ET_MS)?;
    let changes = world.counts().elections - elections;
    assert!(changes <= CHANGES_MAX, "leadership moved {changes} times");
    assert!(world.leader().is_some(), "no leader: {}", world.picture());
    let calls = world.calls();
    let written = calls
        .iter()
        .filter(|call| call.begun_us > begun_us && matches!(call.told, Told::Written(_)));
    let written = written.count();
    assert!(written > 0, "nothing was written");
    Ok(())
}

fn cut_for_good(world: &mut World, from: Place, to: Place) -> Played {
    let ms = u64::from(u32::MAX);
    world.hit(Fault::Cut { from, to, ms })
}

/// One way is cut, or both: before there is a leader, or afterwards.
fn one_cut(seed: u64, nodes: usize, ways: &[(Place, Place)]) {
    let scenario = Scenario {
        nodes,
        clients: 2,
        ..Scenario::new(seed)
    };
    play(&scenario, |world| {
        if seed.is_multiple_of(2) {
            leader(world)?;
        }
        for (from, to) in ways {
            println!("cut: n{} to n{}", from + 1, to + 1);
            cut_for_good(world, *from, *to)?;
        }
        leader_comes_and_stays(world)
    });
}

fn all_single_cuts(nodes: usize, seeds: &[u64]) {
    for from in 0..nodes {
        for to in (0..nodes).filter(|to| *to != from) {
            for seed in seeds {
                one_cut(*seed, nodes, &[(from, to)]);
                if from < to {
                    one_cut(*seed, nodes, &[(from, to), (to, from)]);
                }
            }
        }
    }
}

/// Case 55: any single link of three nodes is cut, one way or both: a leader comes and stays.
#[test]
fn a_cut_link_of_three_nodes_leaves_a_stable_leader() {
    let seeds: Vec<u64> = seeds(2).collect();
    all_single_cuts(3, &seeds);
}

/// Case 55: any single link of five nodes is cut, one way or both: a leader comes and stays.
#[test]
fn a_cut_link_of_five_nodes_leaves_a_stable_leader() {
    let fresh: Vec<u64> = seeds(0).take(1).collect();
    all_single_cuts(5, &fresh);
}

/// Case 55: one of five nodes reaches all others, which do not reach each other: that node leads, and stays leader.
#[test]
fn the_only_node_that_reaches_a_majority_leads() {
    for seed in seeds(4) {
        // Of three nodes, any two that reach each other would do.
        let nodes = 5;
        let hub = draws(seed).random_range(0..nodes);
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let cut: Vec<(Place, Place)> = pairs
            .filter(|(from, to)| from != to && ![*from, *to].contains(&hub))
            .collect();
        let scenario = Scenario {
            nodes,
            clients: 2,
            ..Scenario::new(seed)
        };
        play(&scenario, |world| {
            leader(world)?;
            for (from, to) in &cut {
                cut_for_good(world, *from, *to)?;
            }
            // The old leader needs a while to notice that it has no quorum any more.
            wait(
                world,
                LEADER_TIMEOUTS * ET_MS,
                "the node in the middle leads",
                |it| it.leader() == Some(hub),
            )?;
            leader_comes_and_stays(world)
        });
    }
}

/// Case 56: with a third of all packets lost, most others late and half of them doubled, writes go on.
#[test]
fn a_lossy_late_repeating_network_lets_writes_through() {
    let ms = if is_long() { 120_000 } else { 20_000 };
    for seed in seeds(3) {
        let scenario = Scenario {
            nodes: if seed.is_multiple_of(2) { 3 } else { 5 },
            ms,
            loss_permille: 300,
            duplicate_permille: 500,
            reorder_permille: 500,
            delay_ms: 100,
            ..Scenario::new(seed)
        };
        let (written, figures) = play(&scenario, |world| {
            pass(world, ms)?;
            let calls = world.calls();
            let written = calls
                .iter()
                .filter(|call| matches!(call.told, Told::Written(_)));
            Ok(written.count() as u64)
        });
        println!("{written} writes: {figures}");
        assert!(written >= ms / 1_000, "{written} writes in {ms} ms");
    }
}

/// Case 57: nodes are clogged one by one and freed in another order; as soon as a majority is free a leader comes and stays.
#[test]
fn swizzled_nodes_have_a_leader_once_a_majority_is_free() {
    for seed in seeds(6) {
        let nodes = if seed.is_multiple_of(3) { 3 } else { 5 };
        let mut rng = draws(seed);
        let clog = shuffled(nodes, &mut rng);
        let free = shuffled(nodes, &mut rng);
        let mut scenario = Scenario {
            nodes,
            clients: 2,
            ..Scenario::new(seed)
        };
        let (begin, step) = (1_000, rng.random_range(50..5 * ET_MS));
        let all_clogged = begin + nodes as u64 * step;
        for (number, node) in (0..).zip(clog) {
            let place = free.iter().position(|it| *it == node).expect("one of them");
            let at = begin + number * step;
            let until = all_clogged + (place as u64 + 1) * step;
            let ms = until - at;
            scenario = scenario.with(at, Fault::Clog { node, ms });
        }
        let majority_free = all_clogged + (nodes as u64 / 2 + 1) * step;
        play(&scenario, |world| {
            pass(world, majority_free)?;
            leader_comes_and_stays(world)
        });
    }
}
