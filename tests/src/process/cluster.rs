//! A cluster of processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};

use raft_net::ClusterId;
use raft_net::pki::Authority;
use tempfile::TempDir;

use super::binaries::binaries;
use super::kvctl::{Ran, run};
use super::node::NodeProcess;
use super::status::{ClusterStatus, NodeView};
use super::wait::{PATIENCE, eventually, wait_for};
use super::{free_port, scratch_root};

/// Clusters that run at once in one test process: three daemons and a load each are enough for two cores.
const CLUSTERS_AT_ONCE: usize = 2;

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    nodes: usize,
    settings: Vec<(&'static str, &'static str, toml::Value)>,
    started: bool,
}

impl Default for ClusterBuilder {
    fn default() -> ClusterBuilder {
        // A machine busy with other tests delays processes by more than the default timeouts are made for, and segments of
        // 64 MiB, zeroed ahead on every node, would be most of what it writes.
        let settings = vec![
            ("raft", "heartbeat", "100ms".into()),
            ("raft", "election_timeout", "1s".into()),
            ("log", "segment_bytes", "4MiB".into()),
        ];
        ClusterBuilder {
            nodes: 3,
            settings,
            started: true,
        }
    }
}

impl ClusterBuilder {
    /// With this many nodes instead of three.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> ClusterBuilder {
        self.nodes = nodes;
        self
    }

    /// With the settings that users get, to measure them.
    #[must_use]
    pub fn as_shipped(mut self) -> ClusterBuilder {
        self.settings.clear();
        self
    }

    /// With a setting in every node's configuration.
    #[must_use]
    pub fn set(
        mut self,
        section: &'static str,
        key: &'static str,
        value: impl Into<toml::Value>,
    ) -> ClusterBuilder {
        self.settings.push((section, key, value.into()));
        self
    }

    /// Joined, but not started.
    #[must_use]
    pub fn not_started(mut self) -> ClusterBuilder {
        self.started = false;
        self
    }

    /// Makes the cluster and waits until it has a leader.
    ///
    /// # Panics
    /// A step fails.
    #[must_use]
    pub fn build(self) -> Cluster {
        let permit = Permit::take();
        let home = tempfile::Builder::new()
            .prefix("kvd-")
            .tempdir_in(scratch_root())
            .expect("a directory for a test");
        let mut cluster = Cluster {
            nodes: Vec::new(),
            id: ClusterId(0),
            settings: self.settings,
            home,
            _permit: permit,
        };
        cluster.init(self.nodes);
        for node in &cluster.nodes {
            cluster.join(node).ok();
            node.configure(&cluster.settings);
        }
        if self.started {
            cluster.start_all();
            cluster.leader();
        }
        cluster
    }
}

/// A cluster of `kvd` processes in a directory that is removed at the end.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, n1 first. Declared before the directory: they are gone before it goes.
    pub nodes: Vec<NodeProcess>,
    /// The cluster's id.
    pub id: ClusterId,
    settings: Vec<(&'static str, &'static str, toml::Value)>,
    home: TempDir,
    _permit: Permit,
}

impl Cluster {
    /// How to make one.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Three running nodes.
    #[must_use]
    pub fn start() -> Cluster {
        ClusterBuilder::default().build()
    }

