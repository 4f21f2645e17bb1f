//! Runs simulated clusters: one seed with its story, or many with figures.
//!
//! ```text
//! kvd-sim --seed 7                        # one run, with a timeline
//! kvd-sim --seeds 0..10000 --minutes 5    # many runs; the first failure is made short and printed
//! kvd-sim --scenario FILE                 # a scenario written down
//! ```

#![forbid(unsafe_code)]

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use kvd_sim::sim::campaign::{self, Campaign};
use kvd_sim::sim::{Failure, Scenario, Timeline, run, shrink, swarm};

/// Simulated clusters of kvd: the real driver, store and log over simulated disks, network and time.
#[derive(Parser)]
#[command(name = "kvd-sim", version)]
struct Arguments {
    /// Plays this seed and prints its timeline.
    #[arg(long, conflicts_with_all = ["seeds", "scenario"])]
    seed: Option<u64>,
    /// Plays these seeds, `FIRST..END`, on all processors.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Plays the scenario in this file and prints its timeline.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Ends after so many minutes, whatever seeds are left.
    #[arg(long, default_value_t = f64::INFINITY)]
    minutes: f64,
    /// Shows messages in the timeline, too.
    #[arg(long)]
    messages: bool,
    /// Prints figures only; of a failure the seed and what went wrong.
    #[arg(long)]
    quiet: bool,
    /// Writes the timeline as a picture.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Prints the scenario of `--seed` and does not play it.
    #[arg(long, requires = "seed")]
    print: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(first, end)| {
        let (first, end) = (first.parse().ok()?, end.parse().ok()?);
        Some(first..end)
    });
    parsed.ok_or_else(|| format!("{text:?} is no FIRST..END"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What a run finds is told once, with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    match work(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn work(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(seeds) = &arguments.seeds {
        return Ok(play_many(seeds.clone(), arguments));
    }
    let scenario = match (&arguments.scenario, arguments.seed) {
        (Some(file), _) => std::fs::read_to_string(file)?.parse()?,
        (None, Some(seed)) => swarm(seed),
        (None, None) => return Err("one of --seed, --seeds and --scenario is needed".into()),
    };
    if arguments.print {
        print!("{scenario}");
        return Ok(ExitCode::SUCCESS);
    }
    play_one(&scenario, arguments)
}

fn play_one(
    scenario: &Scenario,
    arguments: &Arguments,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let timeline = match (arguments.quiet, arguments.messages) {
        (true, _) => Timeline::off(),
        (false, true) => Timeline::with_messages(),
        (false, false) => Timeline::of_events(),
    };
    let outcome = run(scenario, timeline);
    print!("{}", outcome.timeline);
    if let Some(file) = &arguments.svg {
        std::fs::write(file, outcome.timeline.to_svg(scenario.nodes))?;
    }
    match outcome.result {
        Ok(figures) => {
            println!("{figures}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("FAILED {failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn play_many(seeds: Range<u64>, arguments: &Arguments) -> ExitCode {
    let limit = Duration::try_from_secs_f64(arguments.minutes * 60.0).unwrap_or(Duration::MAX);
    let Campaign { totals, failure } = campaign::run_seeds(seeds, limit);
    println!("{totals}");
    match failure {
        None => ExitCode::SUCCESS,
        Some((seed, failure)) => {
            println!("seed {seed} FAILED {failure}");
            if !arguments.quiet {
                tell_shortest(seed, failure);
            }
            ExitCode::FAILURE
        }
    }
}

/// Prints the shortest scenario found that fails in the same way, ready to be kept, and its story.
fn tell_shortest(seed: u64, failure: Failure) {
    let (scenario, failure) = shrink(&swarm(seed), failure);
    println!("---- the shortest scenario found that breaks the same promise ----");
    print!("{scenario}");
    println!("---- its story ----");
    print!("{}", run(&scenario, Timeline::of_events()).timeline);
    println!("FAILED {failure}");
}
