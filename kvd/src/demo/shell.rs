//! The demo's shell: lines in, effects on the cluster out.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::cluster::Cluster;
use super::line::{HELP, Line};
use crate::client::{Client, ClientOptions};
use crate::exit::{ExitCode, Failure};
use crate::kv::auth::{Principal, Role};
use crate::kv::command::{Command, KeyRange, Op, OpResult, RangeQuery};
use crate::wire::client::{Consistency, Request, Response};
use crate::wire::status::NodeStatus;

/// How long a command may take; longer than two elections.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the shell goes on.
pub(super) enum Flow {
    Go,
    Quit,
}

/// A cluster, a client of it, and what was typed before.
pub(super) struct Shell {
    cluster: Cluster,
    client: Client,
    runtime: Runtime,
    last_value: Option<String>,
    cuts: Vec<(String, String)>,
}

impl Shell {
    pub(super) fn new(cluster: Cluster) -> Result<Shell, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(ExitCode::CannotStart, error))?;
        let client = client_of(&runtime, &cluster, None)?;
        Ok(Shell {
            cluster,
            client,
            runtime,
            last_value: None,
            cuts: Vec::new(),
        })
    }

    /// Executes one line; the error is for the person who typed it.
    pub(super) fn execute(&mut self, text: &str) -> Result<Flow, String> {
        match Line::parse(text)? {
            Line::Nothing => {}
            Line::Quit => return Ok(Flow::Quit),
            Line::Help => println!("{HELP}"),
            Line::Cluster(count) => self.found(count)?,
            Line::Set { key, value, via } => self.set(key, value, via.as_deref())?,
            Line::Get { key, via } => self.get(key, via.as_deref())?,
            Line::Del { key } => self.delete(key)?,
            Line::Expect(wanted) => self.expect(&wanted)?,
            Line::Disconnect { node, other } => self.disconnect(node, other)?,
            Line::Reconnect { node } => self.reconnect(&node)?,
            Line::Heal => self.heal(),
            Line::Crash { node } => {
                self.cluster.crash(&node)?;
                println!("{node} crashed");
            }
            Line::Restart { node } => {
                self.cluster.restart(&node)?;
                self.cluster.cut(&self.cuts);
                println!("{node} started");
            }
            Line::Shutdown { node } => {
                self.cluster.shutdown(&node)?;
                println!("{node} stopped");
            }
            Line::Leader => self.show_leader()?,
            Line::Transfer { node } => self.transfer(node)?,
            Line::Nodes => self.show_nodes()?,
            Line::Sleep(duration) => std::thread::sleep(duration),
        }
        Ok(Flow::Go)
    }

    /// What stands before the cursor: leader and term, as one of the nodes sees them.
    pub(super) fn prompt(&mut self) -> String {
        let known = self
            .statuses()
            .into_iter()
            .filter(|status| status.leader.is_some());
        match known.max_by_key(|status| status.term) {
            Some(status) => format!(
                "{} term {}>",
                status.leader.unwrap_or_default(),
                status.term
            ),
            None => "no leader>".into(),
        }
    }

    /// Stops everything that runs.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        self.runtime.block_on(self.client.close());
        self.cluster.stop_all()
    }

    fn found(&mut self, count: usize) -> Result<(), String> {
        self.runtime.block_on(self.client.close());
        self.cuts.clear();
        self.cluster
            .restart_fresh(count)
            .map_err(|failure| failure.to_string())?;
        self.client =
            client_of(&self.runtime, &self.cluster, None).map_err(|failure| failure.to_string())?;
        println!("{count} fresh nodes are up");
        Ok(())
    }

    fn set(&mut self, key: String, value: String, via: Option<&str>) -> Result<(), String> {
        let op = Op::Put {
            key: key.into(),
            value: value.into(),
            want_previous: false,
        };
        let client = self.client(via)?;
        let result = self
            .runtime
            .block_on(client.write(Command::Op(op)))
            .map_err(|error| error.to_string())?;
        match result.results.first() {
            Some(OpResult::Put { version, .. }) => {
                println!("OK  version {version}, revision {}", result.revision)
            }
            other => return Err(format!("the cluster answered {other:?}")),
        }
        Ok(())
    }

    fn get(&mut self, key: String, via: Option<&str>) -> Result<(), String> {
        let client = self.client(via)?;
        let read = client.read(RangeQuery::key(key.clone()), Consistency::Linearizable);
        let answer = self
            .runtime
            .block_on(read)
            .map_err(|error| error.to_string())?;
        let item = answer
            .result
            .items
            .first()
            .ok_or_else(|| format!("{key} is absent"))?;
        let text = String::from_utf8_lossy(&item.value).into_owned();
        println!("{text}");
        self.last_value = Some(text);
        Ok(())
    }

    fn delete(&mut self, key: String) -> Result<(), String> {
        let op = Op::Delete {
            range: KeyRange::Key(Bytes::from(key)),
            want_previous: false,
        };
        let result = self
            .runtime
            .block_on(self.client.write(Command::Op(op)))
            .map_err(|error| error.to_string())?;
        match result.results.first() {
            Some(OpResult::Deleted { count, .. }) => println!("{count} deleted"),
            other => return Err(format!("the cluster answered {other:?}")),
        }
        Ok(())
    }

    fn expect(&self, wanted: &str) -> Result<(), String> {
        match &self.last_value {
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(format!("expected {wanted}, found {found}")),
            None => Err(format!("expected {wanted}, and nothing was read yet")),
        }
    }

    fn disconnect(&mut self, node: String, other: Option<String>) -> Result<(), String> {
        self.cluster.running(&node)?;
        let others: Vec<String> = match other {
            Some(other) => {
                self.cluster.running(&other)?;
                vec![other]
            }
            None => self
                .cluster
                .nodes()
                .iter()
                .map(|n| n.name.clone())
                .filter(|n| *n != node)
                .collect(),
        };
        self.cuts
            .extend(others.into_iter().map(|other| (node.clone(), other)));
        self.cluster.cut(&self.cuts);
        println!("{node} disconnected");
        Ok(())
    }

    fn reconnect(&mut self, node: &str) -> Result<(), String> {
        self.cluster.running(node)?;
        self.cuts.retain(|(a, b)| a != node && b != node);
        self.cluster.cut(&self.cuts);
        println!("{node} reconnected");
        Ok(())
    }

    fn heal(&mut self) {
        self.cuts.clear();
        self.cluster.cut(&self.cuts);
        println!("all links carry again");
    }

    /// Waits for a leader that lives, because after a crash there is none for a moment.
    fn show_leader(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let leads =
                |status: &NodeStatus| status.leader.as_deref() == Some(status.name.as_str());
            if let Some(leader) = self
                .statuses()
                .into_iter()
                .filter(leads)
                .max_by_key(|status| status.term)
            {
                println!("{} leads term {}", leader.name, leader.term);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err("no node leads".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn transfer(&mut self, node: String) -> Result<(), String> {
        let moved = self
            .runtime
            .block_on(self.client.transfer_leader(Some(node.clone())));
        moved.map_err(|error| error.to_string())?;
        println!("leadership is on its way to {node}");
        Ok(())
    }

    fn show_nodes(&mut self) -> Result<(), String> {
        let statuses = self.statuses();
        for node in self.cluster.nodes() {
            match statuses.iter().find(|status| status.name == node.name) {
                Some(status) => println!(
                    "{}  {:<9}  term {}  commit {}  applied {}  log {}..{}",
                    node.name,
                    status.role.as_str(),
                    status.term,
                    status.commit_index,
                    status.last_applied,
                    status.first_index,
                    status.last_index
                ),
                None => println!("{}  stopped", node.name),
            }
        }
        Ok(())
    }

    /// What each running node says of itself.
    fn statuses(&self) -> Vec<NodeStatus> {
        let askers = self
            .cluster
            .nodes()
            .iter()
            .filter_map(|node| self.cluster.running(&node.name).ok());
        let answers = askers.map(|node| {
            let who = Principal::new(Role::Internal, "demo");
            self.runtime
                .block_on(node.asker().ask(who, Request::Status))
        });
        answers
            .filter_map(|answer| match answer {
                Some(Response::Status(status)) => Some(*status),
                _ => None,
            })
            .collect()
    }

    /// The shell's client, or one that talks only to this node.
    fn client(&self, via: Option<&str>) -> Result<Client, String> {
        match via {
            None => Ok(self.client.clone()),
            Some(name) => {
                let address = self.cluster.running(name)?.address().to_string();
                client_of(&self.runtime, &self.cluster, Some(address))
                    .map_err(|failure| failure.to_string())
            }
        }
    }
}

fn client_of(
    runtime: &Runtime,
    cluster: &Cluster,
    only: Option<String>,
) -> Result<Client, Failure> {
    let _inside = runtime.enter();
    let pinned = only.is_some();
    Ok(Client::new(ClientOptions {
        endpoints: only.map_or_else(|| cluster.endpoints(), |address| vec![address]),
        credentials: Some(cluster.admin_credentials()?),
        timeout: TIMEOUT,
        pinned,
        ..ClientOptions::default()
    }))
}
