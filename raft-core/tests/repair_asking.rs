//! Whom a node that repairs asks, and when it is answered.

mod harness;

use harness::{answer, command, entry_id, envelope, id, index};
use raft_core::{
    Config, Configuration, EntryKind, FaultyEntry, HardState, MemoryStorage, Message, Node, NodeId,
    RepairAsk, RepairOutcome, SnapshotAsk, Term,
};

/// The log 1 to 9 of term 1 of one of three voters.
fn disk() -> MemoryStorage {
    let mut disk = MemoryStorage::with_configuration(Configuration::new([1, 2, 3].map(NodeId)));
    disk.append((1..=9).map(|at| command(at, 1, "x")).collect());
    disk.set_hard_state(HardState {
        term: Term(1),
        vote: None,
    });
    disk
}

/// n1, whose 5 is damaged.
fn damaged() -> Node<MemoryStorage> {
    let mut disk = disk();
    disk.damage(FaultyEntry {
        index: index(5),
        term: Some(Term(1)),
        kind: Some(EntryKind::Command),
    });
    Node::new(Config::new(id(1), 7), disk).expect("a sound disk")
}

/// What it says now, and to whom.
fn said(node: &mut Node<MemoryStorage>) -> Vec<(NodeId, Message)> {
    let ready = node.ready();
    let said = ready.messages.into_iter().chain(ready.messages_after_sync);
    said.map(|it| (it.to, it.message)).collect()
}

fn question(message: &Message) -> Option<RepairAsk> {
    if let Message::RepairAsk(ask) = message {
        Some(*ask)
    } else {
        None
    }
}

/// Whom it asks for a snapshot now.
fn asked_for_snapshots(node: &mut Node<MemoryStorage>) -> Vec<NodeId> {
    let said = said(node).into_iter();
    let asked = said.filter(|(_, message)| matches!(message, Message::SnapshotAsk(_)));
    asked.map(|(to, _)| to).collect()
}

fn tick(node: &mut Node<MemoryStorage>, timeouts: u32) {
    let timeout = Config::new(id(1), 7).election_timeout_ticks;
    (0..timeouts * timeout).for_each(|_| node.tick());
}

/// n2 was asked because it was its turn, and has nothing. n3 says that it has a snapshot, so n1 does not wait for n2. One that
/// was offered may be on its way, so it asks nobody else for another.
#[test]
fn a_snapshot_that_is_offered_is_preferred_to_one_that_was_asked_for_in_turn() {
    let mut node = damaged();
    let asks = said(&mut node);
    let ask = asks.iter().find_map(|(_, message)| question(message));
    let ask = ask.expect("it asks at once");
    tick(&mut node, 3);
    assert_eq!(asked_for_snapshots(&mut node), [id(2)]);
    for (from, expected) in [(3, vec![id(3)]), (2, vec![])] {
        let snapshot = entry_id(8, 1);
        let offer = answer(ask, RepairOutcome::Compacted { snapshot });
        node.step(envelope(from, 1, 1, offer)).unwrap();
        assert_eq!(asked_for_snapshots(&mut node), expected);
    }
}

/// n2 was away for long, so it is asked seldom; once it is in reach, it is asked at once.
#[test]
fn who_is_in_reach_again_is_asked_at_once() {
    let mut node = damaged();
    tick(&mut node, 20);
    said(&mut node);
    node.tick();
    let asks_two = |said: Vec<(NodeId, Message)>| {
        let mut said = said.iter();
        said.any(|(to, message)| *to == id(2) && question(message).is_some())
    };
    assert!(!asks_two(said(&mut node)), "it has just asked");
    node.on_reachable(id(2));
    assert!(asks_two(said(&mut node)));
}

/// n1 asks n2, which has no snapshot and writes one: it sends it then, if n1 has not given it up meanwhile.
#[test]
fn a_snapshot_is_sent_when_it_is_there() {
    for (patience, is_sent) in [(1, true), (11, false)] {
        let mut disk = disk();
        disk.set_commit(index(9));
        let mut node = Node::new(Config::new(id(2), 7), disk).expect("a sound disk");
        let covering = index(8);
        let ask = Message::SnapshotAsk(SnapshotAsk { covering });
        node.step(envelope(1, 2, 1, ask)).unwrap();
        let applied = node.ready().committed;
        node.on_applied(applied.last().expect("it is committed").index);
        tick(&mut node, patience);
        node.storage_mut().take_snapshot(index(9));
        said(&mut node);
        node.tick();
        let sends = |(to, message): &(NodeId, Message)| {
            *to == id(1) && matches!(message, Message::RepairSnapshot(_))
        };
        assert_eq!(said(&mut node).iter().any(sends), is_sent, "{patience}");
        node.tick();
        assert!(!said(&mut node).iter().any(sends), "one is enough");
    }
}
