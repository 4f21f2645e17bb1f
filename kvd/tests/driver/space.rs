//! Bounded memory and bounded log: what does not fit waits or is refused, before anything is sent.

use kvd::wire::client::{Consistency, Outcome, Refusal};
use kvd::wire::status::StorageState;
use raft_core::Role;

use crate::world::{World, Write, is_forward, put};

/// A leader alone, whose disk does nothing by itself.
fn held_leader(prepared_bytes: u64) -> World {
    let mut world = World::led_by_n1(1);
    world.hold_disk(1);
    world.node_mut(1).disk.prepared_bytes = prepared_bytes;
    world.look(1);
    world
}

fn many(world: &mut World, count: usize, bytes: usize) -> Vec<u64> {
    let value = "x".repeat(bytes);
    (0..count)
        .map(|_| world.write(1, Write::bare(put("k", &value))))
        .collect()
}

#[test]
fn leader_proposes_only_within_the_prepared_space_and_goes_on_with_more() {
    let mut world = held_leader(4000);
    let writes = many(&mut world, 40, 100);
    world.settle();
    let proposed = world.node(1).disk.queued_entries();
    assert!(
        (5..=15).contains(&proposed),
        "{proposed} of 40 fit into 4000 bytes"
    );
    assert!(world.node(1).disk.queued_bytes() <= 4000);

    many(&mut world, 1, 100);
    world.settle();
    assert_eq!(
        world.node(1).disk.queued_entries(),
        proposed,
        "what is given away is not free"
    );

    world.node_mut(1).disk.prepared_bytes = 0;
    world.sync(1);
    world.settle();
    assert_eq!(world.node(1).disk.queued_entries(), 0, "used up");
    let answered = |world: &World| writes.iter().filter(|w| !world.is_unanswered(**w)).count();
    assert_eq!(answered(&world), proposed);

    world.node_mut(1).disk.prepared_bytes = 1 << 20;
    world.look(1);
    world.settle();
    assert_eq!(world.node(1).disk.queued_entries(), 41 - proposed);
    world.sync(1);
    assert_eq!(answered(&world), 40);

    world.node_mut(1).disk.prepared_bytes = 4000;
    world.look(1);
    many(&mut world, 1, 100);
    world.settle();
    assert_eq!(
        world.node(1).disk.queued_entries(),
        1,
        "what is synced is not counted again"
    );
}

#[test]
fn write_larger_than_the_prepared_space_waits_for_it() {
    let mut world = held_leader(4000);
    let large = many(&mut world, 1, 10_000)[0];
    world.settle();
    assert!(world.node(1).disk.queue.is_empty());
    world.node_mut(1).disk.prepared_bytes = 20_000;
    world.look(1);
    world.settle();
    world.sync(1);
    world.written(large);
}

/// Batches are bounded, but what waits does not wait for another cause to go on.
#[test]
fn many_batches_are_proposed_in_one_turn_if_there_is_space() {
    let mut world = World::with(1, |options| options.waiting_bytes = 64 << 20);
    world.elect(1);
    world.hold_disk(1);
    many(&mut world, 10, 1 << 20);
    world.turn(1);
    assert_eq!(world.node(1).disk.queued_entries(), 10);
}

#[test]
fn batches_of_one_turn_together_stay_within_the_prepared_space() {
    let mut world = World::with(1, |options| options.waiting_bytes = 64 << 20);
    world.elect(1);
    world.hold_disk(1);
    world.node_mut(1).disk.prepared_bytes = 6 << 20;
    world.look(1);
    many(&mut world, 10, 1 << 20);
    world.settle();
    assert!(world.node(1).disk.queued_bytes() <= 6 << 20);
    assert_eq!(world.node(1).disk.queued_entries(), 5);
}

#[test]
fn full_log_refuses_writes_at_once_and_takes_them_again_later() {
    let mut world = World::led_by_n1(3);
    world.node_mut(1).disk.full = true;
    world.look(1);
    let asked_leader = world.write(1, Write::bare(put("k", "v")));
    assert_eq!(world.refusal_at_once(1, asked_leader), &Refusal::NoSpace);
    assert!(world.wire.is_empty(), "nothing was sent");
    let asked_follower = world.write(2, Write::bare(put("k", "v")));
    world.settle();
    assert_eq!(world.refusal(asked_follower), &Refusal::NoSpace);
    let read = world.read(2, "k", Consistency::Linearizable);
    world.settle();
    assert_eq!(world.found(read).0.len(), 0, "reads are served");

    world.node_mut(1).disk.full = false;
    world.look(1);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    world.written(write);
}

/// The log itself is never full: the leader gives it nothing that does not fit.
#[test]
fn leader_that_lacks_space_says_so_until_there_is_some() {
    let mut world = held_leader(0);
    let state = |world: &World| world.node(1).driver.status().storage.state;
    let write = world.write(1, Write::bare(put("k", "v")).within(150));
    world.turn(1);
    assert_eq!(state(&world), StorageState::Ok, "it may just be prepared");
    world.tick(1, 120);
    assert!(world.is_unanswered(write));
    assert_eq!(state(&world), StorageState::Full);
    world.tick(1, 40);
    assert_eq!(world.refusal(write), &Refusal::NoSpace);
    world.look(1);
    assert_eq!(state(&world), StorageState::Full, "no write waits any more");

    world.node_mut(1).disk.prepared_bytes = 1 << 20;
    world.look(1);
    assert_eq!(state(&world), StorageState::Ok);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.turn(1);
    world.sync(1);
    world.written(write);
}

