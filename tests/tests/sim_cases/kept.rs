//! Scenarios that once broke a promise, or nearly: each is a file with its story.

use std::path::{Path, PathBuf};

use kvd_sim::sim::{Scenario, Timeline, run};

fn kept() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sim");
    let entries = std::fs::read_dir(&dir).expect("the checkout can be read");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the checkout can be read").path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_kept_scenario_keeps_its_promises() {
    let files = kept();
    assert!(!files.is_empty(), "no scenario is kept");
    for file in files {
        let name = file.display();
        let text = std::fs::read_to_string(&file).expect("the checkout can be read");
        let scenario: Scenario = text
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!scenario.story.is_empty(), "{name} has no story");
        assert_eq!(scenario.to_string(), text, "{name} is not as it is printed");
        if let Err(failure) = run(&scenario, Timeline::off()).result {
            panic!("{name}: {failure}");
        }
    }
}
