//! Random histories: replicas that take different ways to the same index hold the same state.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Skip,
    Write {
        client: u8,
        back: u8,
        ahead: bool,
        command: Command,
    },
    Wait(u32),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just("a"),
        Just("b"),
        Just("b/1"),
        Just("b/2"),
        Just("c"),
        Just("n")
    ]
    .prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        6 => key().prop_map(KeyRange::Key),
        2 => key().prop_map(KeyRange::Prefix),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::Between { start, end }),
        1 => Just(KeyRange::All),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (key(), "[0-9x]{0,3}", any::<bool>())
            .prop_map(|(key, value, want_previous)| Op::Put { key, value: value.into(), want_previous }),
        2 => (range(), any::<bool>()).prop_map(|(range, want_previous)| Op::Delete { range, want_previous }),
        1 => range().prop_map(|range| Op::Range(RangeQuery::new(range))),
        3 => (key(), any::<i8>()).prop_map(|(key, by)| Op::Increment { key, by: by.into() }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let ops = || prop::collection::vec(op(), 0..4);
    let test = prop_oneof![
        Just(Test::Present),
        Just(Test::Absent),
        Just(Test::Version(CmpOp::Greater, 1))
    ];
    let compare = (key(), test).prop_map(|(key, test)| Compare { key, test });
    prop_oneof![
        8 => op().prop_map(Command::Op),
        4 => (prop::collection::vec(compare, 0..2), ops(), ops())
            .prop_map(|(compare, then, otherwise)| Command::Txn(Txn { compare, then, otherwise })),
        1 => Just(Command::KeepAlive),
        1 => Just(Command::CloseSession),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Skip),
        1 => (0..2_000_000_u32).prop_map(Step::Wait),
        12 => (0..6_u8, 0..3_u8, any::<bool>(), command())
            .prop_map(|(client, back, ahead, command)| Step::Write { client, back, ahead, command }),
    ]
}

/// The payloads of a log; none is an entry without a command.
fn history(steps: Vec<Step>) -> Vec<Option<Bytes>> {
    let mut now_ms = 0;
    let mut sequences: HashMap<u8, u64> = HashMap::new();
    let mut log = Vec::new();
    for step in steps {
        match step {
            Step::Skip => log.push(None),
            Step::Wait(ms) => now_ms += u64::from(ms),
            Step::Write {
                client,
                back,
                ahead,
                command,
            } => {
                let highest = sequences.entry(client).or_insert(0);
                *highest += u64::from(back == 0 || ahead);
                let keeps = command == Command::KeepAlive;
                let sequence = if keeps {
                    0
                } else {
                    highest.saturating_sub(u64::from(back)).max(1)
                };
                let session = SessionRef::Named(client.into());
                let done_below = sequence.saturating_sub(3);
                let write = Write::new(session, sequence, command).done_below(done_below);
                log.push(Some(write.payload(now_ms)));
            }
        }
    }
    log
}

fn feed(store: &mut Store, log: &[Option<Bytes>]) {
    for payload in log {
        let index = store.applied_index() + 1;
        match payload {
            Some(payload) => drop(store.apply(index, payload)),
            None => store.skip(index),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_snapshot_and_the_rest_of_the_log_give_what_the_whole_log_gives(
        steps in prop::collection::vec(step(), 0..120),
        cut in any::<prop::sample::Index>(),
    ) {
        let sessions = SessionLimits { count: 4, kept_at_least_ms: 1000, results: 3, ..SessionLimits::default() };
        let limits = StoreLimits { sessions, ..StoreLimits::default() };
        let log = history(steps);
        let (before, after) = log.split_at(cut.index(log.len() + 1));

        let mut whole = Store::new(limits);
        feed(&mut whole, before);
        let frozen = whole.clone();
        feed(&mut whole, after);

        // The clone is taken before the rest was applied, the bytes are made afterwards.
        let (header, mut restored) = SnapshotReader::read(limits, &snapshot(&frozen)).unwrap();
        prop_assert_eq!(header.index, before.len() as u64);
        feed(&mut restored, after);

        prop_assert_eq!(restored.hash(), whole.hash());
        prop_assert_eq!(snapshot(&restored), snapshot(&whole));
    }
}
