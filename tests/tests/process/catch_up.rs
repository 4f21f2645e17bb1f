//! A node that was away for longer than the log reaches back.

use kvd_sim::process::{Cluster, PATIENCE, wait_for};

use crate::small_log::{self, small_segments};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 256 * KIB;
const LOG_BYTES: u64 = MIB;
const KEYS: u64 = 200;
const VALUE_BYTES: usize = 1 << 10;

fn small_log() -> Cluster {
    small_segments()
        .set("log", "max_bytes", "1MiB")
        .set("snapshot", "every_bytes", "256KiB")
        .build()
}

/// Overwrites the same keys with so many bytes.
fn overwrite(cluster: &Cluster, bytes: u64) {
    let value = |number| format!("{number:08}").repeat(VALUE_BYTES / 8);
    let count = bytes / VALUE_BYTES as u64;
    small_log::overwrite(cluster, KEYS, (0..count).map(value));
}

/// Must show 6: a node is stopped while much more than `log.max_bytes` is written. It catches up by a snapshot, its local
/// export is equal, and no directory grows beyond its bounds.
#[test]
fn a_node_that_was_away_catches_up_by_a_snapshot() {
    let mut cluster = small_log();
    overwrite(&cluster, 64 * KIB);
    cluster.wait_converged();
    let away = (cluster.leader() + 1) % 3;
    let last_seen = cluster.view(away).expect("it runs").last_applied;
    cluster.nodes[away].kill();
    overwrite(&cluster, 6 * LOG_BYTES);
    let leader = cluster.leader();
    let discarded = wait_for("the leader to discard old log", PATIENCE, || {
        cluster
            .view(leader)
            .filter(|view| view.first_index > last_seen + 1)
    });
    println!(
        "away at {last_seen}, the log now begins at {}",
        discarded.first_index
    );
    cluster.nodes[away].start();
    let target = cluster.view(leader).expect("it runs").commit_index;
    cluster.wait_applied(away, target);
    let view = cluster.view(away).expect("it runs");
    assert!(
        view.snapshot_index > last_seen,
        "it did not get a snapshot: {view:?}"
    );
    overwrite(&cluster, 64 * KIB);
    cluster.wait_converged();
    let expected = cluster.local_export(leader);
    assert!(
        expected.len() > VALUE_BYTES * 100,
        "{} bytes",
        expected.len()
    );
    assert!(cluster.local_export(away) == expected, "the exports differ");
    for node in 0..3 {
        assert_bounded(&cluster, node);
    }
    restart_all(&mut cluster);
    assert!(
        cluster.local_export(away) == expected,
        "the exports differ after a restart"
    );
}

/// Case 36: the leader's snapshots have rotted when a node needs one. It writes another one and sends that.
#[test]
fn a_node_that_was_away_gets_another_snapshot_when_the_first_has_rotted() {
    let mut cluster = small_log();
    overwrite(&cluster, 64 * KIB);
    cluster.wait_converged();
    let away = (cluster.leader() + 1) % 3;
    let last_seen = cluster.view(away).expect("it runs").last_applied;
    cluster.nodes[away].kill();
    overwrite(&cluster, 3 * LOG_BYTES);
    let leader = cluster.leader();
    wait_for("the leader to discard old log", PATIENCE, || {
        cluster
            .view(leader)
            .filter(|view| view.first_index > last_seen + 1)
    });
    let rotten = rot_snapshots(&cluster, leader);
    cluster.nodes[away].start();
    let target = cluster.view(leader).expect("it runs").commit_index;
    cluster.wait_applied(away, target);
    let log = cluster.nodes[leader].log();
    let told = log
        .lines()
        .any(|line| line.contains("snapshot not delivered") && line.contains(&rotten));
    assert!(told, "it was not sent first: {log}");
    cluster.wait_converged();
    assert!(cluster.local_export(away) == cluster.local_export(leader));
}

/// Flips a bit in every snapshot of a node, and returns the name of the newest.
fn rot_snapshots(cluster: &Cluster, node: usize) -> String {
    let dir = cluster.nodes[node].data_dir().join("snapshots");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("a data directory can be read")
        .map(|entry| entry.expect("a data directory can be read").path())
        .collect();
    files.sort();
    for file in &files {
        let mut bytes = std::fs::read(file).expect("a snapshot can be read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        // In place, as rot does; the node may have the file open.
        std::fs::write(file, bytes).expect("a snapshot can be written");
    }
    let newest = files.last().and_then(|file| file.file_name());
    newest.expect("there is one").display().to_string()
}

fn restart_all(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        node.kill();
    }
    cluster.start_all();
    cluster.leader();
    cluster.wait_converged();
}

/// The log with its tail and a spare, two snapshots and one in the making, and the small files.
fn assert_bounded(cluster: &Cluster, node: usize) {
    let snapshot = 2 * KEYS * VALUE_BYTES as u64;
    let bound = LOG_BYTES + 3 * SEGMENT_BYTES + 3 * snapshot + 256 * KIB;
    let bytes = cluster.nodes[node].data_bytes();
    assert!(
        bytes <= bound,
        "n{} takes {bytes} bytes, at most {bound} were to be",
        node + 1
    );
}
