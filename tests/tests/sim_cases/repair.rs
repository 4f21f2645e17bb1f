//! Logs with rotten entries: what a damaged node does meanwhile, and when it is whole again.

use kvd_sim::sim::{Fault, Place, Scenario, World};

use crate::shared::{ET_MS, Played, follower, leader, pass, play, seeds, wait};

fn is_repairing(world: &World, place: Place) -> bool {
    world
        .status(place)
        .is_some_and(|status| status.repair.is_some())
}

/// No snapshot, so that the log holds everything, and rests in which the log settles.
fn busy(seed: u64) -> Scenario {
    Scenario {
        clients: 2,
        rest_ms: 300,
        snapshot_bytes: 1 << 20,
        ..Scenario::new(seed)
    }
}

fn rot(world: &mut World, node: Place) -> Played {
    let before = world.counts().rotted;
    world.hit(Fault::Rot {
        node,
        records: 5,
        down_ms: 50,
    })?;
    assert!(world.counts().rotted > before, "nothing rotted");
    Ok(())
}

/// Case 53: a node that lost an acknowledged entry neither votes nor stands until another has given it back, and is then as
/// any other. What it acknowledges and votes meanwhile would show as a broken promise of every world.
#[test]
fn rotten_entries_come_back_from_the_others() {
    for seed in seeds(15) {
        let (repaired, _) = play(&busy(seed), |world| {
            pass(world, 3_000)?;
            let damaged = follower(world)?;
            pass(world, 200)?;
            rot(world, damaged)?;
            wait(world, 20 * ET_MS, "it is whole again", |it| {
                it.counts().repaired > 0
                    && it.status(damaged).is_some()
                    && !is_repairing(it, damaged)
            })?;
            Ok(world.counts().repaired)
        });
        assert!(repaired > 0);
    }
}

/// n1 has lost what only n2 has beside it, n3 was cut off before, and n2 goes down. Whether n1 waited for n2: if all that
/// rotted is so old that n3 has it, it need not.
fn only_holder_goes_down(world: &mut World) -> Played<bool> {
    pass(world, 1_000)?;
    let holder = leader(world)?;
    let (damaged, behind) = ((holder + 1) % 3, (holder + 2) % 3);
    let ms = 60_000;
    world.hit(Fault::Isolate { node: behind, ms })?;
    pass(world, 3_000)?;
    rot(world, damaged)?;
    world.hit(Fault::Kill {
        node: holder,
        down_ms: ms,
    })?;
    world.open_ways();
    pass(world, 3_000)?;
    if !is_repairing(world, damaged) {
        return Ok(false);
    }
    assert_eq!(
        world.leader(),
        None,
        "the two cannot know what was committed"
    );
    let waits_for = world.status(damaged).and_then(|status| status.repair);
    let waits_for = waits_for.expect("it repairs").waiting_for;
    assert!(waits_for.iter().any(|id| id.0 as usize == holder + 1));
    world.start_now(holder)?;
    wait(world, 20 * ET_MS, "it is whole again", |it| {
        !is_repairing(it, damaged)
    })?;
    Ok(true)
}

/// Case 53: with the only other holder down, the cluster waits for it, and says so.
#[test]
fn cluster_waits_for_the_only_intact_holder() {
    let (mut runs, mut waited) = (0, 0);
    for seed in seeds(15) {
        runs += 1;
        waited += u32::from(play(&busy(seed), only_holder_goes_down).0);
    }
    assert!(2 * waited > runs, "only {waited} of {runs} waited");
}

/// Two cut-off nodes each have a tail that nobody else ever had, and lose some of it.
fn tails_of_their_own(world: &mut World) -> Played {
    pass(world, 1_000)?;
    let first = leader(world)?;
    let ms = 10 * ET_MS;
    world.hit(Fault::Isolate { node: first, ms })?;
    pass(world, 300)?;
    rot(world, first)?;
    wait(world, 10 * ET_MS, "another leader", |it| {
        it.leader().is_some_and(|leader| leader != first)
    })?;
    let second = leader(world)?;
    world.hit(Fault::Isolate { node: second, ms })?;
    pass(world, 300)?;
    rot(world, second)?;
    pass(world, ms)?;
    wait(world, 40 * ET_MS, "a leader again", |it| {
        it.leader().is_some()
    })
}

/// Case 53: tails that nobody else ever had are given up, also on two nodes at once.
#[test]
fn rotten_tails_that_nobody_else_had_are_given_up() {
    for seed in seeds(15) {
        play(&busy(seed), tails_of_their_own);
    }
}
