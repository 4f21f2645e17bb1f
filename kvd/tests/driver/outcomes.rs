//! Honest outcomes: *failed* only if the write can never take effect, *unknown* otherwise.

use kvd::driver::Event;
use kvd::kv::auth::{Principal, Role};
use kvd::kv::command::OpResult;
use kvd::wire::client::{Refusal, Request, Response};
use kvd::wire::peer::PeerMessage;
use raft_core::{LogIndex, NodeId};

use crate::world::{ET, Packet, World, Write, increment, is_forward, is_reply, put};

const SESSION: u128 = 77;

/// The number under which the only forward on the wire travels.
fn forwarded(world: &World) -> u64 {
    let request_of = |packet: &Packet| {
        if let PeerMessage::Forward { request, .. } = packet.message {
            return Some(request);
        }
        None
    };
    let mut forwards = world.wire.iter().filter_map(request_of);
    let request = forwards.next().expect("nothing was forwarded");
    assert_eq!(forwards.next(), None);
    request
}

fn reply(world: &mut World, from: u64, to: u64, request: u64, refusal: Refusal) {
    let response = Response::Refused(refusal);
    world.handle(
        to,
        Event::Peer {
            from: NodeId(from),
            message: PeerMessage::ForwardReply { request, response },
        },
    );
    world.turn(to);
}

#[test]
fn write_that_was_never_sent_fails_at_its_deadline_and_not_before() {
    let mut world = World::new(3);
    let write = world.write(3, Write::bare(put("k", "v")).within(5));
    world.tick(3, 4);
    assert!(world.is_unanswered(write));
    world.tick(3, 1);
    world.assert_no_leader(write);

    world.elect(1);
    world.run(5);
    assert_eq!(world.value(1, "k"), None, "failed is failed for ever");
}

#[test]
fn write_that_waited_for_a_leader_is_sent_once_there_is_one() {
    let mut world = World::new(3);
    let follower = world.write(3, Write::bare(put("a", "v")));
    let leader = world.write(1, Write::bare(put("b", "v")));
    world.elect(1);
    world.run(1);
    world.written(follower);
    world.written(leader);
}

/// Case 47: a time-out after proposing is unknown.
#[test]
fn proposed_write_whose_quorum_is_lost_is_unknown() {
    for write in [
        Write::bare(put("k", "v")),
        Write::named(SESSION, 1, put("k", "v")),
    ] {
        let mut world = World::led_by_n1(3);
        world.isolate(1);
        let write = world.write(1, write.within(5 * ET));
        world.run(5 * ET - 1);
        assert!(!world.is_leader(1));
        assert!(world.is_unanswered(write));
        world.run(1);
        world.assert_unknown(write);
    }
}

#[test]
fn forwarded_write_that_is_not_answered_in_time_is_unknown() {
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::bare(put("k", "v")).within(5));
    world.turn(2);
    world.lose(is_forward);
    world.tick(2, 4);
    assert!(world.is_unanswered(write));
    world.tick(2, 1);
    world.assert_unknown(write);
}

/// Case 43: the reply is lost, and the repetition is answered with the result of the one execution.
#[test]
fn session_write_whose_leader_was_lost_is_sent_again_and_runs_once() {
    let mut world = World::led_by_n1(3);
    world.hold(1, 2);
    let write = world.write(2, Write::named(SESSION, 1, increment("n")));
    world.settle();
    assert!(
        world.wire.iter().any(is_reply),
        "it ran, and the reply is on its way"
    );
    world.link_down(1, 2);
    assert!(world.is_unanswered(write));
    world.release();
    world.link_up(1, 2);
    world.run(2);
    world.written(write);
    for id in [1, 2, 3] {
        assert_eq!(world.value(id, "n").unwrap(), "1");
    }
}

#[test]
fn write_without_a_session_whose_leader_was_lost_is_unknown_at_once() {
    for runs in [true, false] {
        let mut world = World::led_by_n1(3);
        world.hold(1, 2);
        let write = world.write(2, Write::bare(increment("n")));
        world.turn(2);
        if runs {
            world.settle();
        }
        world.link_down(1, 2);
        world.assert_unknown(write);
        world.release();
        world.link_up(1, 2);
        world.run(2);
        assert_eq!(world.value(2, "n").is_some(), runs, "never sent again");
    }
}

