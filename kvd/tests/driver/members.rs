//! Members come and go: what the table and the configuration become, and what is refused.

use std::collections::BTreeSet;

use kvd::driver::Event;
use kvd::kv::members::MemberState;
use kvd::wire::client::{
    Consistency, MemberAddress, MemberChange, Outcome, Quorum, Refusal, Request, Response,
};
use kvd::wire::status::NodeRole;
use raft_core::{Message, NodeId};

use crate::world::{ET, PATIENCE, World, Write, is_append, put};

pub fn address(id: u64) -> MemberAddress {
    MemberAddress {
        name: format!("n{id}"),
        id,
        address: format!("n{id}:1"),
    }
}

pub fn add(id: u64) -> MemberChange {
    MemberChange::Add(address(id))
}

pub fn remove(id: u64) -> MemberChange {
    MemberChange::Remove {
        name: format!("n{id}"),
    }
}

pub fn replace(old: u64, new: u64) -> MemberChange {
    MemberChange::Replace {
        old: format!("n{old}"),
        new: address(new),
    }
}

pub fn promote(id: u64) -> MemberChange {
    MemberChange::Promote {
        name: format!("n{id}"),
    }
}

pub fn ids<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

impl World {
    pub fn voters(&self, id: u64) -> BTreeSet<NodeId> {
        let configuration = self.node(id).driver.node().configuration();
        assert!(!configuration.is_joint(), "{configuration}");
        configuration.voters.clone()
    }

    pub fn state(&self, at: u64, of: u64) -> Option<MemberState> {
        let table = self.node(at).driver.store().members();
        table.get(of).map(|record| record.state)
    }

    pub fn changed(&self, request: u64) -> (Quorum, Quorum) {
        match self.answer(request) {
            Some(Response::MembersChanged { before, after }) => (*before, *after),
            other => panic!("request {request} has changed nothing, but {other:?}"),
        }
    }

    /// Writes at `id`, and everybody who is alive and reached learns of it.
    pub fn can_write(&mut self, id: u64, value: &str) {
        let write = self.write(id, Write::bare(put("k", value)));
        self.settle();
        self.written(write);
    }

    /// Why the change is refused; nothing must have come of it.
    pub fn refused(&mut self, at: u64, changes: Vec<MemberChange>) -> Refusal {
        let last = self.node(at).driver.node().status().last;
        let request = self.change(at, changes);
        self.turn(at);
        let refusal = self.refusal(request).clone();
        assert_eq!(refusal.outcome(), Outcome::Definite, "{refusal}");
        assert_eq!(self.node(at).driver.node().status().last, last, "{refusal}");
        refusal
    }
}

#[test]
fn a_new_node_learns_and_then_votes_by_itself() {
    let mut world = World::led_by_n1(3);
    world.can_write(1, "before");
    let change = world.change(1, vec![add(4)]);
    world.settle();
    let (before, after) = world.changed(change);
    assert_eq!((before.voters, before.quorum, before.spare()), (3, 2, 1));
    assert_eq!((after.voters, after.quorum, after.reachable), (4, 3, 3));
    assert_eq!(
        world.voters(1),
        ids([1, 2, 3]),
        "it has nothing of the log yet"
    );
    assert_eq!(world.state(2, 4), Some(MemberState::Learner));
    let (told, removed) = world.node(2).told.last().unwrap().clone();
    assert!(told.contains(&address(4)) && removed.is_empty());

    world.start_later(4, 3);
    world.run(2 * ET);
    assert_eq!(world.value(4, "k"), Some("before".into()));
    for id in 1..=4 {
        assert_eq!(world.voters(id), ids([1, 2, 3, 4]), "n{id}");
        assert_eq!(world.state(id, 4), Some(MemberState::Voter), "n{id}");
    }
    // It counts: without it and one more there is no quorum, with it there is.
    world.isolate(3);
    world.can_write(1, "after");
    assert_eq!(world.value(4, "k"), Some("after".into()));
}

