//! A power cut on a real file system: a writer dies, and what its disk holds by then is compared with what it
//! has acknowledged.
//!
//! ```text
//! writer --writes--> page cache of a mounted ext4 --syncs, journal commits--> loop device --> image file
//!    |                                                                                            | copied while
//!    | says what it begins and what is done                                                       | it is mounted
//!    v                                                                                            v
//! this test <----- compared ----- Wal::open <----- mount, which replays the journal <-------- what is left
//! ```
//!
//! What was written and not synced is in the page cache and nowhere else, so the copy is without it; some of it
//! is then added at random, as if the kernel had written it out by itself. A writer dies at a random time or, more
//! often, in place of a sync, where the most is at stake; now and then several die before the power goes.
//!
//! Needs root, loop devices and a few tools; says so and passes where it may not have them. Mounts live in a mount
//! namespace of their own, so they and the loop devices go with the processes, also when those are killed.
//! `RAFT_LOG_POWER_CUTS=200` makes more rounds, `RAFT_LOG_POWER_CUT_SEED=n` the same choices again, as far as
//! the clock lets them meet the same calls.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "modules of one test")]

mod power_cut {
    pub mod account;
    pub mod cut_fs;
    pub mod disk;
    pub mod proof;
    pub mod rig;
    pub mod writer;
}
mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use power_cut::disk::{TOOLS, missing_tools, run, tool};
use power_cut::rig;
use power_cut::writer::{Orders, write_until_death};
use raft_log::record::payload_checksum;
use support::random::Random;
use support::{BINDING, Model};

const TEST: &str = "power_cuts_on_ext4_lose_nothing_acknowledged";

/// Arguments with which this binary runs it once more.
const AGAIN: [&str; 3] = ["--exact", TEST, "--nocapture"];

/// Tells a process that this test started what it is: [`RIG`] or, with its orders, a writer.
const ROLE: &str = "RAFT_LOG_POWER_CUT_ROLE";
/// Cuts the power; in a mount namespace of its own.
const RIG: &str = "rig";

/// Case 17, on a real file system: everything acknowledged is there after a power cut, and nothing that was not sent.
#[test]
fn power_cuts_on_ext4_lose_nothing_acknowledged() {
    match std::env::var(ROLE).as_deref() {
        Ok(RIG) => rig::run_rounds(),
        Ok(orders) => write_until_death(&Orders::decode(orders)),
        Err(_) => match missing() {
            Some(missing) => skip(&missing),
            None => run_rig(),
        },
    }
}

/// What this machine or this user lacks.
fn missing() -> Option<String> {
    let tools = missing_tools();
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if !tools.is_empty() {
        return Some(format!("of {TOOLS:?} there is no {tools:?}"));
    }
    let namespace = run(tool("unshare").args(["--mount", "--propagation", "private", "true"]));
    let device = run(tool("losetup").arg("--find"));
    namespace.and(device).err()
}

/// Past the test harness, which would keep it.
fn skip(missing: &str) {
    let _ = writeln!(std::io::stderr(), "power cuts on ext4: skipped: {missing}");
}

fn run_rig() {
    let mut rig = tool("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(AGAIN)
        .env(ROLE, RIG)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(rig.stdout.take().unwrap()).lines() {
        println!("{}", line.unwrap());
    }
    assert!(rig.wait().unwrap().success(), "see above");
}

/// A log's content in one line.
fn sketch(model: &Model) -> String {
    let mut bytes = Vec::new();
    for (index, (term, payload)) in &model.entries {
        bytes.extend(index.to_le_bytes());
        bytes.extend(term.to_le_bytes());
        bytes.extend(payload);
    }
    format!(
        "floor {:?} last {}@{} hard {:?} checksum {:08x}",
        model.floor,
        model.last_index(),
        model.last_term(),
        model.hard_state,
        payload_checksum(BINDING.cluster, &bytes)
    )
}
