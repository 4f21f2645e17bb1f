//! `kvctl cluster init`: an authority, a certificate and a bundle per node, a certificate for the administrator.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use kvd::bundle::BundleError;
use kvd::contexts::{self, Context};
use kvd::found::{self, FoundError, Founding, NewNode};
use kvd::names::check_name;
use raft_net::ClusterId;
use raft_net::pki::PkiError;
use serde_json::{Value, json};

use crate::cli::InitArgs;
use crate::connect::contexts_file;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::View;

/// First port of the HTTP side doors.
pub(super) const HTTP_PORT: u16 = 7480;

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
    let founding = Founding::of(&args.name, nodes, args.days)?;
    founding.write(&dir)?;
    let context = match &context_file {
        Some(file) => Some(add_context(file, &args.name, &dir, founding.nodes())?),
        None => None,
    };
    Ok(Made {
        name: args.name.clone(),
        cluster: founding.cluster(),
        nodes: founding.nodes().to_vec(),
        dir,
        context,
    })
}

impl From<FoundError> for Fault {
    fn from(error: FoundError) -> Self {
        match error {
            FoundError::Name { .. } | FoundError::Address { .. } | FoundError::Repeated { .. } => {
                Fault::usage(error.to_string())
            }
            FoundError::NotEmpty { .. } => Fault::usage(error.to_string())
                .with_known("the keys of a cluster are never overwritten")
                .with_help("choose another directory with --dir"),
            FoundError::Certificates(error) => error.into(),
            FoundError::Bundle(error) => error.into(),
            FoundError::Credentials(_) | FoundError::Io { .. } | _ => {
                Fault::new(ExitCode::Internal, error.to_string())
            }
        }
    }
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
fn plan(nodes: &[String], http: &[String]) -> Result<Vec<NewNode>, Fault> {
    let mut doors = http
        .iter()
        .map(|text| door(text))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut planned: Vec<NewNode> = Vec::new();
    let mut on_host: BTreeMap<String, u16> = BTreeMap::new();
    for text in nodes {
        let (name, address) = named(text)?;
        let mut node = NewNode::new(name, address)?;
        let before = on_host.entry(node.host().to_owned()).or_insert(0);
        let counted = SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT + *before));
        *before += 1;
        node.http = Some(doors.remove(name).unwrap_or(counted));
        planned.push(node);
    }
    found::check_distinct(&planned)?;
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

/// What became of the context.
struct Added {
    file: PathBuf,
    replaced: bool,
}

fn add_context(file: &Path, name: &str, dir: &Path, nodes: &[NewNode]) -> Result<Added, Fault> {
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
    nodes: Vec<NewNode>,
    context: Option<Added>,
}

impl Made {
    fn bundles(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| format!("{}.kvd", node.name))
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
                "http": node.http.map(|listen| listen.to_string()),
                "bundle": found::bundle_file(&self.dir, &node.name),
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

    fn plan_of(nodes: &[&str], http: &[&str]) -> Result<Vec<NewNode>, Fault> {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        plan(&owned(nodes), &owned(http))
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
        let doors: Vec<u16> = nodes
            .iter()
            .map(|node| node.http.map_or(0, |listen| listen.port()))
            .collect();
        assert_eq!(doors, [7480, 9000, 7482, 7480]);
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
