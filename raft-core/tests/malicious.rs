//! What a peer can send and must not.

mod harness;

use harness::{Cluster, accepted, answer, append, ask, command, entry_id, envelope, id, index};
use raft_core::{
    AppendResponse, Configuration, Heartbeat, HeartbeatResponse, InstallSnapshot, LogIndex,
    MalformedAppend, Message, NodeId, ReadIndex, Rejected, RepairOutcome, SnapshotMeta, Term,
    VoteResponse,
};

/// Each is refused by kind, and leaves the node as it was.
#[test]
fn malicious_messages_are_refused_by_kind() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a", "b"]).unwrap();
    cluster.settle();
    let heartbeat = |commit| {
        Message::Heartbeat(Heartbeat {
            commit: index(commit),
            round: 0,
        })
    };
    let conflict = entry_id(2, 2);
    let snapshot = |id, index| {
        let configuration = Configuration::new([NodeId(1)]);
        let meta = Box::new(SnapshotMeta {
            id,
            configuration,
            configuration_index: LogIndex(index),
        });
        Message::InstallSnapshot(InstallSnapshot { meta })
    };
    let gap = MalformedAppend::Gap {
        expected: index(4),
        found: entry_id(9, 1),
    };
    let huge = Term(u64::MAX);
    let table = [
        (
            envelope(1, 3, 1, heartbeat(0)),
            Rejected::NotForMe { to: id(3) },
        ),
        (
            envelope(0, 2, 1, heartbeat(0)),
            Rejected::UnknownSender { from: id(0) },
        ),
        (
            envelope(2, 2, 1, heartbeat(0)),
            Rejected::UnknownSender { from: id(2) },
        ),
        (
            envelope(1, 2, u64::MAX, heartbeat(0)),
            Rejected::TermOutOfRange { term: huge },
        ),
        (
            envelope(1, 2, 0, heartbeat(0)),
            Rejected::TermOutOfRange { term: Term(0) },
        ),
        (
            envelope(3, 2, 1, heartbeat(0)),
            Rejected::SecondLeader {
                from: id(3),
                leader: id(1),
                term: Term(1),
            },
        ),
        (
            envelope(1, 2, 1, heartbeat(99)),
            Rejected::CommitBeyondLog {
                commit: index(99),
                last: index(3),
            },
        ),
        (
            envelope(1, 2, 7, append(entry_id(3, 1), vec![command(9, 1, "x")], 0)),
            Rejected::MalformedAppend(gap),
        ),
        (
            envelope(
                1,
                2,
                1,
                append(
                    entry_id(1, 1),
                    vec![command(2, 1, "x"), command(9, 1, "y")],
                    0,
                ),
            ),
            Rejected::MalformedAppend(MalformedAppend::Gap {
                expected: index(3),
                found: entry_id(9, 1),
            }),
        ),
        (
            envelope(1, 2, 1, snapshot(entry_id(9, 1), 10)),
            Rejected::MalformedSnapshot,
        ),
        (
            envelope(1, 2, 1, snapshot(entry_id(9, 7), 1)),
            Rejected::MalformedSnapshot,
        ),
        (
            envelope(
                1,
                2,
                1,
                Message::AppendResponse(AppendResponse::Accepted { matched: index(1) }),
            ),
            Rejected::NotLeader,
        ),
        (
            envelope(
                1,
                2,
                1,
                Message::VoteResponse(VoteResponse { granted: true }),
            ),
            Rejected::Unasked,
        ),
        (
            envelope(
                1,
                2,
                99,
                Message::PreVoteResponse(VoteResponse { granted: true }),
            ),
            Rejected::Unasked,
        ),
        (
            envelope(
                1,
                2,
                1,
                Message::Repairing(raft_core::Repairing {
                    count: 1,
                    next: index(1),
                }),
            ),
            Rejected::NotLeader,
        ),
        (
            envelope(1, 2, 1, Message::RepairAsk(ask(5, 4, entry_id(5, 1)))),
            Rejected::MalformedRepair,
        ),
        (
            envelope(1, 2, 1, Message::RepairAsk(ask(5, 5, entry_id(4, 1)))),
            Rejected::MalformedRepair,
        ),
        (
            envelope(
                1,
                2,
                1,
                Message::RepairAsk(ask(1, u64::MAX, entry_id(1, 1))),
            ),
            Rejected::MalformedRepair,
        ),
        (
            envelope(
                1,
                2,
                1,
                answer(ask(2, 2, entry_id(2, 1)), RepairOutcome::Maybe),
            ),
            Rejected::Unasked,
        ),
        (
            envelope(
                1,
                2,
                1,
                answer(
                    ask(2, 2, entry_id(2, 1)),
                    RepairOutcome::Have {
                        entries: vec![command(2, 1, "x"), command(3, 1, "beyond")],
                    },
                ),
            ),
            Rejected::MalformedAppend(MalformedAppend::IndexOutOfRange(entry_id(2, 1))),
        ),
        (
            envelope(
                3,
                2,
                1,
                Message::ReadIndex(ReadIndex {
                    id: raft_core::ReadId(1),
                }),
            ),
            Rejected::NotLeader,
        ),
    ];
    let before = cluster.status(id(2));
    for (message, expected) in table {
        let shown = message.to_string();
        assert_eq!(cluster.node(id(2)).step(message), Err(expected), "{shown}");
        cluster.node(id(2)).check_invariants();
        assert_eq!(cluster.status(id(2)), before, "{shown}");
    }
    // A leader of a higher term that would overwrite what is committed.
    let overwrite = append(entry_id(1, 1), vec![command(2, 2, "x")], 0);
    let committed = index(3);
    let refused = cluster.node(id(2)).step(envelope(3, 2, 2, overwrite));
    assert_eq!(
        refused,
        Err(Rejected::CommittedConflict {
            conflict,
            committed
        })
    );
    let refused = cluster
        .node(id(2))
        .step(envelope(3, 2, 2, snapshot(conflict, 0)));
    assert_eq!(
        refused,
        Err(Rejected::CommittedConflict {
            conflict,
            committed
        })
    );
}

