//! Changes of members: one that is taken back, and a dead member that is replaced.

use kvd_sim::sim::{Call, Fault, Place, Scenario, Told, World};

use crate::shared::{ET_MS, Played, follower, leader, pass, play, seeds, wait};

/// Voters of the configuration that a node uses, as places.
fn voters(world: &World, place: Place) -> Vec<Place> {
    let configuration = world.status(place).map(|status| status.configuration);
    let voters = configuration.map(|it| it.all_voters().collect::<Vec<_>>());
    let place = |id: raft_core::NodeId| id.0 as usize - 1;
    voters.unwrap_or_default().into_iter().map(place).collect()
}

/// Index of the configuration that a node uses; 0 is the one that the cluster was founded with.
fn changed_at(world: &World, place: Place) -> u64 {
    let status = world.status(place);
    status.map_or(0, |status| status.configuration_index.0)
}

/// A leader that is alone appends a change; the others elect another, which overwrites it.
fn change_that_nobody_hears_of(world: &mut World) -> Played {
    pass(world, 1_000)?;
    // A change before, so that the table of members, which is committed first, holds the founders.
    world.hit(Fault::Add { node: 3 })?;
    pass(world, 4_000)?;
    let old = leader(world)?;
    assert_eq!(voters(world, old).len(), 4);
    let before = changed_at(world, old);
    let ms = 20 * ET_MS;
    world.hit(Fault::Isolate { node: old, ms })?;
    let node = (old + 1) % 4;
    world.hit(Fault::Remove { node })?;
    assert!(
        changed_at(world, old) > before,
        "it is in force when appended"
    );
    wait(world, 10 * ET_MS, "another leader", |it| {
        it.leader().is_some_and(|new| new != old)
    })?;
    pass(world, ms)?;
    wait(world, 10 * ET_MS, "the change is taken back", |it| {
        (0..4).all(|place| changed_at(it, place) == before)
    })
}

/// Case 29: a change of members whose entry is overwritten is taken back on all nodes, and their states say so.
#[test]
fn change_of_members_that_is_overwritten_is_taken_back() {
    for seed in seeds(20) {
        let scenario = Scenario {
            spares: 1,
            clients: 2,
            ..Scenario::new(seed)
        };
        play(&scenario, change_that_nobody_hears_of);
    }
}

/// The longest time, in milliseconds, in which no write was answered.
fn longest_gap_ms(calls: &[Call], from: u64, to: u64) -> u64 {
    let written = calls
        .iter()
        .filter(|it| matches!(it.told, Told::Written(_)));
    let mut ends: Vec<u64> = written.filter_map(|it| it.ended_us).collect();
    ends.extend([from, to]);
    ends.retain(|at| (from..=to).contains(at));
    ends.sort_unstable();
    let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(to - from) / 1_000
}

/// n4 takes the place of a dead node: first as a learner, then as a voter by itself.
fn replacement_of_a_dead_node(world: &mut World) -> Played {
    pass(world, 1_000)?;
    let dead = follower(world)?;
    let begun = world.now();
    world.hit(Fault::Kill {
        node: dead,
        down_ms: 60_000,
    })?;
    let new = 3;
    world.hit(Fault::Add { node: new })?;
    wait(world, 60 * ET_MS, "the new node votes", |it| {
        it.leader()
            .is_some_and(|leader| voters(it, leader).contains(&new))
    })?;
    let is_gone = |it: &World| !it.members().is_empty() && !it.members().contains(&dead);
    for _ in 0..10 {
        world.hit(Fault::Remove { node: dead })?; // Refused as long as the change before is under way.
        world.run_until(2 * ET_MS * 1_000, is_gone)?;
    }
    assert!(is_gone(world), "the dead node is still a member");
    let gap = longest_gap_ms(&world.calls(), begun, world.now());
    assert!(gap <= 3 * ET_MS, "no write for {gap} ms");
    dead_node_comes_back(world, dead)
}

/// It knows nothing of its removal, asks for votes, and gets none.
fn dead_node_comes_back(world: &mut World, dead: Place) -> Played {
    let (leader, elections) = (leader(world)?, world.counts().elections);
    world.start_now(dead)?;
    pass(world, 20 * ET_MS)?;
    assert_eq!(
        world.leader(),
        Some(leader),
        "the removed node disturbs nobody"
    );
    assert_eq!(world.counts().elections, elections);
    let voters = voters(world, leader);
    assert!(!voters.contains(&dead), "its id never votes again");
    Ok(())
}

/// Case 30: a dead member is replaced while writes go on.
#[test]
fn dead_member_is_replaced_while_writes_go_on() {
    for seed in seeds(12) {
        let scenario = Scenario {
            spares: 1,
            clients: 4,
            rest_ms: 20,
            ..Scenario::new(seed)
        };
        play(&scenario, replacement_of_a_dead_node);
    }
}
