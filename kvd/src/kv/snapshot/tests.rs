use proptest::prelude::*;

use super::*;
use crate::kv::auth::{Principal, Role};
use crate::kv::command::{Command, Op, command_crc};
use crate::kv::custom::MachineState;
use crate::kv::envelope::{Envelope, SessionRef};
use crate::kv::golden;
use crate::kv::members::{MemberEdit, MemberState, MemberUpdate};
use crate::kv::transaction::{Data, Record};

/// A store after `keys` puts of values of this size, by a few sessions.
fn store(keys: u64, value_bytes: usize) -> Store {
    salted_store(keys, value_bytes, 0)
}

/// Another salt: the same keys with other values.
fn salted_store(keys: u64, value_bytes: usize, salt: u8) -> Store {
    let mut store = Store::new(StoreLimits::default());
    for index in 1..=keys {
        let key = format!("key/{:05}", index * 7919 % 100_000);
        let value = vec![index.to_le_bytes()[0] ^ salt; value_bytes];
        put(&mut store, key.into(), value.into(), u128::from(index % 5));
    }
    store
}

fn put(store: &mut Store, key: Bytes, value: Bytes, name: u128) {
    let index = store.applied_index() + 1;
    let command = Command::from(Op::Put {
        key,
        value,
        want_previous: true,
    })
    .encode();
    let payload = Envelope {
        principal: Principal::new(Role::Client, "app").borrowed(),
        session: SessionRef::Named(name),
        sequence: index,
        // Skips the sequences that belong to the other sessions.
        done_below: index,
        log_time_ms: index * 10,
        command_crc: command_crc(&command),
        command: &command,
    }
    .encode();
    store.apply(index, &payload);
}

fn context() -> SnapshotContext {
    let member = |name: &str, id| MemberAddress {
        name: name.into(),
        id,
        address: "127.0.0.1:7400".into(),
    };
    SnapshotContext {
        term: 7,
        configuration: Bytes::from_static(b"n1 n2 n3"),
        configuration_index: 1,
        members: vec![member("n1", 1), member("n2", 2)],
        cluster: 0xc0ff_ee42,
        cluster_version: 1,
    }
}

fn encode(store: &Store) -> Vec<u8> {
    SnapshotWriter::new(store.clone(), context())
        .flatten()
        .collect()
}

fn read(bytes: &[u8]) -> Result<(SnapshotHeader, Store), SnapshotError> {
    SnapshotReader::read(StoreLimits::default(), bytes)
}

#[test]
fn a_store_comes_back_with_its_position_data_and_sessions() {
    for keys in [0, 1, 500] {
        let store = store(keys, 1000);
        let bytes = encode(&store);
        let (header, restored) = read(&bytes).unwrap();
        assert_eq!(header, SnapshotHeader::new(&store, context()));
        assert_eq!((restored.applied, restored.revision), (keys, keys));
        assert_eq!(restored.hash(), store.hash());
        assert_eq!(restored.log_time_ms(), store.log_time_ms());
        assert_eq!(restored.sessions().len(), keys.min(5) as usize);
        assert_eq!(
            restored.sessions().kept_bytes(),
            store.sessions().kept_bytes()
        );
        assert!(restored.data.iter().eq(store.data.iter()));
        assert_eq!(encode(&restored), bytes);
    }
}

#[test]
fn golden_bytes() {
    golden::check(
        "kv/golden/snapshot.txt",
        &[
            ("three keys".into(), encode(&store(3, 5))),
            ("members".into(), encode(&with_members())),
            ("machines".into(), encode(&with_machines())),
        ],
    );
}

/// A store whose cluster got a fourth member and lost the first.
fn with_members() -> Store {
    let mut store = store(3, 5);
    let member = |id| MemberAddress {
        name: format!("n{id}"),
        id,
        address: format!("10.0.0.{id}:7400"),
    };
    let update = MemberUpdate {
        founding: (1..=3).map(member).collect(),
        edits: vec![
            MemberEdit::Join {
                member: member(4),
                replaces: Some(1),
            },
            MemberEdit::State {
                id: 1,
                state: MemberState::Removed,
            },
        ],
    };
    store.members.apply(2, &update).unwrap();
    store
}

