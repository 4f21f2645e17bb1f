//! What a review of the repair found: each of these stories once lost an entry or panicked.

mod harness;

use harness::disk::Left;
use harness::{Cluster, append, ask, command, entry_id, envelope, id, index};
use raft_core::{
    Config, Configuration, ConfigurationChange, EntryKind, FaultyEntry, HardState, Heartbeat,
    InstallSnapshot, MemberChange, MemoryStorage, Message, Node, NodeId, RepairOutcome,
    SnapshotMeta, Term, VoteResponse,
};

fn voters() -> Configuration {
    Configuration::new([1, 2, 3].map(NodeId))
}

fn disk(terms: &[u64], damaged: &[(u64, Option<u64>)]) -> MemoryStorage {
    let mut disk = MemoryStorage::with_configuration(voters());
    let entries: Vec<_> = (1..)
        .zip(terms)
        .map(|(at, term)| command(at, *term, "x"))
        .collect();
    disk.append(entries);
    disk.set_hard_state(HardState {
        term: Term(*terms.last().expect("not empty")),
        vote: None,
    });
    for (at, term) in damaged {
        disk.damage(FaultyEntry {
            index: index(*at),
            term: term.map(Term),
            kind: term.map(|_| EntryKind::Command),
        });
    }
    disk
}

/// n1 of three, started on a disk with this damage.
fn node(terms: &[u64], damaged: &[(u64, Option<u64>)]) -> Node<MemoryStorage> {
    Node::new(Config::new(id(1), 7), disk(terms, damaged)).expect("a sound disk")
}

fn snapshot(at: u64, term: u64) -> Message {
    Message::RepairSnapshot(InstallSnapshot {
        meta: Box::new(SnapshotMeta {
            id: entry_id(at, term),
            configuration: voters(),
            configuration_index: index(0),
        }),
    })
}

/// n1 waits for a slow read of 1..=4 to apply; 5 is damaged; n3's snapshot of 8 covers it. The
/// read comes back while the snapshot is on its way to the disk.
#[test]
fn nothing_below_a_covering_snapshot_is_applied_after_it() {
    let mut disk = disk(&[1; 9], &[(5, Some(1))]);
    disk.evict_below(index(10));
    let mut node = Node::new(Config::new(id(1), 7), disk).unwrap();
    node.step(envelope(2, 1, 2, append(entry_id(9, 1), vec![], 9)))
        .unwrap();
    let ready = node.ready();
    node.storage_mut().persist(ready.persist.clone().unwrap());
    node.on_persisted(ready.persist.unwrap().id);
    let fetch = ready.fetches[0].clone();
    let read = node.storage().read(fetch.range.clone(), 10_000).unwrap();
    node.step(envelope(3, 1, 1, snapshot(8, 1))).unwrap();
    let part = node.ready().persist.unwrap();
    assert!(part.snapshot_keeps_log);
    node.on_fetched(fetch, read);
    node.storage_mut().persist(part.clone()); // The state machine is at 8 now.
    node.on_persisted(part.id);
    let committed = node.ready().committed;
    let indexes: Vec<u64> = committed.iter().map(|entry| entry.index.0).collect();
    assert!(
        indexes.iter().all(|at| *at > 8),
        "the state machine is at 8 and is handed {indexes:?}"
    );
}

/// As before, without a slow read: applying is paced. After the part with the snapshot is handed
/// out, entries below the snapshot are handed out to be applied.
#[test]
fn nothing_below_a_covering_snapshot_is_handed_out_after_it() {
    let mut config = Config::new(id(1), 7);
    config.max_apply_bytes = 1;
    let mut node = Node::new(config, disk(&[1; 9], &[(5, Some(1))])).unwrap();
    node.step(envelope(2, 1, 2, append(entry_id(9, 1), vec![], 9)))
        .unwrap();
    assert_eq!(node.ready().committed.len(), 1);
    node.step(envelope(3, 1, 1, snapshot(8, 1))).unwrap();
    let part = node.ready().persist.unwrap();
    assert!(part.snapshot_keeps_log);
    node.on_applied(index(1));
    let committed = node.ready().committed;
    assert!(committed.is_empty(), "after {part}: applies {committed:?}");
}

/// As before; the log's thread has written the part, and its report is on the way.
#[test]
fn the_log_is_not_asked_below_a_covering_snapshot_that_is_being_written() {
    let mut config = Config::new(id(1), 7);
    config.max_apply_bytes = 1;
    let mut node = Node::new(config, disk(&[1; 9], &[(5, Some(1))])).unwrap();
    node.step(envelope(2, 1, 2, append(entry_id(9, 1), vec![], 9)))
        .unwrap();
    assert_eq!(node.ready().committed.len(), 1);
    node.step(envelope(3, 1, 1, snapshot(8, 1))).unwrap();
    let part = node.ready().persist.unwrap();
    node.storage_mut().persist(part.clone());
    node.on_applied(index(1));
    node.ready(); // Panics.
}

