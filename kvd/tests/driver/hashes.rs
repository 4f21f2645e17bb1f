//! Replicas compare their state: who is right, who leaves service, and from whom it gets its state back.

use kvd::driver::Event;
use kvd::kv::command::{Command, HashAt};
use kvd::kv::envelope::Envelope as CommandEnvelope;
use kvd::snapshots::Suspect;
use kvd::wire::client::{Consistency, Refusal};
use kvd::wire::peer::PeerMessage;
use kvd::wire::status::{NodeStatus, StorageState};
use raft_core::{
    EntryKind, InstallSnapshot, LogIndex, Message, NodeId, SnapshotOutcome, Storage as _,
};

use crate::world::{ET, Packet, World, Write, peer_up, put};

/// Entries between two positions in these tests.
const EVERY: u64 = 8;

fn cluster(count: u64) -> World {
    World::led(World::with(count, |options| options.hash_every = EVERY))
}

/// Writes by way of a node until it has applied the entry at `index`.
fn write_to(world: &mut World, id: u64, index: u64) {
    while world.node(id).driver.store().applied_index() < index {
        let applied = world.node(id).driver.store().applied_index();
        let write = world.write(id, Write::bare(put("k", &format!("v{applied}"))));
        world.settle();
        world.written(write);
    }
}

/// A cluster right before its first position, with two keys that nobody touches any more.
fn filled(count: u64) -> World {
    let mut world = cluster(count);
    for key in ["cold", "colder"] {
        let write = world.write(1, Write::bare(put(key, "as it was")));
        world.settle();
        world.written(write);
    }
    write_to(&mut world, 1, EVERY - 1);
    world
}

fn rot(world: &mut World, id: u64) {
    assert!(world.node_mut(id).driver.rot(b"cold"));
}

fn status(world: &World, id: u64) -> NodeStatus {
    world.node(id).driver.status()
}

fn alarm(world: &World, id: u64) -> Option<String> {
    status(world, id).state_hash.alarm
}

/// The positions of which a leader has said what the state is, as the log of a node has them.
fn agreed_in_log(world: &World, id: u64) -> Vec<u64> {
    let agreed = agreed_entries(world, id).into_iter();
    agreed.map(|(index, _)| index).collect()
}

/// The same, each with the term of the leader.
fn agreed_entries(world: &World, id: u64) -> Vec<(u64, u64)> {
    let storage = world.node(id).driver.node().storage();
    let mut entries = Vec::new();
    let range = storage.first_index()..storage.last_index().next();
    storage.entries(range, u64::MAX, &mut entries).unwrap();
    let commands = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Command);
    let agreed = commands.filter_map(|entry| {
        let envelope = CommandEnvelope::decode(&entry.payload).unwrap();
        match Command::decode(envelope.command) {
            Ok(Command::StateHash(agreed)) => Some((agreed.index, entry.term.0)),
            _ => None,
        }
    });
    agreed.collect()
}

fn is_report(packet: &Packet) -> bool {
    matches!(packet.message, PeerMessage::StateHash(_))
}

fn is_ask(packet: &Packet) -> bool {
    matches!(packet.message, PeerMessage::StateAsk { .. })
}

fn assert_out_of_service(world: &mut World, id: u64) {
    let local = world.read(id, "cold", Consistency::Local);
    let linearizable = world.read(id, "cold", Consistency::Linearizable);
    let write = world.write(id, Write::bare(put("k", "x")));
    world.turn(id);
    for request in [local, linearizable, write] {
        assert!(
            matches!(
                world.refusal(request),
                Refusal::NoLeader { .. } | Refusal::NotLeader { .. }
            ),
            "{:?}",
            world.refusal(request)
        );
    }
    assert_eq!(status(world, id).storage.state, StorageState::Repairing);
}

