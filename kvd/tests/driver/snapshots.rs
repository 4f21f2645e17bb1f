//! Snapshots: of what is synced here, one at a time; and one from the leader takes the place of everything, or of nothing.

use kvd::driver::{Event, SnapshotOrder};
use kvd::kv::auth::{Principal, Role};
use kvd::wire::client::Request;
use raft_core::{EntryId, FetchPurpose, LogIndex, Message, NodeId, Storage as _, Term};

use crate::world::{World, Write, increment, is_accepted, put};

/// Orders a snapshot after each write; the no-op of a leader is smaller.
fn eager(count: u64) -> World {
    World::led(World::with(count, |options| {
        options.snapshot_every_bytes = 89
    }))
}

fn write(world: &mut World, id: u64, value: &str) {
    let write = world.write(id, Write::bare(put("k", value)));
    world.settle();
    world.written(write);
}

fn at(index: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(1),
    }
}

/// Lets a node order a snapshot of what it holds now.
fn order(world: &mut World, id: u64) -> SnapshotOrder {
    let admin = Principal::new(Role::Admin, "root");
    world.ask_as(id, admin, Request::DiscardLog);
    world.turn(id);
    let order = world.node(id).orders.last().unwrap();
    SnapshotOrder {
        view: order.view.clone(),
        meta: order.meta.clone(),
        only_one: order.only_one,
    }
}

#[test]
fn snapshot_is_ordered_only_for_what_is_synced_here() {
    let mut world = eager(3);
    world.hold_disk(1);
    write(&mut world, 1, "v");
    world.run(3);
    assert_eq!(world.node(1).driver.store().applied_index(), 2);
    assert_eq!(
        world.node(1).writing,
        0,
        "a quorum has it, this disk has not"
    );
    world.sync(1);
    let order = &world.node(1).orders[0];
    assert_eq!(order.meta.id, at(2));
    assert_eq!(order.meta.configuration.voters.len(), 3);
}

#[test]
fn one_snapshot_is_written_at_a_time_and_the_next_one_holds_what_came_meanwhile() {
    let mut world = eager(1);
    for value in ["a", "b", "c"] {
        write(&mut world, 1, value);
    }
    assert_eq!(world.node(1).orders.len(), 1);
    world.snapshot_written(1, None);
    assert_eq!(world.node(1).orders.len(), 2);
    assert_eq!(world.node(1).orders[1].meta.id, at(4));
    assert_eq!(
        world.node(1).orders[0].view.applied_index(),
        2,
        "a view does not change"
    );
}

#[test]
fn snapshot_that_could_not_be_written_changes_nothing_and_another_may_follow() {
    let mut world = eager(1);
    write(&mut world, 1, "a");
    world.node_mut(1).writing = 0;
    world.handle(1, Event::SnapshotWritten(None));
    world.turn(1);
    assert_eq!(world.node(1).disk.purged, []);
    assert_eq!(world.node(1).driver.node().storage().snapshot(), None);
    write(&mut world, 1, "b");
    assert_eq!(
        world.node(1).orders.len(),
        1,
        "not at once: the disk may be full for a while"
    );
    world.run(110);
    assert_eq!(world.node(1).orders.len(), 2);
}

#[test]
fn log_is_purged_through_the_oldest_kept_snapshot_only() {
    let mut world = eager(1);
    for value in ["a", "b", "c", "d"] {
        write(&mut world, 1, value);
    }
    assert_eq!(world.node(1).disk.purged, [], "ordered is not written");
    world.snapshot_written(1, None);
    assert_eq!(world.node(1).disk.purged, [at(2)]);
    world.snapshot_written(1, Some(at(2)));
    assert_eq!(
        world.node(1).disk.purged,
        [at(2)],
        "the one at 5 is kept beside the one at 2"
    );
    let storage = world.node(1).driver.node().storage();
    assert_eq!(storage.first_index(), LogIndex(3));
    assert_eq!(storage.snapshot().unwrap().id, at(5));
}

