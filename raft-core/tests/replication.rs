//! Logs, conflicts, snapshots and configurations: tables, and messages made by hand.

mod harness;

use std::collections::BTreeMap;

use harness::{
    Cluster, accepted, answers, append, command, configuration_entry, entry_id, envelope, id, index,
};
use raft_core::{
    AppendResponse, Configuration, EntryId, Envelope, FetchPurpose, HardState, InstallSnapshot,
    Message, NodeId, SnapshotMeta, SnapshotResponse, Term,
};

/// The terms of the logs of figure 7 of the Raft paper, the leader's first. It leads term 8.
const FIGURE_7: [&[u64]; 7] = [
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6],
    &[1, 1, 1, 4],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    &[1, 1, 1, 4, 4, 4, 4],
    &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
];

/// Terms in which the log of figure 7 contradicts the leader's.
const CONFLICTING_TERMS: [usize; 7] = [0, 0, 0, 1, 1, 1, 2];

/// Case 8: all logs of figure 7 become the leader's, in few round trips per follower.
#[test]
fn logs_of_figure_7_become_equal_in_few_round_trips() {
    let mut cluster = Cluster::new(7);
    for (terms, node) in FIGURE_7.iter().zip(1..) {
        let term = Term(if node == 1 { 7 } else { *terms.last().unwrap() });
        cluster.set_log(id(node), terms, HardState { term, vote: None });
    }
    cluster.start_all();
    let mut rejections: BTreeMap<NodeId, usize> = BTreeMap::new();
    cluster.campaign(id(1));
    for _ in 0..100 {
        (1..=7).for_each(|node| cluster.sync_all_of(id(node)));
        let is_rejection = |envelope: &Envelope| {
            matches!(
                envelope.message,
                Message::AppendResponse(AppendResponse::Rejected { .. })
            )
        };
        for envelope in cluster.bag.iter().filter(|envelope| is_rejection(envelope)) {
            *rejections.entry(envelope.from).or_default() += 1;
        }
        cluster.deliver_matching(|_| true);
    }
    assert_eq!(cluster.leaders(), [id(1)]);
    let leader_log = cluster.log_of(id(1));
    assert_eq!(leader_log.len(), FIGURE_7[0].len() + 1);
    for (node, conflicts) in (1..=7).map(id).zip(CONFLICTING_TERMS) {
        assert_eq!(cluster.log_of(node), leader_log, "{node}");
        // The last round trip is the one that is accepted.
        let round_trips = rejections.get(&node).copied().unwrap_or(0) + 1;
        assert!(
            round_trips <= conflicts + 2,
            "{node} took {round_trips} round trips"
        );
    }
}

/// Case 8: a long conflict is skipped at once, whichever of the two logs has many terms in it: the
/// follower skips what is newer than the leader's entry, the leader what is newer than the follower's.
#[test]
fn long_conflicts_are_skipped_by_term_on_both_sides() {
    let one_term: Vec<u64> = [1, 1, 1].into_iter().chain([5; 20]).collect();
    let many_terms: Vec<u64> = [1, 1, 1]
        .into_iter()
        .chain((0..20).map(|n| 2 + n / 7))
        .collect();
    for (leader, follower) in [(&one_term, &many_terms), (&many_terms, &one_term)] {
        let mut cluster = Cluster::new(3);
        let state = HardState {
            term: Term(5),
            vote: None,
        };
        cluster.set_log(id(1), leader, state);
        cluster.set_log(id(2), leader, state);
        cluster.set_log(id(3), follower, state);
        cluster.start_all();
        cluster.elect(id(1));
        let rejections = cluster
            .transcript
            .iter()
            .filter(|line| line.contains(", rejected "))
            .count();
        assert_eq!(rejections, 1, "{}", cluster.transcript.join("\n"));
        assert_eq!(cluster.log_of(id(3)), cluster.log_of(id(1)));
    }
}

