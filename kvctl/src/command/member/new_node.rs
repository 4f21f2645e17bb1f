//! What a new node is given: an id, an address, and its secret bundle.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use kvd::bundle::Bundle;
use kvd::client::{Greeting, MemberTable};
use kvd::found;
use kvd::names::check_address;
use kvd::wire::client::MemberAddress;
use raft_net::ClusterId;
use raft_net::pki::Authority;

use super::super::cluster;
use crate::cli::{Global, NewNodeArgs};
use crate::connect::authority_file;
use crate::exit::ExitCode;
use crate::fault::Fault;

/// A node that is to join.
pub(super) struct NewNode {
    pub(super) node: found::NewNode,
    /// The file that its bundle goes into; none if another authority has issued its certificate.
    pub(super) bundle: Option<PathBuf>,
}

impl NewNode {
    pub(super) fn member(&self) -> MemberAddress {
        self.node.member()
    }
}

/// `NODE=ADDR`, with an address that means something here.
pub(super) async fn address_of(text: &str) -> Result<(String, String), Fault> {
    let (name, address) = cluster::named(text)?;
    let address = found::with_port(address);
    let wrong = |why: String| Fault::usage(format!("the address of {name} {why}"));
    check_address(&address).map_err(wrong)?;
    let resolved = tokio::net::lookup_host(&address).await;
    let found = resolved.map(|mut addresses| addresses.next().is_some());
    match found {
        Ok(true) => Ok((name.to_owned(), address)),
        Ok(false) => Err(wrong(format!(
            "cannot be reached: {address} has no address"
        ))),
        Err(error) => Err(wrong(format!("cannot be reached: {address}: {error}"))),
    }
}

/// Who is to join, each with its id and places.
pub(super) async fn plan(
    nodes: &[String],
    args: &NewNodeArgs,
    table: &MemberTable,
) -> Result<Vec<NewNode>, Fault> {
    let given = args.bundle.len().max(args.id.len());
    if given != nodes.len() {
        return Err(Fault::usage(format!(
            "{} new nodes and {given} bundles or ids",
            nodes.len()
        ))
        .with_help("give each new node a --bundle FILE, or the --id of a certificate it has"));
    }
    let mut doors = args
        .http
        .iter()
        .map(|text| cluster::door(text))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut on_host: BTreeMap<String, u16> = BTreeMap::new();
    for member in &table.members {
        let address = &member.address.address;
        let host = found::split(address).map_or(&address[..], |(host, _)| host);
        *on_host.entry(host.to_owned()).or_insert(0) += 1;
    }
    let mut planned = Vec::new();
    for (at, text) in nodes.iter().enumerate() {
        let (name, address) = address_of(text).await?;
        let mut node = found::NewNode::new(&name, &address)?;
        let before = on_host.entry(node.host().to_owned()).or_insert(0);
        let door = cluster::HTTP_PORT.saturating_add(*before);
        *before += 1;
        if let Some(id) = args.id.get(at) {
            node.id = *id;
        }
        let counted = SocketAddr::from((Ipv4Addr::LOCALHOST, door));
        node.http = Some(doors.remove(&name).unwrap_or(counted));
        planned.push(NewNode {
            node,
            bundle: args.bundle.get(at).cloned(),
        });
    }
    match doors.keys().next() {
        Some(name) => Err(Fault::usage(format!(
            "--http names {name}, which is no new node"
        ))),
        None => Ok(planned),
    }
}

/// Issues certificates and writes the bundles: before the cluster is told, so that no member is announced that nobody can start.
pub(super) fn write_bundles(
    new: &[NewNode],
    args: &NewNodeArgs,
    global: &Global,
    greeting: &Greeting,
    table: &MemberTable,
) -> Result<(), Fault> {
    if new.iter().all(|node| node.bundle.is_none()) {
        return Ok(());
    }
    let authority = authority(args, global, ClusterId(greeting.cluster))?;
    for (at, node) in new.iter().enumerate() {
        let Some(file) = &node.bundle else { continue };
        let bundle = bundle(node, new, &authority, args, greeting, table)?;
        if let Err(error) = bundle.write_file(file) {
            return Err(take_back(&new[..at], Fault::from(error)));
        }
    }
    Ok(())
}

fn bundle(
    node: &NewNode,
    new: &[NewNode],
    authority: &Authority,
    args: &NewNodeArgs,
    greeting: &Greeting,
    table: &MemberTable,
) -> Result<Bundle, Fault> {
    let present = table.members.iter().map(|member| member.address.clone());
    let members = present.chain(new.iter().map(NewNode::member));
    let name = &greeting.cluster_name;
    Ok(node
        .node
        .bundle(authority, name, members, true, args.days)?)
}

fn authority(args: &NewNodeArgs, global: &Global, cluster: ClusterId) -> Result<Authority, Fault> {
    let ca = authority_file(global)?;
    let key = args.ca_key.clone();
    let key = key.unwrap_or_else(|| ca.with_file_name("ca.key"));
    let read = |file: &Path| {
        fs::read_to_string(file).map_err(|error| {
            Fault::usage(format!("{}: {error}", file.display()))
                .with_known("a bundle needs the key of the cluster's authority")
                .with_help("--ca-key FILE; kvctl cluster init wrote it as ca.key")
        })
    };
    Ok(Authority::from_pem(cluster, &read(&ca)?, &read(&key)?)?)
}

/// The change was refused: bundles of nodes that never became members are of no use. If nobody knows, they stay.
pub(super) fn take_back(new: &[NewNode], fault: Fault) -> Fault {
    let bundles = new.iter().filter_map(|node| node.bundle.as_ref());
    let unknown = fault.code == ExitCode::Unknown;
    bundles.fold(fault, |fault, file| {
        let shown = file.display();
        if unknown {
            return fault.with_known(format!(
                "{shown} was written, and is needed if it did happen"
            ));
        }
        match fs::remove_file(file) {
            Ok(()) => fault,
            Err(error) => fault.with_known(format!("{shown} is of no use: {error}")),
        }
    })
}