/// It learns the members of old times first, and must not take them for those of today.
#[test]
fn a_new_node_that_is_behind_keeps_the_members_that_it_was_given() {
    let mut world = World::led_by_n1(3);
    let change = world.change(1, vec![remove(3)]);
    world.settle();
    world.changed(change);
    // More than is applied in one turn.
    for _ in 0..3 {
        world.can_write(1, &"x".repeat(300 << 10));
    }
    world.change(1, vec![add(4)]);
    world.start_later(4, 3);
    world.run(2 * ET);
    world.change(1, vec![add(5)]);
    world.settle();
    world.start_later(5, 4);
    world.run(2 * ET);
    let told = &world.node(5).told;
    let knows = |id| {
        told.iter()
            .all(|(members, _)| members.contains(&address(id)))
    };
    let has_known = |id| {
        told.iter()
            .any(|(members, _)| members.contains(&address(id)))
    };
    assert!(told.len() > 1, "it was told all at once");
    assert!([1, 2, 4].into_iter().all(knows), "{told:?}");
    assert!(!has_known(3), "its table says that it is gone");
    assert_eq!(world.voters(5), ids([1, 2, 4, 5]));
}

/// Case 28: a node that was not among the founders never forms a cluster by itself, nor one of its own kind.
#[test]
fn a_later_node_does_not_stand_for_election() {
    let mut world = World::led_by_n1(3);
    for id in [4, 5] {
        world.start_later(id, 3);
        for founder in 1..=3 {
            world.link_down(id, founder);
        }
    }
    for _ in 0..20 * ET {
        for id in [4, 5] {
            world.tick(id, 1);
            world.deliver(|_| true);
            assert_eq!(world.node(id).driver.node().term().0, 0);
        }
    }
}

#[test]
fn a_removed_follower_is_forgotten_and_disturbs_nobody() {
    let mut world = World::led_by_n1(3);
    world.isolate(3);
    let change = world.change(1, vec![remove(3)]);
    world.settle();
    let (_, after) = world.changed(change);
    assert_eq!((after.voters, after.quorum, after.spare()), (2, 2, 0));
    assert_eq!(world.voters(2), ids([1, 2]));
    assert_eq!(world.state(2, 3), Some(MemberState::Removed));
    assert_eq!(world.node(2).told.last().unwrap().1, ids([3]));

    // It has not heard of it, and stands. The others take nothing from it, a vote least of all.
    let term = world.node(1).driver.node().term();
    world.rejoin(3);
    world.tick(3, 5 * ET);
    assert!(world.wire.iter().any(|packet| packet.from == 3));
    world.settle();
    assert!(world.wire.iter().all(|packet| packet.to != 3));
    world.run(2 * ET);
    assert!(world.is_leader(1));
    assert_eq!(world.node(1).driver.node().term(), term);

    // Told that it was removed it says so, and keeps quiet.
    world.handle(3, Event::Removed { by: NodeId(1) });
    world.settle();
    let quiet = world.node(3).driver.node().term();
    world.tick(3, 5 * ET);
    assert!(world.wire.iter().all(|packet| packet.from != 3));
    assert_eq!(world.node(3).driver.node().term(), quiet);
    assert_eq!(world.node(3).driver.status().role, NodeRole::Removed);
    let health = world.ask(3, Request::Health);
    world.turn(3);
    let Some(Response::Health {
        healthy: false,
        reasons,
    }) = world.answer(health)
    else {
        panic!("{:?}", world.answer(health));
    };
    assert_eq!(reasons, &["this node was removed from the cluster"]);
}

/// Case 27: the leader answers for its own removal, and the others go on.
#[test]
fn the_leader_removes_itself() {
    let mut world = World::led_by_n1(3);
    let change = world.change(1, vec![remove(1)]);
    world.settle();
    world.changed(change);
    assert!(!world.is_leader(1));
    // Nobody will tell it who leads. Its clients need not wait to find that out.
    let write = world.write(1, Write::bare(put("k", "v")));
    let read = world.read(1, "k", Consistency::Linearizable);
    let elsewhere = Refusal::NotLeader { leader: None };
    assert_eq!(world.refusal_at_once(1, write), &elsewhere);
    assert_eq!(world.refusal_at_once(1, read), &elsewhere);
    assert_eq!(
        world.state(1, 1),
        Some(MemberState::Voter),
        "to its own mind"
    );
    let table = world.ask(1, Request::MemberTable);
    assert_eq!(world.refusal_at_once(1, table), &elsewhere);
    for _ in 0..3 {
        world.run(ET);
    }
    let leader = world.ids().into_iter().find(|id| world.is_leader(*id));
    let leader = leader.expect("the others elect one of them");
    assert_ne!(leader, 1);
    world.run(1);
    assert_eq!(world.state(leader, 1), Some(MemberState::Removed));
    assert_eq!(world.voters(leader), ids([2, 3]));
    world.can_write(leader, "without n1");
}

