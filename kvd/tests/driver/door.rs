//! What is refused at the door: before anything is proposed, and at the leader as well as at the node that was asked.

use bytes::Bytes;
use kvd::driver::Event;
use kvd::kv::auth::{Principal, Role};
use kvd::kv::command::{Command, Op, Txn};
use kvd::kv::envelope::SessionRef;
use kvd::kv::limits::CommandLimits;
use kvd::kv::members::MemberUpdate;
use kvd::wire::client::{Consistency, Outcome, Refusal, Request, Response};
use kvd::wire::peer::{ForwardedWrite, PeerMessage};
use raft_core::NodeId;

use crate::world::{World, Write, put};

fn small() -> World {
    World::led(World::with(3, |options| {
        options.limits = CommandLimits {
            key_bytes: 4,
            value_bytes: 8,
            txn_ops: 2,
        };
    }))
}

fn txn(steps: usize) -> Command {
    Command::Txn(Txn {
        then: vec![put("k", "v"); steps],
        ..Txn::default()
    })
}

#[test]
fn commands_at_the_limits_pass_and_beyond_them_nothing_is_sent() {
    for asked in [1, 2] {
        let mut world = small();
        let passing = [put("kkkk", "vvvvvvvv").into(), txn(2)];
        for command in passing {
            let write = world.write(asked, Write::bare(command));
            world.settle();
            world.written(write);
        }
        let too_large = [
            put("kkkkk", "v").into(),
            put("k", "vvvvvvvvv").into(),
            txn(3),
        ];
        for command in too_large {
            let write = world.write(asked, Write::bare(command));
            let refusal = world.refusal_at_once(asked, write).clone();
            assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal:?}");
            assert_eq!(refusal.outcome(), Outcome::Definite);
        }
        let write = world.write(asked, Write::bare(put("", "v")));
        let refusal = world.refusal_at_once(asked, write).clone();
        assert!(matches!(refusal, Refusal::BadRequest { .. }), "{refusal:?}");
        assert!(world.wire.is_empty());
        assert!(world.node(asked).disk.queue.is_empty());
    }
}

#[test]
fn questions_beyond_the_limits_are_refused() {
    let mut world = small();
    for consistency in [Consistency::Local, Consistency::Linearizable] {
        let read = world.read(1, "kkkkk", consistency);
        let refusal = world.refusal_at_once(1, read);
        assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal:?}");
    }
}

#[test]
fn command_that_does_not_match_its_checksum_is_refused() {
    for asked in [1, 2] {
        let mut world = World::led_by_n1(3);
        let mut write = Write::bare(put("k", "v"));
        write.crc ^= 1;
        let write = world.write(asked, write);
        assert_eq!(
            world.refusal_at_once(asked, write),
            &Refusal::CommandCorrupt
        );
        assert!(world.wire.is_empty());
    }
}

#[test]
fn bytes_that_are_no_command_of_this_version_are_refused() {
    let newer = {
        let mut bytes = Command::from(put("k", "v")).encode().to_vec();
        bytes[0] += 1;
        Bytes::from(bytes)
    };
    for command in [Bytes::new(), Bytes::from_static(b"\x01\xff\xff"), newer] {
        let mut world = World::led_by_n1(1);
        let crc = kvd::kv::command::command_crc(&command);
        let write = Write {
            command,
            crc,
            ..Write::bare(Command::KeepAlive)
        };
        let write = world.write(1, write);
        let refusal = world.refusal_at_once(1, write);
        assert!(matches!(refusal, Refusal::BadRequest { .. }), "{refusal:?}");
        assert!(world.node(1).disk.queue.is_empty());
    }
}

/// What another node forwards is checked as if it came from a client: that node may run another configuration.
#[test]
fn leader_checks_what_is_forwarded() {
    let good = || ForwardedWrite {
        session: SessionRef::None,
        sequence: 0,
        done_below: 0,
        command: Command::from(put("k", "v")).encode(),
        crc: Write::bare(put("k", "v")).crc,
        timeout_ms: 1000,
    };
    let corrupt = ForwardedWrite { crc: 0, ..good() };
    let command = Command::from(put("kkkkk", "v")).encode();
    let large = ForwardedWrite {
        crc: kvd::kv::command::command_crc(&command),
        command,
        ..good()
    };
    for (write, expected) in [
        (corrupt, "the command does not match its checksum"),
        (large, "key of 5 is beyond the limit of 4"),
    ] {
        let mut world = small();
        world.hold(1, 2);
        forward(&mut world, 2, 1, write);
        let [reply] = &Vec::from_iter(world.wire.drain(..))[..] else {
            panic!("not one reply");
        };
        let PeerMessage::ForwardReply {
            request: 9,
            response: Response::Refused(refusal),
        } = &reply.message
        else {
            panic!("{reply:?}");
        };
        assert_eq!(refusal.to_string(), expected);
    }
    let mut world = small();
    forward(&mut world, 2, 3, good());
    let reply = world.wire.pop_front().unwrap();
    let PeerMessage::ForwardReply {
        response:
            Response::Refused(Refusal::NotLeader {
                leader: Some(leader),
            }),
        ..
    } = reply.message
    else {
        panic!("{reply:?}");
    };
    assert_eq!(
        leader.name, "n1",
        "who does not lead says who does, and passes nothing on"
    );
    assert!(world.wire.is_empty());
}