/// Case 11: the same entry is written, overwritten, and comes back while all writes are on their
/// way. What is acknowledged is on disk at that moment and stays there.
#[test]
fn entry_that_came_back_is_acknowledged_only_when_its_last_write_is_done() {
    let mut cluster = Cluster::new(5);
    let terms: Vec<u64> = vec![1; 11];
    cluster.set_log(
        id(3),
        &terms,
        HardState {
            term: Term(1),
            vote: None,
        },
    );
    cluster.start(id(3));
    let prev = entry_id(11, 1);
    let first = command(12, 2, "first");
    // Leaders of the terms 2 and 3, and then one of term 4 who holds the entry of term 2.
    cluster
        .deliver(envelope(1, 3, 2, append(prev, vec![first.clone()], 0)))
        .unwrap();
    cluster
        .deliver(envelope(
            2,
            3,
            3,
            append(prev, vec![command(12, 3, "other")], 0),
        ))
        .unwrap();
    cluster
        .deliver(envelope(1, 3, 4, append(prev, vec![first], 0)))
        .unwrap();
    assert_eq!(cluster.member(id(3)).writes.len(), 3);
    // The answers of the terms 2 and 3 were taken by `ready` with their writes, so they leave with
    // these.
    cluster.sync(id(3));
    assert_eq!(
        cluster.status(id(3)).persisted,
        index(11),
        "the disk holds 12@2 now, and will lose it"
    );
    assert_eq!(answers(&mut cluster, 3), [accepted(12)]);
    cluster.sync(id(3));
    assert_eq!(cluster.status(id(3)).persisted, index(11));
    assert_eq!(answers(&mut cluster, 3), [accepted(12)]);
    cluster.sync(id(3));
    assert_eq!(cluster.status(id(3)).persisted, index(12));
    assert_eq!(answers(&mut cluster, 3), [accepted(12)]);
    assert_eq!(cluster.log_of(id(3)).last(), Some(&entry_id(12, 2)));
}

/// Case 11: an acceptance that did not leave before its entry was overwritten is forgotten with its
/// term.
#[test]
fn acceptance_of_an_older_term_is_forgotten() {
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let node = cluster.node(id(3));
    let none = EntryId::default();
    node.step(envelope(
        1,
        3,
        1,
        append(none, vec![command(1, 1, "first")], 0),
    ))
    .unwrap();
    node.step(envelope(
        2,
        3,
        2,
        append(none, vec![command(1, 2, "other")], 0),
    ))
    .unwrap();
    cluster.pump(id(3));
    cluster.sync_all_of(id(3));
    let sent = cluster.take(|_| true);
    assert_eq!(sent, [envelope(3, 2, 2, accepted(1))]);
}

/// Case 12: an old, shorter append arrives after a longer one: nothing is cut off, and what was
/// acknowledged stays acknowledged. Only a contradiction truncates.
#[test]
fn old_shorter_append_truncates_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let none = EntryId::default();
    let entries = [command(1, 1, "a"), command(2, 1, "b"), command(3, 1, "c")];
    cluster
        .deliver(envelope(1, 3, 1, append(none, entries.to_vec(), 0)))
        .unwrap();
    cluster.sync_all_of(id(3));
    for old in [entries[..1].to_vec(), Vec::new()] {
        let answer = old.len() as u64;
        cluster.take(|_| true);
        cluster
            .deliver(envelope(1, 3, 1, append(none, old, 0)))
            .unwrap();
        assert_eq!(cluster.status(id(3)).last, entry_id(3, 1));
        assert_eq!(cluster.status(id(3)).persisted, index(3));
        assert_eq!(answers(&mut cluster, 3), [accepted(answer)]);
    }
    let contradiction = append(entry_id(1, 1), vec![command(2, 2, "other")], 0);
    cluster.deliver(envelope(2, 3, 2, contradiction)).unwrap();
    assert_eq!(cluster.status(id(3)).last, entry_id(2, 2));
    assert_eq!(
        cluster.status(id(3)).persisted,
        index(1),
        "2@2 is not on disk yet"
    );
}