/// Makes the mark durable, lets the others find a snapshot and takes it over at `id`. From whom it came.
fn rebuild(world: &mut World, id: u64) -> u64 {
    world.handle(id, Event::Distrusted(true));
    world.turn(id);
    world.settle();
    for _ in 0..4 * ET {
        for giver in world.ids() {
            if world.node(giver).writing > 0 {
                world.snapshot_written(giver, None);
            }
            if let Some((to, envelope)) = world.node_mut(giver).outgoing_snapshots.pop() {
                assert_eq!(to, NodeId(id));
                let order = world.node(giver).orders.last().unwrap();
                assert_eq!(
                    Some(order.meta.id),
                    envelope.message.snapshot().map(|meta| meta.id)
                );
                let staged = staged(world, giver, id);
                world.handle(id, staged);
                world.turn(id);
                let outcome = SnapshotOutcome::Delivered;
                let to = NodeId(id);
                world.handle(giver, Event::SnapshotSent { to, outcome });
                world.settle();
                return giver;
            }
        }
        world.run(1);
    }
    panic!("nobody sends n{id} a snapshot");
}

/// The newest snapshot of a node as the answer to a question for one.
fn staged(world: &World, from: u64, to: u64) -> Event {
    let order = world.node(from).orders.last().unwrap();
    let Event::SnapshotStaged(mut staged) =
        World::stage(order, 9, from, to, world.node(from).driver.node().term())
    else {
        unreachable!()
    };
    staged.envelope.message = Message::RepairSnapshot(InstallSnapshot {
        meta: Box::new(order.meta.clone()),
    });
    Event::SnapshotStaged(staged)
}

#[test]
fn equal_replicas_agree_at_each_position_and_users_see_nothing_of_it() {
    let mut world = cluster(3);
    write_to(&mut world, 1, 3 * EVERY + 2);
    for id in world.ids() {
        assert_eq!(agreed_in_log(&world, id), [8, 16, 24]);
        assert_eq!(status(&world, id).state_hash.agreed, 24);
        assert_eq!(alarm(&world, id), None);
        assert!(world.node(id).distrusts.is_empty());
        // The first entry is the no-op of the leader, and three are what was agreed on.
        let store = world.node(id).driver.store();
        assert_eq!(store.revision(), store.applied_index() - 4);
    }
}

#[test]
fn follower_whose_value_rotted_leaves_service_until_it_is_rebuilt() {
    let mut world = filled(3);
    rot(&mut world, 3);
    let local = world.read(3, "cold", Consistency::Local);
    world.turn(3);
    assert_ne!(world.found(local).0, ["as it was"], "nobody knows yet");
    write_to(&mut world, 1, EVERY + 1);
    let HashAt { index, .. } = world.node(3).distrusts[0].agreed;
    assert_eq!((index, world.node(3).distrusts.len()), (EVERY, 1));
    assert_out_of_service(&mut world, 3);
    let text = alarm(&world, 3).unwrap();
    assert!(text.contains("is being rebuilt"), "{text}");

    // It does not apply what it is sent meanwhile.
    let applied = world.node(3).driver.store().applied_index();
    write_to(&mut world, 1, EVERY + 5);
    assert_eq!(world.node(3).driver.store().applied_index(), applied);

    let giver = rebuild(&mut world, 3);
    assert_eq!(world.value(3, "cold").unwrap(), "as it was");
    assert_eq!(world.node(3).trusts.len(), 1);
    assert_out_of_service(&mut world, 3);
    assert!(alarm(&world, 3).unwrap().contains(&format!("n{giver}")));
    world.handle(3, Event::Trusted(true));
    world.turn(3);
    world.settle();
    assert_eq!(alarm(&world, 3), None);
    let read = world.read(3, "cold", Consistency::Linearizable);
    world.settle();
    assert_eq!(world.found(read).0, ["as it was"]);
    for id in [1, 2] {
        let store = world.node(id).driver.store();
        assert_eq!(store.hash(), world.node(3).driver.store().hash());
        assert!(world.node(id).distrusts.is_empty());
    }
}

