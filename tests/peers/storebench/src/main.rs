//! The store of kvd beside engines that others use: `storebench DIR [KEYS] [SECONDS] [ROUNDS]`. See README.md.

mod disk;
mod engine;
mod file;
mod measure;
mod memory;
mod ours;
mod published;

use std::path::{Path, PathBuf};
use std::time::Duration;

use measure::{Contestant, FIGURES, Filled};

/// Puts in a batch.
const BATCH: u64 = 500;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let dir = PathBuf::from(words.get(1).expect("a directory on the disk"));
    let keys = words.get(2).map_or(1_000_000, |text| parse(text));
    let seconds = words.get(3).map_or(1.0, |text| parse(text));
    let rounds: usize = words.get(4).map_or(5, |text| parse(text));
    let window = Duration::from_secs_f64(seconds);
    println!("{keys} keys, batches of {BATCH}, {rounds} rounds of {seconds} s windows");
    let mut contestants = vec![
        fill::<ours::Map>(&dir, keys),
        fill::<ours::Whole>(&dir, keys),
        fill::<memory::Plain>(&dir, keys),
        fill::<memory::Imbl>(&dir, keys),
        fill::<disk::Redb>(&dir, keys),
        fill::<disk::Fjall>(&dir, keys),
    ];
    let mut figures = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        let count = contestants.len();
        for turn in 0..count {
            // Each round begins with another one.
            let at = (round + turn) % count;
            figures[at].push(contestants[at].round(window));
        }
    }
    for (contestant, rounds) in contestants.iter().zip(&figures) {
        println!("\n{}", contestant.name());
        for (at, figure) in FIGURES.iter().enumerate() {
            println!("  {figure:34} {}", spread(rounds, at));
        }
    }
    println!();
    for contestant in contestants {
        let name = contestant.name();
        let (closed, opened) = contestant.reopen();
        println!("{name:10} closed in {closed:.2} s, open again after {opened:.3} s");
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("{text}: not a number"))
}

fn fill<E: engine::Engine + 'static>(dir: &Path, keys: u64) -> Box<dyn Contestant> {
    let before = resident_mib();
    let (filled, rate) = Filled::<E>::new(dir, keys, BATCH);
    println!(
        "{:10} filled at {rate:.0} puts/s, {:.0} MiB of memory more than before",
        E::NAME,
        resident_mib() - before
    );
    Box::new(filled)
}

/// Median, and in brackets the least and the most.
fn spread(rounds: &[Vec<f64>], at: usize) -> String {
    let mut sorted: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    let show = |figure: f64| match figure < 100.0 {
        true => format!("{figure:.3}"),
        false => format!("{figure:.0}"),
    };
    format!(
        "{} ({}-{})",
        show(sorted[sorted.len() / 2]),
        show(least),
        show(most)
    )
}

fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.expect("the kernel tells it") / 1024.0
}
