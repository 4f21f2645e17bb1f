//! A new node joins the running bank of `three_nodes` by command, learns, and becomes a voter.
//!
//! `cargo run -p kvd --example three_nodes -- /tmp/bank`, and in another terminal
//! `cargo run -p kvd --example join -- /tmp/bank n4 127.0.0.1:7404`. It runs until Ctrl-C; started again, it is the same node.

mod bank;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bank::Bank;
use kvd::bundle::Bundle;
use kvd::client::{Client, ClientOptions};
use kvd::config::Config;
use kvd::found::{self, NewNode};
use kvd::join::join;
use kvd::kv::members::MemberState;
use kvd::node::Node;
use kvd::wire::client::MemberChange;
use raft_net::ClusterId;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, name, address] = arguments.as_slice() else {
        return Err("usage: join DIR NAME ADDRESS".into());
    };
    let node = run(&PathBuf::from(dir), name, address).await?;
    tokio::signal::ctrl_c().await?;
    node.shutdown();
    Ok(node.join()?)
}

/// Adds a node to the cluster of a directory, starts it, and waits until it votes.
pub(crate) async fn run(dir: &Path, name: &str, address: &str) -> Result<Node, Box<dyn Error>> {
    let client = administrator(dir)?;
    let home = dir.join(name);
    if !home.exists() {
        let bundle = add(&client, &dir.join("keys"), &NewNode::new(name, address)?).await?;
        join(&bundle, Some(&home))?;
    }
    let node = Node::start_with(Config::below(&home)?, Bank)?;
    while !votes(&client, name).await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.close().await;
    let bank = node.client(Duration::from_secs(10)).machine::<Bank>();
    let balance = bank.ask(&"ann".to_owned()).await?;
    println!("{name} votes, and knows that ann has {balance}");
    Ok(node)
}

/// A client with the administrator's certificate. It finds the members by way of the first node.
fn administrator(dir: &Path) -> Result<Client, Box<dyn Error>> {
    let first = Bundle::read_file(&found::bundle_file(&dir.join("keys"), "n1"))?;
    Ok(Client::new(ClientOptions {
        endpoints: first
            .members
            .into_iter()
            .map(|member| member.address)
            .collect(),
        credentials: Some(found::load_admin(&dir.join("keys"))?),
        timeout: Duration::from_secs(10),
        ..ClientOptions::default()
    }))
}

/// Tells the cluster of a new node, and makes its secret bundle. What `kvctl member add` does.
async fn add(client: &Client, keys: &Path, node: &NewNode) -> Result<Bundle, Box<dyn Error>> {
    let cluster = client.connect().await?;
    let authority = found::load_authority(keys, ClusterId(cluster.cluster))?;
    let members = client.member_table().await?.members.into_iter();
    let members = members.map(|member| member.address).chain([node.member()]);
    let bundle = node.bundle(&authority, &cluster.cluster_name, members, true, 365)?;
    let add = MemberChange::Add(node.member());
    let (before, after) = client.change_members(vec![add], false).await?;
    println!(
        "{} voters, soon {}; {} are needed",
        before.voters, after.voters, after.quorum
    );
    Ok(bundle)
}

async fn votes(client: &Client, name: &str) -> Result<bool, Box<dyn Error>> {
    let members = client.member_table().await?.members;
    let state = members.iter().find(|member| member.address.name == name);
    Ok(state.is_some_and(|member| member.state == MemberState::Voter))
}