/// Its log is sound, so it counts: without it there is no quorum here.
#[test]
fn suspect_node_acknowledges_and_votes() {
    let mut world = filled(3);
    rot(&mut world, 3);
    write_to(&mut world, 1, EVERY + 1);
    assert_eq!(world.node(3).distrusts.len(), 1);
    world.isolate(2);
    let write = world.write(1, Write::bare(put("k", "by n1 and n3")));
    world.settle();
    world.written(write);
    // n2 lacks that write: only n3 could take over, and n3 votes for n1.
    world.elect(1);
    let write = world.write(1, Write::bare(put("k", "again")));
    world.settle();
    world.written(write);
}

#[test]
fn leader_whose_value_rotted_hands_over_before_anybody_is_told() {
    let mut world = filled(3);
    rot(&mut world, 1);
    world.lose_appends(1, 2);
    world.lose_appends(1, 3);
    let open = world.write(1, Write::bare(put("k", "in the air")));
    world.turn(1);
    world.settle();
    world.allow_appends();
    let waiting = world.read(1, "cold", Consistency::Linearizable);
    world.run(ET / 2);
    world.settle();
    assert_eq!(world.node(1).distrusts.len(), 1);
    assert_ne!(world.answer(open), None);
    assert!(!world.is_unanswered(waiting));
    world.run(3);
    assert!(!world.is_leader(1));
    let leader = if world.is_leader(2) { 2 } else { 3 };
    assert!(world.is_leader(leader));
    let term = world.node(leader).driver.node().term().0;
    assert!(term > 1);
    let said = agreed_entries(&world, leader);
    assert_eq!(said, [(EVERY, term)], "by the next leader only");
    assert_out_of_service(&mut world, 1);
    rebuild(&mut world, 1);
    world.handle(1, Event::Trusted(true));
    world.turn(1);
    assert_eq!(world.value(1, "cold").unwrap(), "as it was");
    assert_eq!(alarm(&world, 1), None);
}

/// Rule: without a majority nobody rebuilds. All three would be wrong to give up what they have.
#[test]
fn three_that_all_differ_raise_the_alarm_and_nobody_leaves() {
    let mut world = filled(3);
    rot(&mut world, 2);
    rot(&mut world, 3);
    // The same bit is flipped in both, so the third differs in another key as well.
    assert!(world.node_mut(3).driver.rot(b"colder"));
    write_to(&mut world, 1, EVERY);
    world.run(6 * ET);
    for id in world.ids() {
        assert_eq!(agreed_in_log(&world, id), [0; 0]);
        assert!(world.node(id).distrusts.is_empty(), "n{id}");
    }
    let text = alarm(&world, 1).unwrap();
    for name in ["no majority", "n1", "n2", "n3"] {
        assert!(text.contains(name), "{text}");
    }
    let read = world.read(1, "cold", Consistency::Linearizable);
    world.settle();
    assert_eq!(world.found(read).0, ["as it was"]);
}

/// Rule: a minority proves nothing. n1 and n2 of five agree, and may be the two that are wrong.
#[test]
fn what_a_minority_reports_is_not_proposed() {
    let mut world = filled(5);
    write_to(&mut world, 1, EVERY - 1);
    for id in [3, 4, 5] {
        world.hold(id, 1);
    }
    let write = world.write(1, Write::bare(put("k", "eighth")));
    world.settle();
    assert!(world.is_unanswered(write), "its acknowledgements wait");
    // Acknowledgements arrive, reports do not.
    world.release();
    for _ in 0..20 {
        world.lose(|packet| is_report(packet) && packet.from > 2);
        for id in world.ids() {
            world.sync(id);
        }
        world.deliver(|packet| !is_report(packet) || packet.from == 2);
    }
    world.written(write);
    assert_eq!(world.node(5).driver.store().applied_index(), EVERY);
    assert_eq!(agreed_in_log(&world, 1), [0; 0], "two of five");
    world.run(6 * ET);
    assert_eq!(agreed_in_log(&world, 1), [EVERY], "they report again");
}

