//! The checker of strict serializability: against the slow one, against kvd's own store, and with many transactions.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use bytes::Bytes;

use kvd::kv::command::{CmpOp, Command, Compare, KeyRange, Op, OpResult, RangeQuery, Test, Txn};
use kvd_sim::check::history::{Model, Operation, Outcome};
use kvd_sim::check::serial::{NumberedStore, RUNS_MAX_DEFAULT, SerialVerdict};
use kvd_sim::check::store::{self, Answer, Request, StoreHistory, StoreModel, StoreState};
use kvd_sim::check::text;

use super::shared::{Fate, Losses, Served, is_linearizable_slowly};

const SEEDS: u64 = 2000;

/// The store as a model for the slow checker, which looks at no revision.
struct Whole;

impl Model for Whole {
    type State = StoreState;
    type Input = Request;
    type Output = Answer;

    fn initial(&self) -> StoreState {
        StoreModel.initial()
    }

    fn step(
        &self,
        state: &StoreState,
        input: &Request,
        seen: Option<&Answer>,
    ) -> Option<StoreState> {
        let mut next = state.clone();
        let expected = StoreModel.run(&mut next, input);
        let fits = seen.is_none_or(|seen| StoreModel.agrees(&expected, seen));
        fits.then_some(next)
    }
}

fn key(rng: &mut StdRng) -> Bytes {
    ["a", "b", "ba"][rng.random_range(0..3)].into()
}

fn value(rng: &mut StdRng) -> Bytes {
    rng.random_range(0..3).to_string().into()
}

fn draw_query(rng: &mut StdRng) -> RangeQuery {
    match rng.random_range(0..4) {
        0 => RangeQuery::new(KeyRange::All),
        1 => RangeQuery::new(KeyRange::Prefix("b".into())),
        _ => RangeQuery::key(key(rng)),
    }
}

fn draw_step(rng: &mut StdRng) -> Op {
    match rng.random_range(0..6) {
        0..2 => Op::Put {
            key: key(rng),
            value: value(rng),
            want_previous: false,
        },
        2 => Op::Delete {
            range: KeyRange::Key(key(rng)),
            want_previous: false,
        },
        3 => Op::Increment {
            key: key(rng),
            by: if rng.random_bool(0.1) { i64::MAX } else { 1 },
        },
        _ => Op::Range(draw_query(rng)),
    }
}

fn draw_compare(rng: &mut StdRng) -> Compare {
    let op = [CmpOp::Equal, CmpOp::NotEqual, CmpOp::Less, CmpOp::Greater][rng.random_range(0..4)];
    let number = rng.random_range(0..4);
    let test = match rng.random_range(0..6) {
        0 => Test::Absent,
        1 => Test::Present,
        2 => Test::Version(op, number),
        3 => Test::CreateRevision(op, number),
        4 => Test::ModRevision(op, number),
        _ => Test::Value(op, value(rng)),
    };
    let key = key(rng);
    Compare { key, test }
}

fn draw_request(rng: &mut StdRng) -> Request {
    let mut steps = |count| (0..count).map(|_| draw_step(rng)).collect::<Vec<Op>>();
    let (then, otherwise) = (steps(2), steps(1));
    match rng.random_range(0..4) {
        0 => Request::Read(draw_query(rng)),
        1 => Request::Write(Command::Op(draw_step(rng))),
        _ => Request::Write(Command::Txn(Txn {
            compare: (0..rng.random_range(0..2))
                .map(|_| draw_compare(rng))
                .collect(),
            then,
            otherwise,
        })),
    }
}

/// What a random history is made of.
struct Shape {
    operations: u64,
    overlap: u64,
    losses: Losses,
}

/// A history of requests that kvd's own store ran one after the other, with overlapping times.
fn draw(rng: &mut StdRng, shape: &Shape) -> StoreHistory {
    let mut served = Served::default();
    let mut history = StoreHistory::default();
    for number in 0..shape.operations {
        let input = draw_request(rng);
        let effect = number * 10;
        let fate = shape.losses.draw(rng);
        let answer = match fate {
            Fate::Answered | Fate::AnswerLost => Some(serve(&mut served, &input)),
            Fate::RequestLost | Fate::Refused => None,
        };
        let outcome = match (fate, answer) {
            (Fate::Refused, _) => Outcome::Failed,
            (Fate::Answered, Some(output)) => Outcome::Returned {
                at: effect + rng.random_range(0..shape.overlap),
                output,
            },
            _ => Outcome::Unknown,
        };
        let operation = Operation {
            process: number % 5,
            invoked: effect.saturating_sub(rng.random_range(0..shape.overlap)),
            input,
            outcome,
        };
        history.push(operation).expect("times are in order");
    }
    history
}

fn serve(served: &mut Served, request: &Request) -> Answer {
    match request {
        Request::Write(command) => Answer::Written(served.write(command)),
        Request::Read(query) => Answer::Found(served.query(query)),
    }
}

/// Both checkers.
fn judge(history: &StoreHistory) -> bool {
    let slowly = is_linearizable_slowly(&Whole, history);
    let told = || text::render(history);
    match store::check(history, RUNS_MAX_DEFAULT) {
        SerialVerdict::Serializable { .. } => {
            assert!(slowly, "taken for good:\n{}", told());
            true
        }
        SerialVerdict::Violation(violation) => {
            assert!(!slowly, "taken for bad:\n{}{violation}", told());
            false
        }
        SerialVerdict::Undecided { runs } => panic!("undecided after {runs} runs"),
    }
}

