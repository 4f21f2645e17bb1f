//! The fast checker against the slow one, on small random histories.

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use kvd_sim::check::history::{History, Model, OpId, Operation, Outcome};
use kvd_sim::check::kv::{Action, Expect, KeyAnswer, KeyHistory, KeyModel, KeyOp, Stamp};
use kvd_sim::check::linearizable::{STEPS_MAX_DEFAULT, Verdict, Violation, Witness, check};
use kvd_sim::check::text;

use super::shared::{
    Looks, Losses, draw_intents, execute, is_linearizable_slowly, other_answer, replays,
};

/// Random histories of each kind.
const SEEDS: u64 = 3000;

/// More operations take the slow checker too long.
const OPERATIONS_MAX: usize = 6;

const LOSSES: Losses = Losses {
    unknown: 300,
    refused: 80,
};

/// Checks with both, and the proof or the explanation of the fast one too.
fn judge(history: &KeyHistory) -> bool {
    let model = KeyModel::for_history(history);
    let slowly = is_linearizable_slowly(&model, history);
    let told = || text::render(history);
    match check(&model, history, STEPS_MAX_DEFAULT) {
        Verdict::Linearizable(witness) => {
            assert!(slowly, "taken for good:\n{}", told());
            check_witness(&model, history, &witness);
            true
        }
        Verdict::Violation(violation) => {
            assert!(!slowly, "taken for bad:\n{}{violation}", told());
            check_violation(&model, history, &violation);
            false
        }
        Verdict::Undecided(undecided) => panic!("{undecided}"),
    }
}

/// The order is one: all answered operations are in it, in time, and replay.
fn check_witness<M: Model>(model: &M, history: &History<M::Input, M::Output>, witness: &Witness) {
    let order = witness.orders.concat();
    for (id, operation) in history.operations().iter().enumerate() {
        let times = order.iter().filter(|it| it.0 == id).count();
        let least = usize::from(operation.output().is_some());
        let most = usize::from(operation.is_possible());
        assert!(
            (least..=most).contains(&times),
            "{id} is placed {times} times"
        );
    }
    let order: Vec<_> = order.iter().map(|id| &history.operations()[id.0]).collect();
    for (place, later) in order.iter().enumerate() {
        let turned = order[..place]
            .iter()
            .any(|earlier| later.is_before(earlier));
        assert!(!turned, "against the order of time: {later:?}");
    }
    assert!(replays(model, order));
}

/// What was invoked up to the named return is wrong, and without the answers from that return on it is right.
fn check_violation(model: &KeyModel, history: &KeyHistory, violation: &Violation) {
    let order = |id: OpId| {
        let operation = &history.operations()[id.0];
        let returned = operation.returned().unwrap_or(u64::MAX);
        (returned, operation.invoked, id)
    };
    let (mut with, mut without) = (KeyHistory::default(), KeyHistory::default());
    for (id, operation) in history.operations().iter().enumerate() {
        let mut operation = operation.clone();
        if operation.invoked > violation.returned {
            continue;
        }
        with.push(operation.clone()).expect("times are in order");
        if operation.output().is_some() && order(OpId(id)) >= order(violation.stuck) {
            operation.outcome = Outcome::Unknown;
        }
        without.push(operation).expect("times are in order");
    }
    assert!(!is_linearizable_slowly(model, &with), "{violation}");
    assert!(is_linearizable_slowly(model, &without), "{violation}");
}

fn looks(rng: &mut StdRng) -> Looks {
    Looks {
        versions: rng.random_bool(0.3),
        revisions: rng.random_bool(0.3),
    }
}

fn draw(seed: u64) -> (StdRng, KeyHistory) {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = rng.random_range(1..=OPERATIONS_MAX);
    let clients = rng.random_range(2..5);
    let intents = draw_intents(&mut rng, (count, clients, 1), LOSSES);
    let looks = looks(&mut rng);
    (rng, execute(&intents, looks))
}

