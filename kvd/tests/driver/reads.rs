//! Reads see every write acknowledged before they began, or are refused; local ones say that they are local.

use kvd::driver::Event;
use kvd::wire::client::{Consistency, Refusal};
use raft_core::{LogIndex, Message, NodeId};

use crate::world::{CLIENT, ET, Packet, World, Write, is_heartbeat, put};

use Consistency::{Linearizable, Local};

fn is_read_answer(packet: &Packet) -> bool {
    matches!(packet.raft(), Some(Message::ReadIndexResponse(_)))
}

fn write(world: &mut World, id: u64, key: &str, value: &str) {
    let write = world.write(id, Write::bare(put(key, value)));
    world.settle();
    world.written(write);
}

/// Case 37: a new leader does not know yet what is committed.
#[test]
fn leader_answers_only_once_an_entry_of_its_own_term_is_committed() {
    for asked in [1, 2] {
        let mut world = World::new(3);
        world.lose_appends(1, 2);
        world.lose_appends(1, 3);
        world.elect(1);
        // The follower has heard of the leader by its heartbeats.
        world.tick(1, 1);
        world.settle();
        let read = world.read(asked, "k", Linearizable);
        for _ in 0..3 {
            world.tick(1, 1);
            world.settle();
        }
        assert!(world.is_leader(1));
        assert_eq!(world.node(1).driver.node().commit_index(), LogIndex(0));
        assert!(world.is_unanswered(read));
        world.allow_appends();
        world.run(2);
        let (_, local, applied) = world.found(read);
        assert_eq!((local, applied >= 1), (false, true));
    }
}

#[test]
fn leader_answers_only_after_a_round_with_a_quorum() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "k", "v");
    let read = world.read(1, "k", Linearizable);
    world.turn(1);
    assert!(world.is_unanswered(read), "it might have been deposed");
    assert_eq!(world.wire.iter().filter(|p| is_heartbeat(p)).count(), 2);
    world.deliver(|p| p.to == 2);
    world.deliver(|p| p.from == 2);
    assert_eq!(world.found(read).0, ["v"]);
}

/// Case 40: a follower that applies late answers late, and marks what it answers locally.
#[test]
fn follower_waits_until_it_has_applied_and_marks_local_answers() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "k", "old");
    world.run(1);
    world.lose_appends(1, 2);
    write(&mut world, 1, "k", "new");
    let read = world.read(2, "k", Linearizable);
    world.settle();
    assert!(
        world.is_unanswered(read),
        "confirmed at an index that is not applied here"
    );
    let local = world.read(2, "k", Local);
    world.turn(2);
    let (values, marked, _) = world.found(local);
    assert_eq!((values, marked), (vec!["old".into()], true));
    world.allow_appends();
    world.run(2 * ET);
    let (values, marked, _) = world.found(read);
    assert_eq!((values, marked), (vec!["new".into()], false));
}

#[test]
fn local_read_is_answered_at_once_even_without_a_leader() {
    let mut world = World::new(3);
    let read = world.read(2, "k", Local);
    world.turn(2);
    assert_eq!(world.found(read), (vec![], true, 0));
}

#[test]
fn reads_of_one_turn_share_a_round() {
    let mut world = World::led_by_n1(3);
    let reads: Vec<u64> = (0..5).map(|_| world.read(2, "k", Linearizable)).collect();
    world.turn(2);
    assert_eq!(world.wire.len(), 1);
    world.settle();
    for read in reads {
        world.found(read);
    }
}

#[test]
fn lost_round_is_asked_again() {
    for asked in [1, 2] {
        let mut world = World::led_by_n1(3);
        let read = world.read(asked, "k", Linearizable);
        world.turn(asked);
        world.lose(|_| true);
        world.run(ET + 2);
        world.found(read);
    }
}