/// An older program would have to stop at an entry of a kind that it does not know.
#[test]
fn nothing_is_proposed_while_a_member_may_not_know_it() {
    let mut world = filled(3);
    let old = Event::PeerUp {
        peer: NodeId(3),
        boot_counter: 1,
        protocol: 1,
    };
    world.handle(1, old);
    write_to(&mut world, 1, EVERY);
    world.run(6 * ET);
    assert_eq!(agreed_in_log(&world, 1), [0; 0]);
    world.handle(1, peer_up(3, 1));
    world.turn(1);
    world.settle();
    assert_eq!(agreed_in_log(&world, 1), [EVERY]);
}

/// An older leader would take a report for a corrupt message.
#[test]
fn nothing_is_reported_to_a_leader_that_may_not_know_it() {
    let mut world = filled(3);
    let old = Event::PeerUp {
        peer: NodeId(1),
        boot_counter: 1,
        protocol: 1,
    };
    world.handle(2, old);
    for _ in 0..20 {
        let write = world.write(1, Write::bare(put("k", "v")));
        world.deliver(|_| true);
        world.turn(1);
        assert!(
            !world.wire.iter().any(|it| is_report(it) && it.from == 2),
            "{write}"
        );
        world.settle();
    }
    assert!(world.node(2).driver.store().applied_index() > EVERY);
}

#[test]
fn clients_do_not_say_what_the_state_is() {
    let mut world = cluster(3);
    let claim = Command::StateHash(HashAt {
        index: 1,
        algorithm: 1,
        hash: 1,
    });
    for asked in [1, 2] {
        let write = world.write(asked, Write::bare(claim.clone()));
        world.settle();
        let refusal = world.refusal(write);
        assert!(
            matches!(refusal, Refusal::NotAuthorised { .. }),
            "{refusal:?}"
        );
    }
    assert_eq!(world.node(1).driver.node().commit_index(), LogIndex(1));
}

/// Until the mark is durable nothing is asked for, and a disk that was full is tried again.
#[test]
fn mark_comes_before_anything_is_replaced() {
    let mut world = filled(3);
    rot(&mut world, 3);
    write_to(&mut world, 1, EVERY + 1);
    world.run(3 * ET);
    assert!(!world.wire.iter().any(is_ask));
    world.handle(3, Event::Distrusted(false));
    world.turn(3);
    assert_eq!(world.node(3).distrusts.len(), 1);
    world.run(10 * ET + 1);
    assert_eq!(world.node(3).distrusts.len(), 2, "it tries again");
    world.handle(3, Event::Distrusted(true));
    world.turn(3);
    assert!(world.wire.iter().any(is_ask));
}

/// A snapshot that was not asked for, or does not go far enough, replaces nothing.
#[test]
fn only_the_snapshot_that_was_asked_for_replaces_the_state() {
    let mut world = filled(3);
    world.ask_for_snapshot(2);
    let early = staged(&world, 2, 3);
    rot(&mut world, 3);
    write_to(&mut world, 1, EVERY + 1);
    world.ask_for_snapshot(2);
    let unasked = staged(&world, 2, 3);
    world.handle(3, unasked);
    world.turn(3);
    assert!(world.node(3).trusts.is_empty(), "nobody was asked");
    world.handle(3, Event::Distrusted(true));
    world.turn(3);
    let asked = world.wire.iter().find(|packet| is_ask(packet)).unwrap().to;
    let Event::SnapshotStaged(mut early) = early else {
        unreachable!()
    };
    early.envelope.from = NodeId(asked);
    world.handle(3, Event::SnapshotStaged(early));
    world.turn(3);
    assert!(world.node(3).trusts.is_empty(), "it does not go far enough");
}

