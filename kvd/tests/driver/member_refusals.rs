//! Changes of members that are refused, that are so already, or that nobody can be sure of.

use kvd::driver::Event;
use kvd::kv::auth::{Principal, Role};
use kvd::kv::members::MemberState;
use kvd::wire::client::{MemberAddress, MemberChange, Refusal, Request};
use raft_core::NodeId;

use crate::members::{add, address, ids, promote, remove, replace};
use crate::world::{ET, World};

#[test]
fn what_would_lose_the_quorum_is_refused() {
    let mut world = World::led_by_n1(3);
    world.isolate(3);
    let refusal = world.refused(1, vec![remove(2)]);
    let Refusal::QuorumAtRisk {
        reachable: 1,
        quorum: 2,
        detail,
    } = refusal
    else {
        panic!("{refusal:?}");
    };
    assert_eq!(detail, "no link to n3");
    assert!(world.is_leader(1));
    world.rejoin(3);
    world.run(ET);
    let change = world.change(1, vec![remove(2)]);
    world.settle();
    world.changed(change);
    // Nobody is left to be the last one.
    let change = world.change(1, vec![remove(3)]);
    world.settle();
    world.changed(change);
    let refusal = world.refused(1, vec![remove(1)]);
    assert_eq!(
        refusal.to_string(),
        "the members stay as they are: no voter would be left"
    );
}

#[test]
fn changes_wait_for_their_turn() {
    let mut world = World::led_by_n1(3);
    for follower in [2, 3] {
        world.lose_appends(1, follower);
    }
    let change = world.change(1, vec![remove(3)]);
    world.settle();
    assert!(world.is_unanswered(change));
    for changes in [vec![remove(2)], vec![add(4)], vec![promote(2)]] {
        let busy = world.refused(1, changes);
        assert!(matches!(busy, Refusal::MembersBusy { .. }), "{busy:?}");
    }
    world.allow_appends();
    world.run(ET);
    world.changed(change);
    assert_eq!(world.voters(2), ids([1, 2]));

    let mut world = World::new(3);
    for follower in [2, 3] {
        world.lose_appends(1, follower);
    }
    world.elect(1);
    let busy = world.refused(1, vec![remove(3)]);
    let Refusal::MembersBusy { why } = &busy else {
        panic!("{busy:?}");
    };
    assert!(why.contains("just been elected"), "{why}");
}

#[test]
fn what_does_not_fit_the_members_is_refused() {
    let mut world = World::led_by_n1(3);
    let with = |change: fn(&mut MemberAddress)| {
        let mut member = address(4);
        change(&mut member);
        vec![MemberChange::Add(member)]
    };
    let moved = |name: &str, to: &str| {
        vec![MemberChange::Update {
            name: name.into(),
            address: to.into(),
        }]
    };
    let cases = [
        (vec![remove(9)], "no member is called n9"),
        (vec![replace(9, 4)], "no member is called n9"),
        (vec![promote(9)], "no member is called n9"),
        (vec![remove(3), remove(3)], "n3 is named twice"),
        (with(|member| member.id = 2), "is a member already, as n2"),
        (
            with(|member| member.name = "n2".into()),
            "another member is called n2",
        ),
        (
            with(|member| member.name = "N4".into()),
            "names are lower-case",
        ),
        (
            with(|member| member.address = "n2:1".into()),
            "n2:1 is the address of n2",
        ),
        (with(|member| member.address = "n4".into()), "has no port"),
        (
            with(|member| member.address = "0.0.0.0:1".into()),
            "none that others can reach",
        ),
        (
            with(|member| member.address = "[::]:1".into()),
            "none that others can reach",
        ),
        (moved("n9", "n9:2"), "no member is called n9"),
        (moved("n2", "n3:1"), "n3:1 is the address of n3"),
    ];
    for (changes, expected) in cases {
        let refusal = world.refused(1, changes);
        assert!(
            matches!(refusal, Refusal::MembersRefused { .. }),
            "{refusal:?}"
        );
        assert!(
            refusal.to_string().contains(expected),
            "{refusal}, expected: {expected}"
        );
    }
    let change = world.change(1, vec![add(4)]);
    world.settle();
    world.changed(change);
    let behind = world.refused(1, vec![promote(4)]);
    assert!(
        behind.to_string().contains("n4 has not caught up"),
        "{behind}"
    );
}

#[test]
fn only_the_leader_changes_members_and_only_administrators_ask() {
    let mut world = World::led_by_n1(3);
    let refusal = world.refused(2, vec![remove(3)]);
    let Refusal::NotLeader {
        leader: Some(leader),
    } = refusal
    else {
        panic!("{refusal:?}");
    };
    assert_eq!(leader.name, "n1");
    let change = Request::ChangeMembers {
        changes: vec![remove(3)],
        dry_run: true,
        timeout_ms: 1000,
    };
    let request = world.ask(1, change);
    let refusal = world.refusal_at_once(1, request);
    assert!(
        matches!(refusal, Refusal::NotAuthorised { .. }),
        "{refusal:?}"
    );
}

#[test]
fn a_dry_run_tells_what_would_be_and_changes_nothing() {
    let mut world = World::led_by_n1(3);
    let last = world.node(1).driver.node().status().last;
    let change = Request::ChangeMembers {
        changes: vec![remove(3)],
        dry_run: true,
        timeout_ms: 1000,
    };
    let admin = Principal::new(Role::Admin, "root");
    let request = world.ask_as(1, admin, change);
    world.settle();
    let (before, after) = world.changed(request);
    assert_eq!((before.voters, after.voters, after.quorum), (3, 2, 2));
    assert_eq!(world.node(1).driver.node().status().last, last);
}

#[test]
fn what_is_so_already_is_no_error() {
    let mut world = World::led_by_n1(3);
    for changes in [vec![add(4)], vec![remove(3)], vec![promote(2)]] {
        for _ in 0..2 {
            let change = world.change(1, changes.clone());
            world.settle();
            world.changed(change);
        }
    }
    assert_eq!(world.voters(1), ids([1, 2]));
}

#[test]
fn half_a_change_is_not_called_refused() {
    for (changes, done) in [(vec![add(4), remove(2)], false), (vec![add(4)], true)] {
        let mut world = World::led_by_n1(3);
        let change = world.change(1, changes);
        world.turn(1);
        assert_eq!(world.state(1, 4), None);
        // What is on the wire still arrives.
        for peer in [2, 3].map(NodeId) {
            world.handle(1, Event::PeerDown { peer });
        }
        world.settle();
        if done {
            world.changed(change);
        } else {
            world.assert_unknown(change);
        }
        assert_eq!(world.state(1, 4), Some(MemberState::Learner));
        assert_eq!(world.voters(1), ids([1, 2, 3]));
        let refusal = world.refused(1, vec![add(5)]);
        assert!(
            matches!(refusal, Refusal::QuorumAtRisk { .. }),
            "{refusal:?}"
        );
    }
}
