//! Damage: what a node with a damaged log or snapshot does and says, and what its driver must add to what the core does.

use kvd::driver::{Driver, Event};
use kvd::kv::auth::{Principal, Role};
use kvd::kv::limits::StoreLimits;
use kvd::kv::store::Store;
use kvd::log_cache::LogCache;
use kvd::wire::client::{Request, Response};
use kvd::wire::peer::PeerMessage;
use kvd::wire::status::{NodeStatus, StorageState};
use raft_core::{
    Configuration, EntryId, Envelope, FaultyEntry, InitialState, LogIndex, Message, Node, NodeId,
    SnapshotAsk, Storage as _, Term,
};

use crate::world::{ET, Packet, World, Write, is_accepted, options, peer_up, put};

fn at(index: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(1),
    }
}

fn lost(index: u64, term: Option<Term>) -> FaultyEntry {
    FaultyEntry {
        index: LogIndex(index),
        term,
        kind: None,
    }
}

fn write(world: &mut World, id: u64, value: &str) {
    let write = world.write(id, Write::bare(put("k", value)));
    world.settle();
    world.written(write);
}

/// n1 leads, and everybody holds the entries up to 4.
fn cluster(count: u64) -> World {
    let mut world = World::led_by_n1(count);
    for value in ["a", "b", "c"] {
        write(&mut world, 1, value);
    }
    world.run(2);
    world
}

/// Ticks everywhere, with what is not in memory read from the disks.
fn run_and_read(world: &mut World, ticks: u64) {
    for _ in 0..ticks {
        world.run(1);
        for id in world.ids() {
            for fetch in std::mem::take(&mut world.node_mut(id).fetches) {
                let range = world.node(id).disk.entries.range(fetch.range.clone());
                let entries = Some(range.map(|(_, entry)| entry.clone()).collect());
                world.handle(id, Event::Fetched { fetch, entries });
            }
        }
    }
}

fn status(world: &World, id: u64) -> NodeStatus {
    world.node(id).driver.status()
}

fn state(world: &World, id: u64) -> StorageState {
    status(world, id).storage.state
}

fn discard_log(world: &mut World, id: u64) {
    world.ask_as(id, Principal::new(Role::Admin, "root"), Request::DiscardLog);
    world.turn(id);
    world.snapshot_written(id, None);
}

/// Begins a new life of a node on what its disk holds, of which these entries are damaged; nothing is applied yet.
fn restart(world: &mut World, id: u64, faulty: &[FaultyEntry]) {
    let count = world.ids().len() as u64;
    let member = world.node_mut(id);
    let initial = InitialState {
        hard_state: member.disk.restart(),
        configuration: Configuration::new((1..=count).map(NodeId)),
        faulty: faulty.to_vec(),
        ..InitialState::default()
    };
    let mut cache = LogCache::new(initial, EntryId::default(), None, 1 << 20);
    let entries: Vec<_> = member.disk.entries.values().cloned().collect();
    let behind = faulty.last().map_or(LogIndex(0), |last| last.index);
    for entry in &entries {
        match faulty.iter().find(|lost| lost.index == entry.index) {
            Some(FaultyEntry { term: None, .. }) => cache.note_unknown(),
            _ if entry.index <= behind => cache.note_stored(entry.index, entry.term),
            _ => cache.append(std::slice::from_ref(entry)),
        }
    }
    let mut config = raft_core::Config::new(NodeId(id), 0xCAFE + id);
    config.election_timeout_ticks = u32::try_from(ET).unwrap();
    let mut options = options(id, count);
    options.boot_counter = 2;
    let node = Node::new(config, cache).unwrap();
    let store = Store::new(StoreLimits::default());
    member.driver = Driver::new(options, node, store, &member.disk.report());
    world.lose(|packet| packet.from == id || packet.to == id);
    for other in world.ids().into_iter().filter(|other| *other != id) {
        world.handle(other, peer_up(id, 2));
        world.handle(id, peer_up(other, 1));
    }
}

#[test]
fn entry_that_rots_while_a_follower_runs_comes_back_from_a_peer() {
    let mut world = cluster(3);
    world.handle(2, Event::Faulty(vec![LogIndex(3)]));
    world.turn(2);
    assert_eq!(state(&world, 2), StorageState::Repairing);
    let repair = status(&world, 2).repair.unwrap();
    assert_eq!((repair.damaged, repair.first), (1, 3));
    assert_eq!(repair.waiting_for, ["n1", "n3"]);
    world.settle();
    assert_eq!(world.node(2).disk.repaired, [LogIndex(3)]);
    assert_eq!(state(&world, 2), StorageState::Ok);
    assert_eq!(status(&world, 2).repair, None);
}

