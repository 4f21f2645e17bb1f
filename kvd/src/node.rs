//! The shell around the [`Driver`](crate::driver::Driver): sockets, threads, the clock.
//!
//! The network, the consensus loop and the answers share one thread, because a hand-over between threads costs more than
//! the protocol does; the log has a thread of its own, because a sync blocks. Nothing in the loop waits for a disk.

mod admission;
mod boot;
mod clients;
mod disk_delay;
mod embedded;
mod facts;
mod log_thread;
mod scrub_thread;
mod shell;
mod snapshot_tasks;
mod unix_socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::config::Config;
use crate::exit::Failure;
use crate::kv::auth::Principal;
use crate::machine::Machines;
use crate::wire::client::{Request, Response};

/// A running node: its threads, and a way to talk to it in the same process.
///
/// Dropping the handle stops the node as a crash would: nothing is flushed and nobody is told. [`Node::shutdown`] hands
/// leadership over first.
pub struct Node {
    name: String,
    controls: mpsc::Sender<Control>,
    thread: JoinHandle<Result<(), Failure>>,
    address: SocketAddr,
    http: Option<SocketAddr>,
    /// Closed when the thread ends.
    ended: mpsc::Receiver<()>,
}

/// What the owner of a node may ask of it.
pub(crate) enum Control {
    Shutdown,
    Crash,
    /// A request as from a client of this name, without a connection.
    Ask {
        principal: Principal,
        request: Request,
        answer: oneshot::Sender<Response>,
    },
    /// A client in the same process, over a stream of its own.
    Connect(Box<embedded::EmbeddedClient>),
    /// Drop or delay datagrams to and from these addresses.
    Impair(BTreeMap<SocketAddr, raft_net::Path>),
    /// Stand still until `wait` says how to go on; `stands` is told when that has begun.
    Pause {
        stands: std::sync::mpsc::Sender<()>,
        wait: std::sync::mpsc::Receiver<Crash>,
    },
    /// Wait this long before anything is written to the log.
    SlowDisk(Duration),
}

/// Ends a node that stands still.
#[derive(Debug)]
pub(crate) struct Crash;

/// A node that stands still, see [`Node::pause`]. It goes on when this is dropped.
#[derive(Debug)]
pub struct Paused {
    crash: std::sync::mpsc::Sender<Crash>,
}

impl Paused {
    /// Ends the node as [`Node::crash`] does, without a step in between.
    pub fn crash(self) {
        // A node that is gone needs no crash.
        let _ = self.crash.send(Crash);
    }
}

/// A cheap way to ask a node in the same process, for the HTTP door and the demo's shell.
#[derive(Clone)]
pub struct Asker {
    /// Weak, so that a door does not keep a dropped node alive.
    controls: mpsc::WeakSender<Control>,
}

impl Asker {
    /// Asks as `principal` and waits for the answer; `None` when the node is gone.
    pub async fn ask(&self, principal: Principal, request: Request) -> Option<Response> {
        let (answer, answered) = oneshot::channel();
        let ask = Control::Ask {
            principal,
            request,
            answer,
        };
        self.controls.upgrade()?.send(ask).await.ok()?;
        answered.await.ok()
    }
}

impl Node {
    /// Opens the data directory, binds the sockets and starts the threads. Returns as soon as the node serves, before it has
    /// found a quorum.
    ///
    /// # Errors
    /// Everything that `kvd run` reports with an exit code: see [`Failure`].
    pub fn start(config: Config) -> Result<Node, Failure> {
        Node::start_with(config, Machines::new())
    }

    /// The same with state machines of the user: one, or [`Machines`] of several. All nodes of a cluster need the same.
    ///
    /// # Errors
    /// As for [`Node::start`].
    ///
    /// # Panics
    /// As [`Machines::with`].
    pub fn start_with(config: Config, machines: impl Into<Machines>) -> Result<Node, Failure> {
        let machines = machines.into();
        let (controls, inbox) = mpsc::channel(64);
        let (ready, started) = std::sync::mpsc::channel();
        let (alive, ended) = mpsc::channel(1);
        let own = controls.downgrade();
        let name = config.node.name.clone();
        let thread = std::thread::Builder::new()
            .name(format!("kvd-{}", config.node.name))
            .spawn(move || {
                let _alive = alive;
                shell::run(&config, machines, own, inbox, ready)
            })
            .map_err(|error| Failure::start("a thread", &error))?;
        match started.recv() {
            Ok(bound) => Ok(Node {
                name,
                controls,
                thread,
                address: bound.address,
                http: bound.http,
                ended,
            }),
            Err(_) => match thread.join().expect("a node's thread does not panic") {
                Ok(()) => Err(Failure::start("the node", &"it stopped before it served")),
                Err(failure) => Err(failure),
            },
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where peers and clients reach this node.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the HTTP door is, if it is open.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// A way to ask this node.
    pub fn asker(&self) -> Asker {
        Asker {
            controls: self.controls.downgrade(),
        }
    }

    /// A client of the cluster by way of this node, without a certificate and without the network; it may do everything.
    /// Each call takes at most `timeout`, repetitions included. Clones share one session, so make one and clone it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn client(&self, timeout: Duration) -> Client {
        embedded::client(self.controls.downgrade(), timeout)
    }

    /// Asks the node to hand leadership over and stop.
    pub fn shutdown(&self) {
        // A node that is gone needs no asking; `join` tells why it went.
        let _ = self.controls.try_send(Control::Shutdown);
    }

    /// Stops the node between two steps: nothing is flushed and nobody is told.
    pub fn crash(&self) {
        let _ = self.controls.try_send(Control::Crash);
    }

    /// Drops or delays real datagrams between this node and these addresses, until called again.
    pub fn impair(&self, paths: BTreeMap<SocketAddr, raft_net::Path>) {
        let _ = self.controls.try_send(Control::Impair(paths));
    }

    /// Makes the node stand still as SIGSTOP does a process: it neither receives, nor sends, nor notices that time goes by. Only
    /// what its log thread was given before is still written. Blocks until the node stands; `None` if it is gone, or too busy.
    pub fn pause(&self) -> Option<Paused> {
        let (crash, wait) = std::sync::mpsc::channel();
        let (stands, told) = std::sync::mpsc::channel();
        let pause = Control::Pause { stands, wait };
        self.controls.try_send(pause).ok()?;
        told.recv().ok()?;
        Some(Paused { crash })
    }

    /// Makes the disk of the log slow: before anything is written and synced the log waits this long, until called again.
    /// [`Duration::ZERO`] makes it as quick as it is, at once. Neither snapshots nor reads are held up.
    pub fn slow_disk(&self, delay: Duration) {
        let _ = self.controls.try_send(Control::SlowDisk(delay));
    }

    /// Waits until the node has ended, for whatever reason; [`Node::join`] tells which.
    pub async fn ended(&mut self) {
        // Nothing is ever sent; the channel closes.
        let _ = self.ended.recv().await;
    }

    /// Waits until the node has stopped.
    ///
    /// # Errors
    /// Why it stopped, if nobody asked it to.
    pub fn join(self) -> Result<(), Failure> {
        self.thread.join().expect("a node's thread does not panic")
    }
}
