//! The demo's shell: lines in, effects on the cluster out.

mod faults;
mod keys;
mod log;
mod members;
mod show;

use std::time::Duration;

use tokio::runtime::Runtime;

use super::cluster::Cluster;
use super::line::{HELP, Line};
use crate::client::{Client, ClientOptions};
use crate::exit::{ExitCode, Failure};
use crate::kv::auth::{Principal, Role};
use crate::wire::client::{Request, Response};
use crate::wire::status::NodeStatus;

/// How long a command may take; longer than two elections.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at what is to happen.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether the shell goes on.
pub(super) enum Flow {
    Go,
    Quit,
}

/// A cluster, a client of it, and what was read last.
pub(super) struct Shell {
    cluster: Cluster,
    client: Client,
    runtime: Runtime,
    last_value: Option<String>,
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
            Line::Cas { key, old, new } => self.compare_and_set(&key, old, new)?,
            Line::Expect(wanted) => self.expect(&wanted)?,
            Line::Disconnect { node, other } => self.disconnect(&node, other.as_deref())?,
            Line::Reconnect { node } => self.reconnect(&node)?,
            Line::Partition(one, other) => self.partition(&one, &other)?,
            Line::Heal => self.heal(),
            Line::Delay { node, other, delay } => self.delay(&node, &other, delay)?,
            Line::Loss { node, other, share } => self.lose(&node, &other, share)?,
            Line::SlowDisk { node, delay } => self.slow_disk(&node, delay)?,
            Line::Crash { node } => self.crash(&node)?,
            Line::Restart { node } => self.restart(&node)?,
            Line::Pause { node } => self.pause(&node)?,
            Line::Resume { node } => self.resume(&node)?,
            Line::Shutdown { node } => self.shutdown(&node)?,
            Line::Add(names) => self.add(&names)?,
            Line::Remove(names) => self.remove(&names)?,
            Line::Leader => self.show_leader()?,
            Line::Transfer { node } => self.transfer(node)?,
            Line::Nodes => self.show_nodes(),
            Line::Status => self.show_status(),
            Line::Log { node, count } => self.show_log(&node, count)?,
            Line::Discard { node } => self.discard(&node)?,
            Line::Sleep(duration) => std::thread::sleep(duration),
        }
        Ok(Flow::Go)
    }

    /// Stops everything that runs.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        self.runtime.block_on(self.client.close());
        self.cluster.stop_all()
    }

    fn found(&mut self, count: usize) -> Result<(), String> {
        self.runtime.block_on(self.client.close());
        self.cluster
            .restart_fresh(count)
            .map_err(|failure| failure.to_string())?;
        self.client =
            client_of(&self.runtime, &self.cluster, None).map_err(|failure| failure.to_string())?;
        println!("{count} fresh nodes are up");
        Ok(())
    }

    /// Asks one node in this process, as its owner.
    fn ask(&self, name: &str, request: Request) -> Result<Response, String> {
        let node = self.cluster.answering(name)?;
        let who = Principal::new(Role::Internal, "demo");
        let answer = self.runtime.block_on(node.asker().ask(who, request));
        match answer {
            Some(Response::Refused(refusal)) => Err(refusal.to_string()),
            Some(response) => Ok(response),
            None => Err(format!("{name} has ended")),
        }
    }

    fn status_of(&self, name: &str) -> Result<NodeStatus, String> {
        let answer = self.ask(name, Request::Status)?;
        let Response::Status(status) = answer else {
            return Err(format!("{name} answered {answer:?}"));
        };
        Ok(*status)
    }

    /// What each node that can be asked says of itself.
    fn statuses(&self) -> Vec<NodeStatus> {
        let nodes = self.cluster.nodes().iter();
        nodes
            .filter_map(|node| self.status_of(&node.name).ok())
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
