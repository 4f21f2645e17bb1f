//! `kvctl cluster init`: an authority, a certificate and a bundle per node, a certificate for the administrator.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kvd::bundle::{Bundle, BundleError, BundleMember};
use kvd::contexts::{self, Context};
use kvd::names::{check_address, check_name};
use raft_net::ClusterId;
use raft_net::pki::{AUTHORITY_DAYS, Authority, PkiError};
use serde_json::{Value, json};

use crate::cli::InitArgs;
use crate::connect::contexts_file;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::View;

/// Port of peers and clients where an address has none.
const DEFAULT_PORT: u16 = 7400;
/// First port of the HTTP side doors.
pub(super) const HTTP_PORT: u16 = 7480;
/// Name in the administrator's certificate.
const ADMIN: &str = "admin";

/// One node of the new cluster.
struct Node {
    name: String,
    id: u64,
    address: String,
    listen: SocketAddr,
    http: SocketAddr,
}

pub(super) fn init(args: &InitArgs) -> Result<Made, Fault> {
    check_name(&args.name).map_err(|why| Fault::usage(format!("the cluster's name {why}")))?;
    let nodes = plan(&args.nodes, &args.http)?;
    let context_file = if args.no_context {
        None
    } else {
        Some(contexts_file()?)
    };
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(&args.name));
    let cluster = ClusterId(rand::random_range(1..=u32::MAX));
    let authority = Authority::create(cluster, &args.name, AUTHORITY_DAYS)?;
    make_dir(&dir)?;
    // The key of the authority comes last: a directory with it is complete.
    for node in &nodes {
        bundle(args, &authority, &nodes, node)?.write_file(&dir.join(bundle_name(&node.name)))?;
    }
    let admin = authority.issue_admin(ADMIN, args.days)?;
    write(&dir.join("ca.pem"), authority.ca_pem(), 0o644)?;
    write(&dir.join("admin.pem"), &admin.cert_pem, 0o644)?;
    write(&dir.join("admin.key"), &admin.key_pem, 0o600)?;
    write(&dir.join("ca.key"), authority.key_pem(), 0o600)?;
    sync_dir(&dir)?;
    let context = match &context_file {
        Some(file) => Some(add_context(file, &args.name, &dir, &nodes)?),
        None => None,
    };
    Ok(Made {
        name: args.name.clone(),
        cluster,
        dir,
        nodes,
        context,
    })
}

impl From<PkiError> for Fault {
    fn from(error: PkiError) -> Self {
        Fault::new(
            ExitCode::Internal,
            format!("the certificates cannot be made: {error}"),
        )
    }
}

impl From<BundleError> for Fault {
    fn from(error: BundleError) -> Self {
        Fault::new(
            ExitCode::Internal,
            format!("the bundle cannot be written: {error}"),
        )
    }
}

/// Who the nodes are and where each listens.
fn plan(nodes: &[String], http: &[String]) -> Result<Vec<Node>, Fault> {
    let mut doors = http
        .iter()
        .map(|text| door(text))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut planned: Vec<Node> = Vec::new();
    let mut on_host: BTreeMap<String, u16> = BTreeMap::new();
    for text in nodes {
        let (name, address) = named(text)?;
        let address = with_port(address);
        check_address(&address)
            .map_err(|why| Fault::usage(format!("the address of {name} {why}")))?;
        if let Some(twin) = planned
            .iter()
            .find(|node| node.name == name || node.address == address)
        {
            return Err(Fault::usage(format!(
                "{text} repeats {}={}",
                twin.name, twin.address
            )));
        }
        let (host, port) = split(&address)?;
        let before = on_host.entry(host.clone()).or_insert(0);
        let counted = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT + *before));
        *before += 1;
        planned.push(Node {
            id: rand::random_range(1..=u64::MAX),
            listen: SocketAddr::from((listen_ip(&host), port)),
            http: doors.remove(name).unwrap_or(counted),
            name: name.to_owned(),
            address,
        });
    }
    match doors.keys().next() {
        Some(name) => Err(Fault::usage(format!(
            "--http names {name}, which is no node"
        ))),
        None => Ok(planned),
    }
}

/// `NODE=ADDR`
pub(super) fn named(text: &str) -> Result<(&str, &str), Fault> {
    let (name, address) = text.split_once('=').ok_or_else(|| {
        Fault::usage(format!("{text} is not NODE=ADDR")).with_help("for example n1=10.0.0.1:7400")
    })?;
    check_name(name).map_err(|why| Fault::usage(format!("the node's name {name} {why}")))?;
    Ok((name, address))
}

