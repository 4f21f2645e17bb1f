//! Damaged logs, where a script cannot say it: messages made by hand, and storages that find damage
//! while they read.

mod harness;

use std::collections::BTreeSet;

use harness::disk::Left;
use harness::{
    Cluster, answer, answers, append, ask, command, configuration_entry, entry_id, envelope, id,
    index,
};
use raft_core::{
    Config, ConfigError, Configuration, Entry, EntryKind, Envelope, FaultyEntry, HardState,
    Heartbeat, InstallSnapshot, LogIndex, MemoryStorage, Message, Node, NodeId, Rejected,
    RepairAsk, RepairId, RepairOutcome, Repairing, Role, SnapshotMeta, Term,
};

/// Three nodes with these logs, of which n1 has lost the entry at `lost`.
fn cluster(terms: &[u64], lost: u64, left: Left) -> Cluster {
    let mut cluster = Cluster::with_log(3, terms);
    cluster.damage(id(1), index(lost), left);
    cluster.start_all();
    cluster
}

/// The question that n1 asks n2.
fn question(cluster: &mut Cluster) -> RepairAsk {
    let asked = cluster.take(|envelope| envelope.to == id(2));
    match asked.last().map(|envelope| &envelope.message) {
        Some(Message::RepairAsk(ask)) => *ask,
        other => panic!("no question but {other:?}"),
    }
}

fn tell(cluster: &mut Cluster, from: u64, message: Message) -> Result<(), Rejected> {
    let term = cluster.status(id(1)).term.0;
    cluster.deliver(envelope(from, 1, term, message))
}

/// The leader's append reaches an entry that this log knows, so all before it is ours as well.
#[test]
fn append_that_reaches_a_known_entry_brings_back_the_unknown_before_it() {
    let mut cluster = cluster(&[1, 1, 2, 3], 3, Left::Nothing);
    let entries = vec![command(3, 2, "t2"), command(4, 3, "t3"), command(5, 3, "x")];
    tell(&mut cluster, 2, append(entry_id(2, 1), entries, 0)).unwrap();
    assert!(cluster.sync(id(1)));
    let log: Vec<_> = cluster.disk(id(1)).stored().map(Entry::id).collect();
    let expected = [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)].map(|(at, term)| entry_id(at, term));
    assert_eq!(log, expected);
    assert_eq!(cluster.status(id(1)).repair, None);
}

/// It ends before that: what it brings for the unknown place may be another entry.
#[test]
fn append_that_ends_before_a_known_entry_brings_back_nothing() {
    let mut cluster = cluster(&[1, 1, 2, 3], 3, Left::Nothing);
    let entries = vec![command(3, 2, "t2")];
    tell(&mut cluster, 2, append(entry_id(2, 1), entries, 0)).unwrap();
    assert!(!cluster.sync(id(1)));
    assert_eq!(
        cluster.status(id(1)).repair.map(|repair| repair.count),
        Some(1)
    );
}

/// n2 lacks the anchor, and has at 3 an entry that may be ours: its "never" does not count.
#[test]
fn never_counts_only_if_what_is_held_cannot_be_ours() {
    let never = |held: Option<u64>| RepairOutcome::Never {
        held: held.map(Term),
    };
    for (held, is_counted) in [
        (Some(2), false),
        (Some(3), false),
        (Some(4), true),
        (None, true),
    ] {
        let mut cluster = cluster(&[1, 1, 2, 3], 3, Left::Nothing);
        let ask = question(&mut cluster);
        tell(&mut cluster, 2, answer(ask, never(held))).unwrap();
        let repair = cluster.status(id(1)).repair.expect("n3 has not answered");
        let waits = repair.waiting_for.contains(&id(2));
        assert_eq!(waits, !is_counted, "held {held:?}");
    }
}

