//! The nodes of a demo: started and stopped one by one, with the faults that they have.

mod files;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use raft_net::Credentials;

use self::files::Files;
use super::context::DemoContext;
use super::faults::Faults;
use crate::config::{Config, Sources};
use crate::exit::Failure;
use crate::found::{self, NewNode};
use crate::node::{Node, Paused};
use crate::wire::client::MemberAddress;

/// Smaller than by default, so that a demo starts at once.
const SEGMENT_BYTES: u64 = 8 << 20;
const LOG_BYTES_MAX: u64 = 256 << 20;

/// One node of a demo, running or not.
pub(super) struct DemoNode {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) http: Option<SocketAddr>,
    dir: PathBuf,
    config: Config,
    // Before the node, so that it goes on first.
    paused: Option<Paused>,
    running: Option<Node>,
}

impl DemoNode {
    /// Starts the node whose files are in `dir`.
    fn start(dir: &Path) -> Result<DemoNode, Failure> {
        let loaded = Config::load(&Sources {
            file: Some(dir.join("kvd.toml")),
            ..Sources::default()
        })?;
        let mut config = loaded.config;
        config.log.segment_bytes = SEGMENT_BYTES;
        config.log.max_bytes = LOG_BYTES_MAX;
        config.log.reserve_bytes = SEGMENT_BYTES;
        let node = Node::start(config.clone())?;
        Ok(DemoNode {
            name: config.node.name.clone(),
            address: node.address(),
            http: node.http(),
            dir: dir.to_owned(),
            config,
            paused: None,
            running: Some(node),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// The node, if it can be asked.
    pub(super) fn answering(&self) -> Option<&Node> {
        self.running.as_ref().filter(|_| !self.is_paused())
    }

    /// The directory of its log.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.config.node.data.join("log")
    }

    pub(super) fn http_text(&self) -> String {
        self.http
            .map_or_else(|| "off".into(), |address| address.to_string())
    }

    fn take(&mut self) -> Result<Node, String> {
        let name = &self.name;
        let node = self.running.take();
        node.ok_or_else(|| format!("{name} is not running"))
    }
}

/// Nodes that have their directories, and are neither members nor started.
pub(super) struct Newcomers {
    members: Vec<NewNode>,
    dirs: Vec<PathBuf>,
}

/// All nodes of a demo and the files they live from.
pub(super) struct Cluster {
    dir: PathBuf,
    generation: u32,
    files: Files,
    nodes: Vec<DemoNode>,
    faults: Faults,
    context: Option<DemoContext>,
}

impl Cluster {
    /// Makes and starts `count` nodes below `dir`, or starts those that are there.
    pub(super) fn start(dir: &Path, count: usize) -> Result<Cluster, Failure> {
        let mut cluster = Cluster {
            dir: dir.to_owned(),
            generation: 0,
            files: Files::open(dir, count)?,
            nodes: Vec::new(),
            faults: Faults::default(),
            context: None,
        };
        cluster.start_listed()?;
        Ok(cluster)
    }

    /// Stops what runs and starts `count` fresh nodes.
    pub(super) fn restart_fresh(&mut self, count: usize) -> Result<(), Failure> {
        self.stop_all()?;
        self.nodes.clear();
        self.faults = Faults::default();
        self.generation += 1;
        self.files = Files::open(&self.dir(), count)?;
        self.start_listed()
    }

    fn start_listed(&mut self) -> Result<(), Failure> {
        for dir in self.files.list()? {
            self.nodes.push(DemoNode::start(&dir)?);
        }
        self.write_context();
        Ok(())
    }

    /// Tells `kvctl` where the nodes are now.
    fn write_context(&mut self) {
        // The old one first: dropping it removes the name.
        self.context = None;
        self.context = DemoContext::write(self.endpoints(), &self.dir());
    }

    /// The directory of everything.
    pub(super) fn dir(&self) -> PathBuf {
        match self.generation {
            0 => self.dir.clone(),
            later => self.dir.join(format!("cluster-{later}")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn nodes(&self) -> &[DemoNode] {
        &self.nodes
    }

    /// What `kvctl` needs to find the cluster.
    pub(super) fn kvctl_flags(&self) -> String {
        if self.context.is_some() {
            return "--context demo".into();
        }
        let dir = self.dir().display().to_string();
        let endpoints = self.endpoints().join(",");
        format!("-e {endpoints} --ca {dir}/ca.pem --cert {dir}/admin.pem --key {dir}/admin.key")
    }

    /// Where the nodes are, running or not.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.address.to_string())
            .collect()
    }

    /// The certificate that `kvctl` uses too.
    pub(super) fn admin_credentials(&self) -> Result<Credentials, Failure> {
        Ok(found::load_admin(&self.dir())?)
    }

    /// The node of this name, if it runs.
    pub(super) fn running(&self, name: &str) -> Result<&Node, String> {
        let node = self.node(name)?;
        node.running
            .as_ref()
            .ok_or_else(|| format!("{name} is not running"))
    }

    /// The node of this name, if it can be asked.
    pub(super) fn answering(&self, name: &str) -> Result<&Node, String> {
        self.running(name)?;
        let node = self.node(name)?.answering();
        node.ok_or_else(|| format!("{name} is paused"))
    }

    /// The node of this name.
    pub(super) fn node(&self, name: &str) -> Result<&DemoNode, String> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|node| node.name == name)
            .ok_or_else(|| unknown(name))
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut DemoNode, String> {
        let mut nodes = self.nodes.iter_mut();
        nodes
            .find(|node| node.name == name)
            .ok_or_else(|| unknown(name))
    }

    pub(super) fn crash(&mut self, name: &str) -> Result<(), String> {
        let node = self.node_mut(name)?;
        let running = node.take()?;
        match node.paused.take() {
            Some(paused) => paused.crash(),
            None => running.crash(),
        }
        running.join().map_err(|failure| failure.to_string())
    }

    pub(super) fn shutdown(&mut self, name: &str) -> Result<(), String> {
        let node = self.node_mut(name)?;
        if node.is_paused() {
            return Err(format!("{name} is paused, and does not hear of it"));
        }
        let running = node.take()?;
        running.shutdown();
        running.join().map_err(|failure| failure.to_string())
    }

    pub(super) fn restart(&mut self, name: &str) -> Result<(), String> {
        let node = self.node_mut(name)?;
        if node.is_running() {
            return Err(format!("{name} is running"));
        }
        let started = Node::start(node.config.clone()).map_err(|failure| failure.to_string())?;
        node.http = started.http();
        node.running = Some(started);
        self.apply_faults();
        Ok(())
    }

    pub(super) fn pause(&mut self, name: &str) -> Result<(), String> {
        let node = self.node_mut(name)?;
        if node.is_paused() {
            return Err(format!("{name} is paused already"));
        }
        let running = node.running.as_ref();
        let running = running.ok_or_else(|| format!("{name} is not running"))?;
        let paused = running.pause();
        node.paused = Some(paused.ok_or_else(|| format!("{name} does not answer"))?);
        Ok(())
    }

    pub(super) fn resume(&mut self, name: &str) -> Result<(), String> {
        let paused = self.node_mut(name)?.paused.take();
        paused
            .map(drop)
            .ok_or_else(|| format!("{name} is not paused"))
    }

    /// Changes the faults, and lets the running nodes have them.
    pub(super) fn change_faults(&mut self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults);
        self.apply_faults();
    }

    fn apply_faults(&self) {
        for node in &self.nodes {
            let Some(running) = &node.running else {
                continue;
            };
            let others = self.nodes.iter().filter(|other| other.name != node.name);
            let paths: BTreeMap<SocketAddr, raft_net::Path> = others
                .map(|other| (other.address, self.faults.path(&node.name, &other.name)))
                .collect();
            running.impair(paths);
            running.slow_disk(self.faults.disk_delay(&node.name));
        }
    }

    /// Ids and addresses for nodes that are to join.
    pub(super) fn new_members(&self, names: &[String]) -> Result<Vec<NewNode>, String> {
        for name in names {
            crate::names::check_name(name).map_err(|why| format!("the name {name} {why}"))?;
            if self.nodes.iter().any(|node| node.name == *name) {
                return Err(format!("there is a node {name} already"));
            }
        }
        files::new_members(names).map_err(|failure| failure.to_string())
    }

    /// Makes certificates and directories for nodes that are to join; `present` are the members that they are told of.
    pub(super) fn prepare(
        &self,
        members: Vec<NewNode>,
        present: &[MemberAddress],
    ) -> Result<Newcomers, String> {
        let joining = members.iter().map(NewNode::member);
        let all: Vec<MemberAddress> = present.iter().cloned().chain(joining).collect();
        let joined = members
            .iter()
            .map(|member| self.files.join_later(member, &all));
        let dirs: Result<Vec<PathBuf>, Failure> = joined.collect();
        let dirs = dirs.map_err(|failure| failure.to_string())?;
        Ok(Newcomers { members, dirs })
    }

    /// Starts nodes that have become members.
    pub(super) fn admit(&mut self, newcomers: Newcomers) -> Result<(), String> {
        let said = |failure: Failure| failure.to_string();
        for dir in &newcomers.dirs {
            self.nodes.push(DemoNode::start(dir).map_err(said)?);
        }
        self.remember_nodes().map_err(said)
    }

    /// Removes the directories of nodes that did not become members.
    pub(super) fn take_back(&self, newcomers: &Newcomers) -> Result<(), String> {
        let mut dirs = newcomers.dirs.iter();
        let removed = dirs.try_for_each(|dir| self.files.take_back(dir));
        removed.map_err(|failure| failure.to_string())
    }

    /// Stops a node that is no member any more, and forgets it. Its directory stays.
    pub(super) fn retire(&mut self, name: &str) -> Result<(), String> {
        let node = self.node_mut(name)?;
        node.paused = None;
        if node.is_running() {
            self.shutdown(name)?;
        }
        self.nodes.retain(|node| node.name != name);
        self.faults.forget(name);
        self.apply_faults();
        self.remember_nodes().map_err(|failure| failure.to_string())
    }

    fn remember_nodes(&mut self) -> Result<(), Failure> {
        let dirs = self.nodes.iter().map(|node| node.dir.as_path());
        self.files.write_list(dirs)?;
        self.apply_faults();
        self.write_context();
        Ok(())
    }

    /// Stops every node in good order.
    pub(super) fn stop_all(&mut self) -> Result<(), Failure> {
        self.nodes.iter_mut().for_each(|node| node.paused = None);
        let running: Vec<Node> = self
            .nodes
            .iter_mut()
            .filter_map(|node| node.running.take())
            .collect();
        // All at once: one after the other, the last two would wait for a quorum that is gone.
        running.iter().for_each(Node::shutdown);
        running.into_iter().try_for_each(Node::join)
    }
}

impl Newcomers {
    /// Who they are.
    pub(super) fn members(&self) -> &[NewNode] {
        &self.members
    }
}

fn unknown(name: &str) -> String {
    format!("no node is called {name}")
}
