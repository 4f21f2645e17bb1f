//! From texts to a typed [`Config`], and the checks that need more than one value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_log::{OptionsError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use raft_net::ClusterId;

use super::layer::{Setting, Settings, Value};
use super::problem::{Origin, Problem};
use super::unit::{format_bytes, format_duration, parse_bytes, parse_duration};
use super::{
    ClusterConfig, Config, HttpConfig, LimitsConfig, LogConfig, NodeConfig, RaftConfig,
    SnapshotConfig, TlsConfig,
};
use crate::driver::TICK_MS;
use crate::kv::limits::CommandLimits;
use crate::names::{check_address, check_name};

/// Followers must miss several heartbeats before they stand: with fewer than five, one lost
/// datagram and one slow scheduling round are enough for an election.
const HEARTBEATS_PER_ELECTION_MIN: u32 = 5;
/// Longest election timeout; more is a slip of the unit.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// A slip of the unit.
const HEARTBEAT_MIN: Duration = Duration::from_millis(1);
/// Two ticks of the driver: both times are rounded up to ticks, and a heartbeat is one of them at least.
const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(2 * TICK_MS);
/// Room that a record needs in its segment beside the request: headers, principal, session.
const RECORD_OVERHEAD_BYTES: u64 = 4096;
/// A request must fit into one frame of the client protocol.
const REQUEST_BYTES_MAX: u64 = raft_net::limits::CLIENT_FRAME_BYTES_MAX as u64;
/// Path of a unix socket, without the closing zero (`sun_path`).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A segment size that surely holds a record of this size: twice as much, as a power of two.
fn roomy_segment(record_bytes: u64) -> u64 {
    record_bytes
        .saturating_mul(2)
        .checked_next_power_of_two()
        .unwrap_or(SEGMENT_BYTES_MAX)
        .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
}

/// Reads values by name and collects what is wrong with them.
struct Reader<'a> {
    settings: &'a Settings,
    base: Option<&'a Path>,
    problems: &'a mut Vec<Problem>,
}

/// Makes the typed configuration; `None` if a value could not be understood (then there is a problem).
pub(crate) fn understand(
    settings: &Settings,
    base: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut reader = Reader {
        settings,
        base,
        problems,
    };
    let cluster = reader.cluster();
    let node = reader.node();
    let tls = reader.path("tls.dir").map(|dir| TlsConfig { dir });
    let raft = reader.raft();
    let log = reader.log();
    let snapshot = reader.snapshot();
    let limits = reader.limits();
    let http = reader.http();
    let config = Config {
        cluster: cluster?,
        node: node?,
        tls: tls?,
        raft: raft?,
        log: log?,
        snapshot: snapshot?,
        limits: limits?,
        http: http?,
    };
    reader.check(&config);
    Some(config)
}

