//! Prints a log directory as JSON lines, also beside the process that uses it: nothing is written, no lock is taken.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use raft_log::print::{self, What};

const USAGE: &str = "usage: waldump inspect|verify|dump DIR [FROM [TO]]

  inspect   files, segments, floor, watermark, term and vote
  verify    the same, with every record read; exit code 65 if anything is damaged
  dump      every entry from index FROM to TO";

/// Exit codes as in sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((dir, what)) = parse(&args) else {
        eprintln!("{USAGE}");
        return EXIT_USAGE.into();
    };
    match print::print(&dir, what, &mut BufWriter::new(io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waldump: {error}");
            error.exit_code().into()
        }
    }
}

fn parse(args: &[String]) -> Option<(PathBuf, What)> {
    let (what, rest) = args.split_first()?;
    let (dir, range) = rest.split_first()?;
    let what = match (what.as_str(), range) {
        ("inspect", []) => What::Inspect,
        ("verify", []) => What::Verify,
        ("dump", []) => What::Dump {
            from: 0,
            to: u64::MAX,
        },
        ("dump", [from]) => What::Dump {
            from: from.parse().ok()?,
            to: u64::MAX,
        },
        ("dump", [from, to]) => What::Dump {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
        },
        _ => return None,
    };
    Some((dir.into(), what))
}
