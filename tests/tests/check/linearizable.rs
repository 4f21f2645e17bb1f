//! How far the checker of linearizability reaches: large histories, many unknown outcomes, and limits.

use rand::SeedableRng;
use rand::rngs::StdRng;

use kvd_sim::check::history::{OpId, Outcome};
use kvd_sim::check::kv::{self, Action, KeyAnswer, KeyHistory};
use kvd_sim::check::linearizable::{STEPS_MAX_DEFAULT, Verdict};
use kvd_sim::check::text::{self, Body};

use super::shared::{Looks, Losses, draw_intents, execute};

const BLIND: Looks = Looks {
    versions: false,
    revisions: false,
};

fn draw(seed: u64, shape: (usize, u64, u64), losses: Losses, looks: Looks) -> KeyHistory {
    let mut rng = StdRng::seed_from_u64(seed);
    execute(&draw_intents(&mut rng, shape, losses), looks)
}

const NO_LOSSES: Losses = Losses {
    unknown: 0,
    refused: 0,
};

/// Steps, not seconds: one takes well below a microsecond in release.
fn assert_steps(shape: (usize, u64, u64), losses: Losses, looks: Looks, steps_max: u64) {
    for seed in 0..3 {
        let history = draw(seed, shape, losses, looks);
        let witness = kv::check(&history, steps_max).expect_linearizable();
        let steps = witness.steps;
        assert!(steps <= steps_max, "seed {seed}: {steps} steps");
    }
}

#[test]
fn ten_thousand_operations_on_ten_keys_take_few_steps() {
    assert_steps((10_000, 8, 10), NO_LOSSES, BLIND, 60_000);
}

#[test]
fn ten_thousand_operations_on_one_key_take_few_steps() {
    assert_steps((10_000, 8, 1), NO_LOSSES, BLIND, 1_000_000);
}

const SOME_LOSSES: Losses = Losses {
    unknown: 100,
    refused: 50,
};

#[test]
fn unknown_outcomes_do_not_make_the_search_explode() {
    assert_steps((10_000, 8, 10), SOME_LOSSES, BLIND, 1_000_000);
}

#[test]
fn versions_and_revisions_do_not_make_the_search_explode() {
    let all = Looks {
        versions: true,
        revisions: true,
    };
    assert_steps((10_000, 8, 10), SOME_LOSSES, all, 300_000);
}

/// The first read of a value after the middle of the history, turned into one of a value that nobody wrote.
fn break_a_read(history: &KeyHistory) -> (KeyHistory, OpId) {
    let mut broken = KeyHistory::default();
    let mut changed = None;
    let middle = history.operations().len() / 2;
    for (place, operation) in history.operations().iter().enumerate() {
        let mut operation = operation.clone();
        let is_read = operation.input.action == Action::Get && operation.output().is_some();
        if let Outcome::Returned { output, .. } = &mut operation.outcome
            && is_read
            && place >= middle
            && changed.is_none()
        {
            *output = KeyAnswer::Value("nobody".into(), Default::default());
            changed = Some(OpId(place));
        }
        broken.push(operation).expect("times are in order");
    }
    (broken, changed.expect("there is a read"))
}

#[test]
fn a_wrong_answer_among_thousands_is_named_in_a_few_lines() {
    let (history, wrong) = break_a_read(&draw(1, (4_000, 8, 10), SOME_LOSSES, BLIND));
    match kv::check(&history, STEPS_MAX_DEFAULT) {
        Verdict::Violation(violation) => {
            assert_eq!(violation.stuck, wrong, "{violation}");
            let lines = violation.to_string().lines().count();
            assert!(lines < 150, "{lines} lines");
        }
        other @ (Verdict::Linearizable(_) | Verdict::Undecided(_)) => panic!("{other:?}"),
    }
}

#[test]
fn a_search_without_enough_steps_says_that_nobody_knows() {
    let history = draw(1, (1_000, 8, 1), NO_LOSSES, BLIND);
    match kv::check(&history, 100) {
        Verdict::Undecided(undecided) => {
            assert!((100..200).contains(&undecided.steps), "{undecided}");
            assert!(undecided.reached < undecided.answered, "{undecided}");
        }
        other @ (Verdict::Linearizable(_) | Verdict::Violation(_)) => panic!("{other:?}"),
    }
}

fn parse(operations: &str) -> KeyHistory {
    let text = format!("good for a test\nmodel kv\n{operations}");
    match text::parse(&text).expect("a history").body {
        Body::Kv(history) => history,
        other @ (Body::Store(_) | Body::Once(_)) => panic!("{other:?}"),
    }
}

#[test]
fn a_violation_counts_where_another_part_is_undecided() {
    let mut text = text::render(&draw(1, (1_000, 8, 1), NO_LOSSES, BLIND));
    text += "c1 0..1 get other -> =1\n";
    assert!(matches!(
        kv::check(&parse(&text), 100),
        Verdict::Violation(_)
    ));
}

#[test]
fn an_explanation_names_what_fits_what_does_not_and_what_else_was_open() {
    let history = parse(
        "c1 0..1 put x 1 -> set
         c2 5..? put x 3
         c1 10..20 put x 2 -> set
         c3 12..18 get x -> =2
         c4 19..30 get x -> =1
         c5 40..50 get x -> =2",
    );
    let Verdict::Violation(violation) = kv::check(&history, STEPS_MAX_DEFAULT) else {
        panic!("taken for good");
    };
    let expected = "\
not linearizable, part b\"x\": of 5 answered operations, those that returned before 30 fit
  fits: c1 0..1 put x 1 -> set
  fits: c1 10..20 put x 2 -> set
  fits: c3 12..18 get x -> =2
  cannot be placed: c4 19..30 get x -> =1
  also open: c2 5..? put x 3
  possible state before: =2
  possible state before: =3";
    assert_eq!(violation.to_string(), expected);
}
