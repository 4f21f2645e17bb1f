//! `kvd demo`: a real cluster in one process, and a shell on it.
//!
//! Every node is complete: its own log on the real disk, its own endpoint on loopback, its own certificates, made on the spot
//! the way `kvctl cluster init` and `kvd join` make them.

mod cluster;
mod context;
mod faults;
mod line;
mod shell;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::cli::{DemoArgs, DevArgs};
use crate::exit::{ExitCode, Failure};

use self::cluster::Cluster;
use self::shell::Shell;

/// Runs `kvd demo`.
///
/// # Errors
/// The cluster could not be started, or a line of a script failed.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    let home = Home::new(args.data_dir.as_deref())?;
    let cluster = Cluster::start(home.path(), usize::from(args.nodes))?;
    print_welcome(&cluster);
    let mut shell = Shell::new(cluster)?;
    let outcome = match &args.script {
        _ if args.no_shell => serve_until_signal(),
        Some(path) if path != Path::new("-") => {
            let file = std::fs::File::open(path)
                .map_err(|error| Failure::new(ExitCode::Usage, error).in_file(path))?;
            run_script(&mut shell, std::io::BufReader::new(file))
        }
        None if std::io::stdin().is_terminal() => converse(&mut shell),
        Some(_) | None => run_script(&mut shell, std::io::stdin().lock()),
    };
    let stopped = shell.stop();
    outcome.and(stopped)
}

/// Runs `kvd dev`: one node, until a signal.
///
/// # Errors
/// The node could not be started.
pub fn run_dev(args: &DevArgs) -> Result<(), Failure> {
    let home = Home::new(args.data_dir.as_deref())?;
    let cluster = Cluster::start(home.path(), 1)?;
    print_welcome(&cluster);
    let shell = Shell::new(cluster)?;
    let outcome = serve_until_signal();
    let stopped = shell.stop();
    outcome.and(stopped)
}

/// Where a demo keeps its data: a given directory, or one that is removed at the end.
enum Home {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Home {
    fn new(given: Option<&Path>) -> Result<Home, Failure> {
        match given {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| Failure::storage(dir, &error))?;
                Ok(Home::Kept(dir.to_owned()))
            }
            None => {
                let parent = on_disk_temporary_directory();
                let made = tempfile::Builder::new()
                    .prefix("kvd-demo-")
                    .tempdir_in(&parent);
                Ok(Home::Temporary(
                    made.map_err(|error| Failure::storage(parent, &error))?,
                ))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Home::Kept(path) => path,
            Home::Temporary(dir) => dir.path(),
        }
    }
}

/// `/tmp` is often memory, where a sync proves nothing; `/var/tmp` survives a reboot, so it is on a disk.
fn on_disk_temporary_directory() -> PathBuf {
    let disk = PathBuf::from("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && disk.is_dir() {
        disk
    } else {
        std::env::temp_dir()
    }
}

fn print_welcome(cluster: &Cluster) {
    let kvctl = kvctl_command();
    println!(
        "{} nodes are up; data in {}",
        cluster.len(),
        cluster.dir().display()
    );
    for node in cluster.nodes() {
        println!(
            "  {}  quic {}  http {}",
            node.name,
            node.address,
            node.http_text()
        );
    }
    println!("In a second terminal:");
    println!("  {kvctl} {} set color red", cluster.kvctl_flags());
    println!("  {kvctl} {} get color", cluster.kvctl_flags());
    if let Some(http) = cluster.nodes().iter().find_map(|node| node.http) {
        println!("  curl -d value=blue http://{http}/set/color");
        println!("  curl http://{http}/get/color");
        println!("  curl http://{http}/status");
    }
}

/// The client beside this binary, or the way to run it from a checkout.
fn kvctl_command() -> String {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("kvctl"));
    match beside {
        Some(path) if path.is_file() => path.display().to_string(),
        _ => "cargo run -q --release -p kvctl --".into(),
    }
}

fn serve_until_signal() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let cannot = |error: std::io::Error| Failure::new(ExitCode::CannotStart, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// Executes lines until the first one fails.
fn run_script(shell: &mut Shell, lines: impl BufRead) -> Result<(), Failure> {
    for (number, line) in lines.lines().enumerate() {
        let line = line.map_err(|error| Failure::new(ExitCode::ScriptFailed, error))?;
        match shell.execute(&line) {
            Ok(shell::Flow::Go) => {}
            Ok(shell::Flow::Quit) => return Ok(()),
            Err(why) => {
                let what = format!("line {}: {}: {why}", number + 1, line.trim());
                return Err(Failure::new(ExitCode::ScriptFailed, what));
            }
        }
    }
    Ok(())
}

/// The shell on a terminal: a failed line is said and forgotten.
fn converse(shell: &mut Shell) -> Result<(), Failure> {
    println!("Type help for the commands, quit to leave.");
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("{} ", shell.prompt());
        // A terminal that is gone shows at the next read.
        let _ = std::io::stdout().flush();
        let Some(line) = lines.next() else {
            return Ok(());
        };
        let line = line.map_err(|error| Failure::new(ExitCode::ScriptFailed, error))?;
        match shell.execute(&line) {
            Ok(shell::Flow::Go) => {}
            Ok(shell::Flow::Quit) => return Ok(()),
            Err(why) => println!("error: {why}"),
        }
    }
}
