use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::kv::command::{Command, Custom, KeyRange, KeyValue, Op, command_crc};
use crate::kv::golden;
use crate::wire::status::{NodeRole, RepairProgress, StateHash, StorageState, StorageStatus};

fn requests() -> Vec<RequestFrame> {
    let command = Command::from(Op::Increment {
        key: "n".into(),
        by: 1,
    })
    .encode();
    let write = |session| Request::Write {
        session,
        sequence: 7,
        done_below: 5,
        crc: command_crc(&command),
        command: command.clone(),
        timeout_ms: 5000,
    };
    let read = |consistency| Request::Read {
        consistency,
        query: RangeQuery::new(KeyRange::Prefix("k".into())),
        timeout_ms: 5000,
    };
    [
        Request::Hello {
            version: 1,
            program: "kvctl 0.1.0".into(),
        },
        Request::OpenSession { name: 42 },
        write(SessionRef::Id(300)),
        write(SessionRef::Named(u128::MAX)),
        write(SessionRef::None),
        read(Consistency::Linearizable),
        read(Consistency::Local),
        Request::Status,
        Request::Members,
        Request::Health,
        Request::DiscardLog,
        Request::TransferLeader {
            to: Some("n2".into()),
        },
        Request::TransferLeader { to: None },
        Request::MemberTable,
        Request::ChangeMembers {
            changes: member_changes(),
            dry_run: true,
            timeout_ms: 5000,
        },
        Request::Ask {
            consistency: Consistency::Linearizable,
            question: Custom {
                machine: "bank".into(),
                version: 1,
                command: "q".into(),
            },
            timeout_ms: 5000,
        },
        Request::Scrub,
    ]
    .into_iter()
    .zip(1..)
    .map(|(body, id)| RequestFrame { id, body })
    .collect()
}

fn member(name: &str) -> MemberAddress {
    MemberAddress {
        name: name.into(),
        id: 0x00c0_ffee,
        address: "10.0.0.1:7400".into(),
    }
}

/// One of each kind.
fn member_changes() -> Vec<MemberChange> {
    let name = || "n2".to_owned();
    vec![
        MemberChange::Add(member("n4")),
        MemberChange::Remove { name: name() },
        MemberChange::Promote { name: name() },
        MemberChange::Replace {
            old: name(),
            new: member("n4"),
        },
        MemberChange::Update {
            name: name(),
            address: "10.0.0.9:7400".into(),
        },
    ]
}

fn member_lines() -> Vec<MemberLine> {
    let states = [
        MemberState::Joining,
        MemberState::Learner,
        MemberState::Voter,
        MemberState::Removed,
    ];
    let line = |state| MemberLine {
        address: member("n4"),
        state,
        replaces: Some("n1".into()),
        reachable: true,
    };
    states.into_iter().map(line).collect()
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NotLeader {
            leader: Some(member("n2")),
        },
        Refusal::NoLeader {
            detail: "election running".into(),
        },
        Refusal::NoQuorum {
            reachable: 1,
            quorum: 2,
            detail: "n2 timed out".into(),
        },
        Refusal::Overloaded {
            what: "requests waiting".into(),
            limit: 64,
        },
        Refusal::TooLarge {
            what: "value".into(),
            bytes: 2,
            limit: 1,
        },
        Refusal::NoSpace,
        Refusal::NotAuthorised {
            why: "needs role admin".into(),
        },
        Refusal::BadRequest {
            why: "malformed".into(),
        },
        Refusal::SessionExpired,
        Refusal::SequenceGap,
        Refusal::SequenceReused,
        Refusal::CommandCorrupt,
        Refusal::Stopping,
        Refusal::Unsupported,
        Refusal::OutcomeUnknown {
            why: "lost sight".into(),
        },
        Refusal::SequenceDone,
        Refusal::MembersRefused {
            why: "no member is called n9".into(),
        },
        Refusal::MembersBusy {
            why: "another change is under way".into(),
        },
        Refusal::QuorumAtRisk {
            reachable: 1,
            quorum: 2,
            detail: "no link to n3".into(),
        },
        Refusal::NoMachine {
            machine: "bank".into(),
            version: 2,
            known: Some(1),
        },
    ]
}

pub(crate) fn status() -> NodeStatus {
    NodeStatus {
        name: "n1".into(),
        id: "00000000c0ffee42".into(),
        address: "10.0.0.1:7400".into(),
        reachable: true,
        role: NodeRole::PreCandidate,
        term: 7,
        leader: None,
        voted_for: Some("n1".into()),
        commit_index: 10,
        last_applied: 9,
        first_index: 2,
        last_index: 11,
        snapshot_index: 1,
        next_index: BTreeMap::from([("n2".into(), 12)]),
        match_index: BTreeMap::from([("n2".into(), 11)]),
        voters: vec!["n1".into(), "n2".into()],
        learners: vec![],
        storage: StorageStatus {
            state: StorageState::Full,
            log_bytes: 1,
            sync_p50_us: 2,
            sync_p99_us: 3,
            disk_free_bytes: 4,
        },
        state_hash: StateHash {
            applied: 9,
            hash: "0123456789abcdef".into(),
            agreed: 8,
            alarm: Some("no majority".into()),
        },
        certificate_expires: "2027-11-21T00:00:00Z".into(),
        uptime_s: 5,
        version: "0.1.0".into(),
        repair: Some(RepairProgress {
            damaged: 3,
            first: 17,
            waiting_for: vec!["n2".into(), "n3".into()],
        }),
        longest_turn_us: 6,
    }
}

