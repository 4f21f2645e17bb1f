//! What a new node is given: an id, an address, and its secret bundle.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use kvd::bundle::{Bundle, BundleMember};
use kvd::client::{Greeting, MemberTable};
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
    pub(super) name: String,
    id: u64,
    address: String,
    listen: SocketAddr,
    http: SocketAddr,
    /// The file that its bundle goes into; none if another authority has issued its certificate.
    pub(super) bundle: Option<PathBuf>,
}

impl NewNode {
    pub(super) fn member(&self) -> MemberAddress {
        MemberAddress {
            name: self.name.clone(),
            id: self.id,
            address: self.address.clone(),
        }
    }
}

/// `NODE=ADDR`, with an address that means something here.
pub(super) async fn address_of(text: &str) -> Result<(String, String), Fault> {
    let (name, address) = cluster::named(text)?;
    let address = cluster::with_port(address);
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
        let (host, _) = cluster::split(&member.address.address)?;
        *on_host.entry(host).or_insert(0) += 1;
    }
    let mut planned = Vec::new();
    for (at, text) in nodes.iter().enumerate() {
        let (name, address) = address_of(text).await?;
        let (host, port) = cluster::split(&address)?;
        let before = on_host.entry(host.clone()).or_insert(0);
        let door = cluster::HTTP_PORT.saturating_add(*before);
        *before += 1;
        planned.push(NewNode {
            id: match args.id.get(at) {
                Some(id) => *id,
                None => rand::random_range(1..=u64::MAX),
            },
            listen: SocketAddr::from((cluster::listen_ip(&host), port)),
            http: doors
                .remove(&name)
                .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, door))),
            bundle: args.bundle.get(at).cloned(),
            name,
            address,
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
    let issued = authority.issue_node(&node.name, node.id, args.days, &[])?;
    let present = table.members.iter().map(|member| member.address.clone());
    let members = present.chain(new.iter().map(NewNode::member));
    let members = members.map(|member| BundleMember {
        name: member.name,
        id: member.id,
        address: member.address,
    });
    Ok(Bundle {
        cluster: authority.cluster(),
        cluster_name: greeting.cluster_name.clone(),
        node: node.name.clone(),
        node_id: node.id,
        listen: node.listen,
        http: Some(node.http),
        members: members.collect(),
        later: true,
        ca_pem: authority.ca_pem().to_owned(),
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
    })
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