pub(super) fn door(text: &str) -> Result<(String, SocketAddr), Fault> {
    let (name, address) = named(text)?;
    let listen: SocketAddr = address
        .parse()
        .map_err(|_| Fault::usage(format!("--http {text}: {address} is not IP:PORT")))?;
    if !listen.ip().is_loopback() {
        return Err(
            Fault::usage(format!("--http {text} is not a loopback address"))
                .with_known("the side door is plain HTTP: whoever can connect reads and writes"),
        );
    }
    Ok((name.to_owned(), listen))
}

/// An address without a port gets the default one.
pub(super) fn with_port(address: &str) -> String {
    let bare_v6 = address.parse::<Ipv6Addr>().is_ok();
    if bare_v6 {
        return format!("[{address}]:{DEFAULT_PORT}");
    }
    let has_port = address
        .rfind(':')
        .is_some_and(|colon| !address[colon..].contains(']'));
    if has_port {
        address.to_owned()
    } else {
        format!("{address}:{DEFAULT_PORT}")
    }
}

pub(super) fn split(address: &str) -> Result<(String, u16), Fault> {
    address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
        .ok_or_else(|| Fault::usage(format!("{address} is not HOST:PORT")))
}

/// A node listens on all its addresses, because they may change; one that is reached over loopback only there.
pub(super) fn listen_ip(host: &str) -> IpAddr {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Ok(IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Err(_) if bare == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

fn bundle(
    args: &InitArgs,
    authority: &Authority,
    nodes: &[Node],
    node: &Node,
) -> Result<Bundle, Fault> {
    let issued = authority.issue_node(&node.name, node.id, args.days, &[])?;
    let members = nodes.iter().map(|node| BundleMember {
        name: node.name.clone(),
        id: node.id,
        address: node.address.clone(),
    });
    Ok(Bundle {
        cluster: authority.cluster(),
        cluster_name: args.name.clone(),
        node: node.name.clone(),
        node_id: node.id,
        listen: node.listen,
        http: Some(node.http),
        members: members.collect(),
        later: false,
        ca_pem: authority.ca_pem().to_owned(),
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
    })
}

fn bundle_name(node: &str) -> String {
    format!("{node}.kvd")
}

/// A new directory, or an empty one: keys of another cluster are never overwritten.
fn make_dir(dir: &Path) -> Result<(), Fault> {
    let fault = |error: std::io::Error| Fault::usage(format!("{}: {error}", dir.display()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(fault)?;
    if fs::read_dir(dir).map_err(fault)?.next().is_some() {
        return Err(Fault::usage(format!("{} is not empty", dir.display()))
            .with_known("the keys of a cluster are never overwritten")
            .with_help("choose another directory with --dir"));
    }
    Ok(())
}

fn write(file: &Path, text: &str, mode: u32) -> Result<(), Fault> {
    let write = || {
        let mut handle = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(file)?;
        handle.write_all(text.as_bytes())?;
        handle.sync_all()
    };
    write().map_err(|error| Fault::new(ExitCode::Internal, format!("{}: {error}", file.display())))
}

fn sync_dir(dir: &Path) -> Result<(), Fault> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|error| Fault::new(ExitCode::Internal, format!("{}: {error}", dir.display())))
}

/// What became of the context.
struct Added {
    file: PathBuf,
    replaced: bool,
}

fn add_context(file: &Path, name: &str, dir: &Path, nodes: &[Node]) -> Result<Added, Fault> {
    let dir = dir
        .canonicalize()
        .map_err(|error| Fault::new(ExitCode::Internal, format!("{}: {error}", dir.display())))?;
    let context = Context {
        endpoints: nodes.iter().map(|node| node.address.clone()).collect(),
        ca: dir.join("ca.pem"),
        cert: dir.join("admin.pem"),
        key: dir.join("admin.key"),
    };
    let replaced = contexts::update(file, |contexts| {
        contexts.default = Some(name.to_owned());
        Ok::<_, Fault>(contexts.contexts.insert(name.to_owned(), context).is_some())
    })?;
    Ok(Added {
        file: file.to_owned(),
        replaced,
    })
}

/// What was made.
pub(super) struct Made {
    name: String,
    cluster: ClusterId,
    dir: PathBuf,
    nodes: Vec<Node>,
    context: Option<Added>,
}

impl Made {
    fn bundles(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| bundle_name(&node.name))
            .collect()
    }

    fn shown_dir(&self) -> String {
        let text = self.dir.display().to_string();
        if self.dir.is_relative() && !text.starts_with('.') {
            format!("./{text}")
        } else {
            text
        }
    }
}

impl View for Made {
    fn human(&self) -> Vec<u8> {
        let mut lines = vec![
            format!(
                "Made cluster {} ({}) in {}",
                self.name,
                self.cluster,
                self.shown_dir()
            ),
            format!(
                "  {:24} signs nodes and clients. Keep it off the servers.",
                "ca.key"
            ),
            format!(
                "  {:24} one secret bundle per node (CA, certificate, key, members)",
                self.bundles().join(" ")
            ),
            format!(
                "  {:24} for kvctl, curl and other tools",
                "ca.pem admin.pem admin.key"
            ),
        ];
        if let Some(added) = &self.context {
            let verb = if added.replaced {
                "replaced in"
            } else {
                "added to"
            };
            let context = format!("context {}", self.name);
            lines.push(format!(
                "  {context:24} {verb} {}, now the default",
                added.file.display()
            ));
        }
        let first = self.bundles().into_iter().next().unwrap_or_default();
        lines.push(format!(
            "Next, on each node with its own bundle:  kvd join {first} --start"
        ));
        lines.push("Then:                                    kvctl health --wait 30s".to_owned());
        lines.push(String::new());
        lines.join("\n").into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        self.human()
    }

    fn json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            json!({
                "name": node.name,
                "id": format!("{:016x}", node.id),
                "address": node.address,
                "listen": node.listen.to_string(),
                "http": node.http.to_string(),
                "bundle": self.dir.join(bundle_name(&node.name)),
            })
        });
        json!({
            "cluster": { "id": self.cluster.to_string(), "name": self.name },
            "dir": self.dir,
            "nodes": nodes.collect::<Vec<Value>>(),
            "context": self.context.as_ref().map(|_| &self.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(nodes: &[&str], http: &[&str]) -> Result<Vec<Node>, Fault> {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        plan(&owned(nodes), &owned(http))
    }

    #[test]
    fn nodes_listen_everywhere_unless_they_are_reached_over_loopback() {
        let nodes = plan_of(
            &[
                "n1=10.0.0.1:7400",
                "n2=127.0.0.2:7401",
                "n3=[::1]:7402",
                "n4=db.example.org",
                "n5=fd00::5",
            ],
            &[],
        )
        .unwrap();
        let listens: Vec<String> = nodes.iter().map(|node| node.listen.to_string()).collect();
        assert_eq!(
            listens,
            [
                "0.0.0.0:7400",
                "127.0.0.2:7401",
                "[::1]:7402",
                "0.0.0.0:7400",
                "[::]:7400"
            ]
        );
        assert_eq!(nodes[4].address, "[fd00::5]:7400");
    }

    #[test]
    fn side_doors_count_up_on_one_host_and_can_be_given() {
        let nodes = plan_of(
            &[
                "n1=127.0.0.1:1",
                "n2=127.0.0.1:2",
                "n3=127.0.0.1:3",
                "n4=10.0.0.4:1",
            ],
            &["n2=127.0.0.1:9000"],
        )
        .unwrap();
        let doors: Vec<u16> = nodes.iter().map(|node| node.http.port()).collect();
        assert_eq!(doors, [7480, 9000, 7482, 7480]);
    }

    #[test]
    fn ids_are_never_zero_and_never_the_same() {
        let nodes = plan_of(&["n1=h:1", "n2=h:2"], &[]).unwrap();
        assert_ne!(nodes[0].id, nodes[1].id);
        assert!(nodes.iter().all(|node| node.id != 0));
    }

    #[test]
    fn slips_are_usage_errors() {
        let bad: [(&[&str], &[&str]); 8] = [
            (&["n1"], &[]),
            (&["N1=h:1"], &[]),
            (&["n1=h:0"], &[]),
            (&["n1=h:1", "n1=h:2"], &[]),
            (&["n1=h:1", "n2=h:1"], &[]),
            (&["n1=h:1"], &["n2=127.0.0.1:1"]),
            (&["n1=h:1"], &["n1=10.0.0.1:80"]),
            (&["n1=h:1"], &["n1=localhost"]),
        ];
        for (nodes, http) in bad {
            let fault = plan_of(nodes, http)
                .err()
                .unwrap_or_else(|| panic!("{nodes:?} {http:?}"));
            assert_eq!(fault.code, ExitCode::Usage);
        }
    }
}