/// A store with two state machines, one of them without a key.
fn with_machines() -> Store {
    let mut store = store(3, 5);
    for (name, version, keys) in [("bank", 300, 2), ("queue", 1, 0)] {
        let mut data = Data::new();
        for key in 0..keys {
            let record = Record {
                value: format!("v{key}").into(),
                create_revision: 1,
                mod_revision: 300,
                version: 2,
            };
            data.insert(Bytes::from(format!("k{key}")).into(), record);
        }
        let state = MachineState { version, data };
        store.machines.insert(name.into(), state);
    }
    store
}

/// As for members: an older program names it as newer, and does not load it without the states.
#[test]
fn only_snapshots_with_machines_are_of_version_3() {
    let mut bytes = encode(&with_machines());
    assert_eq!(bytes[8..12], 3_u32.to_le_bytes());
    let (_, restored) = read(&bytes).unwrap();
    assert_eq!(encode(&restored), bytes);
    assert_eq!(restored.machine_key_count("bank"), 2);
    bytes[..PRELUDE_BYTES].copy_from_slice(&prelude(2));
    let error = read(&bytes).unwrap_err();
    assert!(
        matches!(error, SnapshotError::UnexpectedBlock { kind: 6, .. }),
        "{error}"
    );
}

#[test]
fn states_out_of_order_or_of_no_machine_are_malformed() {
    let machine = |name: &str, version| MachineElement::Machine {
        name: name.into(),
        version,
    };
    let key = |key: &'static str| {
        let record = Record {
            value: Bytes::new(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
        };
        MachineElement::Key(record.with_key(key.into()))
    };
    let cases = [
        vec![key("k")],
        vec![machine("b", 1), machine("a", 1)],
        vec![machine("a", 1), machine("a", 1)],
        vec![machine("a", 0)],
        vec![machine("", 1)],
        vec![machine("a", 1), key("k"), key("j")],
    ];
    for elements in cases {
        let mut bytes = prelude(3).to_vec();
        let header = SnapshotHeader::new(&store(3, 3), context());
        let header = crate::kv::codec::extend(Vec::new(), &header);
        let states = elements.iter().fold(Vec::new(), crate::kv::codec::extend);
        for ((kind, content), number) in [(1, header), (6, states)].into_iter().zip(0..) {
            let head = block_head(kind, u32::try_from(content.len()).unwrap(), number);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&block_crc(&head, &content).to_le_bytes());
            bytes.extend_from_slice(&content);
        }
        let error = read(&bytes).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Malformed { .. }),
            "{elements:?}: {error}"
        );
    }
}

#[test]
fn members_come_back_with_those_that_were_removed() {
    let store = with_members();
    let bytes = encode(&store);
    let (header, restored) = read(&bytes).unwrap();
    assert!(restored.members.iter().eq(store.members.iter()));
    assert!(restored.members.is_removed(1));
    assert_eq!(restored.members.digest(), store.members.digest());
    assert_eq!(header.members, store.members.addresses());
    assert_eq!(encode(&restored), bytes);
}

/// An older program must name a snapshot with members as newer than itself, and one without it must be able to read.
#[test]
fn only_snapshots_with_members_are_of_version_2() {
    let without = encode(&store(3, 5));
    assert_eq!(without[8..12], 1_u32.to_le_bytes());
    let mut with = encode(&with_members());
    assert_eq!(with[8..12], 2_u32.to_le_bytes());
    with[..PRELUDE_BYTES].copy_from_slice(&prelude(1));
    let error = read(&with).unwrap_err();
    assert!(
        matches!(error, SnapshotError::UnexpectedBlock { kind: 5, .. }),
        "{error}"
    );
}

#[test]
fn writes_go_on_while_the_frozen_state_is_written() {
    let mut store = store(2000, 200);
    let expected = encode(&store);
    let mut written = Vec::new();
    for block in SnapshotWriter::new(store.clone(), context()) {
        assert!(
            block.len() < 2 * BLOCK_BYTES,
            "a block of {} bytes",
            block.len()
        );
        written.extend_from_slice(&block);
        for index in 0..100 {
            put(
                &mut store,
                format!("key/{index:05}").into(),
                "new".into(),
                9,
            );
        }
    }
    assert_eq!(written, expected);
}

/// Case 36: any flipped byte of a snapshot is noticed.
#[test]
fn every_flipped_byte_is_detected() {
    let bytes = encode(&store(40, 20));
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            let error = read(&flipped).expect_err("a flipped byte");
            assert!(
                matches!(
                    error,
                    SnapshotError::NotASnapshot { .. }
                        | SnapshotError::Checksum { .. }
                        | SnapshotError::BlockTooLarge { .. }
                        | SnapshotError::Truncated { .. }
                ),
                "byte {at}: {error}"
            );
        }
    }
}