#[test]
fn refusal_of_a_repetition_says_nothing_of_an_attempt_in_doubt() {
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::named(SESSION, 1, increment("n")));
    world.turn(2);
    world.link_down(1, 2);
    world.link_up(1, 2);
    world.node_mut(1).disk.full = true;
    world.look(1);
    world.settle();
    world.assert_unknown(write);

    let write = world.write(2, Write::named(SESSION, 1, increment("n")));
    world.settle();
    assert_eq!(world.refusal(write), &Refusal::NoSpace, "the first attempt");
}

#[test]
fn write_in_doubt_is_unknown_even_if_nobody_takes_the_repetition() {
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::named(SESSION, 1, increment("n")).within(ET));
    world.turn(2);
    world.link_down(1, 2);
    world.tick(2, ET);
    world.assert_unknown(write);
}

#[test]
fn node_that_does_not_lead_or_stops_causes_another_attempt_and_no_answer() {
    for refusal in [Refusal::NotLeader { leader: None }, Refusal::Stopping] {
        let mut world = World::led_by_n1(3);
        let write = world.write(2, Write::bare(increment("n")));
        world.turn(2);
        let request = forwarded(&world);
        world.lose(is_forward);
        reply(&mut world, 1, 2, request, refusal);
        assert!(world.is_unanswered(write));
        assert!(
            !world.wire.iter().any(is_forward),
            "two nodes must not spin"
        );
        world.tick(2, 1);
        assert_eq!(forwarded(&world), request);
        world.settle();
        world.written(write);
        assert_eq!(world.value(1, "n").unwrap(), "1");
    }
}

#[test]
fn write_that_everybody_sends_away_fails_definitely() {
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::bare(increment("n")).within(5));
    world.turn(2);
    let request = forwarded(&world);
    world.lose(is_forward);
    world.link_down(2, 3);
    reply(
        &mut world,
        1,
        2,
        request,
        Refusal::NotLeader { leader: None },
    );
    world.link_down(1, 2);
    world.tick(2, 5);
    world.assert_no_leader(write);
}

#[test]
fn outcome_unknown_of_the_leader_is_an_answer_only_without_a_session() {
    let unknown = || Refusal::OutcomeUnknown {
        why: "deposed".into(),
    };
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::bare(increment("n")));
    world.turn(2);
    let request = forwarded(&world);
    reply(&mut world, 1, 2, request, unknown());
    world.assert_unknown(write);

    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::named(SESSION, 1, increment("n")));
    world.turn(2);
    let request = forwarded(&world);
    reply(&mut world, 1, 2, request, unknown());
    world.run(2);
    world.written(write);
    assert_eq!(world.value(1, "n").unwrap(), "1", "both attempts arrived");
}

#[test]
fn reply_of_a_node_that_was_not_asked_is_ignored() {
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::bare(increment("n")));
    world.turn(2);
    let request = forwarded(&world);
    reply(&mut world, 3, 2, request, Refusal::NoSpace);
    reply(&mut world, 1, 2, request + 1, Refusal::NoSpace);
    assert!(world.is_unanswered(write));
    world.settle();
    world.written(write);
}

#[test]
fn proposal_whose_place_another_entry_took_is_sent_again() {
    let mut world = World::led_by_n1(3);
    world.isolate(1);
    // The first one's place goes to a leader's empty entry, the second one's to another command.
    let bare = [(); 2].map(|()| world.write(1, Write::bare(increment("n"))));
    world.settle();
    world.elect(2);
    let other = world.write(2, Write::bare(put("k", "v")));
    world.run(2);
    world.written(other);
    assert_eq!(world.node(2).driver.node().commit_index(), LogIndex(3));
    world.tick(1, 2 * ET);
    assert!(
        bare.iter().all(|write| world.is_unanswered(*write)),
        "n1 does not know yet what n2 did there"
    );
    world.rejoin(1);
    world.run(2 * ET);
    for (counted, write) in (1..).zip(bare) {
        let OpResult::Incremented { value, .. } = world.written(write).results[0] else {
            panic!("{:?}", world.answer(write));
        };
        assert_eq!(value, counted);
    }
    for id in [1, 2, 3] {
        assert_eq!(world.value(id, "n").unwrap(), "2");
    }
}