fn forward(world: &mut World, from: u64, to: u64, write: ForwardedWrite) {
    let message = PeerMessage::Forward {
        request: 9,
        principal: Principal::new(Role::Client, "app"),
        write,
    };
    let from = NodeId(from);
    world.handle(to, Event::Peer { from, message });
    world.turn(to);
}

/// Not even an administrator writes an update of the table into the log: it must fit the configuration. And while members
/// are upgraded one after the other, anybody could stop the older ones with it.
#[test]
fn nobody_writes_the_table_of_members_from_outside() {
    for role in [Role::Client, Role::Http, Role::Admin] {
        let mut world = World::led_by_n1(3);
        let update = Command::Members(MemberUpdate::default());
        let write = Write::bare(update).request();
        let write = world.ask_as(1, Principal::new(role, "app"), write);
        let refusal = world.refusal_at_once(1, write);
        assert!(
            matches!(refusal, Refusal::NotAuthorised { .. }),
            "{refusal:?}"
        );
        assert!(world.node(1).disk.queue.is_empty());
    }
}

#[test]
fn only_administrators_operate_the_cluster() {
    let admin = || Principal::new(Role::Admin, "root");
    let requests = || [Request::TransferLeader { to: None }, Request::DiscardLog];
    for who in [Role::Client, Role::Http] {
        let mut world = World::led_by_n1(3);
        for request in requests() {
            let request = world.ask_as(1, Principal::new(who, "app"), request);
            let refusal = world.refusal_at_once(1, request);
            assert!(
                matches!(refusal, Refusal::NotAuthorised { .. }),
                "{refusal:?}"
            );
        }
        world.settle();
        assert!(world.is_leader(1));
        assert_eq!(world.node(1).writing, 0);
    }
    let mut world = World::led_by_n1(3);
    let done: Vec<u64> = requests()
        .into_iter()
        .rev()
        .map(|request| world.ask_as(1, admin(), request))
        .collect();
    world.settle();
    for request in done {
        assert_eq!(world.answer(request), Some(&Response::Done));
    }
    assert!(!world.is_leader(1));
    assert_eq!(world.node(1).writing, 1);
}

#[test]
fn leadership_goes_to_the_named_member_and_only_the_leader_hands_it_over() {
    let admin = || Principal::new(Role::Admin, "root");
    let to = |name: &str| Request::TransferLeader {
        to: Some(name.into()),
    };
    let mut world = World::led_by_n1(3);
    let not_here = world.ask_as(2, admin(), to("n3"));
    let nobody = world.ask_as(1, admin(), to("n9"));
    let itself = world.ask_as(1, admin(), to("n1"));
    world.settle();
    let leader = Some("n1");
    let Refusal::NotLeader {
        leader: Some(named),
    } = world.refusal(not_here)
    else {
        panic!("{:?}", world.answer(not_here));
    };
    assert_eq!(Some(&*named.name), leader);
    for request in [nobody, itself] {
        assert!(matches!(world.refusal(request), Refusal::BadRequest { .. }));
    }
    assert!(world.is_leader(1));
    let done = world.ask_as(1, admin(), to("n3"));
    world.settle();
    assert_eq!(world.answer(done), Some(&Response::Done));
    assert!(world.is_leader(3));
}

/// Writes that come in while leadership moves wait, and go to the next leader.
#[test]
fn writes_during_a_hand_over_are_not_lost() {
    let mut world = World::led_by_n1(3);
    let to = Some("n2".into());
    world.ask_as(
        1,
        Principal::new(Role::Admin, "root"),
        Request::TransferLeader { to },
    );
    let bare = world.write(1, Write::bare(put("a", "v")));
    let forwarded = world.write(3, Write::named(1, 1, put("b", "v")));
    world.run(3);
    assert!(world.is_leader(2));
    world.written(bare);
    world.written(forwarded);
}

#[test]
fn delete_of_everything_and_other_harmless_shapes_pass_the_door() {
    let mut world = small();
    let all = Op::Delete {
        range: kvd::kv::command::KeyRange::All,
        want_previous: false,
    };
    let write = world.write(2, Write::bare(all));
    world.settle();
    world.written(write);
}

#[test]
fn hello_names_node_cluster_and_leader_and_refuses_an_older_protocol() {
    let mut world = World::led_by_n1(3);
    let hello = |version| Request::Hello {
        version,
        program: "test".into(),
    };
    let (now, old) = (world.ask(2, hello(1)), world.ask(2, hello(0)));
    world.turn(2);
    let Some(Response::Hello {
        node,
        leader,
        members,
        ..
    }) = world.answer(now)
    else {
        panic!("{:?}", world.answer(now));
    };
    assert_eq!((node.as_str(), *leader, members.len()), ("n2", Some(1), 3));
    assert!(matches!(world.refusal(old), Refusal::BadRequest { .. }));
}

#[test]
fn node_says_why_it_cannot_serve() {
    let mut world = World::new(3);
    let health = |world: &mut World| {
        let request = world.ask(1, Request::Health);
        world.turn(1);
        match world.answer(request) {
            Some(Response::Health { healthy, reasons }) => {
                assert_eq!(*healthy, reasons.is_empty());
                reasons.clone()
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(health(&mut world)[0].starts_with("no leader"));
    world.elect(1);
    assert_eq!(health(&mut world), [""; 0]);
    world.node_mut(1).disk.full = true;
    world.look(1);
    assert_eq!(health(&mut world), ["no space left for the log"]);
}