#[test]
fn executed_histories_are_good() {
    for seed in 0..SEEDS {
        let (_, history) = draw(seed);
        assert!(judge(&history), "seed {seed}:\n{}", text::render(&history));
    }
}

/// One answer, one return or one outcome is changed: mostly for the worse.
#[test]
fn both_agree_on_broken_histories() {
    let mut bad = 0;
    for seed in 0..SEEDS {
        let (mut rng, history) = draw(seed);
        if !judge(&break_one(&mut rng, &history)) {
            bad += 1;
        }
    }
    assert!(
        (SEEDS / 3..SEEDS).contains(&bad),
        "{bad} of {SEEDS} are bad"
    );
}

fn break_one(rng: &mut StdRng, history: &KeyHistory) -> KeyHistory {
    let chosen = rng.random_range(0..history.operations().len());
    let mut broken = KeyHistory::default();
    for (place, operation) in history.operations().iter().enumerate() {
        let mut operation = operation.clone();
        if place == chosen {
            break_operation(rng, &mut operation);
        }
        broken.push(operation).expect("times are in order");
    }
    broken
}

fn break_operation(rng: &mut StdRng, operation: &mut Operation<KeyOp, KeyAnswer>) {
    let next = match &operation.outcome {
        Outcome::Returned { .. } if rng.random_bool(0.2) => Outcome::Failed,
        Outcome::Returned { at, output } => Outcome::Returned {
            at: *at,
            output: other_answer(rng, output),
        },
        Outcome::Unknown => Outcome::Failed,
        Outcome::Failed => Outcome::Unknown,
    };
    operation.outcome = next;
}

fn stamp() -> impl Strategy<Value = Stamp> {
    let version = prop_oneof![5 => Just(None), 1 => (1..3_u64).prop_map(Some)];
    let revision = prop_oneof![5 => Just(None), 1 => (1..5_u64).prop_map(Some)];
    (version, revision).prop_map(|(version, revision)| Stamp { version, revision })
}

fn action_and_answer() -> impl Strategy<Value = (Action, KeyAnswer)> {
    let value = || (0..3_u8).prop_map(|digit| digit.to_string().into());
    prop_oneof![
        Just((Action::Get, KeyAnswer::Absent)),
        (value(), stamp()).prop_map(|(value, stamp)| (Action::Get, KeyAnswer::Value(value, stamp))),
        (value(), stamp()).prop_map(|(value, stamp)| (Action::Put(value), KeyAnswer::Set(stamp))),
        stamp().prop_map(|stamp| (Action::Delete, KeyAnswer::Removed(stamp))),
        Just((Action::Delete, KeyAnswer::NothingRemoved)),
        (value(), value(), any::<bool>()).prop_map(|(from, value, differs)| {
            let expect = Expect::Value(from);
            let answer = match differs {
                true => KeyAnswer::Differs,
                false => KeyAnswer::Set(Stamp::default()),
            };
            (Action::CompareAndSet { expect, value }, answer)
        }),
        (1..4_i64, stamp())
            .prop_map(|(sum, stamp)| (Action::Increment(1), KeyAnswer::Number(sum, stamp))),
    ]
}

fn operation() -> impl Strategy<Value = Operation<KeyOp, KeyAnswer>> {
    let what = action_and_answer();
    (0..4_u64, 0..12_u64, 0..8_u64, 0..10_u8, what).prop_map(
        |(process, invoked, takes, fate, (action, output))| Operation {
            process,
            invoked,
            input: KeyOp {
                key: "x".into(),
                action,
            },
            outcome: match fate {
                0 => Outcome::Failed,
                1..4 => Outcome::Unknown,
                _ => Outcome::Returned {
                    at: invoked + takes,
                    output,
                },
            },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any history at all, most of them nonsense.
    #[test]
    fn both_agree_on_any_history(operations in vec(operation(), 0..=OPERATIONS_MAX)) {
        let mut history = KeyHistory::default();
        for operation in operations {
            history.push(operation).expect("times are in order");
        }
        judge(&history);
    }
}