/// Case 36: a snapshot that was cut, or that something follows, is noticed at every length.
#[test]
fn every_truncation_and_extension_is_detected() {
    let bytes = encode(&store(40, 20));
    for len in 0..bytes.len() {
        assert_eq!(
            read(&bytes[..len]).unwrap_err(),
            SnapshotError::Truncated { offset: len as u64 }
        );
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(
        read(&longer).unwrap_err(),
        SnapshotError::TrailingBytes {
            offset: bytes.len() as u64
        }
    );
}

/// Case 36: blocks that are each sound, but not the ones that were written.
#[test]
fn lost_repeated_exchanged_and_foreign_blocks_are_detected() {
    let blocks: Vec<Bytes> = SnapshotWriter::new(store(2000, 200), context()).collect();
    assert!(blocks.len() > 8);
    for at in 1..blocks.len() - 1 {
        let mut lost = blocks.clone();
        lost.remove(at);
        let mut repeated = blocks.clone();
        repeated.insert(at, blocks[at].clone());
        let mut exchanged = blocks.clone();
        exchanged.swap(at, at + 1);
        for changed in [lost, repeated, exchanged] {
            let error = read(&changed.concat()).unwrap_err();
            assert!(
                matches!(error, SnapshotError::UnexpectedBlock { .. }),
                "{at}: {error}"
            );
        }
    }
    // A block with the same number and keys out of another snapshot: only the checksum over all tells.
    let others = salted_store(2000, 200, 1);
    let others: Vec<Bytes> = SnapshotWriter::new(others, context()).collect();
    let mut mixed = blocks;
    assert_ne!(mixed[3], others[3]);
    mixed[3] = others[3].clone();
    let error = read(&mixed.concat()).unwrap_err();
    let end: usize = mixed[..mixed.len() - 1].iter().map(Bytes::len).sum();
    assert!(
        matches!(error, SnapshotError::Checksum { offset, .. } if offset == end as u64),
        "{error}"
    );
}

#[test]
fn a_newer_version_is_named_and_a_length_takes_no_memory() {
    let newer = prelude(4);
    assert_eq!(
        read(&newer).unwrap_err(),
        SnapshotError::NewerVersion { found: 4, known: 3 }
    );

    let mut reader = SnapshotReader::new(StoreLimits::default());
    reader.push(&prelude(1)).unwrap();
    let head = block_head(1, u32::MAX, 0);
    let error = reader.push(&[&head[..], &[0; 100]].concat()).unwrap_err();
    assert!(
        matches!(error, SnapshotError::BlockTooLarge { offset: 16, .. }),
        "{error}"
    );
    assert_eq!(
        read(b"garbage, more of it, and still more").unwrap_err(),
        SnapshotError::NotASnapshot {
            found: *b"garbage,"
        }
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_arrive_in_pieces_of_any_size(keys in 0..300_u64, pieces in prop::collection::vec(1..5000_usize, 1..20)) {
        let bytes = encode(&store(keys, 300));
        let mut reader = SnapshotReader::new(StoreLimits::default());
        let mut rest = &bytes[..];
        for piece in pieces.iter().cycle() {
            let (taken, left) = rest.split_at((*piece).min(rest.len()));
            reader.push(taken).unwrap();
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        let (_, restored) = reader.finish().unwrap();
        prop_assert_eq!(encode(&restored), bytes);
    }

    /// Case 62: blocks with sound checksums and arbitrary contents end in a store or a typed error.
    #[test]
    fn arbitrary_contents_never_panic(
        version in 1..=2_u32,
        contents in prop::collection::vec((0..7_u32, prop::collection::vec(any::<u8>(), 0..60)), 0..5),
        with_header in any::<bool>(),
    ) {
        let mut bytes = prelude(version).to_vec();
        let mut blocks = contents;
        if with_header {
            let header = SnapshotHeader::new(&store(3, 3), context());
            blocks.insert(0, (1, crate::kv::codec::extend(Vec::new(), &header)));
        }
        for ((kind, content), number) in blocks.into_iter().zip(0..) {
            let head = block_head(kind, u32::try_from(content.len()).unwrap(), number);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&block_crc(&head, &content).to_le_bytes());
            bytes.extend_from_slice(&content);
        }
        if let Ok((_, store)) = read(&bytes) {
            drop(encode(&store));
        }
    }
}