/// Case 53: until then it acknowledges nothing, and does not stand.
#[test]
fn damaged_log_comes_back_from_the_peers_after_a_restart() {
    let mut world = cluster(3);
    restart(&mut world, 3, &[lost(2, None), lost(3, None)]);
    world.turn(3);
    assert_eq!(state(&world, 3), StorageState::Repairing);
    world.isolate(3);
    world.tick(3, 10 * ET);
    assert_eq!(status(&world, 3).term, 1, "it does not stand");
    let health = world.ask(3, Request::Health);
    world.turn(3);
    let Some(Response::Health { healthy, reasons }) = world.answer(health) else {
        panic!("no health");
    };
    assert!(!healthy);
    let told = "2 damaged entries, the oldest 2, waiting for n1, n2".to_owned();
    assert!(reasons.contains(&told), "{reasons:?}");
    assert!(!world.wire.iter().any(|p| p.from == 3 && is_accepted(p)));
    world.rejoin(3);
    write(&mut world, 1, "d");
    run_and_read(&mut world, 10 * ET);
    assert_eq!(state(&world, 3), StorageState::Ok);
    assert_eq!(world.node(3).disk.repaired, [LogIndex(2), LogIndex(3)]);
    assert_eq!(world.value(3, "k").unwrap(), "d");
}

/// Two lost the same entry, and only n1 has it: nobody leads before n1 is back.
#[test]
fn cluster_waits_for_the_only_holder_and_says_for_whom() {
    let mut world = cluster(3);
    world.isolate(1);
    for id in [2, 3] {
        restart(&mut world, id, &[lost(3, Some(Term(1)))]);
        world.link_down(1, id);
    }
    world.run(20 * ET);
    for (id, others) in [(2, ["n1", "n3"]), (3, ["n1", "n2"])] {
        assert_eq!(status(&world, id).repair.unwrap().waiting_for, others);
        assert!(!world.is_leader(id));
    }
    world.rejoin(1);
    run_and_read(&mut world, 20 * ET);
    for id in [2, 3] {
        assert_eq!(state(&world, id), StorageState::Ok);
        assert_eq!(world.value(id, "k").unwrap(), "c");
    }
}

/// What a snapshot covers needs no peer: it is read again, be it of the same entry, and the log is purged up to it.
#[test]
fn damage_below_the_newest_snapshot_ends_the_log_there() {
    for written_since in [false, true] {
        let mut world = cluster(3);
        world.ask_as(2, Principal::new(Role::Admin, "root"), Request::DiscardLog);
        world.turn(2);
        world.snapshot_written(2, Some(at(1)));
        assert_eq!(world.node(2).disk.purged, [at(1)], "an older one is kept");
        if written_since {
            write(&mut world, 1, "d");
            world.run(2);
        }
        world.handle(2, Event::Faulty(vec![LogIndex(3)]));
        world.turn(2);
        assert_eq!(state(&world, 2), StorageState::Ok, "nobody is asked");
        let order = world.node(2).orders.last().unwrap();
        let last = if written_since { 5 } else { 4 };
        assert!(order.only_one);
        assert_eq!(order.meta.id, at(last));
        world.snapshot_written(2, None);
        assert_eq!(world.node(2).disk.purged, [at(1), at(last)]);
        let orders = world.node(2).orders.len();
        world.handle(2, Event::Faulty(vec![LogIndex(3)]));
        world.run(5);
        assert_eq!(world.node(2).orders.len(), orders, "it is gone");
        assert_eq!(world.node(2).writing, 0);
    }
}

/// The disk may be full: it is tried again until the damage is gone.
#[test]
fn snapshot_in_place_of_damage_is_ordered_again_if_it_could_not_be_written() {
    let mut world = cluster(1);
    discard_log(&mut world, 1);
    write(&mut world, 1, "d");
    world.ask_as(1, Principal::new(Role::Admin, "root"), Request::DiscardLog);
    world.turn(1);
    world.snapshot_written(1, Some(at(4)));
    world.handle(1, Event::Faulty(vec![LogIndex(5)]));
    world.turn(1);
    world.node_mut(1).writing = 0;
    world.handle(1, Event::SnapshotWritten(None));
    world.turn(1);
    let orders = world.node(1).orders.len();
    world.run(110);
    assert_eq!(world.node(1).orders.len(), orders + 1);
    assert!(world.node(1).orders.last().unwrap().only_one);
}

/// n2 has applied what it lost, and the others have purged it: its own snapshot takes the place.
#[test]
fn applied_entry_that_nobody_has_any_more_is_covered_by_an_own_snapshot() {
    let mut world = cluster(3);
    discard_log(&mut world, 1);
    discard_log(&mut world, 3);
    world.handle(2, Event::Faulty(vec![LogIndex(3)]));
    world.run(5 * ET);
    assert_eq!(state(&world, 2), StorageState::Repairing);
    let order = world.node(2).orders.last().expect("the core wants one");
    assert!(order.only_one);
    assert_eq!(order.meta.id, at(4));
    world.snapshot_written(2, None);
    world.run(1);
    assert_eq!(world.node(2).disk.purged, [at(4)]);
    assert_eq!(state(&world, 2), StorageState::Ok);
    write(&mut world, 1, "d");
    world.run(2);
    assert_eq!(world.value(2, "k").unwrap(), "d");
}