    /// The directory of everything.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// What `kvctl cluster init` made.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.home().join("secrets")
    }

    /// A file that `kvctl cluster init` made, as text.
    ///
    /// # Panics
    /// There is none of this name.
    #[must_use]
    pub fn secret(&self, name: &str) -> String {
        let file = self.secrets().join(name);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// The cluster's own certificate authority.
    ///
    /// # Panics
    /// What `kvctl cluster init` made is none.
    #[must_use]
    pub fn authority(&self) -> Authority {
        Authority::from_pem(self.id, &self.secret("ca.pem"), &self.secret("ca.key"))
            .expect("an authority")
    }

    fn init(&mut self, count: usize) {
        for number in 1..=count {
            let name = format!("n{number}");
            let port = free_port();
            let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
            self.nodes.push(NodeProcess::new(
                name.clone(),
                self.home().join(name),
                at(port),
                at(free_port()),
            ));
        }
        let mut words = vec!["cluster".to_owned(), "init".to_owned(), "test".to_owned()];
        words.extend(
            self.nodes
                .iter()
                .map(|node| format!("{}={}", node.name, node.address)),
        );
        words.extend(
            self.nodes
                .iter()
                .flat_map(|node| ["--http".to_owned(), format!("{}={}", node.name, node.http)]),
        );
        words.extend(["--dir".to_owned(), self.secrets().display().to_string()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.kvctl(&words).ok();
        let certificate = self.secret("admin.pem");
        let credentials = raft_net::Credentials::from_pem(
            self.secret("ca.pem").as_bytes(),
            certificate.as_bytes(),
            self.secret("admin.key").as_bytes(),
        );
        self.id = credentials
            .expect("init makes an administrator's certificate")
            .identity()
            .cluster();
    }

    /// Makes a later node with `kvctl member WORDS... NAME=ADDR --bundle`, joins it and starts it. It is the last one of the list
    /// from then on.
    ///
    /// # Panics
    /// A step fails.
    pub fn add_node(&mut self, name: &str, words: &[&str]) {
        self.add_nodes(&[name], words);
    }

    /// As [`add_node`](Cluster::add_node), for several nodes in one command.
    ///
    /// # Panics
    /// A step fails.
    pub fn add_nodes(&mut self, names: &[&str], words: &[&str]) {
        let at = || std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let new =
            |name: &&str| NodeProcess::new((*name).to_owned(), self.home().join(name), at(), at());
        let nodes: Vec<NodeProcess> = names.iter().map(new).collect();
        let mut line = vec!["member".to_owned()];
        line.extend(words.iter().map(|word| (*word).to_owned()));
        line.extend(nodes.iter().map(|it| format!("{}={}", it.name, it.address)));
        for node in &nodes {
            let bundle = self.secrets().join(format!("{}.kvd", node.name));
            let door = format!("{}={}", node.name, node.http);
            line.extend(["--bundle".to_owned(), bundle.display().to_string()]);
            line.extend(["--http".to_owned(), door]);
        }
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        // Not by the context, which names the nodes that the cluster was made of.
        self.kvctl_at(self.nodes.len() - 1, &line).ok();
        for mut node in nodes {
            self.join(&node).ok();
            node.configure(&self.settings);
            node.start();
            self.nodes.push(node);
        }
    }

    /// `kvd join` of this node's bundle.
    #[must_use]
    pub fn join(&self, node: &NodeProcess) -> Ran {
        let bundle = self.secrets().join(format!("{}.kvd", node.name));
        let bundle = bundle.display().to_string();
        self.kvd(&["join", &bundle, "--dir", &node.dir.display().to_string()])
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            if !node.is_started() {
                node.start();
            }
        }
    }

    /// Runs `kvd` with these words.
    #[must_use]
    pub fn kvd(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(&binaries().kvd);
        command.args(words).current_dir(self.home());
        run(command, b"")
    }

    /// Runs `kvctl` with these words in the cluster's context.
    #[must_use]
    pub fn kvctl(&self, words: &[&str]) -> Ran {
        self.kvctl_with(words, b"")
    }

    /// Runs `kvctl` with these words, and these bytes on its stdin.
    #[must_use]
    pub fn kvctl_with(&self, words: &[&str], stdin: &[u8]) -> Ran {
        run(self.kvctl_command(words), stdin)
    }

    /// Runs `kvctl` with these words against one node.
    #[must_use]
    pub fn kvctl_at(&self, node: usize, words: &[&str]) -> Ran {
        let mut command = self.kvctl_command(&[]);
        command.args(self.endpoint_flags(node)).args(words);
        run(command, b"")
    }

    /// Flags that make `kvctl` ask one node.
    #[must_use]
    pub fn endpoint_flags(&self, node: usize) -> Vec<String> {
        let secret = |name: &str| self.secrets().join(name).display().to_string();
        let mut flags = vec![
            "--endpoints".to_owned(),
            self.nodes[node].address.to_string(),
        ];
        for (flag, file) in [
            ("--ca", "ca.pem"),
            ("--cert", "admin.pem"),
            ("--key", "admin.key"),
        ] {
            flags.extend([flag.to_owned(), secret(file)]);
        }
        flags
    }

    /// The command itself, to run beside something else.
    #[must_use]
    pub fn kvctl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&binaries().kvctl);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KVCTL_") {
                command.env_remove(name);
            }
        }
        command.args(words).current_dir(self.home());
        command.env("KVCTL_CONFIG", self.home().join("kvctl-config"));
        // No test may touch what a user keeps.
        command
            .env("HOME", self.home())
            .env("XDG_CONFIG_HOME", self.home().join("xdg"));
        command
    }

    /// `kvctl status -o json`; `None` when it reaches nobody.
    #[must_use]
    pub fn status(&self) -> Option<ClusterStatus> {
        let ran = self.kvctl(&["status", "-o", "json", "--timeout", "2s"]);
        let json = serde_json::from_slice(&ran.stdout).ok()?;
        Some(ClusterStatus::parse(json))
    }

    /// The status of one node by its own word, from its HTTP door.
    #[must_use]
    pub fn view(&self, node: usize) -> Option<NodeView> {
        let answer = self.nodes[node].get("/status")?;
        (answer.code == 200).then(|| NodeView::parse(&answer.json()))
    }

    /// Position of the leader that a majority knows. Waits for one.
    ///
    /// # Panics
    /// There is none within a minute.
    pub fn leader(&mut self) -> usize {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let leader = self.agreed_leader();
            if let Some(leader) = leader {
                return leader;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "no leader: {:?}",
                self.status()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// The leader that a majority names at this moment.
    #[must_use]
    pub fn agreed_leader(&self) -> Option<usize> {
        let views: Vec<NodeView> = (0..self.nodes.len())
            .filter_map(|node| self.view(node))
            .collect();
        let leader = views
            .iter()
            .filter(|view| view.role == "leader")
            .max_by_key(|view| view.term)?;
        let agreed = views
            .iter()
            .filter(|view| view.leader.as_deref() == Some(&*leader.name))
            .count();
        let position = self
            .nodes
            .iter()
            .position(|node| node.name == leader.name)?;
        (agreed * 2 > self.nodes.len()).then_some(position)
    }

    /// Waits until every node has applied the same, at the same index, with the same hash.
    ///
    /// # Panics
    /// They do not agree within a minute, or have different states at the same index.
    pub fn wait_converged(&self) {
        eventually("all nodes to have applied the same", || {
            self.have_converged()
        });
    }

    fn have_converged(&self) -> bool {
        let views: Vec<NodeView> = (0..self.nodes.len())
            .filter_map(|node| self.view(node))
            .collect();
        let Some(first) = views.first() else {
            return false;
        };
        let applied = views.iter().all(|view| {
            view.last_applied == first.last_applied && view.commit_index == view.last_applied
        });
        if views.len() != self.nodes.len() || !applied {
            return false;
        }
        for view in views
            .iter()
            .filter(|view| view.state_hash.0 == first.state_hash.0)
        {
            assert_eq!(
                view.state_hash, first.state_hash,
                "{} and {} differ",
                view.name, first.name
            );
        }
        true
    }

    /// Waits until this node has applied at least up to an index.
    ///
    /// # Panics
    /// It does not within a minute.
    pub fn wait_applied(&self, node: usize, index: u64) {
        let what = format!("{} to apply entry {index}", self.nodes[node].name);
        wait_for(&what, PATIENCE, || {
            self.view(node).filter(|view| view.last_applied >= index)
        });
    }

    /// What one node holds, by its own word.
    #[must_use]
    pub fn local_export(&self, node: usize) -> Vec<u8> {
        self.kvctl_at(node, &["export", "--consistency", "local"])
            .expect_code(0)
            .stdout
    }
}

/// The right to run a cluster.
#[derive(Debug)]
struct Permit;

static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Permit {
    fn take() -> Permit {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |running: &mut usize| *running >= CLUSTERS_AT_ONCE;
        let mut running = FREED
            .wait_while(running, wait)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