fn responses() -> Vec<ResponseFrame> {
    let item = KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: 1,
        mod_revision: 2,
        version: 3,
    };
    let range = RangeResult {
        items: vec![item],
        count: 1,
        more: false,
        revision: 2,
    };
    let hello = Response::Hello {
        version: 1,
        node: "n1".into(),
        node_id: 1,
        cluster: 0xc0ff_ee42,
        cluster_name: "prod".into(),
        members: vec![member("n1"), member("n2")],
        leader: Some(2),
    };
    let members = vec![Member {
        address: member("n1"),
        voter: true,
    }];
    let mut bodies = vec![
        hello,
        Response::SessionOpened { session: 300 },
        Response::Range {
            result: range,
            applied: 9,
            local: true,
        },
        Response::Status(Box::new(status())),
        Response::Members {
            members,
            leader: None,
        },
        Response::Health {
            healthy: false,
            reasons: vec!["no leader".into()],
        },
        Response::Done,
    ];
    // What came later stands at the end, so that the lines before it stay as they were.
    let mut results = crate::kv::command::tests::results();
    let later_results = results.split_off(8);
    let mut refusals = refusals();
    let later_refusals = refusals.split_off(19);
    let written = |result| Response::Written {
        session: 300,
        result,
    };
    bodies.extend(results.into_iter().map(written));
    bodies.extend(refusals.into_iter().map(Response::Refused));
    let quorum = Quorum {
        voters: 3,
        quorum: 2,
        reachable: 3,
        learners: 1,
    };
    bodies.push(Response::MemberTable {
        members: member_lines(),
        leader: Some(2),
        quorum,
    });
    bodies.push(Response::MembersChanged {
        before: Quorum::default(),
        after: quorum,
    });
    let removed = NodeStatus {
        role: NodeRole::Removed,
        ..status()
    };
    bodies.push(Response::Status(Box::new(removed)));
    bodies.extend(later_results.into_iter().map(written));
    bodies.extend(later_refusals.into_iter().map(Response::Refused));
    bodies.push(Response::Replied {
        reply: "r".into(),
        applied: 300,
        local: true,
    });
    bodies.push(Response::Scrubbed(ScrubReport {
        entries: 300,
        bytes: 301,
        damaged: 2,
        first_damaged: Some(17),
    }));
    bodies
        .into_iter()
        .zip(1..)
        .map(|(body, id)| ResponseFrame { id, body })
        .collect()
}

#[test]
fn golden_bytes() {
    let requests = requests()
        .into_iter()
        .map(|frame| (format!("{frame:?}"), frame.encode().to_vec()));
    let responses = responses()
        .into_iter()
        .map(|frame| (format!("{frame:?}"), frame.encode().to_vec()));
    golden::check(
        "wire/golden/client.txt",
        &requests.chain(responses).collect::<Vec<_>>(),
    );
}

/// Case 61: truncated frames and unknown message types are refused.
#[test]
fn every_frame_comes_back_and_no_part_of_one_does() {
    for frame in requests() {
        let bytes = frame.encode();
        assert!((0..bytes.len()).all(|len| RequestFrame::decode(&bytes[..len]).is_err()));
        assert_eq!(RequestFrame::decode(&bytes), Ok(frame));
    }
    for frame in responses() {
        let bytes = frame.encode();
        assert!((0..bytes.len()).all(|len| ResponseFrame::decode(&bytes[..len]).is_err()));
        assert_eq!(ResponseFrame::decode(&bytes), Ok(frame));
    }
    assert_eq!(
        RequestFrame::decode(&[1, 1, 99]),
        Err(DecodeError::Malformed)
    );
    assert_eq!(
        RequestFrame::decode(&[9, 1, 3]),
        Err(DecodeError::NewerVersion { found: 9, known: 1 })
    );
}

#[test]
fn the_arithmetic_says_how_many_more_may_fail() {
    let mut quorum = Quorum {
        voters: 3,
        quorum: 2,
        reachable: 3,
        learners: 0,
    };
    assert_eq!(quorum.to_string(), "3 voters; quorum is 2, 1 more may fail");
    quorum.voters = 4;
    quorum.quorum = 3;
    quorum.learners = 1;
    assert_eq!(
        quorum.to_string(),
        "4 voters and 1 learner, 3 of them reached; quorum is 3, 0 more may fail"
    );
}

/// Case 47 (the protocol's part): what may have happened is never called definite.
#[test]
fn outcomes_are_honest() {
    for refusal in refusals() {
        let unknown = matches!(
            refusal,
            Refusal::SessionExpired | Refusal::SequenceDone | Refusal::OutcomeUnknown { .. }
        );
        assert_eq!(refusal.outcome() == Outcome::Unknown, unknown, "{refusal}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Case 62: arbitrary bytes, and frames with arbitrary changes, end in a frame or a typed error.
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let (requests, responses) = (requests(), responses());
        let mut request = requests[sample.index(requests.len())].encode().to_vec();
        let mut response = responses[sample.index(responses.len())].encode().to_vec();
        for (at, byte) in changes {
            let (first, second) = (at.index(request.len()), at.index(response.len()));
            (request[first], response[second]) = (byte, byte);
        }
        for bytes in [[&[CLIENT_VERSION], &bytes[..]].concat(), bytes, request, response] {
            if let Ok(frame) = RequestFrame::decode(&bytes) {
                prop_assert_eq!(RequestFrame::decode(&frame.encode()), Ok(frame));
            }
            if let Ok(frame) = ResponseFrame::decode(&bytes) {
                prop_assert_eq!(ResponseFrame::decode(&frame.encode()), Ok(frame));
            }
        }
    }
}
