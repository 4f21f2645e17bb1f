//! State machines of users in the store: atomic, once, the same after a snapshot, and never without the program for it.

use serde::{Deserialize, Serialize};

use super::super::super::command::Custom;
use super::*;
use crate::machine::{Machines, State, StateMachine, View};

const APP: SessionRef = SessionRef::Named(0xa11ce);

/// A ledger whose commands do what the tests need.
struct Ledger<const VERSION: u32>;

#[derive(Serialize, Deserialize)]
enum Order {
    Add {
        account: String,
        amount: u64,
    },
    /// Takes from the first, and only then looks whether the second exists.
    Move {
        from: String,
        to: String,
        amount: u64,
    },
    Close {
        account: String,
    },
    Answer {
        bytes: usize,
    },
    WriteValue {
        bytes: usize,
    },
    WriteEmptyKey,
    Panic,
    Time,
    /// What no other replica has: stands for a machine that is not deterministic.
    Chance {
        writes: bool,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Rejected {
    NoAccount,
    TooLittle { balance: u64 },
}

impl<const VERSION: u32> StateMachine for Ledger<VERSION> {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = VERSION;
    type Command = Order;
    type Answer = Vec<u64>;
    type Rejection = Rejected;
    type Question = Option<String>;
    type Reply = Vec<(Vec<u8>, u64)>;

    fn apply(&self, state: &mut State<'_>, order: Order) -> Result<Vec<u64>, Rejected> {
        match order {
            Order::Add { account, amount } => {
                let balance = state.load(&account).unwrap_or(0) + amount;
                state.store(&account, &balance);
                Ok(vec![balance])
            }
            Order::Move { from, to, amount } => {
                let balance: u64 = state.load(&from).ok_or(Rejected::NoAccount)?;
                let left = balance
                    .checked_sub(amount)
                    .ok_or(Rejected::TooLittle { balance })?;
                state.store(&from, &left);
                state.store("last", &left);
                let balance: u64 = state.load(&to).ok_or(Rejected::NoAccount)?;
                state.store(&to, &(balance + amount));
                Ok(vec![left, balance + amount])
            }
            Order::Close { account } => Ok(vec![u64::from(state.delete(account))]),
            Order::Answer { bytes } => {
                state.store("answered", &1_u64);
                Ok(vec![1; bytes])
            }
            Order::WriteValue { bytes } => {
                state.store("before", &1_u64);
                state.put("large", vec![0; bytes]);
                Ok(vec![])
            }
            Order::WriteEmptyKey => {
                state.put("", "x");
                Ok(vec![])
            }
            Order::Panic => {
                state.store("half", &1_u64);
                panic!("out of cheese")
            }
            Order::Time => Ok(vec![
                state.log_time_ms(),
                state.index(),
                state.version().into(),
            ]),
            Order::Chance { writes: true } => {
                state.store("chance", &u64::from(VERSION));
                Ok(vec![])
            }
            Order::Chance { writes: false } => Ok(vec![VERSION.into()]),
        }
    }

    fn query(&self, view: &View<'_>, account: Option<String>) -> Vec<(Vec<u8>, u64)> {
        let prefix = account.unwrap_or_default();
        let accounts = view.load_prefix(prefix.as_bytes());
        accounts
            .map(|(key, balance)| (key.to_vec(), balance))
            .collect()
    }
}

fn ledger() -> Machines {
    Machines::from(Ledger::<1>)
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.machines = ledger();
    let stores = std::mem::take(&mut cluster.replicas);
    cluster.replicas = stores
        .into_iter()
        .map(|store| store.with_machines(ledger()))
        .collect();
    cluster
}

fn custom(version: u32, order: &Order) -> Command {
    Command::Custom(Custom {
        machine: "ledger".into(),
        version,
        command: encoded(order),
    })
}

fn encoded<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value).unwrap().into()
}

fn add(account: &str, amount: u64) -> Command {
    let account = account.to_owned();
    custom(1, &Order::Add { account, amount })
}

