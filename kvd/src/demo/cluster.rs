//! The nodes of a demo: made as an operator would make them, started and stopped one by one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use raft_net::Credentials;

use super::context::DemoContext;
use crate::config::Config;
use crate::exit::{ExitCode, Failure};
use crate::found::{self, Founding};
use crate::join::join;
use crate::node::Node;

const CERTIFICATE_DAYS: u32 = 30;

/// Smaller than by default, so that a demo starts at once.
const SEGMENT_BYTES: u64 = 8 << 20;
const LOG_BYTES_MAX: u64 = 256 << 20;

/// One node of a demo, running or not.
pub(super) struct DemoNode {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) http: Option<SocketAddr>,
    config: Config,
    running: Option<Node>,
}

impl DemoNode {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn http_text(&self) -> String {
        self.http
            .map_or_else(|| "off".into(), |address| address.to_string())
    }
}

/// All nodes of a demo and the files they live from.
pub(super) struct Cluster {
    dir: PathBuf,
    nodes: Vec<DemoNode>,
    generation: u32,
    context: Option<DemoContext>,
}

impl Cluster {
    /// Makes and starts `count` nodes below `dir`.
    pub(super) fn start(dir: &Path, count: usize) -> Result<Cluster, Failure> {
        let mut cluster = Cluster {
            dir: dir.to_owned(),
            nodes: Vec::new(),
            generation: 0,
            context: None,
        };
        cluster.found(count)?;
        Ok(cluster)
    }

    /// Stops what runs and starts `count` fresh nodes.
    pub(super) fn restart_fresh(&mut self, count: usize) -> Result<(), Failure> {
        self.stop_all()?;
        self.generation += 1;
        self.nodes.clear();
        self.found(count)
    }

    fn found(&mut self, count: usize) -> Result<(), Failure> {
        let home = self.home();
        if !home.join("admin.pem").exists() {
            found(&home, count)?;
        }
        for number in 1..=count {
            let name = format!("n{number}");
            let mut config = Config::below(&home.join(&name))?;
            config.log.segment_bytes = SEGMENT_BYTES;
            config.log.max_bytes = LOG_BYTES_MAX;
            config.log.reserve_bytes = SEGMENT_BYTES;
            let node = Node::start(config.clone())?;
            let (address, http) = (node.address(), node.http());
            self.nodes.push(DemoNode {
                name,
                address,
                http,
                config,
                running: Some(node),
            });
        }
        // The old one first: dropping it removes the name.
        self.context = None;
        self.context = DemoContext::write(self.endpoints(), &home);
        Ok(())
    }

    fn home(&self) -> PathBuf {
        match self.generation {
            0 => self.dir.clone(),
            later => self.dir.join(format!("cluster-{later}")),
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.home()
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
        let dir = self.home().display().to_string();
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
        Ok(found::load_admin(&self.home())?)
    }

    /// The running node of this name.
    pub(super) fn running(&self, name: &str) -> Result<&Node, String> {
        let node = self.node(name)?;
        node.running
            .as_ref()
            .ok_or_else(|| format!("{name} is not running"))
    }

    fn node(&self, name: &str) -> Result<&DemoNode, String> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .ok_or_else(|| format!("no node is called {name}"))
    }

    fn take(&mut self, name: &str) -> Result<Node, String> {
        self.node(name)?;
        let node = self
            .nodes
            .iter_mut()
            .find(|node| node.name == name)
            .expect("just found");
        node.running
            .take()
            .ok_or_else(|| format!("{name} is not running"))
    }

    pub(super) fn crash(&mut self, name: &str) -> Result<(), String> {
        let node = self.take(name)?;
        node.crash();
        node.join().map_err(|failure| failure.to_string())
    }

    pub(super) fn shutdown(&mut self, name: &str) -> Result<(), String> {
        let node = self.take(name)?;
        node.shutdown();
        node.join().map_err(|failure| failure.to_string())
    }

    pub(super) fn restart(&mut self, name: &str) -> Result<(), String> {
        if self.node(name)?.is_running() {
            return Err(format!("{name} is running"));
        }
        let node = self
            .nodes
            .iter_mut()
            .find(|node| node.name == name)
            .expect("just found");
        node.running =
            Some(Node::start(node.config.clone()).map_err(|failure| failure.to_string())?);
        Ok(())
    }

    /// Drops all datagrams between each pair in `cuts`; all other links carry again.
    pub(super) fn cut(&self, cuts: &[(String, String)]) {
        for node in &self.nodes {
            let Some(running) = &node.running else {
                continue;
            };
            let lost = self.nodes.iter().filter(|other| {
                let is = |a: &str, b: &str| a == node.name && b == other.name;
                cuts.iter().any(|(a, b)| is(a, b) || is(b, a))
            });
            running.cut(lost.map(|other| other.address).collect());
        }
    }

    /// Stops every node in good order.
    pub(super) fn stop_all(&mut self) -> Result<(), Failure> {
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

/// Certificates, bundles and joined directories for `count` nodes on loopback.
fn found(home: &Path, count: usize) -> Result<(), Failure> {
    std::fs::create_dir_all(home).map_err(|error| Failure::storage(home, &error))?;
    let cannot = |error: &dyn std::fmt::Display| Failure::new(ExitCode::CannotStart, error);
    let founding = Founding::on_loopback("demo", count).map_err(|error| cannot(&error))?;
    let authority = founding.authority();
    let admin = authority
        .issue_admin("demo", CERTIFICATE_DAYS)
        .map_err(|error| cannot(&error))?;
    write(&home.join("ca.pem"), authority.ca_pem())?;
    write(&home.join("admin.key"), &admin.key_pem)?;
    for mut bundle in founding.bundles().map_err(|error| cannot(&error))? {
        bundle.http = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        bundle.write_file(&found::bundle_file(home, &bundle.node))?;
        join(&bundle, Some(&home.join(&bundle.node)))?;
    }
    // Last: its presence says that everything else is there.
    write(&home.join("admin.pem"), &admin.cert_pem)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let options = || {
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    };
    options()
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::storage(path, &error))
}