#[test]
fn write_that_waited_for_space_in_vain_fails_definitely() {
    let mut world = held_leader(0);
    let write = world.write(1, Write::bare(put("k", "v")).within(5));
    world.turn(1);
    world.node_mut(1).disk.full = true;
    world.look(1);
    world.tick(1, 5);
    assert_eq!(world.refusal(write), &Refusal::NoSpace);
    assert_eq!(world.refusal(write).outcome(), Outcome::Definite);
}

#[test]
fn follower_with_a_full_disk_still_forwards() {
    let mut world = World::led_by_n1(3);
    world.node_mut(2).disk.full = true;
    world.hold_disk(2);
    world.look(2);
    let write = world.write(2, Write::bare(put("k", "v")));
    world.settle();
    world.written(write);
}

#[test]
fn full_follower_without_a_leader_blames_the_leader_and_not_its_disk() {
    let mut world = World::new(3);
    world.node_mut(2).disk.full = true;
    world.look(2);
    let write = world.write(2, Write::bare(put("k", "v")).within(3));
    world.tick(2, 3);
    world.assert_no_leader(write);
}

#[test]
fn too_many_waiting_writes_are_refused_before_anything_is_sent() {
    for asked in [1, 2] {
        let mut world = World::led(World::with(3, |options| options.waiting_count = 3));
        let taken: Vec<u64> = (0..3)
            .map(|_| world.write(asked, Write::bare(put("k", "v"))))
            .collect();
        let refused = world.write(asked, Write::bare(put("k", "over")));
        let refusal = world.refusal_at_once(asked, refused).clone();
        assert!(matches!(refusal, Refusal::Overloaded { .. }), "{refusal:?}");
        assert_eq!(refusal.outcome(), Outcome::Definite);
        assert!(world.wire.iter().filter(|p| is_forward(p)).count() <= 3);
        world.settle();
        taken.iter().for_each(|write| {
            world.written(*write);
        });
        assert_eq!(world.value(1, "k").unwrap(), "v");
        let after = world.write(asked, Write::bare(put("k", "after")));
        world.settle();
        world.written(after);
    }
}

#[test]
fn too_many_waiting_bytes_are_refused() {
    let mut world = World::with(1, |options| options.waiting_bytes = 4000);
    assert_eq!(world.node(1).driver.node().role(), Role::Follower);
    let writes = many(&mut world, 10, 1000);
    world.turn(1);
    let refused: Vec<_> = writes
        .iter()
        .filter(|w| !world.is_unanswered(**w))
        .collect();
    assert_eq!(refused.len(), 6, "four of them fit");
    for write in refused {
        assert!(matches!(world.refusal(*write), Refusal::Overloaded { .. }));
    }
    world.elect(1);
    world.run(1);
    let again = many(&mut world, 4, 1000);
    world.settle();
    for write in again {
        world.written(write);
    }
}

#[test]
fn too_many_waiting_reads_are_refused() {
    let mut world = World::with(3, |options| options.waiting_count = 2);
    let reads: Vec<u64> = (0..3)
        .map(|_| world.read(2, "k", Consistency::Linearizable))
        .collect();
    world.turn(2);
    assert!(matches!(
        world.refusal(reads[2]),
        Refusal::Overloaded { .. }
    ));
    world.elect(1);
    world.run(2);
    world.found(reads[0]);
    world.found(reads[1]);
    let after = world.read(2, "k", Consistency::Linearizable);
    world.settle();
    world.found(after);
}

/// Otherwise two followers whose logs are at their limit keep everything from being committed: few bytes applied make no
/// snapshot due, and no purge ever comes.
#[test]
fn follower_whose_log_is_full_takes_a_snapshot() {
    let mut world = World::led_by_n1(3);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    world.written(write);
    assert!(world.node(2).orders.is_empty(), "none is due");
    world.node_mut(2).disk.full = true;
    world.look(2);
    world.turn(2);
    let order = &world.node(2).orders[0];
    assert!(
        order.only_one,
        "an older one would keep the log from being purged"
    );
}

/// It has applied what a quorum holds, and cannot write it down: see design 008.
#[test]
fn follower_whose_log_is_full_takes_a_snapshot_of_what_is_not_synced_here() {
    let mut world = World::led_by_n1(3);
    world.hold_disk(2);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    world.written(write);
    world.run(10);
    let applied = world.node(2).driver.store().applied_index();
    assert!(world.node(2).driver.node().persisted_index().0 < applied);
    assert!(world.node(2).orders.is_empty());
    world.node_mut(2).disk.full = true;
    world.look(2);
    world.turn(2);
    assert_eq!(world.node(2).orders[0].meta.id.index.0, applied);
}
