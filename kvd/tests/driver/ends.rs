//! How a driver ends: in order, or at once when it must not go on.

use kvd::driver::Event;
use kvd::kv::auth::{Principal, Role};
use kvd::kv::command::{Command, command_crc};
use kvd::kv::envelope::{Envelope, SessionRef};
use kvd::wire::client::{Consistency, Refusal};
use kvd::wire::peer::PeerMessage;
use raft_core::{Append, Entry, EntryId, EntryKind, LogIndex, Message, NodeId, Term};

use crate::world::{CLUSTER, ET, World, Write, put};

#[test]
fn leader_hands_over_and_then_says_once_that_it_stopped() {
    let mut world = World::led_by_n1(3);
    world.handle(1, Event::Shutdown);
    world.turn(1);
    assert_eq!(world.node(1).stopped, 0);
    world.settle();
    assert!(!world.is_leader(1));
    assert!(world.is_leader(2) || world.is_leader(3));
    assert_eq!(world.node(1).stopped, 1);
    world.handle(1, Event::Shutdown);
    world.run(5 * ET);
    assert_eq!(world.node(1).stopped, 1);
}

#[test]
fn stopping_leader_stays_until_it_has_heard_its_successor() {
    let mut world = World::led_by_n1(3);
    world.handle(1, Event::Shutdown);
    for id in [2, 3] {
        world.lose_appends(id, 1);
    }
    world.settle();
    assert!(!world.is_leader(1));
    assert_eq!(world.node(1).driver.leader(), None);
    assert_eq!(world.node(1).stopped, 0);
    world.allow_appends();
    world.run(2);
    assert!(world.node(1).driver.leader().is_some());
    assert_eq!(world.node(1).stopped, 1);
}

#[test]
fn leader_that_finds_no_successor_stops_at_the_deadline() {
    let mut world = World::led_by_n1(3);
    world.isolate(1);
    world.handle(1, Event::Shutdown);
    world.tick(1, 4 * ET - 1);
    assert_eq!(world.node(1).stopped, 0);
    world.tick(1, 1);
    assert_eq!(world.node(1).stopped, 1);
}

#[test]
fn single_node_stops_as_soon_as_it_has_answered() {
    let mut world = World::led_by_n1(1);
    world.hold_disk(1);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.turn(1);
    world.handle(1, Event::Shutdown);
    world.turn(1);
    assert_eq!(world.node(1).stopped, 0);
    world.sync(1);
    world.written(write);
    assert_eq!(world.node(1).stopped, 1);
}

#[test]
fn follower_stops_when_it_has_answered_and_takes_nothing_new() {
    let mut world = World::led_by_n1(3);
    world.hold(1, 2);
    let write = world.write(2, Write::bare(put("k", "v")));
    world.settle();
    world.handle(2, Event::Shutdown);
    world.turn(2);
    assert_eq!(world.node(2).stopped, 0, "one write is not answered");
    let late = world.write(2, Write::bare(put("k", "late")));
    assert_eq!(world.refusal_at_once(2, late), &Refusal::Stopping);
    world.release();
    world.settle();
    world.written(write);
    assert_eq!(world.node(2).stopped, 1);
    assert!(world.is_leader(1), "nobody needs its leave");
}

#[test]
fn follower_with_a_write_that_is_never_answered_stops_at_the_deadline() {
    let mut world = World::led_by_n1(3);
    world.silence(1, 2);
    world.write(2, Write::named(1, 1, put("k", "v")));
    world.turn(2);
    world.handle(2, Event::Shutdown);
    world.tick(2, 4 * ET - 1);
    assert_eq!(world.node(2).stopped, 0);
    world.tick(2, 1);
    assert_eq!(world.node(2).stopped, 1);
}

fn entry(index: u64, version: u8, value: &str) -> Entry {
    let command = Command::from(put("k", value)).encode();
    let principal = Principal::new(Role::Client, "app");
    let envelope = Envelope {
        principal: principal.borrowed(),
        session: SessionRef::None,
        sequence: 0,
        done_below: 0,
        log_time_ms: 0,
        command_crc: command_crc(&command),
        command: &command,
    };
    let mut payload = envelope.encode().to_vec();
    payload[0] = version;
    Entry {
        index: LogIndex(index),
        term: Term(1),
        kind: EntryKind::Command,
        checksum: raft_log::record::payload_checksum(CLUSTER, &payload),
        payload: payload.into(),
    }
}

fn append(world: &mut World, to: u64, prev: u64, entries: Vec<Entry>) {
    let commit = entries.last().unwrap().index;
    let prev = EntryId {
        index: LogIndex(prev),
        term: Term(1),
    };
    let envelope = raft_core::Envelope {
        from: NodeId(1),
        to: NodeId(to),
        term: Term(1),
        message: Message::Append(Append {
            prev,
            entries,
            commit,
        }),
    };
    let message = PeerMessage::Raft(envelope);
    let from = NodeId(1);
    world.handle(to, Event::Peer { from, message });
}

#[test]
fn entry_of_a_newer_version_halts_and_nothing_after_it_is_applied() {
    let mut world = World::led(World::with(3, |options| options.snapshot_every_bytes = 89));
    world.run(1);
    let entries = vec![
        entry(2, 1, "before"),
        entry(3, 2, "newer"),
        entry(4, 1, "after"),
    ];
    append(&mut world, 2, 1, entries);
    let read = world.read(2, "k", Consistency::Local);
    world.turn(2);
    assert_eq!(world.node(2).halted, [LogIndex(3)]);
    assert_eq!(world.value(2, "k").unwrap(), "before");
    world.found(read);

    append(&mut world, 2, 4, vec![entry(5, 1, "later")]);
    let read = world.read(2, "k", Consistency::Local);
    world.sync(2);
    world.tick(2, 3 * ET);
    assert_eq!(world.node(2).halted, [LogIndex(3)], "once");
    assert_eq!(world.value(2, "k").unwrap(), "before");
    assert!(world.is_unanswered(read));
    assert_eq!(
        world.node(2).orders.len(),
        0,
        "no snapshot of what must not go on"
    );
}

/// The batch that the core hands out next must not be applied over the gap.
#[test]
fn halt_in_the_middle_of_several_batches_ends_the_turn() {
    let mut world = World::led_by_n1(3);
    world.run(1);
    let large = "x".repeat(3 << 20);
    let entries = vec![
        entry(2, 2, &large),
        entry(3, 1, &large),
        entry(4, 1, &large),
    ];
    append(&mut world, 2, 1, entries);
    world.turn(2);
    assert_eq!(world.node(2).halted, [LogIndex(2)]);
    assert_eq!(world.value(2, "k"), None);
}
