//! Every key of the configuration file, once: from this table come the file, the `KVD_*`
//! environment, the flags, `kvd config default` and the checks for unknown names.

/// How the text of a value is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or other short text.
    Text,
    /// A file or directory; a relative one in the file is relative to the file's directory.
    Path,
    /// A size such as `64MiB`, or a whole number of bytes.
    Bytes,
    /// A duration such as `50ms`.
    Duration,
    /// A whole number.
    Count,
    /// `IP:PORT` to listen on.
    Listen,
    /// A table of names and `HOST:PORT` addresses; as a flag `n1=HOST:PORT,n2=HOST:PORT`.
    Members,
}

impl Kind {
    /// What to call a value of this kind on a command line.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Text => "TEXT",
            Kind::Path => "PATH",
            Kind::Bytes => "SIZE",
            Kind::Duration => "DURATION",
            Kind::Count => "N",
            Kind::Listen => "IP:PORT",
            Kind::Members => "NODE=ADDR,...",
        }
    }
}

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// The table it stands in, `raft` for `[raft]`.
    pub section: &'static str,
    /// Its name in that table.
    pub name: &'static str,
    /// How its value is understood.
    pub kind: Kind,
    /// The value without any setting; `None` means that it must be set.
    pub default: Option<&'static str>,
    /// An example for `kvd config default` where there is no default.
    pub example: &'static str,
    /// One line for help and for the default file.
    pub doc: &'static str,
}

impl Key {
    /// `raft.election_timeout`
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `raft-election-timeout`, the long flag without its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.name).replace('_', "-")
    }

    /// `KVD_RAFT_ELECTION_TIMEOUT`
    #[must_use]
    pub fn variable(&self) -> String {
        format!("KVD_{}_{}", self.section, self.name).to_ascii_uppercase()
    }
}

/// Finds a key by its section and name.
#[must_use]
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.section == section && key.name == name)
}

/// Whether a table of this name exists.
#[must_use]
pub fn is_section(section: &str) -> bool {
    KEYS.iter().any(|key| key.section == section)
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default: Some(default),
        example: default,
        doc,
    }
}

const fn required(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        section,
        name,
        kind,
        default: None,
        example,
        doc,
    }
}

/// Every key, in the order of the documented file; keys of one section stand together.
pub static KEYS: [Key; 23] = [
    required(
        "cluster",
        "id",
        Kind::Text,
        "c0ffee42",
        "eight hex digits, made by `kvctl cluster init`",
    ),
    required("cluster", "name", Kind::Text, "prod", "name of the cluster"),
    key(
        "cluster",
        "members",
        Kind::Members,
        "",
        "first start only; later the log decides, a difference is a warning",
    ),
    required("node", "name", Kind::Text, "n1", "name of this node"),
    key(
        "node",
        "listen",
        Kind::Listen,
        "0.0.0.0:7400",
        "udp, peers and clients",
    ),
    key(
        "node",
        "data",
        Kind::Path,
        "/var/lib/kvd",
        "0700; made by `kvd join`",
    ),
    key(
        "node",
        "socket",
        Kind::Path,
        "/run/kvd/kvd.sock",
        "admin socket for kvctl on this machine; \"\" turns it off",
    ),
    key(
        "tls",
        "dir",
        Kind::Path,
        "/etc/kvd/tls",
        "ca.pem node.pem node.key deny; reloaded when changed",
    ),
    key(
        "raft",
        "heartbeat",
        Kind::Duration,
        "50ms",
        "how often a leader says that it lives",
    ),
    key(
        "raft",
        "election_timeout",
        Kind::Duration,
        "300ms",
        "randomised up to twice; at least five heartbeats",
    ),
    key(
        "log",
        "segment_bytes",
        Kind::Bytes,
        "64MiB",
        "size of one log file, allocated ahead",
    ),
    key(
        "log",
        "max_bytes",
        Kind::Bytes,
        "1GiB",
        "old log is discarded beyond this even for a slow follower",
    ),
    key(
        "log",
        "reserve_bytes",
        Kind::Bytes,
        "64MiB",
        "kept back so that a full disk is a refusal and not a crash",
    ),
    key(
        "snapshot",
        "every_bytes",
        Kind::Bytes,
        "256MiB",
        "a snapshot after this much log",
    ),
    key(
        "snapshot",
        "keep",
        Kind::Count,
        "2",
        "snapshots kept on disk",
    ),
    key("limits", "key_bytes", Kind::Bytes, "4KiB", "longest key"),
    key(
        "limits",
        "value_bytes",
        Kind::Bytes,
        "1MiB",
        "longest value",
    ),
    key(
        "limits",
        "request_bytes",
        Kind::Bytes,
        "1536KiB",
        "longest request; checked before memory is taken",
    ),
    key(
        "limits",
        "txn_ops",
        Kind::Count,
        "128",
        "operations in one transaction",
    ),
    key(
        "limits",
        "uncommitted_bytes",
        Kind::Bytes,
        "64MiB",
        "proposed but uncommitted bytes at the leader; beyond: overloaded",
    ),
    key(
        "limits",
        "clients",
        Kind::Count,
        "4096",
        "client connections",
    ),
    key(
        "limits",
        "clients_per_identity",
        Kind::Count,
        "1024",
        "client connections of one certificate name",
    ),
    key(
        "http",
        "listen",
        Kind::Listen,
        "127.0.0.1:7480",
        "HTTP side door, loopback only; \"\" turns it off",
    ),
];