/// As before, and the damaged entry is of unknown term: a repeated append of the leader reaches it.
#[test]
fn an_append_while_a_covering_snapshot_is_being_written_does_not_panic() {
    let mut node = node(&[1, 1, 2, 2, 3, 3], &[(2, None)]);
    node.step(envelope(3, 1, 3, snapshot(5, 3))).unwrap();
    let part = node.ready().persist.unwrap();
    assert!(part.snapshot_keeps_log);
    node.storage_mut().persist(part.clone());
    let entries = vec![command(2, 1, "x"), command(3, 2, "x")];
    node.step(envelope(2, 1, 4, append(entry_id(1, 1), entries, 0)))
        .unwrap();
}

fn change(cluster: &mut Cluster, by: u64, change: MemberChange) {
    cluster
        .change(id(by), &ConfigurationChange::new([change]))
        .expect("the change fits");
    cluster.settle();
}

/// {n1 n2 n3}: n4 comes by 3, n2 goes by 4, both damaged on n1, as is 6, which n1 and n4
/// committed. n1 knows nothing of n4, n2 and n3 never had 6.
#[test]
fn damaged_changes_below_a_tail_keep_it() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a"]).unwrap();
    cluster.settle();
    cluster.join(id(4));
    change(&mut cluster, 1, MemberChange::AddVoter(id(4))); // 3
    change(&mut cluster, 1, MemberChange::Remove(id(2))); // 4
    cluster.propose(id(1), &["b"]).unwrap();
    cluster.settle();
    cluster.isolated.insert(id(3));
    cluster.propose(id(1), &["acknowledged"]).unwrap(); // 6
    cluster.settle();
    assert_eq!(cluster.status(id(1)).applied, index(6));
    cluster.crash(id(1), 0);
    for at in [3, 4, 6] {
        cluster.damage(id(1), index(at), Left::Header);
    }
    cluster.isolated = [id(4)].into();
    cluster.bag.clear();
    cluster.start(id(1));
    cluster.deliver_matching(|it| matches!(it.message, Message::RepairAsk(_)));
    // The answers that bring the changes back are late.
    cluster.deliver_matching(|it| {
        let Message::RepairAnswer(answer) = &it.message else {
            return false;
        };
        matches!(answer.outcome, RepairOutcome::Never { .. })
    });
    cluster.run(100);
    assert_eq!(cluster.status(id(1)).last.index, index(6), "6 is committed");
}

/// {n1 n2}: n2 goes by the joint 2, which both hold, and by 3, of which n2 hears nothing: a quorum of
/// one from then on, so 3 and 4 are committed and acknowledged. n1 is started again and finds one
/// of them damaged. That n2 never had it says nothing.
fn lose_the_tail_of_a_quorum_of_one(damaged: u64) -> Cluster {
    let mut cluster = Cluster::new(2);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.settle();
    let removal = ConfigurationChange {
        auto_leave: false,
        ..ConfigurationChange::new([MemberChange::Remove(id(2))])
    };
    cluster.change(id(1), &removal).expect("it leads"); // 2
    cluster.settle();
    cluster.isolated.insert(id(2));
    cluster.leave(id(1)).expect("it is joint"); // 3
    cluster.settle();
    let last = cluster.propose(id(1), &["acknowledged"]); // 4
    last.expect("it leads");
    cluster.settle();
    assert_eq!(cluster.status(id(1)).applied, index(4));
    cluster.crash(id(1), 0);
    cluster.damage(id(1), index(damaged), Left::Term);
    cluster.isolated.clear();
    cluster.bag.clear();
    cluster.transcript.clear();
    cluster.start(id(1));
    cluster.settle();
    cluster.run(100);
    cluster
}

#[test]
fn a_quorum_of_one_keeps_its_tail() {
    for damaged in [3, 4] {
        let cluster = lose_the_tail_of_a_quorum_of_one(damaged);
        assert_eq!(cluster.status(id(1)).last, entry_id(4, 1), "{damaged} lost");
    }
}

/// n1 lost 5, of unknown term, in front of 6@4. The leader n2 has 5@4, so n1 has it as well; n2's
/// appends arrive in another order.
#[test]
fn an_entry_of_unknown_term_that_is_committed_does_not_panic() {
    let mut node = node(&[2, 2, 2, 2, 4, 4], &[(5, None)]);
    node.step(envelope(2, 1, 5, append(entry_id(5, 4), vec![], 5)))
        .unwrap();
    // A probe that was sent earlier.
    node.step(envelope(2, 1, 5, append(entry_id(3, 2), vec![], 3)))
        .unwrap();
}

/// As before, in the simplest way: the leader's commit index lies at the entry of unknown term.
#[test]
fn a_commit_index_at_an_entry_of_unknown_term_does_not_panic() {
    let mut node = node(&[2, 2, 2, 2, 3, 4], &[(5, None)]);
    node.step(envelope(2, 1, 5, append(entry_id(6, 4), vec![], 5)))
        .unwrap();
    // A probe that was sent earlier, or once more.
    node.step(envelope(2, 1, 5, append(entry_id(3, 2), vec![], 3)))
        .unwrap();
}