/// Whoever speaks to n1 is asked, but not without bound, and that a stranger never had it says nothing.
#[test]
fn strangers_are_asked_within_a_bound_and_their_never_does_not_count() {
    let mut cluster = cluster(&[1, 1, 1], 3, Left::Header);
    let ask = question(&mut cluster);
    let is_sent_to_a_stranger = |sent: &Envelope| sent.to > id(3);
    for stranger in 4..=103 {
        let never = RepairOutcome::Never { held: None };
        tell(&mut cluster, stranger, answer(ask, never)).unwrap();
    }
    let asked = cluster.take(is_sent_to_a_stranger);
    let asked: BTreeSet<_> = asked.iter().map(|sent| sent.to).collect();
    assert_eq!(asked, (4..=19).map(id).collect());
    let repair = cluster.status(id(1)).repair.expect("still damaged");
    assert_eq!(repair.waiting_for, [id(2), id(3)]);
}

/// n2 never had 3, then got it from n3, and n1 lost it again: the old answer is about another time.
#[test]
fn answers_of_former_damage_do_not_count() {
    let mut cluster = cluster(&[1, 1, 1], 3, Left::Header);
    let ask = question(&mut cluster);
    let entries = vec![command(3, 1, "t1")];
    tell(
        &mut cluster,
        3,
        answer(ask, RepairOutcome::Have { entries }),
    )
    .unwrap();
    assert!(cluster.sync(id(1)));
    cluster.damage(id(1), index(3), Left::Header);
    let never = RepairOutcome::Never { held: None };
    for peer in [2, 3] {
        tell(&mut cluster, peer, answer(ask, never.clone())).unwrap();
    }
    let repair = cluster.status(id(1)).repair.expect("still damaged");
    assert_eq!(repair.waiting_for, [id(2), id(3)]);
}

#[test]
fn answers_of_a_former_life_are_refused() {
    let mut cluster = cluster(&[1, 1, 1], 3, Left::Header);
    let ask = question(&mut cluster);
    let former = RepairAsk {
        id: RepairId(ask.id.0 - 1),
        ..ask
    };
    let refused = tell(
        &mut cluster,
        2,
        answer(former, RepairOutcome::Never { held: None }),
    );
    assert_eq!(refused, Err(Rejected::Unasked));
    cluster.crash(id(1), 0);
    cluster.start(id(1));
    let refused = tell(
        &mut cluster,
        2,
        answer(ask, RepairOutcome::Never { held: None }),
    );
    assert_eq!(refused, Err(Rejected::Unasked));
}

/// Of what a peer sends only that is taken which is certain to be the lost entry.
#[test]
fn entries_of_another_log_are_not_taken() {
    let mut cluster = cluster(&[1, 1, 2, 2], 3, Left::Header);
    let ask = question(&mut cluster);
    let entries = vec![command(3, 1, "another")];
    tell(
        &mut cluster,
        2,
        answer(ask, RepairOutcome::Have { entries }),
    )
    .unwrap();
    assert!(!cluster.sync(id(1)), "nothing is written");
}

#[test]
fn snapshot_that_nobody_needs_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    let meta = SnapshotMeta {
        id: entry_id(9, 1),
        configuration: Configuration::new([id(1), id(2), id(3)]),
        configuration_index: LogIndex(0),
    };
    for node in [1, 3] {
        let message = Message::RepairSnapshot(InstallSnapshot {
            meta: meta.clone().into(),
        });
        let refused = cluster.deliver(envelope(2, node, 1, message));
        assert_eq!(refused, Err(Rejected::Unasked), "n{node}");
    }
}

/// A leader's log is never replaced, damaged or not.
#[test]
fn snapshot_of_another_log_is_refused_by_a_leader() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a"]).unwrap();
    cluster.settle();
    cluster.damage(id(1), index(2), Left::Header);
    let meta = SnapshotMeta {
        id: entry_id(9, 1),
        configuration: Configuration::new([id(1), id(2), id(3)]),
        configuration_index: LogIndex(0),
    };
    let message = Message::RepairSnapshot(InstallSnapshot { meta: meta.into() });
    let refused = cluster.deliver(envelope(2, 1, 1, message));
    assert_eq!(refused, Err(Rejected::Unasked));
}

#[test]
fn candidate_that_finds_damage_gives_up() {
    let mut cluster = cluster(&[1, 1, 1], 3, Left::Header);
    cluster.settle();
    cluster.campaign(id(1));
    assert_eq!(cluster.status(id(1)).role, Role::PreCandidate);
    cluster.damage(id(1), index(2), Left::Header);
    assert_eq!(cluster.status(id(1)).role, Role::Follower);
}

