//! The mutants in `tests/mutants` are whole, and can still be applied. Running them takes long: `--example mutants`.

use std::collections::BTreeSet;
use std::path::Path;

use kvd_sim::mutants::Mutant;

/// So many at least are kept.
const COUNT_MIN: usize = 32;

/// So many at least are for the simulation of a whole cluster to find.
const SIMULATED_MIN: usize = 12;

fn mutants() -> Vec<Mutant> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    Mutant::read_all(&dir).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_mutant_still_applies_to_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for mutant in mutants() {
        for edit in &mutant.edits {
            let applied = std::fs::read_to_string(root.join(&edit.file))
                .map_err(|error| format!("{}: {error}", edit.file.display()))
                .and_then(|text| edit.apply(&text).map_err(|error| error.to_string()));
            found.extend(
                applied
                    .err()
                    .map(|error| format!("{}: {error}", mutant.name)),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn mutants_are_many_and_of_the_product_and_differ() {
    let mutants = mutants();
    assert!(mutants.len() >= COUNT_MIN, "{} mutants", mutants.len());
    let simulated = mutants.iter().filter(|it| {
        it.suites
            .iter()
            .any(|suite| suite.starts_with("run -p kvd-sim "))
    });
    assert!(simulated.count() >= SIMULATED_MIN);
    let numbers: BTreeSet<&str> = mutants
        .iter()
        .filter_map(|it| it.name.split('-').next())
        .collect();
    assert_eq!(numbers.len(), mutants.len(), "a number is used twice");
    for mutant in &mutants {
        for edit in &mutant.edits {
            let is_product = !edit.file.starts_with("tests");
            assert!(is_product, "{} changes a test", mutant.name);
            assert_ne!(edit.before, edit.after, "{} changes nothing", mutant.name);
        }
    }
}
