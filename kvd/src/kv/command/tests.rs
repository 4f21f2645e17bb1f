use proptest::prelude::*;

use super::*;
use crate::kv::golden;
use crate::kv::members::{MemberEdit, MemberState};
use crate::wire::client::MemberAddress;

/// One of each kind.
fn samples() -> Vec<Command> {
    let put = Op::Put {
        key: "k".into(),
        value: "value".into(),
        want_previous: true,
    };
    let query = RangeQuery {
        range: KeyRange::Between {
            start: "a".into(),
            end: "b".into(),
        },
        after: Some("aa".into()),
        limit: 300,
        keys_only: true,
        count_only: false,
    };
    let tests = [
        Test::Absent,
        Test::Present,
        Test::Version(CmpOp::Equal, 1),
        Test::CreateRevision(CmpOp::NotEqual, 2),
        Test::ModRevision(CmpOp::Less, 300),
        Test::Value(CmpOp::Greater, "v".into()),
    ];
    let compare = tests
        .into_iter()
        .map(|test| Compare {
            key: "k".into(),
            test,
        })
        .collect();
    vec![
        put.clone().into(),
        Op::Delete {
            range: KeyRange::Key("k".into()),
            want_previous: false,
        }
        .into(),
        Op::Delete {
            range: KeyRange::Prefix("k/".into()),
            want_previous: true,
        }
        .into(),
        Op::Range(query).into(),
        Op::Range(RangeQuery::new(KeyRange::All)).into(),
        Op::Increment {
            key: "n".into(),
            by: -1,
        }
        .into(),
        Txn {
            compare,
            then: vec![put.clone(), put.clone()],
            otherwise: vec![put],
        }
        .into(),
        Command::CloseSession,
        Command::KeepAlive,
        Command::Members(members()),
        Command::StateHash(HashAt {
            index: 4096,
            algorithm: 1,
            hash: u64::MAX,
        }),
        Command::Custom(Custom {
            machine: "bank".into(),
            version: 300,
            command: "c".into(),
        }),
    ]
}

/// One of each kind of edit.
fn members() -> MemberUpdate {
    let member = |id| MemberAddress {
        name: format!("n{id}"),
        id,
        address: format!("10.0.0.{id}:7400"),
    };
    MemberUpdate {
        founding: vec![member(1)],
        edits: vec![
            MemberEdit::Join {
                member: member(4),
                replaces: Some(1),
            },
            MemberEdit::Address {
                id: 1,
                address: "a:1".into(),
            },
            MemberEdit::State {
                id: 1,
                state: MemberState::Removed,
            },
        ],
    }
}

/// An older program stops at an update by its version. Passing over it as malformed, as it must do with what is malformed
/// for everybody, would make another history than a newer program makes.
#[test]
fn updates_of_members_are_newer_than_the_first_version() {
    let bytes = Command::Members(members()).encode();
    assert_eq!(bytes[0], 2);
    let disguised = [&[1], &bytes[1..]].concat();
    assert_eq!(Command::decode(&disguised), Err(DecodeError::Malformed));
    assert_eq!(
        Command::KeepAlive.encode()[0],
        1,
        "older programs know this"
    );
}

/// The same for the hash of a state: the version is that of the kind, and of no other.
#[test]
fn agreed_hashes_are_newer_than_updates_of_members() {
    let agreed = HashAt {
        index: 1,
        algorithm: 1,
        hash: 2,
    };
    let bytes = Command::StateHash(agreed).encode();
    assert_eq!(bytes[0], 3);
    for other in [1, 2, 4] {
        let disguised = [&[other], &bytes[1..]].concat();
        assert_eq!(Command::decode(&disguised), Err(DecodeError::Malformed));
    }
}

/// As for members: a program that knows no state machines stops.
#[test]
fn commands_of_state_machines_are_of_version_4() {
    let custom = samples().pop().unwrap();
    let bytes = custom.encode();
    assert_eq!(bytes[0], 4);
    for older in 1..4 {
        let disguised = [&[older], &bytes[1..]].concat();
        assert_eq!(Command::decode(&disguised), Err(DecodeError::Malformed));
    }
}