/// The storage finds damage when it is asked for an entry to apply: the entry is repaired, and
/// applied once.
#[test]
fn damage_found_while_applying_is_repaired() {
    let mut cluster = cluster(&[1, 1, 1], 3, Left::Header);
    cluster.settle();
    let damage = FaultyEntry {
        index: index(2),
        term: Some(Term(1)),
        kind: None,
    };
    // Nobody tells the node; it finds out.
    cluster.node(id(1)).storage_mut().damage(damage);
    cluster.elect(id(2));
    cluster.run(3);
    let applied: Vec<LogIndex> = cluster
        .member(id(1))
        .applied
        .iter()
        .map(|it| it.index)
        .collect();
    assert_eq!(applied, [1, 2, 3, 4].map(LogIndex));
}

/// A leader finds damage when it reads for a follower: it waits for the entry and goes on, instead
/// of sending a snapshot.
#[test]
fn damage_found_while_replicating_is_repaired() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.isolated.insert(id(3));
    cluster.propose(id(1), &["a", "b"]).unwrap();
    cluster.settle();
    let damage = FaultyEntry {
        index: index(2),
        term: Some(Term(1)),
        kind: None,
    };
    cluster.node(id(1)).storage_mut().damage(damage);
    cluster.isolated.clear();
    cluster.run(5);
    assert_eq!(cluster.status(id(3)).applied, index(3));
    assert_eq!(cluster.leaders(), [id(1)]);
}

/// The one who is asked may have to read from its disk first.
#[test]
fn entries_for_repair_may_come_from_the_disk() {
    let mut cluster = cluster(&[1, 1, 1], 2, Left::Header);
    for peer in [2, 3] {
        cluster.node(id(peer)).storage_mut().evict_below(index(9));
    }
    cluster.settle();
    assert_eq!(cluster.status(id(1)).repair, None);
    let fetched = cluster
        .transcript
        .iter()
        .any(|line| line.contains("fetches 2..3 to repair n1"));
    assert!(fetched, "{}", cluster.transcript.join("\n"));
}

/// n2 reads slowly for n1, and its log is overwritten meanwhile: what was read is not what n1 asked for.
#[test]
fn entries_for_repair_that_were_overwritten_meanwhile_are_not_sent() {
    let mut cluster = cluster(&[1, 1, 1], 2, Left::Header);
    cluster.node(id(2)).storage_mut().evict_below(index(9));
    cluster.deliver_matching(|envelope| envelope.to == id(2));
    assert_eq!(cluster.member(id(2)).fetches.len(), 1);
    let entries = vec![command(2, 2, "new")];
    cluster
        .deliver(envelope(3, 2, 2, append(entry_id(1, 1), entries, 0)))
        .unwrap();
    cluster.sync_all_of(id(2));
    cluster.take(|_| true);
    assert!(cluster.serve_fetches(id(2)));
    assert_eq!(answers(&mut cluster, 2), []);
}

#[test]
fn impossible_damage_is_refused_at_the_start() {
    let start = |faulty: &[FaultyEntry]| {
        let mut storage = MemoryStorage::new([1, 2, 3].map(NodeId));
        storage.append(vec![command(1, 1, "a"), command(2, 1, "b")]);
        storage.set_hard_state(HardState {
            term: Term(1),
            vote: None,
        });
        faulty.iter().for_each(|it| storage.damage(*it));
        Node::new(Config::new(NodeId(1), 1), storage).map(|_| ())
    };
    let faulty = |at, term: Option<u64>| FaultyEntry {
        index: index(at),
        term: term.map(Term),
        kind: Some(EntryKind::Command),
    };
    assert_eq!(start(&[faulty(1, None), faulty(2, Some(1))]), Ok(()));
    let unknown_end = ConfigError::UnknownEnd { index: index(2) };
    assert_eq!(start(&[faulty(2, None)]), Err(unknown_end));
}

