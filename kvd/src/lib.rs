//! A replicated, strongly consistent key-value store: the embeddable node, and the client that talks to a cluster.
//!
//! The pure parts never touch a file, a clock or a socket: bytes, time and chance come in as arguments.
//!
//! - [`machine`]: state machines of your own, replicated as the store is;
//! - [`kv`]: what is replicated - commands, the envelope around them in the log, the store, sessions, snapshots;
//! - [`wire`]: requests of clients and messages between nodes as bytes.
//!
//! A counter of three nodes in one process, each with a directory, a certificate and a log:
//!
//! ```no_run
//! # #[cfg(feature = "server")] {
//! use std::time::Duration;
//! use kvd::machine::{Never, State, StateMachine, View};
//! use kvd::{found::Founding, join::join, node::Node};
//!
//! struct Counter;
//!
//! impl StateMachine for Counter {
//!     const NAME: &'static str = "counter";
//!     type Command = u64;
//!     type Answer = u64;
//!     type Rejection = Never;
//!     type Question = ();
//!     type Reply = u64;
//!
//!     fn apply(&self, state: &mut State<'_>, add: u64) -> Result<u64, Never> {
//!         let sum = state.load("sum").unwrap_or(0) + add;
//!         state.store("sum", &sum);
//!         Ok(sum)
//!     }
//!
//!     fn query(&self, view: &View<'_>, (): ()) -> u64 {
//!         view.load("sum").unwrap_or(0)
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::path::Path::new("/tmp/counter");
//! let mut nodes = Vec::new();
//! for bundle in Founding::on_loopback("counter", 3)?.write(&dir.join("keys"))? {
//!     let config = join(&bundle, Some(&dir.join(&bundle.node)))?.config; // Once; later: Config::below.
//!     nodes.push(Node::start_with(config, Counter)?);
//! }
//! let counter = nodes[2].client(Duration::from_secs(5)).machine::<Counter>();
//! assert_eq!(counter.submit(&7).await?, 7); // On a majority's disks, once, whoever leads.
//! assert_eq!(counter.ask(&()).await?, 7); // Linearizable.
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! Feature `client` alone gives what a program needs to talk to a cluster; feature `server` (default) is the node.

#![forbid(unsafe_code)]

#[cfg(any(feature = "client", feature = "server"))]
pub mod kv;
#[cfg(feature = "client")]
pub mod machine;
#[cfg(any(feature = "client", feature = "server"))]
pub mod wire;

#[cfg(any(feature = "client", feature = "server"))]
pub mod bundle;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(any(feature = "client", feature = "server"))]
pub mod contexts;
#[cfg(feature = "server")]
pub mod exit;
#[cfg(feature = "client")]
pub mod found;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod join;
#[cfg(any(feature = "client", feature = "server"))]
pub mod names;

#[cfg(feature = "server")]
pub mod log_cache;
#[cfg(feature = "server")]
pub mod log_worker;
#[cfg(feature = "server")]
pub mod recover;
#[cfg(feature = "server")]
pub mod snapshots;

#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod driver;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
pub mod node;
