//! The command line of `kvd`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::config::key::{KEYS, Key};

/// Where the configuration lies when nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/kvd/kvd.toml";

/// A replicated, strongly consistent key-value store.
#[derive(Debug, Parser)]
#[command(
    name = "kvd",
    version,
    disable_help_subcommand = true,
    after_help = "First steps:\n  kvd demo                      three nodes in this process, and a shell on them\n  kvctl cluster init prod n1=10.0.0.1:7400 n2=10.0.0.2:7400 n3=10.0.0.3:7400\n  kvd join n1.kvd --start       on each node, with its own bundle"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Verb,
    /// What is logged: error, warn, info, debug, trace, or a filter like raft_net=debug. Default: info; of a demo: warn.
    #[arg(long, global = true, env = "KVD_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, env = "KVD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text, coloured on a terminal, without time below systemd.
    Auto,
    /// Text without colour.
    Text,
    /// One JSON object a line.
    Json,
}

/// The verbs of `kvd`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a node: kvd run --config /etc/kvd/kvd.toml
    Run(RunArgs),
    /// Run a whole cluster in this process, with a shell: kvd demo --nodes 3
    Demo(DemoArgs),
    /// Run one node without a shell, to develop against: kvd dev
    Dev(DevArgs),
    /// Make this machine a member: kvd join n1.kvd --start
    Join(JoinArgs),
    /// Look at the configuration: kvd config check
    Config(ConfigArgs),
    /// Look into a log, also beside a running node: kvd wal verify /var/lib/kvd
    Wal(WalArgs),
    /// Print the version: kvd version
    Version,
}

/// `kvd wal`
#[derive(Debug, clap::Args)]
pub struct WalArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: WalVerb,
}

/// Ways to look into a log. Output is JSON lines; nothing is written to the directory.
#[derive(Debug, Subcommand)]
pub enum WalVerb {
    /// Print segments, floor, watermark, term and vote: kvd wal inspect /var/lib/kvd
    Inspect(WalDir),
    /// The same, with every record read; exit code 65 if anything is damaged: kvd wal verify /var/lib/kvd
    Verify(WalDir),
    /// Print entries: kvd wal dump /var/lib/kvd --from 100 --to 120
    Dump {
        /// The directory.
        #[command(flatten)]
        dir: WalDir,
        /// First index.
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// Last index.
        #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
    },
}

/// Where a log lies.
#[derive(Debug, clap::Args)]
pub struct WalDir {
    /// The data directory of a node, or the directory of its log.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `kvd run`
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration file.
    #[arg(long, env = "KVD_CONFIG", default_value = DEFAULT_CONFIG, value_name = "FILE")]
    pub config: PathBuf,
    /// Settings that overwrite the file.
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// `kvd demo`
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// Keep the data here; without it a temporary directory is used and removed.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Execute the lines of a file (`-`: standard input) and stop at the first failure.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Serve until a signal, without the shell.
    #[arg(long, conflicts_with = "script")]
    pub no_shell: bool,
}

/// `kvd dev`
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Keep the data here; without it a temporary directory is used and removed.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `kvd join`
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// The node's secret bundle, made by `kvctl cluster init`.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Put configuration, certificates, data and admin socket below this directory.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Enable and start the systemd unit afterwards.
    #[arg(long, conflicts_with = "dir")]
    pub start: bool,
}

/// `kvd config`
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// The verbs of `kvd config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Report all problems at once: kvd config check
    Check(RunArgs),
    /// Print every value and where it comes from: kvd config show
    Show(RunArgs),
    /// Print a file with every key at its default: kvd config default
    Default,
}

/// One flag per key of the configuration, made from the table of keys.
#[derive(Clone, Debug, Default)]
pub struct SettingFlags {
    /// The flags that were given.
    pub given: Vec<(&'static Key, String)>,
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = KEYS
            .iter()
            .filter_map(|key| Some((key, matches.get_one::<String>(&key.flag())?.clone())))
            .collect();
        Ok(SettingFlags { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| {
            command.arg(
                Arg::new(key.flag())
                    .long(key.flag())
                    .value_name(key.kind.placeholder())
                    .help(format!("{} [env: {}]", key.doc, key.variable()))
                    .help_heading("Settings (over the file)")
                    .hide_short_help(true)
                    .allow_hyphen_values(true)
                    .action(ArgAction::Set),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_key_of_the_configuration_is_a_flag_of_run() {
        let cli = Cli::try_parse_from(["kvd", "run", "--raft-election-timeout", "1s"]).unwrap();
        let Verb::Run(run) = cli.command else {
            panic!("not run");
        };
        let given: Vec<(String, String)> = run
            .settings
            .given
            .into_iter()
            .map(|(key, value)| (key.path(), value))
            .collect();
        assert_eq!(
            given,
            [("raft.election_timeout".to_owned(), "1s".to_owned())]
        );
    }

    #[test]
    fn every_verb_begins_its_help_with_an_example_or_a_sentence() {
        for verb in Cli::command().get_subcommands() {
            let about = verb
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                about.contains(": kvd "),
                "{} has no example",
                verb.get_name()
            );
        }
    }

    #[test]
    fn start_and_dir_exclude_each_other() {
        let error = Cli::try_parse_from(["kvd", "join", "n1.kvd", "--dir", "d", "--start"]);
        assert_eq!(error.unwrap_err().exit_code(), 2);
    }
}