fn transfer(from: &str, to: &str, amount: u64) -> Command {
    let (from, to) = (from.to_owned(), to.to_owned());
    custom(1, &Order::Move { from, to, amount })
}

fn answered(answer: &[u64]) -> Vec<OpResult> {
    let answer = encoded(&answer);
    vec![OpResult::Answered { answer }]
}

fn rejected(rejection: &Rejected) -> Vec<OpResult> {
    let rejection = encoded(rejection);
    vec![OpResult::Rejected { rejection }]
}

fn ask(store: &Store, version: u32) -> Result<Vec<(Vec<u8>, u64)>, Refusal> {
    let asked = Custom {
        machine: "ledger".into(),
        version,
        command: encoded(&None::<String>),
    };
    let reply = store.ask(&asked)?;
    Ok(postcard::from_bytes(&reply).unwrap())
}

fn accounts(store: &Store) -> Vec<(String, u64)> {
    let all = ask(store, 1).unwrap().into_iter();
    all.map(|(key, balance)| (String::from_utf8(key).unwrap(), balance))
        .collect()
}

fn payload(command: Command) -> Bytes {
    Write::new(SessionRef::None, 0, command).payload(0)
}

#[test]
fn a_rejected_command_leaves_nothing_behind() {
    let mut cluster = cluster();
    assert_eq!(cluster.run(add("ann", 10)).results, answered(&[10]));
    let before = cluster.replicas[0].clone();

    let result = cluster.run(transfer("ann", "nobody", 4));
    assert_eq!(result.results, rejected(&Rejected::NoAccount));
    assert!(!result.succeeded);
    assert_eq!(result.revision, before.revision());
    assert_eq!(accounts(&cluster.replicas[0]), [("ann".into(), 10)]);

    let result = cluster.run(transfer("ann", "bob", 11));
    let balance = 10;
    assert_eq!(result.results, rejected(&Rejected::TooLittle { balance }));

    cluster.run(add("bob", 1));
    let result = cluster.run(transfer("ann", "bob", 4));
    assert_eq!(result.results, answered(&[6, 5]));
    assert_eq!(
        result.revision,
        before.revision() + 2,
        "one for each command"
    );
    let expected = [("ann".into(), 6), ("bob".into(), 5), ("last".into(), 6)];
    assert_eq!(accounts(&cluster.replicas[0]), expected);
    cluster.restart();
    assert_eq!(accounts(&cluster.replicas[1]), expected);
}

#[test]
fn the_state_of_a_machine_is_out_of_reach_of_keys_and_values() {
    let mut cluster = cluster();
    cluster.run(add("ann", 10));
    cluster.run(put("ann", "mine"));
    cluster.run(delete(KeyRange::All));
    assert_eq!(accounts(&cluster.replicas[0]), [("ann".into(), 10)]);
    assert_eq!(cluster.value("ann"), None);
    assert_eq!(cluster.replicas[0].key_count(), 0);
    assert_eq!(cluster.replicas[0].machine_key_count("ledger"), 1);
}

/// The answer was lost, and a snapshot and a restart came in between.
#[test]
fn a_repeated_command_runs_once_and_is_answered_alike() {
    let mut cluster = cluster();
    let first = Write::new(APP, 1, add("ann", 10));
    let answer = done(cluster.send(&first));
    assert_eq!(answer.1.results, answered(&[10]));
    let second = Write::new(APP, 2, transfer("ann", "nobody", 1));
    let rejection = done(cluster.send(&second));
    cluster.restart();
    assert_eq!(done(cluster.send(&first)), answer);
    assert_eq!(done(cluster.send(&second)), rejection);
    assert_eq!(accounts(&cluster.replicas[2]), [("ann".into(), 10)]);
}

