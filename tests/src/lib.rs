//! How kvd is tested as a whole.
//!
//! - [`check`]: checkers of recorded histories: linearizability, strict serializability, exactly-once.
//! - [`mutants`]: sabotages of the product that some test must notice.
//! - [`process`]: clusters of real `kvd` processes on loopback, driven through `kvctl`, HTTP and the client library.
//! - [`sim`]: a cluster in one process and one thread, from one seed: disks, network, clocks and clients that go wrong.
//! - [`watch`]: checkers of what a running cluster promises, fed with what its nodes do.
//!
//! This crate is never published and is no part of a running system: a helper that finds something wrong panics with what it
//! saw, because its callers are tests.

#![forbid(unsafe_code)]

pub mod check;
pub mod mutants;
pub mod process;
pub mod sim;
pub mod watch;