/// Who cannot say that it agreed, or is suspect itself, gives nothing.
#[test]
fn only_a_node_that_agreed_gives_its_state() {
    let mut world = filled(3);
    let agreed = |hash| HashAt {
        index: EVERY,
        algorithm: 1,
        hash,
    };
    let ask = |world: &mut World, hash| {
        let message = PeerMessage::StateAsk {
            agreed: agreed(hash),
            covering: LogIndex(1),
        };
        world.handle(
            2,
            Event::Peer {
                from: NodeId(3),
                message,
            },
        );
        world.turn(2);
        let orders = world.node(2).writing;
        if orders > 0 {
            world.snapshot_written(2, None);
        }
        orders
    };
    assert_eq!(ask(&mut world, 7), 0, "it has been at no position yet");
    write_to(&mut world, 1, EVERY);
    assert_eq!(ask(&mut world, 7), 1, "it agreed with the majority there");
    rot(&mut world, 2);
    write_to(&mut world, 1, 2 * EVERY + 1);
    assert_eq!(world.node(2).distrusts.len(), 1);
    world.node_mut(2).outgoing_snapshots.clear();
    assert_eq!(ask(&mut world, 7), 0, "it is suspect itself");
    assert!(world.node(2).outgoing_snapshots.is_empty());
}

/// A node that died before it was rebuilt finds its mark, and does not show what its snapshot holds.
#[test]
fn node_that_starts_with_its_mark_is_out_of_service_and_asks_at_once() {
    let mut world = filled(3);
    write_to(&mut world, 1, EVERY + 1);
    let suspect = Suspect {
        agreed: HashAt {
            index: EVERY,
            algorithm: 1,
            hash: 1,
        },
        own: 2,
    };
    world.node_mut(3).driver.start_suspect(suspect);
    assert_out_of_service(&mut world, 3);
    assert!(world.node(3).distrusts.is_empty(), "the mark is there");
    assert!(world.wire.iter().any(|it| is_ask(it) && it.from == 3));
    assert_eq!(world.node(3).driver.node().storage().snapshot(), None);
    rebuild(&mut world, 3);
    world.handle(3, Event::Trusted(false));
    world.turn(3);
    assert_out_of_service(&mut world, 3);
    rebuild(&mut world, 3);
    world.handle(3, Event::Trusted(true));
    world.turn(3);
    assert_eq!(alarm(&world, 3), None);
}

/// The state may come from further on than the own log has got.
#[test]
fn rebuilt_state_may_be_ahead_of_the_log() {
    let mut world = filled(3);
    rot(&mut world, 3);
    write_to(&mut world, 1, EVERY + 1);
    assert_eq!(world.node(3).distrusts.len(), 1);
    world.handle(3, Event::Distrusted(true));
    world.turn(3);
    let asked = world.wire.iter().find(|packet| is_ask(packet)).unwrap().to;
    world.lose_appends(1, 3);
    world.lose(|packet| packet.to == 3);
    write_to(&mut world, 1, EVERY + 6);
    world.ask_for_snapshot(asked);
    let ahead = staged(&world, asked, 3);
    world.handle(3, ahead);
    world.turn(3);
    let store = world.node(3).driver.store();
    assert!(LogIndex(store.applied_index()) > world.node(3).driver.node().applied_index());
    world.handle(3, Event::Trusted(true));
    world.turn(3);
    assert_eq!(
        world.node(3).writing,
        0,
        "not of what is not committed here"
    );
    world.allow_appends();
    write_to(&mut world, 1, EVERY + 8);
    world.run(ET);
    let (n1, n3) = (world.node(1).driver.store(), world.node(3).driver.store());
    assert_eq!(
        (n1.applied_index(), n1.hash()),
        (n3.applied_index(), n3.hash())
    );
    let order = world.node(3).orders.last().unwrap();
    assert!(order.meta.id.index >= LogIndex(EVERY + 6));
}