/// A cluster of one: there is nobody to ask, but what is applied is not needed from the log.
#[test]
fn running_node_without_peers_mends_applied_entries_by_a_snapshot() {
    let mut world = cluster(1);
    world.handle(1, Event::Faulty(vec![LogIndex(3)]));
    world.run(5 * ET);
    world.snapshot_written(1, None);
    world.run(1);
    assert_eq!(state(&world, 1), StorageState::Ok);
    write(&mut world, 1, "d");
}

#[test]
fn rotten_snapshot_is_not_offered_again_and_is_written_anew_at_the_same_entry() {
    let mut world = cluster(1);
    discard_log(&mut world, 1);
    let storage = |world: &World| world.node(1).driver.node().storage().snapshot();
    assert_eq!(storage(&world).unwrap().id, at(4));
    world.handle(1, Event::SnapshotRotten(at(3)));
    world.turn(1);
    assert_eq!(world.node(1).orders.len(), 1, "a newer one has replaced it");
    world.handle(1, Event::SnapshotRotten(at(4)));
    world.turn(1);
    assert_eq!(storage(&world), None);
    assert_eq!(world.node(1).orders.len(), 2);
    assert_eq!(world.node(1).orders[1].meta.id, at(4));
    world.snapshot_written(1, None);
    assert_eq!(storage(&world).unwrap().id, at(4));
    world.run(5);
    assert_eq!(world.node(1).orders.len(), 2);
}

#[test]
fn node_that_is_asked_for_a_snapshot_and_has_none_writes_one() {
    let mut world = cluster(3);
    let message = PeerMessage::Raft(Envelope {
        from: NodeId(3),
        to: NodeId(1),
        term: Term(1),
        message: Message::SnapshotAsk(SnapshotAsk {
            covering: LogIndex(2),
        }),
    });
    world.handle(
        1,
        Event::Peer {
            from: NodeId(3),
            message,
        },
    );
    world.turn(1);
    let order = world.node(1).orders.last().expect("one is ordered");
    assert_eq!(order.meta.id, at(4));
    assert!(!order.only_one);
}

/// n3 lost entry 3 and holds entries 5 and 6, on its disk or not, and gets a snapshot of the state at entry 5.
fn snapshot_over_damage(is_disk_held: bool) -> World {
    let mut world = cluster(3);
    restart(&mut world, 3, &[lost(3, Some(Term(1)))]);
    world.isolate(3);
    if is_disk_held {
        world.hold_disk(3);
    }
    write(&mut world, 1, "d");
    world.ask_as(1, Principal::new(Role::Admin, "root"), Request::DiscardLog);
    world.turn(1);
    write(&mut world, 1, "e");
    world.rejoin(3);
    // Nobody hears what n3 asks for.
    let asks = |packet: &Packet| matches!(packet.raft(), Some(Message::RepairAsk(_)));
    for _ in 0..5 * ET {
        for id in world.ids() {
            world.tick(id, 1);
        }
        world.lose(asks);
        world.deliver(|_| true);
        if !is_disk_held {
            world.sync(3);
        }
    }
    world.lose(asks);
    assert_eq!(state(&world, 3), StorageState::Repairing);
    assert_eq!(world.value(3, "k"), None);
    world.hold_disk(3);
    let staged = World::stage(&world.node(1).orders[0], 8, 1, 3, Term(1));
    world.handle(3, staged);
    world.turn(3);
    assert_eq!(world.node(3).taken, [8], "the sender is told");
    world
}

/// The snapshot is on the disk: what follows it is there as well, and new writes arrive.
fn serves_what_follows_the_snapshot(world: &mut World) {
    world.sync(3);
    assert_eq!(state(world, 3), StorageState::Ok);
    let first = world.node(3).driver.node().storage().first_index();
    assert_eq!(first, LogIndex(6));
    world.free_disk(3);
    world.run(2 * ET);
    assert_eq!(world.value(3, "k").unwrap(), "e", "what follows stayed");
    write(world, 1, "f");
    world.run(2);
    assert_eq!(world.value(3, "k").unwrap(), "f");
}

#[test]
fn snapshot_over_damage_keeps_the_synced_log_behind_it() {
    let mut world = snapshot_over_damage(false);
    let part = world.node(3).disk.queue.back().expect("it is written");
    assert!(part.snapshot_keeps_log);
    assert_eq!(part.snapshot.as_ref().map(|meta| meta.id), Some(at(5)));
    assert!(part.entries.is_empty());
    serves_what_follows_the_snapshot(&mut world);
}

/// Nothing behind the snapshot is synced: the log is replaced, and what follows is written once more.
#[test]
fn snapshot_over_damage_beyond_the_disk_replaces_the_log() {
    let mut world = snapshot_over_damage(true);
    let part = world.node(3).disk.queue.back().expect("it is written");
    assert!(!part.snapshot_keeps_log);
    assert_eq!(part.snapshot.as_ref().map(|meta| meta.id), Some(at(5)));
    let again: Vec<u64> = part.entries.iter().map(|entry| entry.index.0).collect();
    assert_eq!(again, [6]);
    serves_what_follows_the_snapshot(&mut world);
}