/// One of each kind.
pub(crate) fn results() -> Vec<CommandResult> {
    let item = KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: 1,
        mod_revision: 300,
        version: 2,
    };
    let range = RangeResult {
        items: vec![item.clone()],
        count: 1,
        more: true,
        revision: 300,
    };
    [
        OpResult::Put {
            version: 2,
            previous: Some(item.clone()),
        },
        OpResult::Put {
            version: 1,
            previous: None,
        },
        OpResult::Deleted {
            count: 1,
            previous: vec![item],
        },
        OpResult::Range(range),
        OpResult::Incremented {
            value: -2,
            version: 7,
        },
        OpResult::NotANumber,
        OpResult::Overflow,
        OpResult::AnswerTooLarge {
            limit_bytes: 1 << 20,
        },
        OpResult::Answered { answer: "a".into() },
        OpResult::Rejected {
            rejection: "r".into(),
        },
        OpResult::WriteRefused { why: "w".into() },
    ]
    .into_iter()
    .map(|result| CommandResult {
        revision: 301,
        succeeded: !result.is_undone(),
        results: vec![result],
    })
    .collect()
}

#[test]
fn golden_bytes_of_commands_and_results() {
    let commands = samples()
        .into_iter()
        .map(|command| (format!("{command:?}"), command.encode().to_vec()));
    let results = results()
        .into_iter()
        .map(|result| (format!("{result:?}"), codec::encode(1, &result)));
    golden::check(
        "kv/golden/command.txt",
        &commands.chain(results).collect::<Vec<_>>(),
    );
}

#[test]
fn every_command_comes_back_as_it_was_encoded() {
    for command in samples() {
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Ok(command));
        for len in 0..bytes.len() {
            assert!(Command::decode(&bytes[..len]).is_err());
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(
            Command::decode(&longer),
            Err(DecodeError::TrailingBytes { bytes: 1 })
        );
    }
    for result in results() {
        assert_eq!(codec::decode(1, &codec::encode(1, &result)), Ok(result));
    }
}

#[test]
fn what_cannot_be_decoded_is_told_apart() {
    assert_eq!(Command::decode(b""), Err(DecodeError::Empty));
    assert_eq!(Command::decode(&[0, 0]), Err(DecodeError::Malformed));
    assert_eq!(
        Command::decode(&[5, 0]),
        Err(DecodeError::NewerVersion { found: 5, known: 4 })
    );
    assert_eq!(Command::decode(&[1, 99]), Err(DecodeError::Malformed));
}

/// Case 61: a batch of the ceiling and of one more; a length that no input could fill.
#[test]
fn lists_are_bounded_before_memory_is_taken() {
    let delete = Op::Delete {
        range: KeyRange::All,
        want_previous: false,
    };
    let txn = |count| {
        Command::Txn(Txn {
            then: vec![delete.clone(); count],
            ..Txn::default()
        })
    };
    assert!(Command::decode(&txn(TXN_LIST_CEILING).encode()).is_ok());
    assert_eq!(
        Command::decode(&txn(TXN_LIST_CEILING + 1).encode()),
        Err(DecodeError::Malformed)
    );
    // A transaction that claims 2^63 comparisons, and a put with a key of as many bytes.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(
        Command::decode(&[&[1, 1], &huge[..]].concat()),
        Err(DecodeError::Malformed)
    );
    assert_eq!(
        Command::decode(&[&[1, 0, 0], &huge[..]].concat()),
        Err(DecodeError::Malformed)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Case 62: arbitrary bytes end in a command or a typed error, and a command encodes to what it was decoded from
    /// but for numbers written longer than needed.
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..100),
        sample in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let samples = samples();
        let mut changed = samples[sample.index(samples.len())].encode().to_vec();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        for bytes in [[&[COMMAND_VERSION], &bytes[..]].concat(), bytes, changed] {
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
            }
        }
    }
}