/// As before, by a snapshot for repair.
#[test]
fn a_snapshot_that_ends_at_an_entry_of_unknown_term_does_not_panic() {
    let mut node = node(&[2, 2, 2, 2, 4, 4], &[(5, None)]);
    node.step(envelope(3, 1, 5, snapshot(5, 4))).unwrap();
    node.step(envelope(2, 1, 5, append(entry_id(3, 2), vec![], 3)))
        .unwrap();
}

/// n1 lost 5, of unknown term, in front of 6@4; n2 leads with 5@4 6@5, so that n1's 5 is known by now,
/// but not on its disk. If 6 were cut off there and the power failed, the log would end in a term
/// that nobody knows, and the node would never start again.
#[test]
fn no_truncation_leaves_an_end_of_unknown_term() {
    let mut node = node(&[2, 2, 2, 2, 4, 4], &[(5, None)]);
    let entries = vec![command(6, 5, "y")];
    let overwrite = append(entry_id(5, 4), entries.clone(), 0);
    node.step(envelope(2, 1, 5, overwrite.clone())).unwrap();
    let part = node.ready().persist.expect("the term is written");
    assert_eq!(part.entries, [], "6 stays as long as 5 is not whole");
    // 5 comes back, and with it the way is free.
    let repaired = append(entry_id(4, 2), vec![command(5, 4, "x")], 0);
    node.step(envelope(2, 1, 5, repaired)).unwrap();
    let part = node.ready().persist.expect("5 is written");
    assert_eq!(part.repaired.len(), 1);
    let done = part.id;
    node.storage_mut().persist(part);
    node.on_persisted(done);
    node.step(envelope(2, 1, 5, overwrite)).unwrap();
    assert_eq!(node.ready().persist.expect("now 6 is").entries, entries);
}

fn grant() -> Message {
    Message::PreVoteResponse(VoteResponse { granted: true })
}

/// n1 asks for pre-votes; n2 asks it for an entry, and only now n1's log finds that it is
/// damaged (`StorageError::Faulty`). Then the pre-vote comes.
#[test]
fn a_pre_candidate_that_finds_damage_while_reading_does_not_panic() {
    let mut node = node(&[1; 5], &[]);
    node.campaign();
    node.ready();
    node.storage_mut().damage(FaultyEntry {
        index: index(3),
        term: Some(Term(1)),
        kind: None,
    });
    node.step(envelope(
        2,
        1,
        1,
        Message::RepairAsk(ask(3, 3, entry_id(3, 1))),
    ))
    .unwrap();
    node.step(envelope(3, 1, 2, grant())).ok();
}

/// The same while it stands in earnest: it leads with a damaged log.
#[test]
fn a_candidate_that_finds_damage_while_reading_stands_back() {
    let mut config = Config::new(id(1), 7);
    config.pre_vote = false;
    let mut node = Node::new(config, disk(&[1; 5], &[])).unwrap();
    node.campaign();
    let part = node.ready().persist.unwrap();
    node.storage_mut().persist(part.clone());
    node.on_persisted(part.id);
    node.storage_mut().damage(FaultyEntry {
        index: index(3),
        term: Some(Term(1)),
        kind: None,
    });
    node.step(envelope(
        2,
        1,
        1,
        Message::RepairAsk(ask(3, 3, entry_id(3, 1))),
    ))
    .unwrap();
    let vote = Message::VoteResponse(VoteResponse { granted: true });
    node.step(envelope(3, 1, 2, vote)).ok();
    let status = node.status();
    assert!(
        status.leader != Some(id(1)) || status.repair.is_none(),
        "{status}"
    );
}

/// Damage of an applied change of members, at run time; the driver takes a snapshot as
/// `SnapshotWanted` asks.
#[test]
fn a_snapshot_over_a_damaged_change_has_its_configuration() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.settle();
    cluster.join(id(4));
    change(&mut cluster, 1, MemberChange::AddVoter(id(4))); // 2
    change(&mut cluster, 1, MemberChange::Remove(id(2))); // 3
    cluster.propose(id(1), &["a"]).unwrap();
    cluster.settle();
    for at in [2, 3] {
        cluster.damage(id(1), index(at), Left::Header);
    }
    let expected = cluster.node(id(1)).configuration().clone();
    let meta = cluster.node(id(1)).storage_mut().take_snapshot(index(4));
    assert_eq!(meta.configuration, expected, "{meta}");
}

/// As `a_commit_index_at_an_entry_of_unknown_term_does_not_panic`, by a heartbeat.
#[test]
fn a_heartbeat_with_a_commit_index_at_an_entry_of_unknown_term_does_not_panic() {
    let mut node = node(&[2, 2, 2, 2, 3, 4], &[(5, None)]);
    let heartbeat = Heartbeat {
        commit: index(5),
        round: 0,
    };
    node.step(envelope(2, 1, 5, Message::Heartbeat(heartbeat)))
        .unwrap();
    assert_eq!(node.commit_index(), index(4));
    node.step(envelope(2, 1, 5, append(entry_id(3, 2), vec![], 3)))
        .unwrap();
}