#[test]
fn snapshot_is_ordered_when_asked_for_and_not_twice_for_the_same_state() {
    let mut world = World::led_by_n1(1);
    write(&mut world, 1, "v");
    world.run(5);
    assert_eq!(world.node(1).writing, 0, "none is due");
    order(&mut world, 1);
    world.snapshot_written(1, None);
    world.run(5);
    assert_eq!(world.node(1).orders.len(), 1);
}

/// n1 has purged what n3 has missed: it sends a snapshot, on a stream of its own.
fn leader_with_a_follower_behind(count: u64) -> World {
    let mut world = World::led_by_n1(count);
    world.run(1);
    world.isolate(3);
    write(&mut world, 1, "v");
    order(&mut world, 1);
    world.snapshot_written(1, None);
    world
}

#[test]
fn follower_that_needs_purged_entries_is_sent_the_snapshot() {
    let mut world = leader_with_a_follower_behind(3);
    world.rejoin(3);
    world.run(3);
    let [(to, envelope)] = &world.node(1).outgoing_snapshots[..] else {
        panic!("one is sent, once: {:?}", world.node(1).outgoing_snapshots);
    };
    assert_eq!(*to, NodeId(3));
    assert!(matches!(envelope.message, Message::InstallSnapshot(_)));
    assert_eq!(world.value(3, "k"), None);
}

/// Case 31 (a): it takes the place of store and log; and it is acknowledged only once that is synced.
#[test]
fn staged_snapshot_takes_the_place_of_the_store_when_the_core_takes_it() {
    let mut world = leader_with_a_follower_behind(3);
    let order = SnapshotOrder {
        view: world.node(1).orders[0].view.clone(),
        meta: world.node(1).orders[0].meta.clone(),
        only_one: false,
    };
    world.rejoin(3);
    world.hold_disk(3);
    world.handle(3, World::stage(&order, 8, 1, 3, Term(1)));
    world.turn(3);
    assert_eq!(world.node(3).taken, [8]);
    assert_eq!(world.value(3, "k").unwrap(), "v");
    let persist = &world.node(3).disk.queue[0];
    assert_eq!(persist.snapshot.as_ref().map(|meta| meta.id), Some(at(2)));
    let is_response =
        |p: &crate::world::Packet| matches!(p.raft(), Some(Message::SnapshotResponse(_)));
    assert!(!world.wire.iter().any(is_response));
    world.sync(3);
    assert!(world.wire.iter().any(is_response));
    world.free_disk(3);
    write(&mut world, 1, "next");
    world.run(3);
    assert_eq!(
        world.value(3, "k").unwrap(),
        "next",
        "the log goes on after it"
    );
}

/// Case 31 (b), (d): what is already here stays; the sender is told all the same.
#[test]
fn snapshot_that_is_not_needed_changes_nothing() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "v");
    let order = order(&mut world, 1);
    write(&mut world, 1, "newer");
    world.run(2);
    world.hold_disk(2);
    for (ticket, term) in [(1, Term(1)), (2, Term(0))] {
        world.handle(2, World::stage(&order, ticket, 1, 2, term));
        world.turn(2);
        assert_eq!(world.node(2).taken.last(), Some(&ticket));
    }
    assert!(world.node(2).disk.queue.is_empty());
    assert_eq!(world.value(2, "k").unwrap(), "newer");
    assert_eq!(world.node(2).driver.store().applied_index(), 3);
}

#[test]
fn snapshot_of_a_deposed_leader_is_not_taken() {
    let mut world = World::led_by_n1(3);
    world.isolate(3);
    write(&mut world, 1, "v");
    let order = order(&mut world, 1);
    world.link_down(1, 2);
    world.link_up(2, 3);
    world.lose_appends(2, 3);
    world.elect(2);
    world.tick(2, 1);
    world.settle();
    world.handle(3, World::stage(&order, 4, 1, 3, Term(1)));
    world.turn(3);
    assert_eq!(world.node(3).taken, [4]);
    assert_eq!(world.value(3, "k"), None);
}