/// n1 lost 3, and its log goes on with the removal of n2. n2 may have led when 3 was committed, by n1
/// and itself: that n3, the only other voter by now, never had it proves nothing.
#[test]
fn voters_of_earlier_configurations_are_waited_for() {
    let mut cluster = Cluster::new(3);
    cluster.set_own_log(id(1), &[1, 1, 1]);
    let removal = configuration_entry(4, 1, &Configuration::new([id(1), id(3)]));
    cluster.member(id(1)).disk.append(vec![removal]);
    cluster.damage(id(1), index(3), Left::Header);
    cluster.start(id(1));
    assert_eq!(cluster.status(id(1)).configuration_index, index(4));
    let ask = question(&mut cluster);
    let never = RepairOutcome::Never { held: None };
    tell(&mut cluster, 3, answer(ask, never.clone())).unwrap();
    let repair = cluster.status(id(1)).repair.expect("n2 has not answered");
    assert_eq!(repair.waiting_for, [id(2)]);
    tell(&mut cluster, 2, answer(ask, never)).unwrap();
    assert_eq!(cluster.status(id(1)).repair, None);
    assert_eq!(cluster.status(id(1)).last, entry_id(2, 1));
}

/// The leader's snapshot is no reason to acknowledge anything while entries are missing: neither one
/// that ends before them, nor one that covers them and is not on disk yet.
#[test]
fn snapshot_of_the_leader_is_not_acknowledged_before_the_log_is_whole() {
    for at in [2, 4] {
        let mut cluster = cluster(&[1, 1, 1, 1], 3, Left::Header);
        cluster.take(|_| true);
        let meta = SnapshotMeta {
            id: entry_id(at, 1),
            configuration: Configuration::new((1..=3).map(NodeId)),
            configuration_index: index(0),
        };
        let install = Message::InstallSnapshot(InstallSnapshot { meta: meta.into() });
        tell(&mut cluster, 2, install).unwrap();
        let next = index(at + 1);
        assert_eq!(
            answers(&mut cluster, 1),
            [Message::Repairing(Repairing { count: 1, next })],
            "snapshot of {at}"
        );
    }
}

/// n1 cannot read the term of its own 3. Whatever n2 asks about it by an entry that n1 does not hold,
/// or cannot compare, n1 says neither that it has n2's 3 nor that it never had it.
#[test]
fn damaged_log_does_not_claim_that_it_never_had_an_entry() {
    for anchor in [entry_id(4, 3), entry_id(3, 1), entry_id(3, 2)] {
        let mut cluster = cluster(&[1, 1, 3, 4], 3, Left::Nothing);
        cluster.take(|_| true);
        let question = ask(3, 3, anchor);
        tell(&mut cluster, 2, Message::RepairAsk(question)).unwrap();
        let expected = answer(question, RepairOutcome::Maybe);
        assert_eq!(answers(&mut cluster, 1), [expected], "anchor {anchor}");
    }
}

/// n1 lost 2 of term 1, and 3, of which it cannot tell whether it is of term 1, 2 or 3. That n2 has
/// the same 2 says nothing about what comes behind it.
#[test]
fn entries_above_the_anchor_are_not_taken() {
    let mut cluster = Cluster::new(3);
    cluster.set_own_log(id(1), &[1, 1, 1, 3]);
    cluster.damage(id(1), index(2), Left::Header);
    cluster.damage(id(1), index(3), Left::Nothing);
    cluster.start(id(1));
    let ask = question(&mut cluster);
    assert_eq!((ask.last, ask.anchor), (index(3), entry_id(2, 1)));
    let entries = vec![command(2, 1, "t1"), command(3, 1, "another")];
    tell(
        &mut cluster,
        2,
        answer(ask, RepairOutcome::Have { entries }),
    )
    .unwrap();
    assert!(cluster.sync(id(1)));
    let repair = cluster.status(id(1)).repair.expect("3 is missing");
    assert_eq!((repair.count, repair.first), (1, index(3)));
}

/// An answer by an anchor that this log does not hold brings nothing of unknown term back.
#[test]
fn entries_of_a_foreign_anchor_are_not_taken() {
    let mut cluster = cluster(&[1, 1, 2, 3], 3, Left::Nothing);
    let ask = question(&mut cluster);
    let foreign = RepairAsk {
        anchor: entry_id(4, 2),
        ..ask
    };
    let entries = vec![command(3, 1, "another")];
    tell(
        &mut cluster,
        2,
        answer(foreign, RepairOutcome::Have { entries }),
    )
    .unwrap();
    assert!(!cluster.sync(id(1)), "nothing is written");
}

