//! Nothing is said before it is true of a disk.

use raft_core::{LogIndex, Message, Role};

use crate::world::{ET, World, Write, is_accepted, is_append, is_heartbeat, put};

#[test]
fn write_is_answered_only_after_the_logs_of_a_quorum_reported_it() {
    let mut world = World::led_by_n1(3);
    for id in 1..=3 {
        world.hold_disk(id);
    }
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    assert!(world.is_unanswered(write), "no disk has it");
    assert_eq!(world.value(1, "k"), None);

    world.sync(1);
    world.settle();
    assert!(world.is_unanswered(write), "only the leader's disk has it");

    world.sync(2);
    assert!(world.is_unanswered(write), "the leader does not know yet");
    world.settle();
    world.written(write);
}

/// Case 10: a quorum without the leader's own disk is a quorum, the leader's memory counts for nothing.
#[test]
fn leader_counts_itself_only_once_its_own_log_reported() {
    let mut world = World::led_by_n1(3);
    world.hold_disk(1);
    world.silence(1, 3);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    assert_eq!(world.node(2).disk.synced(), LogIndex(2));
    assert!(world.is_unanswered(write), "one disk of three");
    world.sync(1);
    world.written(write);

    let mut world = World::led_by_n1(3);
    world.hold_disk(1);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    world.written(write);
    assert_eq!(
        world.node(1).disk.synced(),
        LogIndex(1),
        "two others have it"
    );
}

#[test]
fn single_node_answers_after_its_own_sync_and_not_before() {
    let mut world = World::led_by_n1(1);
    world.hold_disk(1);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    assert!(world.is_unanswered(write));
    world.sync(1);
    world.written(write);
}

#[test]
fn heartbeats_and_appends_leave_while_the_own_disk_hangs() {
    let mut world = World::led_by_n1(3);
    for id in 1..=3 {
        world.hold_disk(id);
    }
    world.write(1, Write::bare(put("k", "v")));
    world.turn(1);
    assert_eq!(world.node(1).disk.queue.len(), 1);
    assert_eq!(world.wire.iter().filter(|p| is_append(p)).count(), 2);
    for _ in 0..ET {
        world.lose(|_| true);
        world.tick(1, 1);
        assert_eq!(world.wire.iter().filter(|p| is_heartbeat(p)).count(), 2);
        world.deliver(|_| true);
        let answers = world.wire.iter();
        let answers = answers.filter(|p| matches!(p.raft(), Some(Message::HeartbeatResponse(_))));
        assert_eq!(
            answers.count(),
            2,
            "followers answer though their disks hang"
        );
        world.deliver(|_| true);
    }
    assert!(world.is_leader(1));
}

#[test]
fn acknowledgements_wait_for_exactly_their_own_part() {
    let mut world = World::led_by_n1(2);
    world.hold_disk(2);
    for key in ["a", "b", "c"] {
        world.write(1, Write::bare(put(key, "v")));
        world.turn(1);
        world.deliver(|p| p.to == 2);
    }
    assert_eq!(
        world.node(2).disk.queue.len(),
        3,
        "three parts, none synced"
    );
    let acknowledged = |world: &mut World| -> Vec<LogIndex> {
        let wire = std::mem::take(&mut world.wire);
        let accepted = wire.iter().filter_map(|p| match p.raft() {
            Some(Message::AppendResponse(raft_core::AppendResponse::Accepted { matched })) => {
                Some(*matched)
            }
            _ => None,
        });
        accepted.collect()
    };
    assert_eq!(acknowledged(&mut world), []);
    world.sync_some(2, 1);
    assert_eq!(acknowledged(&mut world), [LogIndex(2)]);
    world.sync_some(2, 2);
    assert_eq!(
        acknowledged(&mut world),
        [LogIndex(3), LogIndex(4)],
        "one report stands for all parts before it"
    );
}

#[test]
fn report_that_completes_nothing_releases_nothing() {
    let mut world = World::led_by_n1(2);
    world.hold_disk(2);
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    for _ in 0..3 {
        world.look(2);
    }
    assert!(!world.wire.iter().any(is_accepted));
    world.settle();
    assert!(world.is_unanswered(write));
}

/// Case 2: the vote is durable before it is given.
#[test]
fn vote_leaves_only_after_it_is_synced() {
    let mut world = World::new(3);
    for id in 1..=3 {
        world.hold_disk(id);
    }
    while world.node(1).driver.node().role() == Role::Follower {
        world.tick(1, 1);
    }
    world.settle();
    assert_eq!(world.node(1).driver.node().role(), Role::Candidate);
    assert!(
        world.wire.is_empty(),
        "no vote is asked for before the own one is synced"
    );
    world.sync(1);
    world.deliver(|_| true);
    assert!(
        world.wire.is_empty(),
        "no vote is given before it is synced"
    );
    world.sync(2);
    world.deliver(|p| p.from == 2);
    assert!(world.is_leader(1));
}

#[test]
fn commit_hint_never_goes_beyond_the_own_disk() {
    // The disk of the harness asserts it for every hint.
    let mut world = World::led_by_n1(3);
    world.run(1);
    world.hold_disk(1);
    let before = world.node(1).disk.noted.clone();
    let write = world.write(1, Write::bare(put("k", "v")));
    world.settle();
    world.run(5);
    world.written(write);
    assert_eq!(world.node(1).driver.node().commit_index(), LogIndex(2));
    assert_eq!(
        world.node(1).disk.noted,
        before,
        "committed, but not synced here"
    );
    world.sync(1);
    world.run(1);
    assert_eq!(world.node(1).disk.noted.last(), Some(&LogIndex(2)));
}

#[test]
fn no_message_under_a_foreign_name_is_taken() {
    let mut world = World::led_by_n1(3);
    let message = |from: u64| {
        kvd::wire::peer::PeerMessage::Raft(raft_core::Envelope {
            from: raft_core::NodeId(from),
            to: raft_core::NodeId(1),
            term: raft_core::Term(9),
            message: Message::HeartbeatResponse(raft_core::HeartbeatResponse {
                round: 0,
                oldest_sync_age_ticks: 0,
                priority: 0,
            }),
        })
    };
    let event = |claimed: u64| kvd::driver::Event::Peer {
        from: raft_core::NodeId(3),
        message: message(claimed),
    };
    world.handle(1, event(2));
    world.turn(1);
    assert!(world.is_leader(1), "n3 spoke as n2");
    world.handle(1, event(3));
    world.turn(1);
    assert!(!world.is_leader(1), "n3 spoke as itself");
}
