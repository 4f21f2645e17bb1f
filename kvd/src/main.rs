//! The `kvd` binary: flags in, exit code out.

#![forbid(unsafe_code)]

mod service;

use std::io::{BufWriter, IsTerminal};

use clap::Parser;
use kvd::cli::{Cli, ConfigVerb, LogFormat, RunArgs, Verb, WalDir, WalVerb};
use kvd::config::{Config, ConfigError, Loaded, Sources};
use kvd::exit::{ExitCode, Failure};
use kvd::recover::RecoverError;
use raft_log::print::{PrintError, What};
use tracing_subscriber::EnvFilter;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let filter = cli.log.as_deref().unwrap_or(default_filter(&cli.command));
    start_logging(filter, cli.log_format);
    match run(cli.command) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            // Always the last line, whatever the log filter says.
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}

/// A shell is easier to read without what its nodes have to say.
fn default_filter(verb: &Verb) -> &'static str {
    match verb {
        Verb::Demo(_) | Verb::Dev(_) => "warn",
        Verb::Run(_) | Verb::Join(_) | Verb::Config(_) | Verb::Wal(_) | Verb::Version => "info",
    }
}

fn run(verb: Verb) -> Result<(), Failure> {
    raft_log::exit_on_unreadable_pages()
        .map_err(|error| Failure::start("the SIGBUS handler", &error))?;
    match verb {
        Verb::Run(args) => service::run(load(args)?.config),
        Verb::Demo(args) => kvd::demo::run(&args),
        Verb::Dev(args) => kvd::demo::run_dev(&args),
        Verb::Join(args) => kvd::join::run(&args),
        Verb::Config(args) => config(args.verb),
        Verb::Wal(args) => wal(args.verb),
        Verb::Version => {
            println!("kvd {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn load(args: RunArgs) -> Result<Loaded, Failure> {
    let sources = Sources::from_process(&args.config, args.settings.given);
    let loaded = Config::load(&sources).map_err(|error| explain(&error))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    Ok(loaded)
}

/// Shows all problems with file, line and caret; the failure is the one line after them.
fn explain(error: &ConfigError) -> Failure {
    eprintln!("{}", error.render(use_colour()));
    Failure::from(error)
}

fn wal(verb: WalVerb) -> Result<(), Failure> {
    let (WalDir { dir }, what) = match verb {
        WalVerb::Inspect(dir) => (dir, What::Inspect),
        WalVerb::Verify(dir) => (dir, What::Verify),
        WalVerb::Dump { dir, from, to } => (dir, What::Dump { from, to }),
    };
    let log = kvd::identity::log_dir(&dir);
    let dir = if log.is_dir() { log } else { dir };
    let out = std::io::stdout().lock();
    raft_log::print::print(&dir, what, &mut BufWriter::new(out)).map_err(failure_of)
}

fn failure_of(error: PrintError) -> Failure {
    match error {
        PrintError::Open(error) => error.into(),
        PrintError::Read(error) => RecoverError::Read(error).into(),
        PrintError::Output(error) => Failure::new(ExitCode::StorageIo, format!("output: {error}")),
        error @ (PrintError::Damaged { .. } | _) => Failure::new(ExitCode::DataDamaged, error),
    }
}

fn config(verb: ConfigVerb) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check(args) => {
            let file = args.config.clone();
            load(args)?;
            println!("{}: ok", file.display());
        }
        ConfigVerb::Show(args) => print!("{}", load(args)?.show()),
        ConfigVerb::Default => print!("{}", kvd::config::default_file()),
    }
    Ok(())
}

fn use_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn start_logging(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|error| {
        eprintln!("warning: log filter {filter}: {error}; using info");
        EnvFilter::new("info")
    });
    // The journal adds the time itself.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(use_colour());
    match format {
        LogFormat::Json => logger.json().init(),
        LogFormat::Auto if under_systemd => logger.without_time().init(),
        LogFormat::Text | LogFormat::Auto => logger.init(),
    }
}
