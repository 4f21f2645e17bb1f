//! One session's writes keep their order, and run once, wherever they go.

use kvd::kv::command::OpResult;
use kvd::wire::client::{Refusal, Request, Response};

use crate::world::{ET, World, Write, increment, is_forward, put};

const SESSION: u128 = 5;

fn increments(world: &mut World, id: u64, sequences: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    sequences
        .map(|sequence| world.write(id, Write::named(SESSION, sequence, increment("n"))))
        .collect()
}

/// Each write counted one further than the one before it.
fn assert_in_order(world: &World, writes: &[u64]) {
    for (position, write) in (1_u32..).zip(writes) {
        let counted = OpResult::Incremented {
            value: position.into(),
            version: position.into(),
        };
        assert_eq!(world.written(*write).results, [counted]);
    }
}

#[test]
fn writes_of_one_turn_and_of_many_arrive_in_order() {
    for asked in [1, 2] {
        let mut world = World::led_by_n1(3);
        let mut writes = increments(&mut world, asked, 1..=4);
        world.turn(asked);
        writes.extend(increments(&mut world, asked, 5..=6));
        world.settle();
        assert_in_order(&world, &writes);
    }
}

/// Case 44, of a change of leader: what was forwarded to the old leader reaches the new one in the old order.
#[test]
fn forwarded_writes_follow_a_change_of_leader_in_order() {
    let mut world = World::led_by_n1(3);
    world.lose_appends(1, 2);
    world.lose_appends(1, 3);
    let mut writes = increments(&mut world, 2, 1..=3);
    world.settle();
    world.link_down(1, 3);
    world.silence(1, 2);
    world.elect(3);
    writes.extend(increments(&mut world, 2, 4..=5));
    world.run(2);
    assert_in_order(&world, &writes);
    world.rejoin(1);
    world.run(3);
    assert_eq!(world.value(1, "n").unwrap(), "5");
}

#[test]
fn writes_of_a_deposed_leader_go_to_the_next_one_in_order() {
    let mut world = World::led_by_n1(3);
    world.isolate(1);
    let mut writes = increments(&mut world, 1, 1..=3);
    world.tick(1, 2 * ET);
    writes.extend(increments(&mut world, 1, 4..=5));
    world.elect(2);
    world.rejoin(1);
    world.run(3);
    assert_in_order(&world, &writes);
}

#[test]
fn proposals_of_a_leader_that_is_elected_again_run_once() {
    let mut world = World::led_by_n1(3);
    world.isolate(1);
    let writes = increments(&mut world, 1, 1..=3);
    world.tick(1, 2 * ET);
    assert!(!world.is_leader(1));
    world.rejoin(1);
    world.elect(1);
    world.run(3);
    assert_in_order(&world, &writes);
    assert_eq!(world.value(3, "n").unwrap(), "3");
}

#[test]
fn write_does_not_overtake_one_that_was_sent_away() {
    let mut world = World::led_by_n1(3);
    let mut writes = increments(&mut world, 2, 1..=2);
    world.turn(2);
    let forwards: Vec<_> = world.wire.drain(..).collect();
    assert!(forwards.iter().all(is_forward));
    for packet in forwards {
        let kvd::wire::peer::PeerMessage::Forward { request, .. } = packet.message else {
            panic!("not a forward");
        };
        let response = Response::Refused(Refusal::NotLeader { leader: None });
        let message = kvd::wire::peer::PeerMessage::ForwardReply { request, response };
        let from = raft_core::NodeId(1);
        world.handle(2, kvd::driver::Event::Peer { from, message });
    }
    writes.extend(increments(&mut world, 2, 3..=3));
    world.run(2);
    assert_in_order(&world, &writes);
}

#[test]
fn retry_on_another_node_gets_the_first_result() {
    let mut world = World::led_by_n1(3);
    let first = increments(&mut world, 2, 1..=1)[0];
    world.settle();
    let again = increments(&mut world, 3, 1..=1)[0];
    world.settle();
    assert_eq!(world.written(first), world.written(again));
    assert_eq!(world.value(1, "n").unwrap(), "1");
}

/// Case 46: refused, and not run.
#[test]
fn sequences_out_of_order_are_refused() {
    let mut world = World::led_by_n1(3);
    let gap = world.write(2, Write::named(SESSION, 2, put("k", "2")));
    world.settle();
    assert_eq!(world.refusal(gap), &Refusal::SequenceGap);
    let first = world.write(2, Write::named(SESSION, 1, put("k", "1")));
    let reused = world.write(2, Write::named(SESSION, 1, put("k", "other")));
    world.settle();
    world.written(first);
    assert_eq!(world.refusal(reused), &Refusal::SequenceReused);
    assert_eq!(world.value(3, "k").unwrap(), "1");
}

#[test]
fn session_is_opened_by_its_name_and_found_again() {
    let mut world = World::led_by_n1(3);
    let opened: Vec<Response> = [1, 2, 3]
        .map(|id| {
            let request = world.ask(id, Request::OpenSession { name: SESSION });
            world.settle();
            world.answer(request).unwrap().clone()
        })
        .into();
    let session = 2;
    assert!(
        opened
            .iter()
            .all(|answer| *answer == Response::SessionOpened { session }),
        "{opened:?}"
    );
}

#[test]
fn session_that_is_not_known_any_more_leaves_the_outcome_open() {
    let mut world = World::led_by_n1(3);
    let write = Write {
        session: kvd::kv::envelope::SessionRef::Id(99),
        ..Write::named(SESSION, 1, put("k", "v"))
    };
    let write = world.write(2, write);
    world.settle();
    assert_eq!(world.refusal(write), &Refusal::SessionExpired);
    assert_eq!(world.value(1, "k"), None);
}