/// The snapshot says what became of the log, but not of these writes: what may be repeated is, the other is unknown.
#[test]
fn writes_below_an_installed_snapshot_are_settled_by_repetition() {
    let mut world = World::led_by_n1(3);
    world.run(1);
    world.isolate(1);
    let bare = world.write(1, Write::bare(increment("bare")));
    let named = world.write(1, Write::named(6, 1, increment("named")));
    world.settle();
    world.elect(2);
    for value in ["a", "b", "c"] {
        write(&mut world, 2, value);
    }
    let order = order(&mut world, 2);
    world.rejoin(1);
    world.handle(1, World::stage(&order, 3, 2, 1, order.meta.id.term));
    world.turn(1);
    assert_eq!(world.node(1).taken, [3]);
    world.assert_unknown(bare);
    assert!(world.is_unanswered(named));
    world.run(3);
    world.written(named);
    assert_eq!(world.value(1, "named").unwrap(), "1");
    assert_eq!(world.value(1, "bare"), None);
}

#[test]
fn snapshot_message_without_its_data_is_dropped() {
    let mut world = leader_with_a_follower_behind(3);
    let Event::SnapshotStaged(staged) = World::stage(&world.node(1).orders[0], 1, 1, 3, Term(1))
    else {
        panic!("a staged snapshot");
    };
    let message = kvd::wire::peer::PeerMessage::Raft(staged.envelope);
    world.handle(
        3,
        Event::Peer {
            from: NodeId(1),
            message,
        },
    );
    world.turn(3);
    assert!(world.node(3).disk.queue.is_empty());
    assert_eq!(world.node(3).driver.node().commit_index(), LogIndex(1));
    assert!(!world.wire.iter().any(is_accepted));
}

#[test]
fn snapshot_that_was_ordered_before_another_was_installed_does_not_set_anything_back() {
    let mut world = World::led_by_n1(3);
    world.run(1);
    let own = order(&mut world, 3);
    assert_eq!(own.meta.id, at(1));
    world.isolate(3);
    write(&mut world, 1, "v");
    let newer = order(&mut world, 1);
    world.rejoin(3);
    world.handle(3, World::stage(&newer, 1, 1, 3, Term(1)));
    world.turn(3);
    world.snapshot_written(3, None);
    assert_eq!(
        world.node(3).driver.node().storage().snapshot().unwrap().id,
        at(2)
    );
    assert_eq!(world.node(3).disk.purged, []);
}

/// What is not in memory any more is read elsewhere, and what was purged meanwhile is replaced by a snapshot.
#[test]
fn follower_far_behind_is_sent_what_was_read_from_the_log() {
    let mut world = World::led_by_n1(3);
    world.run(1);
    world.isolate(3);
    let large = "x".repeat(600 << 10);
    for _ in 0..4 {
        write(&mut world, 1, &large);
    }
    world.rejoin(3);
    world.run(2);
    let fetch = world
        .node_mut(1)
        .fetches
        .pop()
        .expect("it is not in memory");
    assert_eq!(fetch.purpose, FetchPurpose::Peer(NodeId(3)));
    let failed = Event::Fetched {
        fetch: fetch.clone(),
        entries: None,
    };
    world.handle(1, failed);
    world.run(2);
    let fetch = world.node_mut(1).fetches.pop().expect("it asks again");
    let range = world.node(1).disk.entries.range(fetch.range.clone());
    let entries = Some(range.map(|(_, entry)| entry.clone()).collect());
    world.handle(1, Event::Fetched { fetch, entries });
    world.run(2);
    assert_eq!(world.value(3, "k").unwrap(), large);
}

/// At its bound the log takes no proposal, so nothing is applied, and no number of applied bytes would ever make a snapshot due.
#[test]
fn a_log_without_room_orders_a_snapshot_of_which_only_one_is_kept() {
    let mut world = World::led_by_n1(1);
    write(&mut world, 1, "v");
    world.settle();
    world.node_mut(1).disk.prepared_bytes = 0;
    world.look(1);
    world.write(1, Write::bare(put("k", "waits")));
    world.run(20);
    assert!(
        world.node(1).orders.is_empty(),
        "the next segment may be in the making"
    );
    world.run(100);
    let order = world.node(1).orders.last().unwrap();
    assert!(order.only_one);
    assert_eq!(
        order.meta.id.index.0,
        world.node(1).driver.store().applied_index()
    );
}
