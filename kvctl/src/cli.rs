//! The command line of `kvctl`: all help text is here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Talks to a kvd cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kvctl",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, found, healthy; 1 a clear no (absent, comparison failed, unhealthy); 2 usage;\n3 nobody could be reached; 4 no leader or quorum, nothing was written; 5 outcome unknown, it may have happened;\n6 not authorised; 7 refused (too large, overloaded, no space); 70 a bug or this machine failed."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Nodes to ask, HOST:PORT or unix:PATH, separated by commas; one that answers is enough.
    #[arg(
        short,
        long,
        global = true,
        env = "KVCTL_ENDPOINTS",
        value_delimiter = ',',
        value_name = "ADDR,..."
    )]
    pub(crate) endpoints: Vec<String>,
    /// Certificate of this user, PEM.
    #[arg(long, global = true, env = "KVCTL_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of this user, PEM, mode 0600.
    #[arg(
        long = "key",
        id = "tls_key",
        global = true,
        env = "KVCTL_KEY",
        value_name = "FILE"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Certificates of the cluster's authority, PEM.
    #[arg(long, global = true, env = "KVCTL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The cluster to talk to, by its name in `kvctl context list`.
    #[arg(long, global = true, env = "KVCTL_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Layout of what is printed; auto: for people on a terminal, plain otherwise.
    #[arg(short, long, global = true, env = "KVCTL_OUTPUT", value_enum, default_value_t = Format::Auto, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// How long a command may take.
    #[arg(long, global = true, env = "KVCTL_TIMEOUT", default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// How fresh what is read must be; local asks one node only and may be stale.
    #[arg(long, global = true, env = "KVCTL_CONSISTENCY", value_enum, default_value_t = Consistency::Linearizable)]
    pub(crate) consistency: Consistency,
    /// When to use colours.
    #[arg(long, global = true, env = "KVCTL_COLOR", value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
    /// Say nothing but results and errors.
    #[arg(short, long, global = true, env = "KVCTL_QUIET", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) quiet: bool,
    /// Say what is being done.
    #[arg(short, long, global = true, env = "KVCTL_VERBOSE", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Never ask and never read a value from standard input.
    #[arg(long, global = true, env = "KVCTL_NO_INPUT", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) no_input: bool,
    /// Answer yes to every question.
    #[arg(short, long, global = true, env = "KVCTL_YES", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) yes: bool,
}

/// Layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people on a terminal, plain otherwise.
    Auto,
    /// One record a line, fields separated by tabs, with \t \n \\ \xNN.
    Plain,
    /// One JSON object.
    Json,
    /// Byte for byte.
    Raw,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    /// As new as everything acknowledged before.
    Linearizable,
    /// What one node happens to hold.
    Local,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a key: kvctl set color red
    Set(SetArgs),
    /// Read a key, or several: kvctl get color
    Get(GetArgs),
    /// Remove keys: kvctl del color size
    Del(DelArgs),
    /// List keys: kvctl ls user/
    Ls(LsArgs),
    /// Write a key if it holds a certain value: kvctl cas color red blue
    Cas(CasArgs),
    /// Add to a number and print it: kvctl incr visits
    Incr(IncrArgs),
    /// Write many keys from a file: kvctl import words.tsv
    Import(ImportArgs),
    /// Print many keys: kvctl export > all.tsv
    Export(ExportArgs),
    /// Show the cluster at a glance: kvctl status
    Status,
    /// Say whether the cluster serves: kvctl health --wait 30s
    Health(HealthArgs),
    /// Show the leader, or hand leadership over: kvctl leader transfer n2
    Leader(LeaderArgs),
    /// Show or change the members: kvctl member list
    #[command(subcommand)]
    Member(MemberVerb),
    /// Manage the logs of the nodes: kvctl log discard
    #[command(subcommand)]
    Log(LogVerb),
    /// Read the logs of the nodes through and say whether they are sound; what is damaged is repaired from peers: kvctl scrub
    Scrub {
        /// The nodes; without one all members.
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Make a new cluster: kvctl cluster init prod n1=10.0.0.1:7400 n2=10.0.0.2:7400 n3=10.0.0.3:7400
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Manage the clusters this user knows: kvctl context list
    #[command(subcommand)]
    Context(ContextVerb),
    /// Print the version: kvctl version
    Version,
}