fn small(rng: &mut StdRng) -> Shape {
    Shape {
        operations: rng.random_range(1..6),
        overlap: rng.random_range(1..40),
        losses: Losses {
            unknown: 300,
            refused: 80,
        },
    }
}

#[test]
fn executed_transactions_are_good() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = small(&mut rng);
        let history = draw(&mut rng, &shape);
        assert!(judge(&history), "seed {seed}:\n{}", text::render(&history));
    }
}

#[test]
fn both_agree_on_broken_transactions() {
    let mut bad = 0;
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = small(&mut rng);
        let history = draw(&mut rng, &shape);
        bad += u64::from(!judge(&break_one(&mut rng, &history)));
    }
    assert!(
        (SEEDS / 4..SEEDS).contains(&bad),
        "{bad} of {SEEDS} are bad"
    );
}

fn break_one(rng: &mut StdRng, history: &StoreHistory) -> StoreHistory {
    let chosen = rng.random_range(0..history.operations().len());
    let mut broken = StoreHistory::default();
    for (place, operation) in history.operations().iter().enumerate() {
        let mut operation = operation.clone();
        if place == chosen {
            let next = match operation.outcome {
                Outcome::Returned { .. } if rng.random_bool(0.1) => Outcome::Unknown,
                Outcome::Returned { at, output } => break_answer(rng, at, output),
                Outcome::Unknown => Outcome::Failed,
                Outcome::Failed => Outcome::Unknown,
            };
            operation.outcome = next;
        }
        broken.push(operation).expect("times are in order");
    }
    broken
}

fn break_answer(rng: &mut StdRng, at: u64, mut output: Answer) -> Outcome<Answer> {
    let shift = |revision: u64, up: bool| {
        if up {
            revision + 1
        } else {
            revision.saturating_sub(1)
        }
    };
    match &mut output {
        Answer::Written(result) => match result.results.first_mut() {
            Some(OpResult::Put { version, .. }) if rng.random_bool(0.3) => *version += 1,
            Some(OpResult::Incremented { value, .. }) if rng.random_bool(0.3) => *value ^= 1,
            _ if rng.random_bool(0.3) => result.succeeded = !result.succeeded,
            _ => result.revision = shift(result.revision, rng.random_bool(0.5)),
        },
        Answer::Found(result) => {
            if result.items.pop().is_some() && rng.random_bool(0.5) {
                result.count -= 1;
            } else {
                result.revision = shift(result.revision, rng.random_bool(0.5));
            }
        }
    }
    Outcome::Returned { at, output }
}

/// One run of the model for each operation, and few more where answers were lost.
#[test]
fn ten_thousand_transactions_take_one_run_each_and_one_per_lost_answer() {
    let mut rng = StdRng::seed_from_u64(1);
    let shape = Shape {
        operations: 10_000,
        overlap: 40,
        losses: Losses {
            unknown: 0,
            refused: 20,
        },
    };
    let history = draw(&mut rng, &shape);
    let answered = history
        .operations()
        .iter()
        .filter(|it| it.output().is_some());
    let answered = answered.count() as u64;
    match store::check(&history, 0) {
        SerialVerdict::Serializable { runs, filled } => {
            assert_eq!((runs, filled.len()), (answered, 0));
        }
        other @ (SerialVerdict::Violation(_) | SerialVerdict::Undecided { .. }) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn lost_answers_among_many_transactions_are_filled_in() {
    let mut rng = StdRng::seed_from_u64(2);
    let shape = Shape {
        operations: 2_000,
        overlap: 40,
        losses: Losses {
            unknown: 20,
            refused: 20,
        },
    };
    let history = draw(&mut rng, &shape);
    let filled = store::check(&history, RUNS_MAX_DEFAULT).expect_serializable();
    assert!(!filled.is_empty());
}

/// Three unknown writes are like each other to the very end, and a wrong answer there makes every order of them fail.
#[test]
fn a_search_without_enough_runs_says_that_nobody_knows() {
    let text = "good for a test\nmodel store\n\
        c1 0..? put a 1\nc2 0..? put b 2\nc3 0..? put c 3\n\
        c4 9..10 put d 4 -> @4 ok v2\n";
    let text::Body::Store(history) = text::parse(text).expect("a history").body else {
        panic!("another model");
    };
    let few = store::check(&history, 2);
    assert!(matches!(few, SerialVerdict::Undecided { .. }), "{few:?}");
    let many = store::check(&history, RUNS_MAX_DEFAULT);
    assert!(matches!(many, SerialVerdict::Violation(_)), "{many:?}");
}

#[test]
fn an_explanation_names_the_changes_before_the_wrong_answer_and_the_right_one() {
    let text = "good for a test\nmodel store\n\
        c1 0..1 put a 1 -> @1 ok v1\n\
        c2 2..3 get a -> @1 [ ]\n";
    let text::Body::Store(history) = text::parse(text).expect("a history").body else {
        panic!("another model");
    };
    let SerialVerdict::Violation(violation) = store::check(&history, RUNS_MAX_DEFAULT) else {
        panic!("taken for good");
    };
    let expected = "\
not strictly serializable
  before: c1 0..1 put a 1 -> @1 ok v1
  wrong: c2 2..3 get a -> @1 [ ]
  expected: @1 [ a=1:v1:c1:m1 ]";
    assert_eq!(violation.to_string(), expected);
}