#[test]
fn answers_kept_for_repetitions_count_towards_the_limits_of_sessions() {
    let mut cluster = cluster();
    cluster.limits.sessions.result_bytes = 2000;
    for replica in &mut cluster.replicas {
        replica.limits = cluster.limits;
    }
    let large = custom(1, &Order::Answer { bytes: 2000 });
    done(cluster.send(&Write::new(APP, 1, large)));
    assert!(cluster.replicas[0].sessions().kept_bytes() >= 2000);
    assert_eq!(
        refused(cluster.send(&Write::new(APP, 2, add("ann", 1)))),
        ApplyRefusal::SessionFull { limit: 2000 }
    );
}

#[test]
fn what_goes_beyond_a_limit_is_undone() {
    let mut cluster = cluster();
    let largest = cluster.limits.command.value_bytes;
    let cases = [
        custom(1, &Order::Answer { bytes: 1 << 20 }),
        custom(1, &Order::WriteValue { bytes: largest + 1 }),
        custom(1, &Order::WriteEmptyKey),
    ];
    for command in cases {
        let result = cluster.run(command);
        assert!(!result.succeeded, "{result:?}");
        assert!(result.results[0].is_undone(), "{result:?}");
        assert_eq!(accounts(&cluster.replicas[0]), []);
    }
    let result = cluster.run(custom(1, &Order::WriteValue { bytes: largest }));
    assert!(result.succeeded, "{result:?}");
    cluster.restart();
    let oversized = Custom {
        machine: "m".repeat(65),
        version: 1,
        command: Bytes::new(),
    };
    let refusal =
        refused(cluster.send(&Write::new(SessionRef::None, 0, Command::Custom(oversized))));
    assert!(matches!(refusal, ApplyRefusal::Limit(_)), "{refusal:?}");
}

/// Three replicas that lack something the others have: each must stop before the entry has any effect.
#[test]
fn a_replica_without_the_machine_stops_before_it_applies() {
    let without = |known| ApplyRefusal::NoMachine {
        machine: "ledger".into(),
        version: 2,
        known,
    };
    let command = custom(2, &Order::Time);
    for (machines, expected) in [
        (Machines::new(), without(None)),
        (Machines::from(Ledger::<1>), without(Some(1))),
    ] {
        let mut store = Store::new(StoreLimits::default()).with_machines(machines);
        let refusal = refused(store.apply(1, &payload(command.clone())));
        assert_eq!(refusal, expected);
        assert!(refusal.must_stop());
        assert_eq!(store.machine_key_count("ledger"), 0);
    }
    let mut store = Store::new(StoreLimits::default()).with_machines(Machines::from(Ledger::<3>));
    let (_, result) = done(store.apply(1, &payload(command)));
    assert_eq!(
        result.results,
        answered(&[0, 1, 2]),
        "the command's version"
    );
}

/// n1 applies a command of version 2 and writes what version 1 does not know; later comes a command of version 1.
#[test]
fn a_program_older_than_the_state_stops_at_any_command() {
    let mut newer = Store::new(StoreLimits::default()).with_machines(Machines::from(Ledger::<2>));
    done(newer.apply(1, &payload(custom(2, &Order::Time))));
    let (_, restored) = SnapshotReader::read(StoreLimits::default(), &snapshot(&newer)).unwrap();
    let mut older = restored.with_machines(ledger());
    let refusal = refused(older.apply(2, &payload(add("ann", 1))));
    assert!(refusal.must_stop(), "{refusal:?}");
    assert!(matches!(
        ask(&older, 1),
        Err(Refusal::NoMachine { version: 2, .. })
    ));
    done(newer.apply(2, &payload(add("ann", 1))));
}

