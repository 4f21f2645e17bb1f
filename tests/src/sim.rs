//! A cluster in one process and one thread: the real driver, store and log over simulated disks, network and time.
//!
//! A [`Scenario`] says everything: the seed that all drawing comes from, the weather, the clients, and what goes wrong when.
//! [`run`] plays it and checks every promise on the way ([`crate::watch`]) and at the end (what the clients were told). The
//! same scenario gives the same run, step by step.
//!
//! ```text
//!  Scenario --> World: queue of what is due --> SimNode: driver, log, snapshots over SimFs
//!     ^            |        ^                       |
//!     |            v        +---- packets, syncs <--+
//!  shrink       Watchers, Timeline, Calls of the clients
//! ```
//!
//! A tick of a node is [`kvd::driver::TICK_MS`] by its own clock; the world's time is in microseconds.

pub mod campaign;
mod client;
mod fault;
mod network;
mod node;
mod run;
mod scenario;
mod shrink;
mod swarm;
mod timeline;
mod verdict;
mod world;

pub use self::client::{Asked, Call, Told};
pub use self::fault::{Fault, NotAFault};
pub use self::run::{ELECTION_TIMEOUT_US, Failure, Figures, Outcome, finish, run};
pub use self::scenario::{NotAScenario, Scenario};
pub use self::shrink::shrink;
pub use self::swarm::swarm;
pub use self::timeline::Timeline;
pub use self::world::{Counts, OnItsWay, World};

/// A node of the world, by its place in the list; n1 is 0.
pub type Place = usize;

/// A time of the world, in microseconds since its beginning.
pub type Us = u64;
