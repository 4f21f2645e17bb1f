//! Nodes that are restarted over and over.

use std::time::{Duration, Instant};

use kvd_sim::process::{Cluster, Load, NodeView, dump, long, seeded_rng, wait_for};
use raft_log::Opened;
use rand::RngExt as _;

const PATIENCE: Duration = Duration::from_secs(60);

/// Case 22: under load a node chosen by chance is restarted every two seconds, by `kill -9` or in good order. No acknowledged
/// write is missing, and no node's commit index is ever lower than the one it had stored.
#[test]
fn nothing_acknowledged_is_missing_after_a_restart_loop() {
    let duration = Duration::from_secs(if long() { 300 } else { 30 });
    let mut rng = seeded_rng();
    let mut cluster = Cluster::start();
    let load = Load::writing(&cluster, 8, "loop");
    let start = Instant::now();
    let mut restarts = 0;
    while start.elapsed() < duration {
        let next = Instant::now() + Duration::from_secs(2);
        let node = rng.random_range(0..cluster.nodes.len());
        restart(&mut cluster, node, rng.random_bool(0.7));
        restarts += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    load.wait_for_more(50);
    let told = load.finish();
    println!(
        "{restarts} restarts, {} acknowledged, {} unknown",
        told.written.len(),
        told.unknown.len()
    );
    told.check(&dump(&cluster));
    cluster.wait_converged();
}

fn restart(cluster: &mut Cluster, node: usize, by_force: bool) {
    let before = view(cluster, node);
    if by_force {
        cluster.nodes[node].kill();
    } else {
        cluster.nodes[node].stop();
    }
    let opened = stored_log(cluster, node);
    let stored = opened.commit;
    // The commit index is stored lazily, but a clean stop finishes what was given to the log.
    assert!(
        by_force || opened.last_index >= before.commit_index,
        "stopped at {before:?}, stored {opened:?}"
    );
    cluster.nodes[node].start();
    let after = view(cluster, node);
    assert!(
        after.commit_index >= stored,
        "n{}: {} stored, then {after:?}",
        node + 1,
        stored
    );
    assert!(
        after.term >= before.term,
        "n{}: term {} and then {}",
        node + 1,
        before.term,
        after.term
    );
}

fn view(cluster: &Cluster, node: usize) -> NodeView {
    wait_for("the status of a node", PATIENCE, || cluster.view(node))
}

/// What the stopped node's log has stored, read in a copy, because opening a log mends it.
fn stored_log(cluster: &Cluster, node: usize) -> Opened {
    let node = &cluster.nodes[node];
    let copy = tempfile::tempdir_in(cluster.home()).expect("our directory");
    for entry in std::fs::read_dir(node.log_dir()).expect("the log of a node") {
        let entry = entry.expect("the log of a node");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name()))
            .expect("a file can be copied");
    }
    let credentials = raft_net::Credentials::load(&node.dir.join("tls")).expect("joined");
    let raft_net::Identity::Node { cluster, id, .. } = credentials.identity() else {
        panic!("a node has a node's certificate");
    };
    let binding = raft_log::Binding {
        cluster: cluster.0,
        node: *id,
    };
    let opened = raft_log::Wal::open(
        &raft_log::OsFs,
        copy.path(),
        binding,
        raft_log::Options::default(),
    );
    opened.expect("the log of a stopped node is sound").1
}