#[test]
fn bytes_that_are_no_command_stop_the_replica_and_are_never_proposed() {
    let garbage = Custom {
        machine: "ledger".into(),
        version: 1,
        command: Bytes::from_static(&[99]),
    };
    let mut store = Store::new(StoreLimits::default()).with_machines(ledger());
    assert!(matches!(
        store.check_custom(&garbage),
        Err(Refusal::BadRequest { .. })
    ));
    let trailing = Custom {
        command: [&encoded(&Order::Time)[..], b"x"].concat().into(),
        ..garbage.clone()
    };
    assert!(store.check_custom(&trailing).is_err());
    let unknown = Custom {
        machine: "lodger".into(),
        ..garbage.clone()
    };
    assert!(matches!(
        store.check_custom(&unknown),
        Err(Refusal::NoMachine { known: None, .. })
    ));
    let zero = Custom {
        version: 0,
        command: encoded(&Order::Time),
        ..garbage.clone()
    };
    assert!(matches!(
        store.check_custom(&zero),
        Err(Refusal::BadRequest { .. })
    ));
    let sound = Custom { version: 1, ..zero };
    assert_eq!(store.check_custom(&sound), Ok(()));
    let refusal = refused(store.apply(1, &payload(Command::Custom(garbage))));
    assert!(refusal.must_stop(), "{refusal:?}");
}

#[test]
fn a_panic_stops_the_replica_and_leaves_no_half_of_a_command() {
    let mut store = Store::new(StoreLimits::default()).with_machines(ledger());
    let refusal = refused(store.apply(1, &payload(custom(1, &Order::Panic))));
    assert!(refusal.must_stop());
    assert_eq!(
        refusal.to_string(),
        "state machine ledger panicked: out of cheese"
    );
    assert_eq!(accounts(&store), []);
}

/// Two replicas whose machines are not deterministic: one writes something else, one answers something else.
#[test]
fn what_a_machine_writes_and_answers_is_in_the_hash_of_the_state() {
    let hash = |machines, writes| {
        let mut store = Store::new(StoreLimits::default()).with_machines(machines);
        done(store.apply(1, &payload(custom(1, &Order::Chance { writes }))));
        store.hash()
    };
    for writes in [true, false] {
        let ours = hash(ledger(), writes);
        assert_eq!(ours, hash(Machines::from(Ledger::<1>), writes));
        assert_ne!(ours, hash(Machines::from(Ledger::<2>), writes), "{writes}");
    }
}

#[test]
fn states_larger_than_a_block_come_back_from_a_snapshot() {
    let mut store = Store::new(StoreLimits::default()).with_machines(ledger());
    let mut index = 0;
    let mut apply = |store: &mut Store, command| {
        index += 1;
        done(store.apply(index, &payload(command)));
    };
    for account in 0..5000_u64 {
        apply(
            &mut store,
            add(
                &format!("an account with a long name {account:05}"),
                account,
            ),
        );
    }
    apply(&mut store, put("key", "value").into());
    let bytes = snapshot(&store);
    assert_eq!(bytes[8], 3, "only newer programs can read it");
    let (header, restored) = SnapshotReader::read(StoreLimits::default(), &bytes).unwrap();
    assert_eq!(header.hash, store.hash());
    let mut restored = restored.with_machines(ledger());
    assert_eq!(accounts(&restored), accounts(&store));
    assert_eq!(snapshot(&restored), bytes);
    let more = payload(add("ann", 1));
    assert_eq!(restored.apply(5002, &more), store.apply(5002, &more));
    assert_eq!(restored.hash(), store.hash());
}

/// What replicas compare takes in what the machines hold: the rolling hash does not see it.
#[test]
fn rotten_value_of_a_machine_is_in_the_hash_of_the_state() {
    let mut cluster = cluster();
    let add = Order::Add {
        account: "ann".into(),
        amount: 7,
    };
    cluster.run(custom(1, &add));
    let whole = &cluster.replicas[0];
    let mut rotten = whole.clone();
    let ledger = rotten.machines.get_mut("ledger").unwrap();
    ledger.data.get_mut(&b"ann"[..]).unwrap().value = "8".into();
    assert_eq!(rotten.hash(), whole.hash());
    assert_ne!(rotten.state_hash(), whole.state_hash());
}
