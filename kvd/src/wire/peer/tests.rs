use std::collections::BTreeSet;

use proptest::prelude::*;
use raft_core::*;

use super::*;
use crate::kv::golden;
use crate::wire::client::Refusal;

const CLUSTER: u32 = 0xc0ff_ee42;

fn entry(index: u64, kind: EntryKind, payload: &'static [u8]) -> Entry {
    let checksum = record::payload_checksum(CLUSTER, payload);
    let payload = Bytes::from_static(payload);
    Entry {
        index: LogIndex(index),
        term: Term(7),
        kind,
        payload,
        checksum,
    }
}

fn entries() -> Vec<Entry> {
    vec![
        entry(5, EntryKind::Noop, b""),
        entry(6, EntryKind::Command, b"set color=red"),
        entry(7, EntryKind::Configuration, &[0xff; 20]),
    ]
}

fn raft(message: Message) -> PeerMessage {
    PeerMessage::Raft(Envelope {
        from: NodeId(1),
        to: NodeId(u64::MAX),
        term: Term(7),
        message,
    })
}

fn at(index: u64, term: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

/// One of each kind.
fn samples() -> Vec<PeerMessage> {
    let joint = Configuration {
        voters: [NodeId(1), NodeId(2)].into(),
        voters_outgoing: [NodeId(1), NodeId(3)].into(),
        learners: [NodeId(4)].into(),
        learners_next: BTreeSet::new(),
        auto_leave: true,
    };
    let vote = VoteRequest {
        last: at(9, 3),
        transfer: true,
        priority: 5,
    };
    let meta = SnapshotMeta {
        id: at(9, 3),
        configuration: joint,
        configuration_index: LogIndex(8),
    };
    let ask = RepairAsk {
        id: RepairId(12),
        first: LogIndex(5),
        last: LogIndex(6),
        anchor: at(7, 7),
    };
    let answer = |outcome| Message::RepairAnswer(RepairAnswer { ask, outcome });
    let messages = vec![
        Message::PreVote(vote),
        Message::PreVoteResponse(VoteResponse { granted: true }),
        Message::Vote(vote),
        Message::VoteResponse(VoteResponse { granted: false }),
        Message::Append(Append {
            prev: at(4, 6),
            entries: entries(),
            commit: LogIndex(4),
        }),
        Message::Append(Append {
            prev: at(4, 6),
            entries: vec![],
            commit: LogIndex(4),
        }),
        Message::AppendResponse(AppendResponse::Accepted {
            matched: LogIndex(7),
        }),
        Message::AppendResponse(AppendResponse::Rejected {
            prev: LogIndex(4),
            hint: at(3, 2),
            last: LogIndex(3),
        }),
        Message::Heartbeat(Heartbeat {
            commit: LogIndex(4),
            round: 11,
        }),
        Message::HeartbeatResponse(HeartbeatResponse {
            round: 11,
            oldest_sync_age_ticks: 2,
            priority: 5,
        }),
        Message::InstallSnapshot(InstallSnapshot {
            meta: meta.clone().into(),
        }),
        Message::SnapshotResponse(SnapshotResponse {
            matched: LogIndex(9),
        }),
        Message::ReadIndex(ReadIndex { id: ReadId(3) }),
        Message::ReadIndexResponse(ReadIndexResponse {
            id: ReadId(3),
            index: LogIndex(7),
        }),
        Message::TimeoutNow,
        Message::RepairAsk(ask),
        answer(RepairOutcome::Have { entries: entries() }),
        answer(RepairOutcome::Compacted { snapshot: at(9, 3) }),
        answer(RepairOutcome::Never {
            held: Some(Term(6)),
        }),
        answer(RepairOutcome::Never { held: None }),
        answer(RepairOutcome::Maybe),
        Message::Repairing(Repairing {
            count: 2,
            next: LogIndex(8),
        }),
        Message::SnapshotAsk(SnapshotAsk {
            covering: LogIndex(5),
        }),
        Message::RepairSnapshot(InstallSnapshot { meta: meta.into() }),
        Message::Commit(Commit { id: at(9, 3) }),
    ];
    let write = ForwardedWrite {
        session: SessionRef::Named(42),
        sequence: 3,
        done_below: 2,
        command: Bytes::from_static(b"command"),
        crc: 99,
        timeout_ms: 5000,
    };
    let principal = Principal::new(crate::kv::auth::Role::Client, "app");
    let mut samples: Vec<PeerMessage> = messages.into_iter().map(raft).collect();
    samples.push(PeerMessage::Forward {
        request: 12,
        principal,
        write,
    });
    samples.push(PeerMessage::ForwardReply {
        request: 12,
        response: Response::Refused(Refusal::NoSpace),
    });
    let agreed = HashAt {
        index: 4096,
        algorithm: 1,
        hash: u64::MAX,
    };
    samples.push(PeerMessage::StateHash(agreed));
    samples.push(PeerMessage::StateAsk {
        agreed,
        covering: LogIndex(5000),
    });
    samples
}

fn frame(message: &PeerMessage) -> Bytes {
    encode(CLUSTER, message).concat().into()
}

#[test]
fn every_message_comes_back_as_it_was_sent() {
    for message in samples() {
        assert_eq!(decode(CLUSTER, frame(&message)), Ok(message));
    }
}

#[test]
fn golden_bytes() {
    let samples = samples()
        .into_iter()
        .map(|message| (format!("{message:?}"), frame(&message).to_vec()));
    golden::check("wire/golden/peer.txt", &samples.collect::<Vec<_>>());
}

#[test]
fn payloads_are_shared_when_encoded_and_are_slices_of_the_frame_when_decoded() {
    let append = raft(Message::Append(Append {
        prev: at(4, 6),
        entries: entries(),
        commit: LogIndex(4),
    }));
    let PeerMessage::Raft(Envelope {
        message: Message::Append(sent),
        ..
    }) = &append
    else {
        unreachable!()
    };
    let parts = encode(CLUSTER, &append);
    assert!(
        parts
            .iter()
            .any(|part| part.as_ptr() == sent.entries[2].payload.as_ptr())
    );

    let frame = frame(&append);
    let Ok(PeerMessage::Raft(Envelope {
        message: Message::Append(append),
        ..
    })) = decode(CLUSTER, frame.clone())
    else {
        panic!("does not decode")
    };
    let inside = frame.as_ptr_range();
    assert!(
        append.entries[1..]
            .iter()
            .all(|entry| inside.contains(&entry.payload.as_ptr()))
    );
}

#[test]
fn a_flipped_bit_in_an_entry_is_caught_and_so_is_an_entry_of_another_cluster() {
    let message = raft(Message::Append(Append {
        prev: at(4, 6),
        entries: entries(),
        commit: LogIndex(4),
    }));
    let frame = frame(&message);
    let head = encode(CLUSTER, &message)[0].len();
    for bit in head * 8..frame.len() * 8 {
        let mut flipped = frame.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = decode(CLUSTER, flipped.into()).unwrap_err();
        assert!(
            matches!(error, WireError::Record { .. }),
            "bit {bit}: {error}"
        );
    }
    let error = decode(CLUSTER + 1, frame).unwrap_err();
    assert!(
        matches!(error, WireError::Record { position: 0, .. }),
        "{error}"
    );
}

#[test]
fn an_entry_kind_of_the_future_is_named() {
    let message = raft(Message::Append(Append {
        prev: at(4, 6),
        entries: vec![],
        commit: LogIndex(4),
    }));
    let mut frame = frame(&message).to_vec();
    *frame.last_mut().unwrap() = 1;
    let header = RecordHeader {
        index: 5,
        term: 7,
        kind: 77,
        payload_bytes: 0,
        payload_crc: 0,
    };
    frame.extend_from_slice(&record::encode_header(CLUSTER, &header));
    assert_eq!(
        decode(CLUSTER, frame.into()),
        Err(WireError::EntryKind(UnknownEntryKind(77)))
    );
}

/// Case 61: truncated frame, unknown message type, more records claimed than there are.
#[test]
fn cut_extended_and_unknown_frames_are_refused() {
    for message in samples() {
        let whole = frame(&message);
        let command_bytes = match &message {
            PeerMessage::Forward { write, .. } => write.command.len(),
            PeerMessage::Raft(_)
            | PeerMessage::ForwardReply { .. }
            | PeerMessage::StateHash(_)
            | PeerMessage::StateAsk { .. } => 0,
        };
        // A forwarded command runs to the end of the frame: its own checksum covers it, see the store.
        for len in 0..whole.len() - command_bytes {
            assert!(
                decode(CLUSTER, whole.slice(..len)).is_err(),
                "{message:?} cut at {len}"
            );
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert!(
            command_bytes > 0 || decode(CLUSTER, longer.into()).is_err(),
            "{message:?}"
        );
    }
    assert_eq!(
        decode(CLUSTER, Bytes::new()),
        Err(DecodeError::Empty.into())
    );
    assert_eq!(
        decode(CLUSTER, Bytes::from_static(&[1, 99])),
        Err(DecodeError::Malformed.into())
    );
    let newer = DecodeError::NewerVersion { found: 3, known: 2 };
    assert_eq!(
        decode(CLUSTER, Bytes::from_static(&[3, 0])),
        Err(newer.into())
    );
}

/// An older program refuses a message that it does not know by its version, so none may come in an older version; and no other
/// in a newer one, which only older programs would refuse.
#[test]
fn a_message_has_the_version_that_brought_its_kind() {
    for message in samples() {
        let bytes = frame(&message);
        let brought = match &message {
            PeerMessage::StateHash(_) | PeerMessage::StateAsk { .. } => 2,
            PeerMessage::Raft(_)
            | PeerMessage::Forward { .. }
            | PeerMessage::ForwardReply { .. } => 1,
        };
        assert_eq!(bytes[0], brought, "{message:?}");
        let mut other = bytes.to_vec();
        other[0] = 3 - brought;
        assert_eq!(
            decode(CLUSTER, other.into()),
            Err(DecodeError::Malformed.into()),
            "{message:?}"
        );
    }
}

#[test]
fn what_a_node_knows_follows_from_its_protocol_version() {
    assert_eq!(command_version(1), 2);
    assert_eq!(command_version(u16::from(PEER_VERSION)), 3);
    assert_eq!(command_version(u16::MAX), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Case 62: arbitrary bytes, and messages with arbitrary changes, end in a message or a typed error.
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let _ = decode(CLUSTER, [&[PEER_VERSION], &bytes[..]].concat().into());
        let _ = decode(CLUSTER, bytes.into());
        let samples = samples();
        let mut changed = frame(&samples[sample.index(samples.len())]).to_vec();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        if let Ok(message) = decode(CLUSTER, changed.into()) {
            prop_assert_eq!(decode(CLUSTER, frame(&message)), Ok(message));
        }
    }
}
