//! The configuration of one node: flags over `KVD_*` environment over the TOML file over defaults.
//!
//! [`Config::load`] reads all layers and reports every problem at once, each with file, line and
//! caret ([`ConfigError::render`]). The table of keys is [`key::KEYS`].

mod check;
pub mod key;
mod layer;
mod problem;
mod show;
pub mod unit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_net::ClusterId;

pub use problem::{ConfigError, Invalid, Origin, Problem};
pub use show::default_file;

pub(crate) use check::SOCKET_PATH_BYTES_MAX;
pub(crate) use show::quoted;

use key::Key;

/// Everything that can be set for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The cluster that this node belongs to.
    pub cluster: ClusterConfig,
    /// This node on this machine.
    pub node: NodeConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// Times of the protocol.
    pub raft: RaftConfig,
    /// The write-ahead log.
    pub log: LogConfig,
    /// Snapshots.
    pub snapshot: SnapshotConfig,
    /// Bounds that are checked before memory is taken.
    pub limits: LimitsConfig,
    /// The HTTP side door.
    pub http: HttpConfig,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Made by `kvctl cluster init`; the certificate and the data directory must name the same.
    pub id: ClusterId,
    /// For people.
    pub name: String,
    /// Names and `host:port` of the members at the first start; later the log decides.
    pub members: BTreeMap<String, String>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Must be the name in the certificate and in the data directory.
    pub name: String,
    /// UDP address for peers and clients.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// The admin socket; `None` turns it off.
    pub socket: Option<PathBuf>,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Holds `ca.pem node.pem node.key deny`.
    pub dir: PathBuf,
}

/// `[raft]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// Time between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Silence after which a follower stands, randomised up to twice.
    pub election_timeout: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of one segment.
    pub segment_bytes: u64,
    /// Old log is discarded beyond this even for a slow follower.
    pub max_bytes: u64,
    /// Kept back so that a full disk is a refusal.
    pub reserve_bytes: u64,
}

impl LogConfig {
    /// The same as the log itself takes it.
    #[must_use]
    pub fn options(&self) -> raft_log::Options {
        raft_log::Options {
            segment_bytes: self.segment_bytes,
            max_bytes: self.max_bytes,
            reserve_bytes: self.reserve_bytes,
            ..raft_log::Options::default()
        }
    }
}

/// `[snapshot]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// A snapshot is made after this much log.
    pub every_bytes: u64,
    /// Number of snapshots kept.
    pub keep: usize,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Longest key.
    pub key_bytes: u64,
    /// Longest value.
    pub value_bytes: u64,
    /// Longest request.
    pub request_bytes: u64,
    /// Operations in one transaction.
    pub txn_ops: usize,
    /// Proposed but uncommitted bytes at the leader.
    pub uncommitted_bytes: u64,
    /// Client connections.
    pub clients: usize,
    /// Client connections of one certificate name.
    pub clients_per_identity: usize,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Loopback address of the side door; `None` turns it off.
    pub listen: Option<SocketAddr>,
}

/// Where the files of one node lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// The directory of the certificates.
    pub tls: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
}

impl Places {
    /// Where a system-wide installation has them.
    #[must_use]
    pub fn system() -> Places {
        Places {
            config: PathBuf::from("/etc/kvd/kvd.toml"),
            tls: PathBuf::from("/etc/kvd/tls"),
            data: PathBuf::from("/var/lib/kvd"),
            socket: PathBuf::from("/run/kvd/kvd.sock"),
        }
    }

    /// All below one directory, for tests and several nodes on one machine.
    #[must_use]
    pub fn below(dir: &Path) -> Places {
        Places {
            config: dir.join("kvd.toml"),
            tls: dir.join("tls"),
            data: dir.join("data"),
            socket: dir.join("kvd.sock"),
        }
    }
}

/// Where the layers come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment; names that do not begin with `KVD_` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags that were given.
    pub flags: Vec<(&'static Key, String)>,
}

impl Sources {
    /// A file and this process's environment.
    #[must_use]
    pub fn from_process(file: &Path, flags: Vec<(&'static Key, String)>) -> Sources {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("KVD_"))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        Sources {
            file: Some(file.to_owned()),
            environment,
            flags,
        }
    }
}

/// A checked configuration with the origin of each value.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What is doubtful but not wrong, rendered as text without colour.
    pub warnings: Vec<String>,
    settings: layer::Settings,
    file: Option<PathBuf>,
}

impl Config {
    /// The defaults for a node that keeps everything below one directory, as `kvd join --dir` lays it out.
    #[must_use]
    pub fn for_node(cluster: ClusterId, cluster_name: &str, name: &str, dir: &Path) -> Config {
        let sources = Sources {
            flags: key::KEYS
                .iter()
                .map(|key| (key, key.example.to_owned()))
                .collect(),
            ..Sources::default()
        };
        let mut config = Config::load_text(&sources, String::new())
            .expect("the defaults and examples of the table of keys are a valid configuration")
            .config;
        config.cluster.id = cluster;
        config.cluster.name = cluster_name.to_owned();
        config.node.name = name.to_owned();
        let places = Places::below(dir);
        config.node.data = places.data;
        config.node.socket = Some(places.socket);
        config.tls.dir = places.tls;
        config
    }

    /// Reads the configuration of a node that keeps everything below one directory, as `join` made it.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn below(dir: &Path) -> Result<Config, ConfigError> {
        let loaded = Config::load(&Sources {
            file: Some(Places::below(dir).config),
            ..Sources::default()
        })?;
        Ok(loaded.config)
    }

    /// Reads and checks all layers.
    ///
    /// # Errors
    /// The file cannot be read, or there are problems: then all of them.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let text = match &sources.file {
            None => String::new(),
            Some(file) => read_file(file)?,
        };
        Config::load_text(sources, text)
    }

    /// Like [`Config::load`] with the text of the file at hand.
    ///
    /// # Errors
    /// All problems that were found.
    pub fn load_text(sources: &Sources, text: String) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let mut settings = layer::defaults();
        layer::add_file(&mut settings, &text, &mut problems);
        layer::add_environment(&mut settings, &sources.environment, &mut problems);
        layer::add_flags(&mut settings, &sources.flags, &mut problems);
        let base = sources.file.as_deref().and_then(Path::parent);
        let config = check::understand(&settings, base, &mut problems);
        let mut invalid = Invalid {
            file: sources.file.clone(),
            text,
            problems,
        };
        let Some(config) = config.filter(|_| invalid.problems.is_empty()) else {
            invalid.problems.sort_by_key(position);
            return Err(ConfigError::Invalid(Box::new(invalid)));
        };
        let warnings = layer::unknown_variables(&sources.environment)
            .iter()
            .map(|warning| invalid.render_one(annotate_snippets::Level::WARNING, warning, false))
            .collect();
        Ok(Loaded {
            config,
            warnings,
            settings,
            file: sources.file.clone(),
        })
    }
}

fn read_file(file: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|source| ConfigError::Unreadable {
        file: file.to_owned(),
        source,
    })
}

/// Problems are shown in the order of the file, then those of other layers.
fn position(problem: &Problem) -> usize {
    match &problem.origin {
        Origin::File { span, .. } => span.start,
        Origin::Default | Origin::Environment(_) | Origin::Flag(_) => usize::MAX,
    }
}