/// Case 30: writes go on all the time, and at no moment does a decision need the dead one and the new one both.
#[test]
fn a_dead_member_is_replaced() {
    let mut world = World::led_by_n1(3);
    world.isolate(3);
    let change = world.change(1, vec![replace(3, 4)]);
    world.settle();
    let (before, after) = world.changed(change);
    assert_eq!((before.voters, after.voters), (3, 3));
    assert_eq!(
        (before.reachable, after.reachable),
        (2, 2),
        "n4 is not started"
    );
    assert_eq!(
        world.voters(1),
        ids([1, 2, 3]),
        "n3 stays until n4 has caught up"
    );
    let table = world.ask(1, Request::MemberTable);
    world.turn(1);
    let Some(Response::MemberTable { members, .. }) = world.answer(table) else {
        panic!("{:?}", world.answer(table));
    };
    assert_eq!(members[3].replaces.as_deref(), Some("n3"));
    assert_eq!(
        members.iter().map(|m| m.reachable).collect::<Vec<_>>(),
        [true, true, false, false]
    );

    world.start_later(4, 3);
    world.link_down(3, 4);
    for tick in 0..2 * ET {
        world.can_write(1, &format!("{tick}"));
        world.run(1);
    }
    for id in [1, 2, 4] {
        assert_eq!(world.voters(id), ids([1, 2, 4]), "n{id}");
        assert_eq!(world.state(id, 3), Some(MemberState::Removed), "n{id}");
        assert_eq!(world.state(id, 4), Some(MemberState::Voter), "n{id}");
    }
    let back = world.refused(1, vec![add(3)]);
    assert!(back.to_string().contains("can never come back"), "{back}");
    let vote_of = |id, world: &World| world.node(id).driver.node().status().vote;
    let votes = [1, 2, 4].map(|id| vote_of(id, &world));
    world.rejoin(3);
    world.tick(3, 5 * ET);
    world.settle();
    assert_eq!([1, 2, 4].map(|id| vote_of(id, &world)), votes);
}

#[test]
fn several_come_and_go_in_one_change() {
    let mut world = World::led_by_n1(3);
    for id in [4, 5] {
        world.start_later(id, 3);
    }
    let change = world.change(1, vec![add(4), add(5), remove(2)]);
    world.settle();
    let (_, after) = world.changed(change);
    assert_eq!((after.voters, after.quorum), (4, 3));
    world.run(2 * ET);
    for id in [1, 3, 4, 5] {
        assert_eq!(world.voters(id), ids([1, 3, 4, 5]), "n{id}");
    }
    world.can_write(1, "with four");
}

/// A learner is not made a voter while that would leave too few who answer.
#[test]
fn a_learner_waits_while_its_vote_would_cost_the_quorum() {
    let mut world = World::led_by_n1(3);
    world.isolate(3);
    let change = world.change(1, vec![add(4)]);
    world.settle();
    world.changed(change);
    // Of four voters three would be needed, and n1 would reach itself and n4.
    world.link_down(1, 2);
    world.start_later(4, 3);
    world.link_down(3, 4);
    world.run(ET / 2);
    assert!(world.is_leader(1));
    let last = |id| world.node(id).driver.node().status().last;
    assert_eq!(last(4), last(1), "it has caught up");
    assert_eq!(world.voters(1), ids([1, 2, 3]));
    world.link_up(1, 2);
    world.run(ET);
    assert_eq!(world.voters(1), ids([1, 2, 3, 4]));
}