/// n2 still takes n1 for the leader when n1 follows n3 already. If n1 passed the write on, n2 would not know where it went.
#[test]
fn deposed_leader_sends_forwarded_writes_back_and_does_not_pass_them_on() {
    let mut world = World::led_by_n1(3);
    world.node_mut(1).disk.prepared_bytes = 0;
    world.look(1);
    let write = world.write(2, Write::bare(increment("n")));
    world.settle();
    for from in [1, 3] {
        world.hold(from, 2);
    }
    let admin = Principal::new(Role::Admin, "root");
    let to = Some("n3".into());
    world.ask_as(1, admin, Request::TransferLeader { to });
    world.settle();
    world.tick(3, 1);
    world.settle();
    assert_eq!(world.node(1).driver.leader(), Some(NodeId(3)));
    assert!(world.wire.iter().any(|p| is_reply(p) && p.from == 1));
    assert_eq!(world.value(3, "n"), None);
    world.release();
    world.run(3);
    world.written(write);
    assert_eq!(world.value(3, "n").unwrap(), "1");
}

/// n1 proposes 2..=4 in term 1, and only n2 gets them. n3, elected by n4 and n5, overwrites n1's log by 2@2; then n1, elected by
/// the same two, proposes at 4 again. Before that gets anywhere n2 is elected, and commits 2..=4 of term 1.
#[test]
fn displaced_proposal_that_may_be_committed_elsewhere_is_not_run_twice() {
    let mut world = World::led_by_n1(5);
    world.run(1);
    for far in [3, 4, 5] {
        world.link_down(1, far);
        world.link_down(2, far);
    }
    world.lose_appends(2, 4);
    for key in ["a", "b"] {
        world.write(1, Write::bare(put(key, "v")));
    }
    let write = world.write(1, Write::bare(increment("n")).within(1000));
    world.settle();
    assert_eq!(world.node(2).driver.node().storage_last(), 4);

    world.link_down(1, 2);
    for follower in [1, 4, 5] {
        world.lose_appends(3, follower);
    }
    world.elect(3);
    world.allow_appends();
    world.lose_appends(3, 4);
    world.lose_appends(3, 5);
    world.link_up(1, 3);
    world.run(3);
    assert_eq!(world.node(1).driver.node().storage_last(), 2);

    world.isolate(3);
    world.link_up(1, 4);
    world.link_up(1, 5);
    world.lose_appends(1, 4);
    world.lose_appends(1, 5);
    world.elect(1);
    world.write(1, Write::bare(put("c", "v")));
    world.settle();

    world.isolate(1);
    world.link_up(2, 4);
    world.link_up(2, 5);
    world.allow_appends();
    world.elect(2);
    world.run(2);
    assert_eq!(world.value(2, "n").unwrap(), "1");
    world.link_up(1, 2);
    world.run(5);
    assert_eq!(world.value(2, "n").unwrap(), "1", "it ran twice");
    assert!(!world.is_unanswered(write));
}

trait StorageLast {
    fn storage_last(&self) -> u64;
}

impl StorageLast for raft_core::Node<kvd::log_cache::LogCache> {
    fn storage_last(&self) -> u64 {
        raft_core::Storage::last_index(self.storage()).0
    }
}

/// The client would take it for the end of its only attempt, open another session and run the write a second time.
#[test]
fn session_that_expired_under_a_repetition_says_nothing_of_an_attempt_in_doubt() {
    let mut world = World::led_by_n1(3);
    let write = world.write(2, Write::named(SESSION, 1, increment("n")));
    world.turn(2);
    world.link_down(1, 2);
    world.link_up(1, 2);
    world.turn(2);
    let request = forwarded(&world);
    reply(&mut world, 1, 2, request, Refusal::SessionExpired);
    world.assert_unknown(write);
}

/// n2 forwards a write, dies and comes back. The leader's answer to that write must not answer the next one that n2 forwards.
#[test]
fn forwards_of_two_lives_never_have_the_same_number() {
    let number_of_first_forward = |boot_counter| {
        let mut world = World::with(3, |options| options.boot_counter = boot_counter);
        world.elect(1);
        world.settle();
        world.hold(2, 1);
        world.write(2, Write::named(SESSION, 1, put("k", "v")));
        world.turn(2);
        forwarded(&world)
    };
    let (first, second) = (number_of_first_forward(1), number_of_first_forward(2));
    assert!(second - first >= 1 << 40, "{first} {second}");
}
