//! Elections: split votes, and a cluster that does not come to rest.

use kvd_sim::sim::{Fault, Scenario, World};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::shared::{ET_MS, Played, draws, is_long, pass, play, seeds, wait};

/// Elections that are forced to have equal timeouts.
const EQUAL_ROUNDS: u64 = 3;

/// The highest term of all nodes.
fn highest_term(world: &World) -> u64 {
    let terms = (0..world.nodes()).filter_map(|place| world.status(place));
    terms.map(|status| status.term.0).max().unwrap_or_default()
}

/// All nodes start at once and draw the same numbers, so their election timeouts are equal.
fn equal_timeouts(seed: u64) -> Scenario {
    Scenario {
        nodes: 5,
        clients: 0,
        delay_ms: 2,
        sync_ms: 1,
        same_draws_ms: 1,
        ..Scenario::new(seed)
    }
}

/// Rounds that ended without a leader, and the terms that it took from then on with timeouts of their own.
fn split_then_random(world: &mut World) -> Played<(u64, u64)> {
    world.run_until(20 * ET_MS * 1_000, |it| {
        it.leader().is_some() || highest_term(it) >= EQUAL_ROUNDS
    })?;
    let rounds = highest_term(world);
    if world.leader().is_some() {
        return Ok((rounds - 1, 0));
    }
    for node in 0..world.nodes() {
        world.hit(Fault::Kill { node, down_ms: 0 })?;
    }
    wait(world, 10 * ET_MS, "a leader after split votes", |it| {
        it.leader().is_some()
    })?;
    Ok((rounds, highest_term(world) - rounds))
}

/// Case 7: equal election timeouts split the votes; with timeouts drawn at random there is a leader soon.
#[test]
fn split_votes_end_with_a_leader_once_timeouts_differ() {
    let mut split = 0;
    for seed in seeds(40) {
        let ((rounds, further), _) = play(&equal_timeouts(seed), split_then_random);
        split += rounds;
        assert!(further <= 2, "seed {seed}: {further} further terms");
    }
    println!("{split} rounds with split votes");
    assert!(split > 0, "no votes were split");
}

/// Something that keeps a cluster from coming to rest.
fn churn(nodes: usize, rng: &mut StdRng) -> Fault {
    let node = rng.random_range(0..nodes);
    let other = rng.random_range(0..nodes);
    let ms = rng.random_range(20..4 * ET_MS);
    match rng.random_range(0..6) {
        0 => Fault::Kill { node, down_ms: ms },
        1 => Fault::PowerCut { node, down_ms: ms },
        2 => Fault::Isolate { node, ms },
        3 => Fault::Cut {
            from: node,
            to: other,
            ms,
        },
        4 => Fault::Split {
            side: rng.random_range(0..1 << nodes),
            ms,
        },
        _ => Fault::Pause { node, ms },
    }
}

/// Case 15: nodes are cut off, killed and restarted faster than leaders are elected; what was acknowledged is in the log once.
#[test]
fn churn_of_five_nodes_keeps_every_acknowledged_value_once() {
    let (ms, fixed) = if is_long() { (600_000, 1) } else { (20_000, 2) };
    for seed in seeds(fixed) {
        let mut rng = draws(seed);
        let mut scenario = Scenario {
            nodes: 5,
            ms,
            clients: 3,
            ..Scenario::new(seed)
        };
        for at in (0..ms).step_by(usize::try_from(ET_MS * 7 / 10).expect("small")) {
            scenario.faults.push((at, churn(5, &mut rng)));
        }
        let (_, figures) = play(&scenario, |world| pass(world, ms));
        let [done, ..] = figures.calls;
        println!("{figures}");
        assert!(done > 20, "only {done} requests were answered");
        assert!(figures.counts.deaths > ms / 1_000, "the cluster had a rest");
    }
}