/// Cases 38 and 41: what the old leader confirmed before it was deposed does not answer a read that outlived it.
#[test]
fn read_that_outlives_a_leader_is_asked_anew() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "k", "old");
    world.run(1);
    let read = world.read(2, "k", Linearizable);
    world.turn(2);
    world.deliver(|p| p.to == 1);
    world.deliver(|p| !is_read_answer(p));
    world.deliver(|p| !is_read_answer(p));
    world.hold(1, 2);
    assert!(
        world.wire.iter().any(is_read_answer),
        "confirmed by n1, on its way to n2"
    );
    world.link_down(1, 3);
    world.elect(3);
    write(&mut world, 3, "k", "new");
    world.release();
    world.run(2);
    assert_eq!(world.found(read).0, ["new"]);
}

/// Case 41: cut off with its clients, it says nothing rather than something old.
#[test]
fn leader_that_is_cut_off_never_answers_with_an_old_value() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "k", "old");
    world.isolate(1);
    let before = world.read_within(1, "k", Linearizable, 3 * ET);
    world.turn(1);
    world.elect(2);
    write(&mut world, 2, "k", "new");
    let after = world.read_within(1, "k", Linearizable, 100 * ET);
    world.tick(1, 3 * ET);
    world.assert_no_leader(before);
    assert!(world.is_unanswered(after));
    world.rejoin(1);
    world.run(2 * ET);
    assert_eq!(world.found(after).0, ["new"]);
}

#[test]
fn read_is_refused_at_its_deadline_and_not_before() {
    let mut world = World::new(3);
    let read = world.read_within(2, "k", Linearizable, 5);
    world.tick(2, 4);
    assert!(world.is_unanswered(read));
    world.tick(2, 1);
    world.assert_no_leader(read);

    // Confirmed, but not applied in time.
    let mut world = World::led_by_n1(3);
    world.lose_appends(1, 2);
    write(&mut world, 1, "k", "v");
    let read = world.read_within(2, "k", Linearizable, 5);
    world.settle();
    world.tick(2, 5);
    world.assert_no_leader(read);
    world.allow_appends();
    world.run(2 * ET);
}

#[test]
fn stopping_follower_refuses_reads_but_local_ones() {
    let mut world = World::led_by_n1(3);
    world.handle(2, Event::Shutdown);
    let read = world.read(2, "k", Linearizable);
    let local = world.read(2, "k", Local);
    world.turn(2);
    assert_eq!(world.refusal(read), &Refusal::Stopping);
    assert!(world.found(local).1);
}

#[test]
fn reads_of_a_client_that_is_gone_are_forgotten() {
    let mut world = World::new(3);
    let waiting = world.read(2, "k", Linearizable);
    world.turn(2);
    world.handle(2, Event::ClientGone(CLIENT));
    world.elect(1);
    world.run(2);
    assert!(world.is_unanswered(waiting));

    let asked = world.read(2, "k", Linearizable);
    world.turn(2);
    world.handle(2, Event::ClientGone(CLIENT));
    world.handle(2, Event::Shutdown);
    world.turn(2);
    assert_eq!(world.node(2).stopped, 1, "nothing keeps it");
    world.run(2);
    assert!(world.is_unanswered(asked));
}

/// The question is lost with the link, which must not take an election timeout to be noticed.
#[test]
fn follower_asks_again_as_soon_as_the_link_to_the_leader_is_back() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "k", "v");
    let read = world.read(2, "k", Linearizable);
    world.turn(2);
    world.link_down(1, 2);
    world.tick(2, 2);
    world.link_up(1, 2);
    world.tick(2, 1);
    world.settle();
    assert_eq!(world.found(read).0, ["v"]);
}

/// A leader does not answer what a node asks that it has left out. The client must learn at once that it should ask elsewhere.
#[test]
fn node_that_learns_of_its_removal_refuses_the_reads_that_it_forwarded() {
    let mut world = World::led_by_n1(3);
    write(&mut world, 1, "k", "v");
    let read = world.read(2, "k", Linearizable);
    world.turn(2);
    world.lose(|packet| packet.from == 2);
    assert!(world.is_unanswered(read));
    world.handle(2, Event::Removed { by: NodeId(1) });
    let elsewhere = Refusal::NotLeader { leader: None };
    assert_eq!(world.refusal_at_once(2, read), &elsewhere);
}
