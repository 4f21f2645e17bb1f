//! Clusters of real processes.
//!
//! A [`Cluster`] is made as a user makes one: `kvctl cluster init`, `kvd join --dir`, `kvd run`. Its nodes can be killed,
//! paused and stopped in good order; their logs are shown when a test fails, and everything is removed at the end.
//!
//! Helpers panic with what they saw when something does not happen in time.

mod binaries;
mod cluster;
mod facts;
mod http;
mod kvctl;
mod load;
mod node;
mod ports;
mod pulse;
mod quic;
mod record;
mod status;
mod wait;

pub use binaries::{Binaries, binaries};
pub use cluster::{Cluster, ClusterBuilder};
pub use facts::machine_facts;
pub use http::{HttpAnswer, http_request};
pub use kvctl::{Ran, run as run_command};
pub use load::{Acknowledged, Load, client_options, dump, open_runtime};
pub use node::NodeProcess;
pub use ports::free_port;
pub use quic::{Dialled, Dialler, Presented};
pub use record::{RecordPlace, find_records};
pub use status::{ClusterStatus, NodeView};
pub use wait::{PATIENCE, eventually, wait_for};

use std::path::PathBuf;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Directory for scratch files of tests: below the build directory, so on the disk that also holds the binaries.
///
/// # Panics
/// The directory cannot be made.
#[must_use]
pub fn scratch_root() -> PathBuf {
    let root = binaries::target_dir().join("tmp");
    std::fs::create_dir_all(&root).expect("the build directory is ours");
    root
}

/// Whether the long form of tests was asked for, with `KVD_TEST_LONG=1`.
#[must_use]
pub fn long() -> bool {
    std::env::var("KVD_TEST_LONG").is_ok_and(|value| value == "1")
}

/// A source of chance for a test. The seed is printed, so that a failed test shows it; `KVD_TEST_SEED` sets it.
///
/// # Panics
/// `KVD_TEST_SEED` is not a number.
#[must_use]
pub fn seeded_rng() -> StdRng {
    let seed = match std::env::var("KVD_TEST_SEED") {
        Ok(text) => text.parse().expect("KVD_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("KVD_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
