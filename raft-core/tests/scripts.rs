//! Every script of `testdata/` must give its transcript.

mod harness;

use std::path::{Path, PathBuf};

#[test]
fn scripts_give_their_transcripts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = std::fs::read_dir(&directory).expect("the scripts are there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", directory.display());
    let failures: Vec<String> = paths.iter().filter_map(|path| run(path).err()).collect();
    assert!(
        failures.is_empty(),
        "{} scripts differ:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

/// A script that breaks an invariant panics; its name is to be told like that of any other failure.
fn run(path: &Path) -> Result<(), String> {
    let result = std::panic::catch_unwind(|| harness::script::run_file(path));
    result.unwrap_or_else(|_| Err(format!("{} panicked, see above", path.display())))
}