/// The leader's commit index counts only as far as the logs are known to agree: what follows here may
/// be the end of another leader's log.
#[test]
fn commit_index_covers_only_what_agrees() {
    let mut cluster = Cluster::new(3);
    cluster.set_log(
        id(3),
        &[1, 2, 2],
        HardState {
            term: Term(2),
            vote: None,
        },
    );
    cluster.start(id(3));
    cluster
        .deliver(envelope(1, 3, 3, append(entry_id(1, 1), Vec::new(), 3)))
        .unwrap();
    assert_eq!(cluster.status(id(3)).commit, index(1));
    let part = vec![command(2, 2, "t2")];
    cluster
        .deliver(envelope(1, 3, 3, append(entry_id(1, 1), part, 3)))
        .unwrap();
    assert_eq!(cluster.status(id(3)).commit, index(2));
}

/// Case 12: every message of a run, repeated and in reverse, changes nothing.
#[test]
fn repeated_and_reversed_messages_change_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.campaign(id(1));
    let mut sent: Vec<Envelope> = Vec::new();
    for round in 0..60 {
        if round == 30 || round == 40 {
            cluster.propose(id(1), &["a", "b"]).unwrap();
            cluster.read(id(1), round).unwrap();
        }
        (1..=3).for_each(|node| cluster.sync_all_of(id(node)));
        sent.extend(cluster.bag.iter().cloned());
        cluster.deliver_matching(|_| true);
    }
    let view = |cluster: &Cluster| {
        (1..=3)
            .map(|node| cluster.status(id(node)))
            .collect::<Vec<_>>()
    };
    let logs = |cluster: &Cluster| {
        (1..=3)
            .map(|node| cluster.log_of(id(node)))
            .collect::<Vec<_>>()
    };
    let (clean, clean_logs) = (view(&cluster), logs(&cluster));
    assert_eq!(clean[2].applied, index(5));
    for envelope in sent.iter().chain(sent.iter().rev()) {
        cluster.deliver(envelope.clone()).ok();
        (1..=3).for_each(|node| cluster.sync_all_of(id(node)));
    }
    cluster.settle();
    cluster.run(2);
    // Whom the leader has heard lately is not part of the comparison.
    let mut replayed = view(&cluster);
    for (status, clean) in replayed.iter_mut().zip(&clean) {
        status.progress.clone_from(&clean.progress);
    }
    assert_eq!(replayed, clean);
    assert_eq!(logs(&cluster), clean_logs);
}

/// Case 31: what a follower does with a snapshot depends on its log; in each case the next append
/// succeeds.
#[test]
fn snapshot_is_installed_by_what_the_log_holds() {
    struct Row {
        terms: &'static [u64],
        commit: u64,
        snapshot: EntryId,
        answer: u64,
        log: Vec<EntryId>,
    }
    let long: &[u64] = &[1, 1, 2, 2, 2];
    let whole: Vec<EntryId> = (1..)
        .zip(long)
        .map(|(index, term)| entry_id(index, *term))
        .collect();
    let table = [
        // (a) shorter: replaced.
        Row {
            terms: &[1, 1],
            commit: 1,
            snapshot: entry_id(4, 2),
            answer: 4,
            log: vec![],
        },
        // (b) longer, and agreeing at the snapshot's index: what follows is kept.
        Row {
            terms: long,
            commit: 1,
            snapshot: entry_id(4, 2),
            answer: 4,
            log: whole.clone(),
        },
        // (c) longer, and contradicting: all dropped.
        Row {
            terms: long,
            commit: 1,
            snapshot: entry_id(4, 3),
            answer: 4,
            log: vec![],
        },
        // (d) older than the commit index: ignored.
        Row {
            terms: long,
            commit: 3,
            snapshot: entry_id(2, 1),
            answer: 3,
            log: whole,
        },
    ];
    for row in table {
        let mut cluster = Cluster::new(3);
        cluster.set_log(
            id(3),
            row.terms,
            HardState {
                term: Term(2),
                vote: None,
            },
        );
        cluster.member(id(3)).disk.set_commit(index(row.commit));
        cluster.start(id(3));
        let meta = SnapshotMeta {
            id: row.snapshot,
            configuration: Configuration::new((1..=3).map(NodeId)),
            configuration_index: index(0),
        };
        cluster
            .deliver(envelope(
                1,
                3,
                5,
                Message::InstallSnapshot(InstallSnapshot { meta: meta.into() }),
            ))
            .unwrap();
        assert_eq!(
            answers(&mut cluster, 3),
            [],
            "nothing is promised before it is on disk"
        );
        cluster.sync_all_of(id(3));
        let matched = index(row.answer);
        assert_eq!(
            answers(&mut cluster, 3),
            [Message::SnapshotResponse(SnapshotResponse { matched })]
        );
        assert_eq!(cluster.log_of(id(3)), row.log, "snapshot {}", row.snapshot);
        // The leader goes on after what it knows to agree.
        let prev = if row.answer == 3 {
            entry_id(3, 2)
        } else {
            row.snapshot
        };
        let next = command(row.answer + 1, 5, "next");
        cluster
            .deliver(envelope(1, 3, 5, append(prev, vec![next], row.answer + 1)))
            .unwrap();
        cluster.sync_all_of(id(3));
        assert_eq!(answers(&mut cluster, 3), [accepted(row.answer + 1)]);
        assert_eq!(cluster.status(id(3)).applied, index(row.answer + 1));
    }
}