/// `set`
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The key.
    #[arg(allow_hyphen_values = true, value_parser = a_key())]
    pub(crate) key: OsString,
    /// The value; `-` or nothing: from standard input, unless that is a terminal.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: Option<OsString>,
    /// Take the value from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
    /// Only if there is no such key.
    #[arg(long, conflicts_with_all = ["if_version", "if_value"])]
    pub(crate) if_absent: bool,
    /// Only if the key has this version.
    #[arg(long, value_name = "N", conflicts_with = "if_value")]
    pub(crate) if_version: Option<u64>,
    /// Only if the key holds this value.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub(crate) if_value: Option<OsString>,
    /// Print what the key held before.
    #[arg(long)]
    pub(crate) prev: bool,
    /// A name for this write: repeated with the same name it never takes effect twice. At most 16 bytes of text, or 32 hex digits.
    #[arg(long, value_name = "ID", value_parser = parse_request_id)]
    pub(crate) request_id: Option<u128>,
}

/// `get`
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The key; with --prefix or --range where they begin.
    #[arg(allow_hyphen_values = true)]
    pub(crate) key: OsString,
    /// All keys that begin with KEY.
    #[arg(long, conflicts_with = "range")]
    pub(crate) prefix: bool,
    /// All keys from KEY to END, END excluded.
    #[arg(long, value_name = "END", allow_hyphen_values = true)]
    pub(crate) range: Option<OsString>,
    /// At most so many keys.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Only the keys.
    #[arg(long, conflicts_with = "count")]
    pub(crate) keys: bool,
    /// Only how many.
    #[arg(long)]
    pub(crate) count: bool,
    /// Version and revisions as well.
    #[arg(long)]
    pub(crate) meta: bool,
    /// Print this when the key is absent, and succeed.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true, conflicts_with_all = ["prefix", "range"])]
    pub(crate) default: Option<OsString>,
    /// Ask this node; with --consistency local: what it holds.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

/// `del`
#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    /// The keys.
    #[arg(required = true, allow_hyphen_values = true, value_parser = a_key())]
    pub(crate) keys: Vec<OsString>,
}

/// `ls`
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only keys that begin with this.
    #[arg(allow_hyphen_values = true)]
    pub(crate) prefix: Option<OsString>,
    /// At most so many keys.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

/// `cas`
#[derive(Debug, Args)]
pub(crate) struct CasArgs {
    /// The key.
    #[arg(allow_hyphen_values = true, value_parser = a_key())]
    pub(crate) key: OsString,
    /// What it must hold.
    #[arg(allow_hyphen_values = true)]
    pub(crate) old: OsString,
    /// What it shall hold.
    #[arg(allow_hyphen_values = true)]
    pub(crate) new: OsString,
}

/// `incr`
#[derive(Debug, Args)]
pub(crate) struct IncrArgs {
    /// The key; absent counts as 0.
    #[arg(allow_hyphen_values = true, value_parser = a_key())]
    pub(crate) key: OsString,
    /// What to add.
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
    /// A name for this write: repeated with the same name it never takes effect twice.
    #[arg(long, value_name = "ID", value_parser = parse_request_id)]
    pub(crate) request_id: Option<u128>,
}

/// Layouts of files with many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// KEY, tab, VALUE, with \t \n \\ \xNN.
    Tsv,
    /// One JSON object a line with "key" and "value".
    Jsonl,
}

/// `import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file; `-`: standard input.
    pub(crate) file: PathBuf,
    /// Its layout.
    #[arg(long, value_enum, default_value_t = FileFormat::Tsv)]
    pub(crate) format: FileFormat,
    /// Keys in one write; a write takes effect as a whole.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(crate) batch: u16,
    /// At most so many keys a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
}

