//! A replicated, strongly consistent key-value store: the embeddable node, and the client that talks to a cluster.
//!
//! The pure parts never touch a file, a clock or a socket: bytes, time and chance come in as arguments.
//!
//! - [`kv`]: what is replicated - commands, the envelope around them in the log, the store, sessions, snapshots;
//! - [`wire`]: requests of clients and messages between nodes as bytes.
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
