//! The serialised forms, with the feature `serde`: everything comes back as it was, and messages
//! keep their bytes.
#![cfg(feature = "serde")]

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use raft_core::{
    Append, AppendResponse, Commit, Config, Configuration, ConfigurationChange, Entry, EntryId,
    EntryKind, Envelope, Event, HardState, Heartbeat, HeartbeatResponse, InstallSnapshot, LogIndex,
    MemberChange, MemoryStorage, Message, Node, NodeId, PeerState, PersistId, ReadId, ReadIndex,
    ReadIndexResponse, Reason, RepairAnswer, RepairAsk, RepairId, RepairOutcome, Repairing, Role,
    SnapshotAsk, SnapshotMeta, SnapshotResponse, Term, VoteRefusal, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn assert_comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = postcard::to_allocvec(&value).expect("memory is enough");
    assert_eq!(postcard::from_bytes::<T>(&bytes), Ok(value));
}

fn id(index: u64, term: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

fn entry(index: u64, kind: EntryKind, payload: &[u8]) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(2),
        kind,
        payload: Bytes::copy_from_slice(payload),
        checksum: payload.len() as u32,
    }
}

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn joint() -> Configuration {
    Configuration {
        voters: nodes(&[1, 2]),
        voters_outgoing: nodes(&[1, 3]),
        learners: nodes(&[4]),
        learners_next: nodes(&[3]),
        auto_leave: true,
    }
}

fn snapshot() -> SnapshotMeta {
    SnapshotMeta {
        id: id(9, 2),
        configuration: joint(),
        configuration_index: LogIndex(6),
    }
}

/// Messages of each kind. Numbers differ, so that exchanged fields would show.
fn messages() -> Vec<Message> {
    let (request, answer) = (vote_request, |granted| VoteResponse { granted });
    let [three, four, five, nine] = [3, 4, 5, 9].map(LogIndex);
    let (round, oldest_sync_age_ticks, read) = (7, 3, ReadId(77));
    let (meta, entries) = (snapshot(), vec![entry(5, EntryKind::Command, b"set")]);
    let heartbeat = Heartbeat {
        commit: four,
        round,
    };
    let heard = HeartbeatResponse {
        round,
        oldest_sync_age_ticks,
        priority: 8,
    };
    let may_read = ReadIndexResponse {
        id: read,
        index: nine,
    };
    let ask = RepairAsk {
        id: RepairId(11),
        first: three,
        last: five,
        anchor: id(6, 2),
    };
    let repair = |outcome| Message::RepairAnswer(RepairAnswer { ask, outcome });
    let compacted = RepairOutcome::Compacted { snapshot: id(9, 2) };
    let install = InstallSnapshot { meta: meta.into() };
    vec![
        Message::PreVote(request(false)),
        Message::PreVoteResponse(answer(true)),
        Message::Vote(request(true)),
        Message::VoteResponse(answer(false)),
        Message::Append(append()),
        Message::AppendResponse(AppendResponse::Accepted { matched: four }),
        Message::AppendResponse(rejected()),
        Message::Heartbeat(heartbeat),
        Message::HeartbeatResponse(heard),
        Message::InstallSnapshot(install.clone()),
        Message::SnapshotResponse(SnapshotResponse { matched: nine }),
        Message::ReadIndex(ReadIndex { id: read }),
        Message::ReadIndexResponse(may_read),
        Message::TimeoutNow,
        Message::RepairAsk(ask),
        repair(RepairOutcome::Have { entries }),
        repair(compacted),
        repair(RepairOutcome::Never {
            held: Some(Term(1)),
        }),
        repair(RepairOutcome::Never { held: None }),
        repair(RepairOutcome::Maybe),
        Message::Repairing(Repairing {
            count: 3,
            next: nine,
        }),
        Message::SnapshotAsk(SnapshotAsk { covering: four }),
        Message::RepairSnapshot(install),
        Message::Commit(Commit { id: id(5, 2) }),
    ]
}

/// The bytes of these messages: sender 01, receiver 02, term ac02 (300), the number of the kind, the
/// content.
///
/// Lines may be added. A line that changes means that servers of two versions do not understand each
/// other.
const GOLDEN: [&str; 24] = [
    "0102ac020005020006",
    "0102ac020101",
    "0102ac020205020106",
    "0102ac020300",
    concat!(
        "0102ac0204030103",
        "040200000005020103736574030602023a",
        "01010200020001000100010000000000000002000000000000000100000000000000",
        "0300000000000000040000000000000003000000000000003a04",
    ),
    "0102ac02050004",
    "0102ac02050107050208",
    "0102ac02060407",
    "0102ac0207070308",
    "0102ac02080902020102020103010401030106",
    "0102ac020909",
    "0102ac020a4d",
    "0102ac020b4d09",
    "0102ac020c",
    "0102ac020d0b03050602",
    "0102ac020e0b0305060200010502010373657403",
    "0102ac020e0b03050602010902",
    "0102ac020e0b03050602020101",
    "0102ac020e0b030506020200",
    "0102ac020e0b0305060203",
    "0102ac020f0309",
    "0102ac021004",
    "0102ac02110902020102020103010401030106",
    "0102ac02120502",
];