/// What a follower can send to its leader and must not.
#[test]
fn malicious_answers_are_refused_by_kind() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    let answer = |round| {
        Message::HeartbeatResponse(HeartbeatResponse {
            round,
            oldest_sync_age_ticks: 0,
            priority: 0,
        })
    };
    let table = [
        (
            envelope(2, 1, 1, accepted(99)),
            Rejected::AckBeyondLog {
                matched: index(99),
                last: index(1),
            },
        ),
        (
            envelope(9, 1, 1, accepted(1)),
            Rejected::UnknownSender { from: id(9) },
        ),
        (envelope(2, 1, 1, answer(7)), Rejected::Unasked),
        (
            envelope(9, 1, 1, answer(0)),
            Rejected::UnknownSender { from: id(9) },
        ),
        (
            envelope(
                9,
                1,
                1,
                Message::ReadIndex(ReadIndex {
                    id: raft_core::ReadId(1),
                }),
            ),
            Rejected::UnknownSender { from: id(9) },
        ),
        (
            envelope(
                2,
                1,
                1,
                Message::Heartbeat(Heartbeat {
                    commit: index(0),
                    round: 0,
                }),
            ),
            Rejected::SecondLeader {
                from: id(2),
                leader: id(1),
                term: Term(1),
            },
        ),
    ];
    for (message, expected) in table {
        let shown = message.to_string();
        assert_eq!(cluster.node(id(1)).step(message), Err(expected), "{shown}");
        cluster.node(id(1)).check_invariants();
    }
    let hint = entry_id(u64::MAX, u64::MAX);
    let rejected = AppendResponse::Rejected {
        prev: index(u64::MAX),
        hint,
        last: index(u64::MAX),
    };
    cluster
        .deliver(envelope(2, 1, 1, Message::AppendResponse(rejected)))
        .unwrap();
    cluster.settle();
    cluster.run(3);
    assert_eq!(cluster.status(id(1)).progress[0].matched, index(1));
}

/// A follower whose log went back within one leadership is noticed: it acknowledged an entry and
/// rejects it now.
#[test]
fn lost_acknowledgement_is_told() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a"]).unwrap();
    cluster.settle();
    // The disk of n2 is exchanged for an empty one, and the leader is not told of the new life.
    cluster.crash(id(2), 0);
    cluster.member(id(2)).disk = raft_core::MemoryStorage::new((1..=3).map(NodeId));
    cluster.start(id(2));
    cluster.node(id(1)).on_unreachable(id(2));
    cluster.pump(id(1));
    cluster.settle();
    let told = cluster
        .transcript
        .iter()
        .any(|line| line == "n1: n2 acknowledged 2 and ends at 0");
    assert!(told, "{}", cluster.transcript.join("\n"));
}
