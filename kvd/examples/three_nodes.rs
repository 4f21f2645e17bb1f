//! A bank on three nodes in one process, whose leader dies. With a directory as argument they stay there and run until Ctrl-C.

mod bank;

use std::{error::Error, path::Path, time::Duration};

use bank::{Bank, Order, Overdrawn};
use kvd::machine::SubmitError;
use kvd::{config::Config, found::Founding, join::join, node::Node};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(dir) = std::env::args_os().nth(1) else {
        let dir = tempfile::tempdir()?;
        return run(start(dir.path())?).await;
    };
    let nodes = start(dir.as_ref())?;
    tokio::signal::ctrl_c().await?;
    stop(nodes)
}

/// Starts the nodes of a directory; founds their cluster first if there is none.
pub(crate) fn start(dir: &Path) -> Result<Vec<Node>, Box<dyn Error>> {
    let keys = dir.join("keys");
    if !keys.exists() {
        for bundle in Founding::on_loopback("bank", 3)?.write(&keys)? {
            join(&bundle, Some(&dir.join(&bundle.node)))?;
        }
    }
    let node = |name| Ok(Node::start_with(Config::below(&dir.join(name))?, Bank)?);
    ["n1", "n2", "n3"].into_iter().map(node).collect()
}

/// Uses the bank by way of one node, whichever leads, and takes the leader away.
pub(crate) async fn run(mut nodes: Vec<Node>) -> Result<(), Box<dyn Error>> {
    let order = |from: Option<&str>, to: &str, amount| Order {
        from: from.map(str::to_owned),
        to: to.to_owned(),
        amount,
    };
    let client = nodes[0].client(Duration::from_secs(30));
    let bank = client.machine::<Bank>();
    assert_eq!(bank.submit(&order(None, "ann", 100)).await?, 100);
    assert_eq!(bank.submit(&order(Some("ann"), "bob", 60)).await?, 60);
    let rejected = bank.submit(&order(Some("ann"), "bob", 60)).await;
    let balance = 40;
    assert_eq!(rejected, Err(SubmitError::Rejected(Overdrawn { balance })));
    println!("ann has {balance}, which is not enough");

    let (members, leader) = client.members().await?;
    let leader = members.iter().find(|m| Some(m.address.id) == leader);
    let leader = &leader.ok_or("somebody has answered")?.address.name;
    let place = nodes.iter().position(|node| node.name() == leader);
    nodes.remove(place.ok_or("it runs here")?).crash(); // As by kill -9.
    println!("{leader} is gone; two of three go on");
    let bank = nodes[1].client(Duration::from_secs(30)).machine::<Bank>();
    assert_eq!(bank.submit(&order(Some("bob"), "ann", 1)).await?, 41);
    println!("bob has {}", bank.ask(&"bob".to_owned()).await?);
    stop(nodes)
}

/// Stops all nodes at once: one after the other, the last would wait for a quorum that is gone.
pub(crate) fn stop(nodes: Vec<Node>) -> Result<(), Box<dyn Error>> {
    nodes.iter().for_each(Node::shutdown);
    Ok(nodes.into_iter().try_for_each(Node::join)?)
}
