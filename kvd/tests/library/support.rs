//! Clusters of real nodes, and a machine that counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kvd::client::{Client, ClientOptions};
use kvd::config::Config;
use kvd::found::{self, Founding};
use kvd::join::join;
use kvd::machine::{Machines, State, StateMachine, View};
use kvd::node::Node;
use serde::{Deserialize, Serialize};

/// Longer than any election on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Counts. Each answer is another number, so no two submissions can be answered by one execution, and none executed twice
/// without a gap in the answers.
pub(crate) struct Counter;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Count {
    One,
    Panic,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TooMuch;

impl StateMachine for Counter {
    const NAME: &'static str = "counter";
    type Command = Count;
    type Answer = u64;
    type Rejection = TooMuch;
    type Question = bool;
    type Reply = u64;

    fn apply(&self, state: &mut State<'_>, count: Count) -> Result<u64, TooMuch> {
        let next = state.load("n").unwrap_or(0) + 1;
        state.store("n", &next);
        match count {
            Count::One => Ok(next),
            Count::Panic => panic!("told to"),
        }
    }

    fn query(&self, view: &View<'_>, panics: bool) -> u64 {
        assert!(!panics, "asked to");
        view.load("n").unwrap_or(0)
    }
}

/// Nodes with directories below one; each can be killed and started again.
pub(crate) struct Cluster {
    home: tempfile::TempDir,
    pub(crate) nodes: Vec<Option<Node>>,
}

impl Cluster {
    /// Founds a cluster and starts its nodes with a counter.
    pub(crate) fn start(count: usize) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let founding = Founding::on_loopback("test", count).unwrap();
        for bundle in founding.write(&home.path().join("keys")).unwrap() {
            join(&bundle, Some(&home.path().join(&bundle.node))).unwrap();
        }
        let mut cluster = Cluster {
            home,
            nodes: (0..count).map(|_| None).collect(),
        };
        (0..count).for_each(|place| cluster.restart(place, Counter));
        cluster
    }

    pub(crate) fn dir(&self) -> &Path {
        self.home.path()
    }

    fn node_dir(&self, place: usize) -> PathBuf {
        self.dir().join(format!("n{}", place + 1))
    }

    /// Starts a node that does not run.
    pub(crate) fn restart(&mut self, place: usize, machines: impl Into<Machines>) {
        assert!(self.nodes[place].is_none(), "it runs");
        let config = Config::below(&self.node_dir(place)).unwrap();
        self.nodes[place] = Some(Node::start_with(config, machines).unwrap());
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self, place: usize) {
        let node = self.nodes[place].take().unwrap();
        node.crash();
        node.join().unwrap();
    }

    /// A client by way of one node.
    pub(crate) fn client(&self, place: usize) -> Client {
        self.nodes[place].as_ref().unwrap().client(PATIENCE)
    }

    /// A client over the network that knows all nodes.
    pub(crate) fn remote(&self) -> Client {
        let nodes = self.nodes.iter().flatten();
        Client::new(ClientOptions {
            endpoints: nodes.map(|node| node.address().to_string()).collect(),
            credentials: Some(found::load_admin(&self.dir().join("keys")).unwrap()),
            timeout: PATIENCE,
            retry_overloaded: true,
            ..ClientOptions::default()
        })
    }

    /// The place of the leader, as a client learns it.
    pub(crate) async fn leader(&self, client: &Client) -> usize {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (members, leader) = client.members().await.unwrap();
            let leader = members.iter().find(|m| Some(m.address.id) == leader);
            if let Some(leader) = leader {
                let name = &leader.address.name;
                return name.trim_start_matches('n').parse::<usize>().unwrap() - 1;
            }
            assert!(tokio::time::Instant::now() < until, "nobody leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
