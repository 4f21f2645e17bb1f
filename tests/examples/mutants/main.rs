//! Runs the mutants of `tests/mutants` against their suites: `cargo run -p kvd-sim --example mutants [-- NAME...]`
//!
//! Works on a copy of the tree, one mutant after the other. First the unchanged copy must pass every suite; then each mutant
//! is built, and one of its suites must fail. Prints a line for each and a table in Markdown at the end. Exits with 1 if one
//! survives, does not apply, does not compile, or if a suite does not end in time.

#![forbid(unsafe_code)]

mod cargo;
mod copy;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::cargo::{Cargo, Ended};
use self::copy::Copy;
use kvd_sim::mutants::Mutant;

/// Sabotages the product in a copy of the tree, one way after the other, and looks whether the tests notice.
#[derive(Parser)]
#[command(name = "mutants")]
struct Arguments {
    /// Only mutants whose name contains one of these.
    names: Vec<String>,
    /// Works here and leaves it, so that the next time less is compiled; otherwise in a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where cargo builds; `target` beside the copy unless given. Never that of another tree: cargo tells packages apart by
    /// their place in the workspace, and would take what it built of one tree for the other's.
    #[arg(long)]
    target_dir: Option<PathBuf>,
    /// Seconds that one suite may take, building not counted.
    #[arg(long, default_value_t = 900)]
    seconds: u64,
    /// Does not run the suites on the unchanged tree first.
    #[arg(long)]
    no_baseline: bool,
}

/// How a mutant ended.
enum Fate {
    Killed {
        suite: String,
        seconds: f64,
        how: String,
    },
    Survived,
    Failed(String),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match work(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all mutants were killed.
fn work(arguments: &Arguments) -> Result<bool, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut mutants = Mutant::read_all(&root.join("tests/mutants"))?;
    let names = &arguments.names;
    mutants.retain(|it| names.is_empty() || names.iter().any(|name| it.name.contains(name)));
    let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
    let dir = arguments.dir.as_deref().unwrap_or(temporary.path());
    let copy = Copy::make(&root, &dir.join("tree"))?;
    let target_dir = arguments.target_dir.as_deref();
    let target_dir = target_dir.map_or_else(|| dir.join("target"), Path::to_owned);
    let limit = Duration::from_secs(arguments.seconds);
    let cargo = Cargo::new(copy.path(), &target_dir, limit);
    if !arguments.no_baseline {
        check_baseline(&cargo, &mutants)?;
    }
    let mut rows = Vec::new();
    for mutant in &mutants {
        let fate = try_mutant(&copy, &cargo, mutant)?;
        println!("{}: {fate}", mutant.name);
        rows.push((mutant, fate));
    }
    print_table(&rows);
    Ok(rows
        .iter()
        .all(|(_, fate)| matches!(fate, Fate::Killed { .. })))
}

/// The unchanged tree passes all suites.
fn check_baseline(cargo: &Cargo, mutants: &[Mutant]) -> Result<(), String> {
    let suites: BTreeSet<&String> = mutants.iter().flat_map(|it| &it.suites).collect();
    for suite in suites {
        cargo.build(suite)?;
        match cargo.run(suite)? {
            Ended::Passed { seconds } => println!("unchanged: `{suite}` passes in {seconds:.0} s"),
            Ended::Failed { how, .. } => return Err(format!("unchanged: `{suite}` fails: {how}")),
            Ended::TooLate => return Err(format!("unchanged: `{suite}` does not end in time")),
        }
    }
    Ok(())
}

/// Applies a mutant, runs its suites until one fails, and takes it back.
fn try_mutant(copy: &Copy, cargo: &Cargo, mutant: &Mutant) -> Result<Fate, String> {
    let undo = match copy.apply(mutant) {
        Ok(undo) => undo,
        Err(error) => return Ok(Fate::Failed(error)),
    };
    let fate = run_suites(cargo, mutant);
    copy.put_back(undo)?;
    fate
}

fn run_suites(cargo: &Cargo, mutant: &Mutant) -> Result<Fate, String> {
    for suite in &mutant.suites {
        if let Err(error) = cargo.build(suite) {
            return Ok(Fate::Failed(error));
        }
        match cargo.run(suite)? {
            Ended::Passed { .. } => {}
            Ended::Failed { seconds, how } => {
                let suite = suite.clone();
                return Ok(Fate::Killed {
                    suite,
                    seconds,
                    how,
                });
            }
            Ended::TooLate => {
                let text = format!("`{suite}` did not end in time");
                return Ok(Fate::Failed(text));
            }
        }
    }
    Ok(Fate::Survived)
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fate::Killed {
                suite,
                seconds,
                how,
            } => write!(f, "killed by `{suite}` in {seconds:.0} s ({how})"),
            Fate::Survived => f.write_str("SURVIVED"),
            Fate::Failed(why) => write!(f, "ERROR: {why}"),
        }
    }
}

fn print_table(rows: &[(&Mutant, Fate)]) {
    println!(
        "\n| mutant | what is broken | killed by `cargo ...` | what it said |\n|---|---|---|---|"
    );
    for (mutant, fate) in rows {
        let (suite, how) = match fate {
            Fate::Killed { suite, how, .. } => (format!("`{suite}`"), how.clone()),
            Fate::Survived | Fate::Failed(_) => (fate.to_string(), String::new()),
        };
        println!("| {} | {} | {suite} | {how} |", mutant.name, mutant.broken);
    }
}