impl Reader<'_> {
    fn problem(&mut self, path: &str, title: String, label: String, help: Option<String>) {
        let origin = self
            .settings
            .get(path)
            .map_or(Origin::Default, |setting| setting.origin.clone());
        self.problems.push(Problem {
            title,
            label,
            origin,
            help,
        });
    }

    fn wrong(&mut self, path: &str, label: impl Into<String>) {
        self.problem(path, format!("{path} cannot be used"), label.into(), None);
    }

    /// The text of a setting; a missing one is a problem that says where it comes from.
    fn text(&mut self, path: &str) -> Option<String> {
        match self.settings.get(path) {
            Some(Setting {
                value: Value::Text(text),
                ..
            }) => Some(text.clone()),
            Some(_) | None => {
                let (section, name) = path.split_once('.').unwrap_or((path, path));
                self.problem(
                    path,
                    format!("{path} is not set"),
                    format!("[{section}] needs `{name}`"),
                    Some("`kvd join BUNDLE` writes a complete file".to_owned()),
                );
                None
            }
        }
    }

    fn parse<T>(&mut self, path: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(path)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong(path, format!("`{text}` {why}"));
                None
            }
        }
    }

    fn bytes(&mut self, path: &str) -> Option<u64> {
        self.parse(path, parse_bytes)
    }

    fn duration(&mut self, path: &str) -> Option<Duration> {
        self.parse(path, parse_duration)
    }

    fn count(&mut self, path: &str) -> Option<usize> {
        self.parse(path, |text| {
            text.replace('_', "")
                .parse()
                .map_err(|_| "is not a whole number".to_owned())
        })
    }

    fn listen(&mut self, path: &str) -> Option<SocketAddr> {
        self.parse(path, |text| {
            text.parse().map_err(|_| {
                "is not an address to listen on, like \"0.0.0.0:7400\" or \"[::]:7400\"".to_owned()
            })
        })
    }

    /// A path of the file is relative to the file, any other to the working directory.
    fn path(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path)?;
        if text.is_empty() {
            self.wrong(path, "is empty");
            return None;
        }
        let from_file = matches!(self.settings.get(path)?.origin, Origin::File { .. });
        match self.base.filter(|_| from_file) {
            Some(base) => Some(base.join(text)),
            None => Some(PathBuf::from(text)),
        }
    }

    fn cluster(&mut self) -> Option<ClusterConfig> {
        let id = self.parse("cluster.id", |text| {
            text.parse::<ClusterId>()
                .map_err(|_| "is not eight hex digits".to_owned())
        });
        let name = self.parse("cluster.name", |text| {
            check_name(text).map(|()| text.to_owned())
        });
        let members = self.members();
        Some(ClusterConfig {
            id: id?,
            name: name?,
            members: members?,
        })
    }

    fn members(&mut self) -> Option<BTreeMap<String, String>> {
        let path = "cluster.members";
        let Some(Value::Table(entries)) = self.settings.get(path).map(|s| s.value.clone()) else {
            self.wrong(path, "is not a table of names and addresses");
            return None;
        };
        let mut members = BTreeMap::new();
        let mut homes: BTreeMap<String, String> = BTreeMap::new();
        for (name, address, origin) in entries {
            let fault = check_name(&name)
                .map_err(|why| format!("the name `{name}` {why}"))
                .and_then(|()| check_address(&address).map_err(|why| format!("`{address}` {why}")))
                .err()
                .or_else(|| {
                    homes
                        .insert(address.clone(), name.clone())
                        .map(|other| format!("`{address}` is also the address of {other}"))
                });
            if let Some(label) = fault {
                self.problems.push(Problem {
                    title: format!("{path} cannot be used"),
                    label,
                    origin,
                    help: None,
                });
            }
            members.insert(name, address);
        }
        Some(members)
    }

    fn node(&mut self) -> Option<NodeConfig> {
        let name = self.parse("node.name", |text| {
            check_name(text).map(|()| text.to_owned())
        });
        let listen = self.listen("node.listen");
        let data = self.path("node.data");
        let socket = match self.text("node.socket") {
            Some(text) if text.is_empty() => Some(None),
            _ => self.path("node.socket").map(Some),
        };
        Some(NodeConfig {
            name: name?,
            listen: listen?,
            data: data?,
            socket: socket?,
        })
    }

    fn raft(&mut self) -> Option<RaftConfig> {
        let heartbeat = self.duration("raft.heartbeat");
        let election_timeout = self.duration("raft.election_timeout");
        Some(RaftConfig {
            heartbeat: heartbeat?,
            election_timeout: election_timeout?,
        })
    }

    fn log(&mut self) -> Option<LogConfig> {
        let segment_bytes = self.bytes("log.segment_bytes");
        let max_bytes = self.bytes("log.max_bytes");
        let reserve_bytes = self.bytes("log.reserve_bytes");
        Some(LogConfig {
            segment_bytes: segment_bytes?,
            max_bytes: max_bytes?,
            reserve_bytes: reserve_bytes?,
        })
    }

    fn snapshot(&mut self) -> Option<SnapshotConfig> {
        let every_bytes = self.bytes("snapshot.every_bytes");
        let keep = self.count("snapshot.keep");
        Some(SnapshotConfig {
            every_bytes: every_bytes?,
            keep: keep?,
        })
    }

    fn limits(&mut self) -> Option<LimitsConfig> {
        let key_bytes = self.bytes("limits.key_bytes");
        let value_bytes = self.bytes("limits.value_bytes");
        let request_bytes = self.bytes("limits.request_bytes");
        let txn_ops = self.count("limits.txn_ops");
        let uncommitted_bytes = self.bytes("limits.uncommitted_bytes");
        let clients = self.count("limits.clients");
        let clients_per_identity = self.count("limits.clients_per_identity");
        Some(LimitsConfig {
            key_bytes: key_bytes?,
            value_bytes: value_bytes?,
            request_bytes: request_bytes?,
            txn_ops: txn_ops?,
            uncommitted_bytes: uncommitted_bytes?,
            clients: clients?,
            clients_per_identity: clients_per_identity?,
        })
    }

    fn http(&mut self) -> Option<HttpConfig> {
        let listen = match self.text("http.listen") {
            Some(text) if text.is_empty() => None,
            _ => Some(self.listen("http.listen")?),
        };
        Some(HttpConfig { listen })
    }

    fn check(&mut self, config: &Config) {
        self.check_node(config);
        self.check_times(&config.raft);
        self.check_log(&config.log, &config.limits);
        self.check_limits(&config.limits);
        if config.snapshot.keep == 0 {
            self.wrong("snapshot.keep", "must keep at least one snapshot");
        }
        if config.snapshot.every_bytes == 0 {
            self.wrong("snapshot.every_bytes", "must not be 0");
        }
        if config.http.listen.is_some_and(|at| !at.ip().is_loopback()) {
            self.problem(
                "http.listen",
                "http.listen is not a loopback address".to_owned(),
                "the side door is plain HTTP: whoever can connect reads and writes".to_owned(),
                Some("use 127.0.0.1, or kvctl, which speaks TLS".to_owned()),
            );
        }
    }

    fn check_node(&mut self, config: &Config) {
        if config.node.listen.port() == 0 {
            self.wrong(
                "node.listen",
                "has port 0: it would be another at each start, and peers could not find it",
            );
        }
        let members = &config.cluster.members;
        if !members.is_empty() && !members.contains_key(&config.node.name) {
            let names: Vec<&str> = members.keys().map(String::as_str).collect();
            self.wrong(
                "node.name",
                format!("is not one of the members {}", names.join(", ")),
            );
        }
        let socket_bytes = config
            .node
            .socket
            .as_ref()
            .map_or(0, |path| path.as_os_str().len());
        if socket_bytes > SOCKET_PATH_BYTES_MAX {
            self.problem(
                "node.socket",
                "node.socket is too long".to_owned(),
                format!("{socket_bytes} bytes; unix sockets have {SOCKET_PATH_BYTES_MAX}"),
                Some("use a shorter path, or \"\" for no admin socket".to_owned()),
            );
        }
    }

    fn check_times(&mut self, raft: &RaftConfig) {
        if raft.heartbeat < HEARTBEAT_MIN {
            self.wrong("raft.heartbeat", "is less than a millisecond");
            return;
        }
        let Some(least) = raft.heartbeat.checked_mul(HEARTBEATS_PER_ELECTION_MIN) else {
            self.wrong("raft.heartbeat", "is too long");
            return;
        };
        let least = least.max(ELECTION_TIMEOUT_MIN);
        if raft.election_timeout < ELECTION_TIMEOUT_MIN {
            self.problem(
                "raft.election_timeout",
                "election_timeout is too short".to_owned(),
                format!(
                    "{} is less than {}",
                    format_duration(raft.election_timeout),
                    format_duration(ELECTION_TIMEOUT_MIN)
                ),
                Some(format!("set it to at least \"{}\"", format_duration(least))),
            );
        } else if raft.election_timeout < least {
            self.problem(
                "raft.election_timeout",
                "election_timeout is too short".to_owned(),
                format!(
                    "{} is less than {HEARTBEATS_PER_ELECTION_MIN} heartbeats ({HEARTBEATS_PER_ELECTION_MIN} x {})",
                    format_duration(raft.election_timeout),
                    format_duration(raft.heartbeat)
                ),
                Some(format!(
                    "set it to at least \"{}\", or lower raft.heartbeat",
                    format_duration(least)
                )),
            );
        }
        if raft.election_timeout > ELECTION_TIMEOUT_MAX {
            self.wrong("raft.election_timeout", "is longer than a minute");
        }
    }

    fn check_log(&mut self, log: &LogConfig, limits: &LimitsConfig) {
        let options = log.options();
        match options.check() {
            Ok(()) => {}
            Err(error @ OptionsError::MaxBytes { .. }) => self.problem(
                "log.max_bytes",
                "max_bytes is too small".to_owned(),
                error.to_string(),
                Some(format!(
                    "set it to at least \"{}\", or lower log.segment_bytes",
                    format_bytes(log.segment_bytes.saturating_mul(2))
                )),
            ),
            Err(error) => self.wrong("log.segment_bytes", error.to_string()),
        }
        let record = limits.request_bytes.saturating_add(RECORD_OVERHEAD_BYTES);
        if options.payload_bytes_max() < record {
            self.problem(
                "log.segment_bytes",
                "segment_bytes is too small".to_owned(),
                format!(
                    "a request of limits.request_bytes ({}) does not fit into {}",
                    format_bytes(limits.request_bytes),
                    format_bytes(log.segment_bytes)
                ),
                Some(format!(
                    "set it to \"{}\", or lower limits.request_bytes",
                    format_bytes(roomy_segment(record))
                )),
            );
        }
    }

    fn check_limits(&mut self, limits: &LimitsConfig) {
        for (path, value) in [
            ("limits.key_bytes", limits.key_bytes),
            ("limits.value_bytes", limits.value_bytes),
            ("limits.txn_ops", limits.txn_ops as u64),
            ("limits.clients", limits.clients as u64),
            (
                "limits.clients_per_identity",
                limits.clients_per_identity as u64,
            ),
        ] {
            if value == 0 {
                self.wrong(path, "must not be 0");
            }
        }
        let ceiling = CommandLimits::CEILING;
        for (path, value, most) in [
            ("limits.key_bytes", limits.key_bytes, ceiling.key_bytes),
            (
                "limits.value_bytes",
                limits.value_bytes,
                ceiling.value_bytes,
            ),
            ("limits.txn_ops", limits.txn_ops as u64, ceiling.txn_ops),
        ] {
            if value > most as u64 {
                self.wrong(path, format!("is more than the format allows ({most})"));
            }
        }
        let pair = limits.key_bytes.saturating_add(limits.value_bytes);
        if limits.request_bytes < pair.saturating_add(RECORD_OVERHEAD_BYTES) {
            self.wrong(
                "limits.request_bytes",
                format!(
                    "does not hold the longest key and value ({} and 4KiB around them)",
                    format_bytes(pair)
                ),
            );
        }
        if limits.request_bytes > REQUEST_BYTES_MAX {
            self.wrong(
                "limits.request_bytes",
                format!("is more than {}", format_bytes(REQUEST_BYTES_MAX)),
            );
        }
        if limits.uncommitted_bytes < limits.request_bytes {
            self.wrong(
                "limits.uncommitted_bytes",
                "is less than limits.request_bytes: the longest request could never be proposed",
            );
        }
        if limits.clients_per_identity > limits.clients {
            self.wrong("limits.clients_per_identity", "is more than limits.clients");
        }
    }
}
