//! `kvd join`: makes a machine a member, once, from a secret bundle.
//!
//! Everything is written and synced before the identity, which comes last: a directory with an identity is complete, and an
//! interrupted join can simply be repeated. With the identity there, a second join is refused, because the bundle's node id
//! must never begin a second life with an empty log.

mod files;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use raft_log::{Binding, CreateError, OpenError, OsFs, Wal};
use raft_net::{CredentialError, Credentials};

use crate::bundle::{Bundle, BundleError};
use crate::cli::JoinArgs;
use crate::config::{Config, ConfigError, Places, SOCKET_PATH_BYTES_MAX, Sources, quoted};
use crate::exit::{ExitCode, Failure};
use crate::identity::{self, IdentityError, InitialMember, NewIdentity};

/// The systemd unit that `--start` enables.
const UNIT: &str = "kvd.service";
/// The system user that the unit runs as.
const USER: &str = "kvd";

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The certificate in the bundle cannot be used.
    #[error("the certificate in the bundle cannot be used: {0}")]
    Credentials(#[from] CredentialError),
    /// The certificate in the bundle is not that of the bundle's node.
    #[error("the bundle is for {expected}, its certificate for {found}")]
    OtherNode {
        /// Whom the bundle names.
        expected: String,
        /// Whom the certificate names.
        found: String,
    },
    /// The identity exists, or could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A log of an interrupted join is of another node, or not empty.
    #[error("{} holds the log of another node or of an earlier life: join needs an empty directory", .dir.display())]
    ForeignLog {
        /// The directory of the log.
        dir: PathBuf,
    },
    /// A log of an interrupted join could not be opened.
    #[error(transparent)]
    Open(OpenError),
    /// What was written is not a valid configuration: then the bundle asks for something impossible.
    #[error("the configuration made from the bundle is refused: {0}")]
    Config(#[from] ConfigError),
    /// A file could not be written.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What was made.
#[derive(Debug)]
pub struct Joined {
    /// Where everything lies.
    pub places: Places,
    /// The configuration as `kvd run` will read it.
    pub config: Config,
    /// An older configuration file was kept under this name.
    pub kept: Option<PathBuf>,
}

/// Carries out `kvd join` and prints what was made.
///
/// # Errors
/// With the exit code and the words for the last line.
pub fn run(args: &JoinArgs) -> Result<(), Failure> {
    let bundle = Bundle::read_file(&args.bundle)
        .map_err(|error| Failure::from(JoinError::from(error)).in_file(&args.bundle))?;
    let joined = join(&bundle, args.dir.as_deref())?;
    print!("{}", report(&bundle, &joined, args));
    if args.start {
        start_unit()?;
    }
    Ok(())
}

/// Makes this machine the node of a bundle; with `dir`, everything lies below it.
///
/// # Errors
/// Any [`JoinError`]. Unless the identity was made, it can be repeated.
pub fn join(bundle: &Bundle, dir: Option<&Path>) -> Result<Joined, JoinError> {
    check_certificate(bundle)?;
    let places = places(dir)?;
    let fs = OsFs;
    if identity::exists(&fs, &places.data)? {
        return Err(IdentityError::Exists { dir: places.data }.into());
    }
    let text = config_text(bundle, &places);
    let sources = Sources {
        file: Some(places.config.clone()),
        ..Sources::default()
    };
    // Checked before the first file is written: a refusal leaves nothing behind.
    let config = Config::load_text(&sources, text.clone())?.config;
    files::write_certificates(&places.tls, bundle)?;
    let kept = files::write_config(&places.config, &text)?;
    make_data(&fs, &places.data, bundle, &config)?;
    if dir.is_none() {
        files::give_to(USER, &[&places.tls, &places.data])?;
    }
    make_identity(&fs, &places.data, bundle)?;
    if dir.is_none() {
        files::give_to(USER, &[&places.data])?;
    }
    Ok(Joined {
        places,
        config,
        kept,
    })
}

/// The certificate decides who a node is, so the bundle must not claim anything else.
fn check_certificate(bundle: &Bundle) -> Result<(), JoinError> {
    let credentials = Credentials::from_pem(
        bundle.ca_pem.as_bytes(),
        bundle.cert_pem.as_bytes(),
        bundle.key_pem.as_bytes(),
    )?;
    let expected = raft_net::Identity::Node {
        cluster: bundle.cluster,
        name: bundle.node.clone(),
        id: bundle.node_id,
    };
    if *credentials.identity() == expected {
        return Ok(());
    }
    Err(JoinError::OtherNode {
        expected: expected.to_string(),
        found: credentials.identity().to_string(),
    })
}

fn places(dir: Option<&Path>) -> Result<Places, JoinError> {
    let Some(dir) = dir else {
        return Ok(Places::system());
    };
    let io_error = |source| JoinError::Io {
        file: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(io_error)?;
    Ok(Places::below(&dir.canonicalize().map_err(io_error)?))
}

/// The configuration file: what this node needs to say; everything else stays at its default.
fn config_text(bundle: &Bundle, places: &Places) -> String {
    let members: Vec<String> = bundle
        .members
        .iter()
        .map(|member| format!("{} = {}", member.name, quoted(&member.address)))
        .collect();
    let path = |path: &Path| quoted(&path.to_string_lossy());
    // A path that no unix socket can have would make the node refuse its own configuration.
    let socket = if places.socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        "\"\"                        # the path below this directory is too long for a socket"
            .to_owned()
    } else {
        path(&places.socket)
    };
    let http = bundle
        .http
        .map_or_else(String::new, |listen| listen.to_string());
    [
        "# Written by `kvd join`. All other keys and their defaults: kvd config default".to_owned(),
        "[cluster]".to_owned(),
        format!("id = {}", quoted(&bundle.cluster.to_string())),
        format!("name = {}", quoted(&bundle.cluster_name)),
        format!("members = {{ {} }}", members.join(", ")),
        "[node]".to_owned(),
        format!("name = {}", quoted(&bundle.node)),
        format!("listen = {}", quoted(&bundle.listen.to_string())),
        format!("data = {}", path(&places.data)),
        format!("socket = {socket}"),
        "[tls]".to_owned(),
        format!("dir = {}", path(&places.tls)),
        "[http]".to_owned(),
        format!("listen = {}\n", quoted(&http)),
    ]
    .join("\n")
}

/// Makes the data directory with its empty log.
fn make_data(fs: &OsFs, data: &Path, bundle: &Bundle, config: &Config) -> Result<(), JoinError> {
    files::make_private_dir(data)?;
    files::make_private_dir(&identity::snapshot_dir(data))?;
    let log = identity::log_dir(data);
    files::make_private_dir(&log)?;
    let binding = Binding {
        cluster: bundle.cluster.0,
        node: bundle.node_id,
    };
    let options = config.log.options();
    match Wal::create(fs, &log, binding, &options) {
        Ok(()) => Ok(()),
        Err(CreateError::Exists { .. }) => check_empty(fs, &log, binding, options),
        Err(error) => Err(error.into()),
    }
}

/// A complete log without an identity is what an interrupted join leaves; it must be this node's, and empty.
fn check_empty(
    fs: &OsFs,
    log: &Path,
    binding: Binding,
    options: raft_log::Options,
) -> Result<(), JoinError> {
    let foreign = || JoinError::ForeignLog {
        dir: log.to_owned(),
    };
    match Wal::open(fs, log, binding, options) {
        Ok((_, opened)) if opened.last_index == 0 && opened.term == 0 => Ok(()),
        Ok(_) | Err(OpenError::WrongBinding { .. }) => Err(foreign()),
        Err(error) => Err(JoinError::Open(error)),
    }
}

fn make_identity(fs: &OsFs, data: &Path, bundle: &Bundle) -> Result<(), JoinError> {
    // A node that is not among the members of its own first configuration never stands for election before the log makes it one.
    let members = bundle
        .members
        .iter()
        .filter(|member| !bundle.later || member.id != bundle.node_id)
        .map(|member| InitialMember {
            name: member.name.clone(),
            id: member.id,
            address: member.address.clone(),
        })
        .collect();
    let new = NewIdentity {
        cluster: bundle.cluster,
        cluster_name: bundle.cluster_name.clone(),
        node: bundle.node_id,
        name: bundle.node.clone(),
        members,
    };
    Ok(identity::create(fs, data, &new)?)
}

fn report(bundle: &Bundle, joined: &Joined, args: &JoinArgs) -> String {
    let mut text = String::new();
    let places = &joined.places;
    let lines = [
        (&places.config, "configuration"),
        (&places.tls, "certificates and key of this node"),
        (&places.data, "data: made once, never copy it"),
    ];
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Joined {} to cluster {} ({})",
        bundle.node, bundle.cluster_name, bundle.cluster
    );
    for (path, what) in lines {
        let _ = writeln!(text, "  {:30} {what}", path.display());
    }
    if let Some(kept) = &joined.kept {
        let _ = writeln!(
            text,
            "  {:30} the configuration that was there before",
            kept.display()
        );
    }
    if joined.config.node.socket.is_none() {
        let _ = writeln!(
            text,
            "  no admin socket: its path would be longer than {SOCKET_PATH_BYTES_MAX} bytes"
        );
    }
    if !args.start {
        let _ = writeln!(text, "Next: {}", next_step(places, args));
    }
    let _ = writeln!(
        text,
        "{} is used up and holds a private key: remove it",
        args.bundle.display()
    );
    text
}

fn next_step(places: &Places, args: &JoinArgs) -> String {
    match args.dir {
        Some(_) => format!("kvd run --config {}", places.config.display()),
        None => "systemctl enable --now kvd".to_owned(),
    }
}

fn start_unit() -> Result<(), Failure> {
    let help = "the node has joined; start it by hand: kvd run";
    let status = Command::new("systemctl")
        .args(["enable", "--now", UNIT])
        .status()
        .map_err(|error| Failure::start("systemctl", &error).with_help(help))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::CannotStart,
        format!("systemctl enable --now {UNIT} ended with {status}"),
    )
    .with_help("journalctl -u kvd shows why"))
}