/// Nobody else had 4, but the disk does not tell the term of 3 before its copy is written: a log that
/// ended there could not say, after a crash, how far it goes.
#[test]
fn nothing_is_given_up_behind_an_entry_whose_term_the_disk_forgot() {
    let mut cluster = Cluster::new(3);
    cluster.set_own_log(id(1), &[1, 1, 1, 1]);
    cluster.damage(id(1), index(3), Left::Nothing);
    cluster.damage(id(1), index(4), Left::Header);
    cluster.start(id(1));
    let first = question(&mut cluster);
    let entries = vec![command(3, 1, "t1")];
    let have = answer(first, RepairOutcome::Have { entries });
    tell(&mut cluster, 3, have).unwrap();
    let second = RepairAsk {
        first: index(4),
        anchor: entry_id(4, 1),
        ..first
    };
    let never = answer(second, RepairOutcome::Never { held: None });
    tell(&mut cluster, 2, never.clone()).unwrap();
    tell(&mut cluster, 3, never.clone()).unwrap();
    assert_eq!(cluster.status(id(1)).last, entry_id(4, 1));
    assert!(cluster.sync(id(1)), "3 is written");
    tell(&mut cluster, 3, never).unwrap();
    assert_eq!(cluster.status(id(1)).last, entry_id(3, 1));
}

/// What is committed somebody must have had, whatever the others say.
#[test]
fn committed_entries_are_not_given_up() {
    let mut cluster = cluster(&[1, 1, 1], 3, Left::Header);
    let ask = question(&mut cluster);
    let heartbeat = Message::Heartbeat(Heartbeat {
        commit: index(3),
        round: 0,
    });
    tell(&mut cluster, 2, heartbeat).unwrap();
    for peer in [2, 3] {
        let never = RepairOutcome::Never { held: None };
        tell(&mut cluster, peer, answer(ask, never)).unwrap();
    }
    assert_eq!(cluster.status(id(1)).last, entry_id(3, 1));
}

/// Up to where the snapshots that are asked for must go.
fn snapshots_asked(cluster: &mut Cluster) -> Vec<LogIndex> {
    let mut covering = Vec::new();
    let questions = cluster.take(|it| matches!(it.message, Message::SnapshotAsk(_)));
    for question in questions {
        if let Message::SnapshotAsk(ask) = question.message {
            covering.push(ask.covering);
        }
    }
    covering
}

/// n1 lost 3, which is committed, and 4, of which it cannot tell whether it is of term 1, 2 or 3. The
/// others have compacted up to 4@2. Their snapshot may be of another log than n1's, and would come
/// again and again if n1 did not ask for one that goes further.
#[test]
fn snapshot_that_cannot_be_compared_is_not_asked_for_again() {
    let mut cluster = Cluster::new(3);
    cluster.set_own_log(id(1), &[1, 1, 1, 3, 3]);
    cluster.member(id(1)).disk.set_commit(index(3));
    cluster.damage(id(1), index(3), Left::Header);
    cluster.damage(id(1), index(4), Left::Nothing);
    cluster.start(id(1));
    let ask = question(&mut cluster);
    let snapshot = entry_id(4, 2);
    let compacted = answer(ask, RepairOutcome::Compacted { snapshot });
    tell(&mut cluster, 2, compacted).unwrap();
    assert_eq!(snapshots_asked(&mut cluster), [index(3)]);
    let meta = SnapshotMeta {
        id: snapshot,
        configuration: Configuration::new((1..=3).map(NodeId)),
        configuration_index: index(0),
    };
    let install = Message::RepairSnapshot(InstallSnapshot { meta: meta.into() });
    let refused = tell(&mut cluster, 2, install);
    assert_eq!(refused, Err(Rejected::UnknownIdentity { id: snapshot }));
    // The next one is asked after ten election timeouts.
    for _ in 0..=100 {
        cluster.tick(id(1));
    }
    assert_eq!(snapshots_asked(&mut cluster), [index(5)]);
}