/// `export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Only keys that begin with this.
    #[arg(allow_hyphen_values = true)]
    pub(crate) prefix: Option<OsString>,
    /// Layout.
    #[arg(long, value_enum, default_value_t = FileFormat::Tsv)]
    pub(crate) format: FileFormat,
    /// Ask this node; with --consistency local: what it holds.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

/// `health`
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Wait until the cluster is healthy, at most so long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// Every member must answer and know the leader.
    #[arg(long)]
    pub(crate) require_all: bool,
}

/// `leader`
#[derive(Debug, Args)]
pub(crate) struct LeaderArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<LeaderVerb>,
}

/// The verbs of `leader`.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaderVerb {
    /// Print the leader: kvctl leader show
    Show,
    /// Hand leadership over: kvctl leader transfer n2
    Transfer {
        /// To this node; without it to the one best suited.
        node: Option<String>,
    },
}

/// The verbs of `log`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogVerb {
    /// Snapshot now, and discard the log that no kept snapshot needs; waits until it is done: kvctl log discard n3
    Discard {
        /// The nodes; without one all members.
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
    },
}

/// The verbs of `member`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// Show who the members are and what decisions take: kvctl member list
    List,
    /// Take in new nodes, which learn first and then vote by themselves: kvctl member add n4=10.0.0.4:7400 --bundle n4.kvd
    Add {
        /// The new nodes and where they are reached.
        #[arg(required = true, value_name = "NODE=ADDR")]
        nodes: Vec<String>,
        #[command(flatten)]
        new: NewNodeArgs,
    },
    /// Make voters of learners now, or say why not yet: kvctl member promote n4
    Promote {
        /// The learners.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// Only say what would come of it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Let members leave for good, all in one step: kvctl member remove n3
    Remove {
        /// The members.
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// Its name once more instead of a question; repeated for several.
        #[arg(long, value_name = "NODE")]
        confirm: Vec<String>,
        /// Only say what would come of it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Let a new node take the place of a member once it has caught up: kvctl member replace n3 n4=10.0.0.4:7400 --bundle n4.kvd
    Replace {
        /// The member that leaves for good.
        #[arg(value_name = "NODE")]
        old: String,
        /// The new node and where it is reached.
        #[arg(value_name = "NODE=ADDR")]
        node: String,
        #[command(flatten)]
        new: NewNodeArgs,
    },
    /// Tell the cluster that members are reached elsewhere: kvctl member update n2=10.0.0.12:7400
    Update {
        /// The members and where they are reached now.
        #[arg(required = true, value_name = "NODE=ADDR")]
        nodes: Vec<String>,
        /// Only say what would come of it.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What a new node needs.
#[derive(Debug, Args)]
pub(crate) struct NewNodeArgs {
    /// Write the secret bundle for `kvd join` into this new file; repeated for several nodes.
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Vec<PathBuf>,
    /// The id in a certificate that somebody else has issued, 16 hex digits; repeated for several nodes.
    #[arg(long, value_name = "ID", conflicts_with = "bundle", value_parser = parse_node_id)]
    pub(crate) id: Vec<u64>,
    /// Key of the cluster's authority; without it ca.key beside its certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_key: Option<PathBuf>,
    /// Where a node's HTTP side door listens; without it 127.0.0.1:7480, counting up on the same host.
    #[arg(long, value_name = "NODE=ADDR")]
    pub(crate) http: Vec<String>,
    /// How long the certificate is valid.
    #[arg(long, value_name = "N", default_value_t = raft_net::pki::CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// Only say what would come of it; no bundle is written.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The verbs of `cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Make certificates and one secret bundle per node: kvctl cluster init prod n1=10.0.0.1:7400
    Init(InitArgs),
}

/// `cluster init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the cluster.
    pub(crate) name: String,
    /// Its nodes and where they are reached.
    #[arg(required = true, value_name = "NODE=ADDR")]
    pub(crate) nodes: Vec<String>,
    /// Where the files go; without it into a new directory named after the cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where a node's HTTP side door listens; without it 127.0.0.1:7480, counting up on the same host.
    #[arg(long, value_name = "NODE=ADDR")]
    pub(crate) http: Vec<String>,
    /// How long the certificates are valid.
    #[arg(long, value_name = "N", default_value_t = raft_net::pki::CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// Do not add a context.
    #[arg(long)]
    pub(crate) no_context: bool,
}

/// The verbs of `context`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextVerb {
    /// List all: kvctl context list
    List,
    /// Make one the default: kvctl context use prod
    Use {
        /// Its name.
        name: String,
    },
    /// Show one, or the default: kvctl context show prod
    Show {
        /// Its name.
        name: Option<String>,
    },
    /// Forget one; its certificates stay: kvctl context remove prod
    Remove {
        /// Its name.
        name: String,
    },
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|_| "expected a duration like 500ms or 5s")?;
    if duration.is_zero() {
        return Err("must be longer than nothing".to_owned());
    }
    Ok(duration)
}