/// A snapshot and entries after it, all before the first of it is on disk: nothing is applied or
/// promised too early, and a newer snapshot takes the place of the one on its way.
#[test]
fn snapshots_and_entries_may_overtake_the_disk() {
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let meta = |last| SnapshotMeta {
        id: last,
        configuration: Configuration::new((1..=3).map(NodeId)),
        configuration_index: index(0),
    };
    let install = |last| {
        envelope(
            1,
            3,
            2,
            Message::InstallSnapshot(InstallSnapshot {
                meta: meta(last).into(),
            }),
        )
    };
    cluster.deliver(install(entry_id(4, 1))).unwrap();
    cluster
        .deliver(envelope(
            1,
            3,
            2,
            append(entry_id(4, 1), vec![command(5, 2, "a")], 5),
        ))
        .unwrap();
    cluster.deliver(install(entry_id(9, 2))).unwrap();
    cluster
        .deliver(envelope(
            1,
            3,
            2,
            append(entry_id(9, 2), vec![command(10, 2, "b")], 10),
        ))
        .unwrap();
    assert_eq!(cluster.status(id(3)).applied, index(0));
    assert_eq!(cluster.status(id(3)).commit, index(10));
    cluster.sync(id(3));
    assert!(cluster.status(id(3)).persisted < index(9));
    cluster.sync_all_of(id(3));
    let status = cluster.status(id(3));
    assert_eq!(
        (status.applied, status.persisted, status.first),
        (index(10), index(10), index(10))
    );
}

/// A completion stands for all writes before it. One that was overtaken by a snapshot proves nothing
/// about the log after that.
#[test]
fn completion_across_a_snapshot_proves_only_the_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let entries = (1..=4).map(|at| command(at, 1, "old")).collect();
    cluster
        .deliver(envelope(1, 3, 1, append(EntryId::default(), entries, 0)))
        .unwrap();
    let meta = SnapshotMeta {
        id: entry_id(2, 2),
        configuration: Configuration::new((1..=3).map(NodeId)),
        configuration_index: index(0),
    };
    let install = Message::InstallSnapshot(InstallSnapshot { meta: meta.into() });
    cluster.deliver(envelope(2, 3, 2, install)).unwrap();
    let after = vec![command(3, 2, "new")];
    cluster
        .deliver(envelope(2, 3, 2, append(entry_id(2, 2), after, 0)))
        .unwrap();
    cluster.sync_together(id(3), 2);
    assert_eq!(
        cluster.status(id(3)).persisted,
        index(2),
        "3@2 is still on its way"
    );
    cluster.sync(id(3));
    assert_eq!(cluster.status(id(3)).persisted, index(3));
    assert_eq!(cluster.log_of(id(3)), [entry_id(3, 2)]);
}

