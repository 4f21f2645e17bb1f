//! Servers that exchange messages while they stop.

use kvd_sim::sim::{Fault, Place, Scenario, World};
use rand::RngExt;
use rand::rngs::StdRng;

use super::{FOR_GOOD_MS, agree, all};
use crate::shared::{ET_MS, Played, draws, pass, play, seeds, shuffled, wait};

/// A node that was told to stop ends within so long, also if it leads and nobody takes over: four election timeouts, and
/// what is on its way.
const STOPPED_MS: u64 = 5 * ET_MS;

/// Clients without a rest, on a network on which messages are lost, doubled, late and out of order.
fn busy(seed: u64, nodes: usize) -> Scenario {
    let is_bad = seed.is_multiple_of(2);
    let permille = if is_bad { 100 } else { 0 };
    Scenario {
        nodes,
        clients: 6,
        rest_ms: 10,
        loss_permille: permille,
        duplicate_permille: permille,
        reorder_permille: permille,
        delay_ms: if is_bad { 30 } else { 5 },
        ..Scenario::new(seed)
    }
}

fn is_down(world: &World, places: &[Place]) -> bool {
    places.iter().all(|place| world.status(*place).is_none())
}

/// All are told to stop, each a little later than the one before.
fn stop_all(world: &mut World, rng: &mut StdRng) -> Played {
    let places = all(world);
    pass(world, 1_000)?;
    let (longest, down_ms) = (rng.random_range(0..100), FOR_GOOD_MS);
    for node in shuffled(places.len(), rng) {
        world.hit(Fault::Stop { node, down_ms })?;
        pass(world, rng.random_range(0..=longest))?;
    }
    wait(world, STOPPED_MS, "all have stopped", |it| {
        is_down(it, &places)
    })?;
    let counts = world.counts();
    let nodes = places.len() as u64;
    assert_eq!((counts.deaths, counts.stops), (nodes, nodes));
    Ok(())
}

/// Scenario 23: all servers stop while they exchange messages: each ends in good order and in time. When they are back, what was
/// acknowledged is there once, which is checked at the end of every world.
#[test]
fn servers_that_exchange_messages_all_stop_in_good_order() {
    for nodes in [1, 3, 5] {
        for seed in seeds(15) {
            let mut rng = draws(seed);
            let (_, figures) = play(&busy(seed, nodes), |world| stop_all(world, &mut rng));
            assert!(figures.calls[0] > 20, "{figures}");
        }
    }
}

/// Servers stop and come back in turn, leaders among them, and one more leads each time.
fn stop_in_turn(world: &mut World, rng: &mut StdRng) -> Played {
    let places = all(world);
    agree(world, &places)?;
    for round in 0..12 {
        // Every other time whoever leads.
        let (leader, before) = agree(world, &places)?;
        let node = match round % 2 {
            0 => leader,
            _ => rng.random_range(0..places.len()),
        };
        let down_ms = rng.random_range(0..3 * ET_MS);
        world.hit(Fault::Stop { node, down_ms })?;
        let stops = round + 1;
        wait(world, STOPPED_MS, "it has stopped", |it| {
            it.counts().stops == stops
        })?;
        pass(world, down_ms)?;
        let (_, after) = agree(world, &places)?;
        let moved = u64::from(node == leader);
        assert_eq!(after, before + moved, "terms");
    }
    assert_eq!(world.counts().deaths, 12);
    Ok(())
}

/// Scenario 23, one server after the other: who stops hands over first, so that each stop of a leader takes one term, and no other
/// stop takes any.
#[test]
fn servers_that_stop_in_turn_hand_over_and_disturb_nobody() {
    for nodes in [3, 5] {
        for seed in seeds(10) {
            let mut rng = draws(seed);
            let scenario = Scenario {
                clients: 6,
                rest_ms: 10,
                nodes,
                ..Scenario::new(seed)
            };
            let (_, figures) = play(&scenario, |world| stop_in_turn(world, &mut rng));
            let [done, failed, unknown] = figures.calls;
            assert!(done > 100, "{figures}");
            assert_eq!(
                (failed, unknown),
                (0, 0),
                "a hand-over leaves no request open"
            );
        }
    }
}
