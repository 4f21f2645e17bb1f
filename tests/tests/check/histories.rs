//! Histories of known quality, in `testdata/histories`.

use std::path::{Path, PathBuf};

use kvd_sim::check::kv;
use kvd_sim::check::linearizable::{STEPS_MAX_DEFAULT, Verdict};
use kvd_sim::check::serial::{RUNS_MAX_DEFAULT, SerialVerdict};
use kvd_sim::check::store;
use kvd_sim::check::text::{self, Body, Example};

/// As many as there must be at least, so that a wrong path does not pass for success.
const EXAMPLES_MIN: usize = 70;

fn examples() -> Vec<(PathBuf, Example)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/histories");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("the directory is committed")
        .map(|entry| entry.expect("the directory can be read").path())
        .collect();
    files.sort();
    assert!(files.len() >= EXAMPLES_MIN, "{} histories", files.len());
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).expect("the file can be read");
            let example = text::parse(&text);
            let example = example.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            (file, example)
        })
        .collect()
}

/// The explanation, if the history is not right.
fn judge(body: &Body) -> Option<String> {
    match body {
        Body::Kv(history) => match kv::check(history, STEPS_MAX_DEFAULT) {
            Verdict::Linearizable(_) => None,
            Verdict::Violation(violation) => Some(violation.to_string()),
            Verdict::Undecided(undecided) => panic!("{undecided}"),
        },
        Body::Store(history) => match store::check(history, RUNS_MAX_DEFAULT) {
            SerialVerdict::Serializable { .. } => None,
            SerialVerdict::Violation(violation) => Some(violation.to_string()),
            SerialVerdict::Undecided { runs } => panic!("undecided after {runs} runs"),
        },
        Body::Once(history) => history.check().err().map(|error| error.to_string()),
    }
}

#[test]
fn known_histories_are_judged_right() {
    let mut wrong = Vec::new();
    for (file, example) in examples() {
        let found = judge(&example.body);
        if found.is_none() != example.is_good {
            let name = file.display();
            let found = found.unwrap_or_else(|| "taken for good".to_owned());
            wrong.push(format!("{name}: {}: {found}", example.why));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn known_histories_come_back_from_their_text() {
    for (file, example) in examples() {
        let operations = match &example.body {
            Body::Kv(history) => format!("model kv\n{}", text::render(history)),
            Body::Store(history) => format!("model store\n{}", text::render(history)),
            // What was applied is written by hand only.
            Body::Once(_) => continue,
        };
        let text = format!("good again\n{operations}");
        let again = text::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again.body, example.body, "{}", file.display());
    }
}