/// A slow read brings entries that were overwritten meanwhile: they are neither sent nor applied.
#[test]
fn fetched_entries_that_are_not_ours_any_more_are_ignored() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.isolated.insert(id(3));
    cluster.member(id(1)).holds_apply = true;
    cluster.propose(id(1), &["a", "b"]).unwrap();
    cluster.settle();
    cluster.isolated.clear();
    cluster.node(id(1)).storage_mut().evict_below(index(10));
    cluster.node(id(1)).on_unreachable(id(3));
    cluster.pump(id(1));
    cluster.deliver_matching(|_| true);
    cluster.deliver_matching(|_| true);
    let fetches = std::mem::take(&mut cluster.member(id(1)).fetches);
    let fetch = fetches
        .into_iter()
        .next()
        .expect("n3 needs entries that are not in memory");
    assert_eq!(fetch.purpose, FetchPurpose::Peer(id(3)));
    let foreign = (fetch.range.start.0..fetch.range.end.0).map(|at| command(at, 7, "foreign"));
    cluster.node(id(1)).on_fetched(fetch, foreign.collect());
    cluster.pump(id(1));
    let shown = cluster
        .bag
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(!shown.contains("foreign"), "{shown}");
    cluster.settle();
    assert_eq!(cluster.log_of(id(3)), cluster.log_of(id(1)));
    // The same for applying, after a restart.
    cluster.crash(id(1), 0);
    cluster.member(id(1)).holds_apply = false;
    cluster.member(id(1)).disk.set_commit(index(3));
    cluster.start(id(1));
    let fetches = std::mem::take(&mut cluster.member(id(1)).fetches);
    let fetch = fetches.into_iter().next().expect("nothing is in memory");
    assert_eq!(fetch.purpose, FetchPurpose::Apply);
    let foreign = (fetch.range.start.0..fetch.range.end.0).map(|at| command(at, 7, "foreign"));
    cluster.node(id(1)).on_fetched(fetch, foreign.collect());
    cluster.pump(id(1));
    assert_eq!(cluster.status(id(1)).applied, index(0));
    cluster.serve_fetches(id(1));
    assert_eq!(cluster.status(id(1)).applied, index(3));
}

/// A log reads only what it has synced, and a leader under load always has more than that.
#[test]
fn fetch_ends_where_the_disk_does() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.isolated.insert(id(3));
    cluster.propose(id(1), &["a", "b"]).unwrap();
    cluster.settle();
    cluster.isolated.clear();
    cluster.node(id(1)).storage_mut().evict_below(index(10));
    cluster.propose(id(1), &["c"]).unwrap();
    cluster.pump(id(1));
    assert_eq!(cluster.status(id(1)).persisted, index(3));
    cluster.node(id(1)).on_unreachable(id(3));
    cluster.pump(id(1));
    cluster.deliver_matching(|_| true);
    cluster.deliver_matching(|_| true);
    let fetches = std::mem::take(&mut cluster.member(id(1)).fetches);
    let fetch = fetches.first().expect("n3 needs what is not in memory");
    assert_eq!(fetch.purpose, FetchPurpose::Peer(id(3)));
    assert_eq!(fetch.range.end, index(4), "{fetch}");
}

/// A configuration is in force when it is appended, and out of force when it is truncated; also
/// across a restart.
#[test]
fn configurations_follow_the_log() {
    let old = Configuration::new((1..=3).map(NodeId));
    let joint = Configuration {
        voters: [id(1), id(2), id(4)].into(),
        voters_outgoing: old.voters.clone(),
        ..Configuration::default()
    };
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let none = EntryId::default();
    let entries = vec![command(1, 1, "a"), configuration_entry(2, 1, &joint)];
    cluster
        .deliver(envelope(1, 3, 1, append(none, entries, 1)))
        .unwrap();
    assert_eq!(
        cluster.status(id(3)).configuration,
        joint,
        "in force before it is on disk"
    );
    cluster.sync_all_of(id(3));
    cluster.crash(id(3), 0);
    cluster.start(id(3));
    assert_eq!(
        cluster.status(id(3)).configuration,
        joint,
        "in force after a restart"
    );
    assert_eq!(cluster.status(id(3)).configuration_index, index(2));
    let overwrite = append(entry_id(1, 1), vec![command(2, 2, "b")], 1);
    cluster.deliver(envelope(2, 3, 2, overwrite)).unwrap();
    assert_eq!(
        cluster.status(id(3)).configuration,
        old,
        "rolled back with its entry"
    );
    assert_eq!(cluster.status(id(3)).configuration_index, index(0));
}