/// Cases 23 and 24: nothing before the leader's own term is committed, and one change at a time.
/// A client that lost the answer asks again, and is told that it is so.
/// A leader dies when the address is in the log and the configuration is not: the next one goes on.
#[test]
fn the_next_leader_ends_what_was_begun() {
    let mut world = World::led_by_n1(3);
    let change = world.change(1, vec![add(4)]);
    world.turn(1);
    // The table is everywhere; the disks of n2 and n3 have it, and n1 does not hear of that.
    world.deliver(|_| true);
    world.sync(2);
    world.sync(3);
    world.isolate(1);
    world.elect(2);
    world.run(ET);
    assert_eq!(world.state(2, 4), Some(MemberState::Learner));
    assert!(
        world
            .node(3)
            .driver
            .node()
            .configuration()
            .learners
            .contains(&NodeId(4))
    );
    world.tick(1, PATIENCE);
    world.assert_unknown(change);
    world.start_later(4, 3);
    world.link_down(1, 4);
    world.run(2 * ET);
    assert_eq!(world.voters(3), ids([1, 2, 3, 4]));
}

/// A removal that is cut off with its leader is rolled back: the client is not told that it was done.
#[test]
fn a_change_that_is_lost_with_its_leader_is_not_called_done() {
    let mut world = World::led_by_n1(3);
    world.can_write(1, "v");
    // Once, so that the table is founded and the next change is one entry.
    let update = MemberChange::Update {
        name: "n3".into(),
        address: "n3:2".into(),
    };
    let moved = world.change(1, vec![update]);
    world.settle();
    world.changed(moved);
    assert_eq!(world.node(2).told.last().unwrap().0[2].address, "n3:2");
    let change = world.change(1, vec![remove(3)]);
    world.turn(1);
    assert_eq!(
        world.voters(1),
        ids([1, 2]),
        "in force from the moment it is appended"
    );
    world.lose(is_append);
    world.isolate(1);
    world.elect(2);
    world.rejoin(1);
    world.run(2 * ET);
    world.assert_unknown(change);
    for id in 1..=3 {
        assert_eq!(world.voters(id), ids([1, 2, 3]), "n{id}");
        assert_eq!(world.state(id, 3), Some(MemberState::Voter), "n{id}");
    }
}

/// The address of n4 is in the log when the links go: a removal cannot be then, and the client is not told that nothing has
/// happened. A learner alone costs no quorum.
/// A node that was away while members came and went learns of them from a snapshot, and its shell is told.
#[test]
fn members_come_with_a_snapshot() {
    let mut world = World::led_by_n1(3);
    world.isolate(3);
    let change = world.change(1, vec![add(4)]);
    world.settle();
    world.changed(change);
    let discard = kvd::kv::auth::Principal::new(kvd::kv::auth::Role::Admin, "root");
    world.ask_as(1, discard, Request::DiscardLog);
    world.settle();
    let order = world
        .node_mut(1)
        .orders
        .pop()
        .expect("a snapshot was asked for");
    let term = world.node(1).driver.node().term();
    assert!(world.node(3).told.is_empty());
    let staged = World::stage(&order, 1, 1, 3, term);
    world.handle(3, staged);
    world.settle();
    let (members, _) = world.node(3).told.last().unwrap();
    assert!(members.contains(&address(4)));
    let voters = world.node(3).driver.node().configuration().learners.clone();
    assert_eq!(voters, ids([4]));
}

/// The others vote for nobody that was removed, whatever their own configuration says at that moment.
#[test]
fn messages_of_removed_nodes_are_dropped() {
    let mut world = World::led_by_n1(3);
    let change = world.change(1, vec![remove(3)]);
    world.settle();
    world.changed(change);
    world.tick(3, 5 * ET);
    let asks = |packet: &crate::world::Packet| {
        packet.from == 3 && matches!(packet.raft(), Some(Message::PreVote(_) | Message::Vote(_)))
    };
    assert!(
        world.wire.iter().any(asks),
        "it has not heard of its removal"
    );
    world.deliver(asks);
    assert!(
        world.wire.iter().all(|packet| packet.to != 3),
        "nobody answers"
    );
}
