//! Builds and runs suites with cargo, each in a process group of its own and not for ever.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How often a running suite is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Lines of the compiler that are shown when something does not compile.
const ERROR_LINES: usize = 8;

/// Cargo in one tree with one target directory.
pub(super) struct Cargo {
    tree: PathBuf,
    target_dir: PathBuf,
    limit: Duration,
}

/// How a suite ended.
pub(super) enum Ended {
    Passed { seconds: f64 },
    Failed { seconds: f64, how: String },
    TooLate,
}

impl Cargo {
    pub(super) fn new(tree: &Path, target_dir: &Path, limit: Duration) -> Cargo {
        Cargo {
            tree: tree.to_owned(),
            target_dir: target_dir.to_owned(),
            limit,
        }
    }

    /// Compiles what a suite needs, so that a mutant that does not compile is not taken for one that was noticed.
    pub(super) fn build(&self, suite: &str) -> Result<(), String> {
        let what = suite.split(" -- ").next().unwrap_or_default();
        let arguments = match what.split_once(' ') {
            Some(("test", rest)) => format!("test --no-run {rest}"),
            Some(("run", rest)) => format!("build {rest}"),
            _ => return Err(format!("`{suite}` neither tests nor runs")),
        };
        let output = self
            .command(&arguments)
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let errors = text.lines().skip_while(|line| !line.starts_with("error"));
        let errors: Vec<&str> = errors.take(ERROR_LINES).collect();
        Err(format!(
            "`{suite}` does not compile: {}",
            errors.join(" / ")
        ))
    }

    /// Runs a suite that was built.
    pub(super) fn run(&self, suite: &str) -> Result<Ended, String> {
        let told = |error: std::io::Error| format!("`{suite}`: {error}");
        let file = self.target_dir.join("suite.txt");
        let output = File::create(&file).map_err(told)?;
        let begun = Instant::now();
        let mut child = self
            .command(suite)
            .stdout(output.try_clone().map_err(told)?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(told)?;
        let status = wait(&mut child, begun + self.limit).map_err(told)?;
        let seconds = begun.elapsed().as_secs_f64();
        let Some(status) = status else {
            return Ok(Ended::TooLate);
        };
        if status.success() {
            return Ok(Ended::Passed { seconds });
        }
        let bytes = std::fs::read(&file).map_err(told)?;
        let how = what_failed(&String::from_utf8_lossy(&bytes)).ok_or_else(|| {
            format!("`{suite}` ended with {status} and named nothing that failed")
        })?;
        Ok(Ended::Failed { seconds, how })
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments.split_whitespace())
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target_dir);
        command
    }
}

/// Waits until a child ends; `None` if it did not in time. Then it is killed with all that it started.
fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let group = Pid::from_child(child);
    kill_process_group(group, Signal::KILL)?;
    child.wait().map(|_| None)
}

/// The first test, or the promise of the simulation, that the output says is broken.
fn what_failed(output: &str) -> Option<String> {
    output.lines().find_map(|line| {
        if let Some(name) = line.strip_prefix("test ") {
            return name.strip_suffix(" ... FAILED").map(str::to_owned);
        }
        let (_seed, broken) = line.strip_prefix("seed ")?.split_once(" FAILED ")?;
        broken.split(": ").next().map(str::to_owned)
    })
}