fn parse_node_id(text: &str) -> Result<u64, String> {
    let id = u64::from_str_radix(text, 16).ok();
    id.filter(|id| text.len() == 16 && *id != 0)
        .ok_or_else(|| "expected 16 hex digits".to_owned())
}

/// 32 hex digits are taken as they are (so is a UUID), a shorter text as its bytes: both are 128 bits.
fn parse_request_id(text: &str) -> Result<u128, String> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() == 32
        && let Ok(id) = u128::from_str_radix(&digits, 16)
    {
        return Ok(id);
    }
    if text.is_empty() || text.len() > 16 {
        return Err("expected 1 to 16 bytes of text, or 32 hex digits".to_owned());
    }
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(u128::from_le_bytes(bytes))
}

/// A key has at least one byte; that is known before anybody is asked.
fn a_key() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|key| match key.is_empty() {
        true => Err("a key has at least one byte"),
        false => Ok(key),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every leaf takes every global flag, so `-o json` is nowhere an unknown option.
    #[test]
    fn every_command_takes_every_format_and_begins_its_help_with_an_example() {
        let mut command = Cli::command();
        command.build();
        check(&command, "kvctl");
    }

    fn check(command: &clap::Command, path: &str) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name());
            check(verb, &path);
            if verb.has_subcommands() && verb.get_name() != "leader" {
                continue;
            }
            assert!(
                verb.get_arguments().any(|arg| arg.get_id() == "output"),
                "{path}"
            );
            let about = verb
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(about.contains(": kvctl "), "{path} has no example: {about}");
        }
    }

    #[test]
    fn values_may_begin_with_a_dash() {
        let cli = Cli::try_parse_from(["kvctl", "set", "k", "-1"]).unwrap();
        let Verb::Set(set) = cli.verb else {
            panic!("not set")
        };
        assert_eq!(set.value, Some(OsString::from("-1")));
        let cli = Cli::try_parse_from(["kvctl", "incr", "k", "-5"]).unwrap();
        let Verb::Incr(incr) = cli.verb else {
            panic!("not incr")
        };
        assert_eq!(incr.by, -5);
    }

    #[test]
    fn formats_that_do_not_exist_yet_and_unknown_verbs_are_usage_errors() {
        for arguments in [
            ["kvctl", "-o", "table", "status"],
            ["kvctl", "-o", "jsonl", "status"],
        ] {
            assert_eq!(Cli::try_parse_from(arguments).unwrap_err().exit_code(), 2);
        }
        assert_eq!(
            Cli::try_parse_from(["kvctl", "frobnicate"])
                .unwrap_err()
                .exit_code(),
            2
        );
    }

    #[test]
    fn a_request_id_is_text_or_hex_digits() {
        assert_eq!(parse_request_id("job-17"), parse_request_id("job-17"));
        assert_ne!(parse_request_id("job-17"), parse_request_id("job-18"));
        assert_eq!(
            parse_request_id("000000000000000000000000000000ff"),
            Ok(255)
        );
        assert!(parse_request_id("").is_err());
        assert!(parse_request_id("more than sixteen bytes").is_err());
    }
}
