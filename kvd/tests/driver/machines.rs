//! State machines of users: answers come back from any node, and a node without one neither proposes nor applies.

use kvd::driver::SnapshotOrder;
use kvd::kv::command::{Command, Custom, OpResult};
use kvd::machine::{Machines, Never, State, StateMachine, View};
use kvd::wire::client::{Consistency, Refusal, Request, Response};
use raft_core::{LogIndex, Storage as _, Term};

use crate::world::{ET, World, Write, is_reply, put};

/// Counts.
struct Counter;

impl StateMachine for Counter {
    const NAME: &'static str = "counter";
    type Command = u8;
    type Answer = u8;
    type Rejection = Never;
    type Question = u8;
    type Reply = u8;

    fn apply(&self, state: &mut State<'_>, by: u8) -> Result<u8, Never> {
        let next = state.load("n").unwrap_or(0) + by;
        state.store("n", &next);
        Ok(next)
    }

    fn query(&self, view: &View<'_>, add: u8) -> u8 {
        view.load("n").unwrap_or(0) + add
    }
}

/// Three nodes, of which these have the machine.
fn world(with: &[u64]) -> World {
    let mut world = World::new(3);
    for id in with {
        world.node_mut(*id).driver.set_machines(Counter.into());
    }
    World::led(world)
}

fn custom(byte: u8) -> Custom {
    Custom {
        machine: "counter".into(),
        version: 1,
        command: vec![byte].into(),
    }
}

fn count(by: u8) -> Command {
    Command::Custom(custom(by))
}

fn answered(answer: u8) -> [OpResult; 1] {
    let answer = vec![answer].into();
    [OpResult::Answered { answer }]
}

fn ask(world: &mut World, id: u64, consistency: Consistency) -> u64 {
    let question = custom(100);
    let timeout_ms = 10_000;
    world.ask(
        id,
        Request::Ask {
            consistency,
            question,
            timeout_ms,
        },
    )
}

fn replied(world: &World, request: u64) -> u8 {
    match world.answer(request) {
        Some(Response::Replied { reply, .. }) => reply[0],
        other => panic!("request {request} has no reply, but {other:?}"),
    }
}

fn no_machine() -> Refusal {
    Refusal::NoMachine {
        machine: "counter".into(),
        version: 1,
        known: None,
    }
}

#[test]
fn commands_and_questions_are_answered_by_every_node() {
    let mut world = world(&[1, 2, 3]);
    for (id, total) in [(1, 7), (2, 14), (3, 21)] {
        let write = world.write(id, Write::bare(count(7)));
        world.settle();
        assert_eq!(world.written(write).results, answered(total));
        let question = ask(&mut world, id, Consistency::Linearizable);
        world.run(1);
        assert_eq!(replied(&world, question), 100 + total);
    }
    let local = ask(&mut world, 2, Consistency::Local);
    world.turn(2);
    assert_eq!(replied(&world, local), 121);
}

/// The leader commits the command, and is lost before its answer arrives: the next one answers alike.
#[test]
fn answer_that_was_lost_with_the_leader_is_given_by_the_next_one() {
    let mut world = world(&[1, 2, 3]);
    let write = world.write(2, Write::named(5, 1, count(7)));
    world.hold(1, 2);
    world.turn(2);
    world.deliver(|_| true);
    world.settle();
    assert!(world.is_unanswered(write));
    assert!(world.wire.iter().any(is_reply), "n1 has answered");
    world.lose(is_reply);
    world.release();
    world.settle();
    world.isolate(1);
    world.elect(3);
    world.run(2);
    assert_eq!(world.written(write).results, answered(7), "it ran once");
}

#[test]
fn node_without_the_machine_refuses_before_anything_is_proposed() {
    let mut world = world(&[2]);
    let last = world.node(1).driver.node().storage().last_index();
    let leader = world.write(1, Write::bare(count(7)));
    assert_eq!(*world.refusal_at_once(1, leader), no_machine());
    // n2 has it, and passes the command on to a leader that does not.
    let follower = world.write(2, Write::named(5, 1, count(7)));
    world.settle();
    assert_eq!(*world.refusal(follower), no_machine());
    let question = ask(&mut world, 1, Consistency::Local);
    assert_eq!(*world.refusal_at_once(1, question), no_machine());
    assert_eq!(world.node(1).driver.node().storage().last_index(), last);
    assert!(
        world
            .ids()
            .iter()
            .all(|id| world.node(*id).halted.is_empty())
    );
}

#[test]
fn bytes_that_are_no_command_are_refused_before_anything_is_proposed() {
    let mut world = world(&[1, 2, 3]);
    for command in [vec![], vec![1, 2]] {
        let command = Command::Custom(Custom {
            command: command.into(),
            ..custom(0)
        });
        let write = world.write(1, Write::bare(command));
        let refusal = world.refusal_at_once(1, write);
        assert!(matches!(refusal, Refusal::BadRequest { .. }), "{refusal:?}");
    }
}

#[test]
fn replica_without_the_machine_halts_before_it_applies() {
    let mut world = world(&[1, 2]);
    let before = world.write(1, Write::bare(put("k", "v")));
    let write = world.write(1, Write::bare(count(7)));
    let after = world.write(1, Write::bare(put("k", "later")));
    world.run(2 * ET);
    world.written(before);
    assert_eq!(world.written(write).results, answered(7));
    world.written(after);
    assert_eq!(world.node(3).halted, [LogIndex(3)]);
    assert_eq!(world.value(3, "k").unwrap(), "v");
    assert!(
        world.node(3).orders.is_empty(),
        "no snapshot of such a state"
    );
}

/// A snapshot holds state, and no program.
#[test]
fn machines_stay_when_a_snapshot_takes_the_place_of_the_store() {
    let mut world = world(&[1, 2, 3]);
    world.isolate(3);
    let write = world.write(1, Write::bare(count(7)));
    world.settle();
    world.written(write);
    world.ask_as(
        1,
        kvd::kv::auth::Principal::new(kvd::kv::auth::Role::Admin, "root"),
        Request::DiscardLog,
    );
    world.turn(1);
    world.snapshot_written(1, None);
    let order = &world.node(1).orders[0];
    assert_eq!(order.meta.id.index, LogIndex(2));
    let order = SnapshotOrder {
        view: order.view.clone().with_machines(Machines::new()),
        meta: order.meta.clone(),
        only_one: false,
    };
    world.settle();
    world.rejoin(3);
    world.handle(3, World::stage(&order, 8, 1, 3, Term(1)));
    world.turn(3);
    assert_eq!(world.node(3).taken, [8]);
    let write = world.write(1, Write::bare(count(7)));
    world.run(3);
    assert_eq!(world.written(write).results, answered(14));
    assert_eq!(world.node(3).driver.store().applied_index(), 3);
    let local = ask(&mut world, 3, Consistency::Local);
    world.turn(3);
    assert_eq!(replied(&world, local), 114);
}