fn vote_request(transfer: bool) -> VoteRequest {
    let last = id(5, 2);
    VoteRequest {
        last,
        transfer,
        priority: 6,
    }
}

/// An append with an entry of each kind.
fn append() -> Append {
    let entries = vec![
        entry(4, EntryKind::Noop, b""),
        entry(5, EntryKind::Command, b"set"),
        entry(6, EntryKind::Configuration, &joint().encode()),
    ];
    Append {
        prev: id(3, 1),
        entries,
        commit: LogIndex(4),
    }
}

fn rejected() -> AppendResponse {
    AppendResponse::Rejected {
        prev: LogIndex(7),
        hint: id(5, 2),
        last: LogIndex(8),
    }
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        from: NodeId(1),
        to: NodeId(2),
        term: Term(300),
        message,
    }
}

/// The number of the kind on the wire. Without a wildcard, so that a new kind is not forgotten here.
fn kind(message: &Message) -> u8 {
    match message {
        Message::PreVote(_) => 0,
        Message::PreVoteResponse(_) => 1,
        Message::Vote(_) => 2,
        Message::VoteResponse(_) => 3,
        Message::Append(_) => 4,
        Message::AppendResponse(_) => 5,
        Message::Heartbeat(_) => 6,
        Message::HeartbeatResponse(_) => 7,
        Message::InstallSnapshot(_) => 8,
        Message::SnapshotResponse(_) => 9,
        Message::ReadIndex(_) => 10,
        Message::ReadIndexResponse(_) => 11,
        Message::TimeoutNow => 12,
        Message::RepairAsk(_) => 13,
        Message::RepairAnswer(_) => 14,
        Message::Repairing(_) => 15,
        Message::SnapshotAsk(_) => 16,
        Message::RepairSnapshot(_) => 17,
        Message::Commit(_) => 18,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn messages_keep_their_bytes() {
    let messages = messages();
    assert_eq!(messages.len(), GOLDEN.len());
    for (message, golden) in messages.into_iter().zip(GOLDEN) {
        let envelope = envelope(message);
        let bytes = postcard::to_allocvec(&envelope).unwrap();
        assert_eq!(hex(&bytes), golden, "{envelope}");
    }
}

#[test]
fn every_kind_of_message_has_its_number() {
    let mut seen = BTreeSet::new();
    for message in messages() {
        let number = kind(&message);
        let bytes = postcard::to_allocvec(&message).unwrap();
        assert_eq!(bytes[0], number, "{}", message.name());
        seen.insert(number);
    }
    assert!(seen.into_iter().eq(0..19), "a kind is not among them");
}

#[test]
fn messages_come_back() {
    for message in messages() {
        assert_comes_back(envelope(message));
    }
}

#[test]
fn what_a_log_holds_comes_back() {
    for entry in append().entries {
        assert_comes_back(entry);
    }
    for vote in [None, Some(NodeId(3))] {
        let term = Term(4);
        assert_comes_back(HardState { term, vote });
    }
    assert_comes_back(PersistId(8));
    assert_comes_back(snapshot());
}

#[test]
fn configurations_and_changes_come_back() {
    assert_comes_back(joint());
    assert_comes_back(Configuration::new([NodeId(1)]));
    let changes = [
        MemberChange::AddVoter,
        MemberChange::AddLearner,
        MemberChange::Promote,
        MemberChange::Demote,
        MemberChange::Remove,
    ];
    let changes = (1..).zip(changes).map(|(id, change)| change(NodeId(id)));
    assert_comes_back(ConfigurationChange::new(changes));
}

/// A leader's status, with members in it, and all that happened until then.
#[test]
fn status_and_events_of_a_node_come_back() {
    let storage = MemoryStorage::with_configuration(Configuration {
        learners: nodes(&[4]),
        ..Configuration::new([NodeId(1)])
    });
    let mut node = Node::new(Config::new(NodeId(1), 1), storage).unwrap();
    node.campaign();
    while node.has_ready() {
        let ready = node.ready();
        for event in ready.events {
            assert_comes_back(event);
        }
        if let Some(persist) = ready.persist {
            let id = persist.id;
            node.storage_mut().persist(persist);
            node.on_persisted(id);
        }
    }
    let status = node.status();
    assert_eq!(status.role, Role::Leader);
    assert_eq!(status.progress.len(), 1);
    assert_comes_back(status);
}

#[test]
fn events_with_content_come_back() {
    let (peer, state) = (NodeId(2), PeerState::Snapshot { index: LogIndex(9) });
    assert_comes_back(Event::PeerStateChanged { peer, state });
    let state = PeerState::Replicate { inflight: 4 };
    assert_comes_back(Event::PeerStateChanged { peer, state });
    let meta = Box::new(snapshot());
    assert_comes_back(Event::SnapshotAccepted { meta });
    let (index, configuration) = (LogIndex(6), Box::new(joint()));
    assert_comes_back(Event::ConfigurationChanged {
        index,
        configuration,
    });
    let (candidate, own) = (id(5, 2), id(6, 2));
    let why = VoteRefusal::LogBehind { candidate, own };
    let (term, to) = (Term(3), NodeId(2));
    assert_comes_back(Event::VoteRefused { term, to, why });
    assert_comes_back(Reason::HigherTerm { from: NodeId(2) });
}
