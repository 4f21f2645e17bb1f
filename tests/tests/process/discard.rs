//! `kvctl log discard`: the log becomes a snapshot when an operator says so.

use kvd_sim::process::Cluster;
use serde_json::Value;

/// Written to each of a few keys over and over, so that the log grows and the snapshot does not.
const VALUE_BYTES: usize = 16 << 10;
const WRITES: usize = 256;

/// Snapshots of its own accord would hide whether the order did anything.
fn without_snapshots() -> Cluster {
    Cluster::builder()
        .set("log", "segment_bytes", "1MiB")
        .set("limits", "value_bytes", "64KiB")
        .set("limits", "request_bytes", "128KiB")
        .set("snapshot", "every_bytes", "512MiB")
        .build()
}

fn overwrite(cluster: &Cluster) {
    let line = |number: usize| {
        let value = format!("{number:08}").repeat(VALUE_BYTES / 8);
        format!("key{}\t{value}\n", number % 4)
    };
    let lines: String = (0..WRITES).map(line).collect();
    cluster
        .kvctl_with(&["import", "-", "--batch", "4"], lines.as_bytes())
        .ok();
    cluster.wait_converged();
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// The first index moves up to the snapshot and the directory gets smaller, on every node; and what was written is there, also
/// after `kill -9` of all.
#[test]
fn discarded_log_makes_the_directory_smaller_and_loses_nothing() {
    let mut cluster = without_snapshots();
    overwrite(&cluster);
    let sizes: Vec<u64> = cluster.nodes.iter().map(|node| node.data_bytes()).collect();
    let applied = cluster.view(0).expect("it runs").last_applied;
    let expected = cluster.local_export(0);
    let told = cluster
        .kvctl(&["log", "discard", "--timeout", "60s", "-o", "json"])
        .json();
    let nodes = told["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for (place, node) in nodes.iter().enumerate() {
        assert_eq!(node["done"], true, "{told}");
        assert_eq!(number(&node["first_index"]["before"]), 1, "{told}");
        assert!(number(&node["first_index"]["after"]) > applied, "{told}");
        assert!(number(&node["snapshot_index"]) >= applied, "{told}");
        let before = sizes[place];
        let what = format!("n{} to take less than {before} bytes", place + 1);
        // Files are removed after the index has moved.
        kvd_sim::process::eventually(&what, || {
            cluster.nodes[place].data_bytes() + (WRITES * VALUE_BYTES / 2) as u64 <= before
        });
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
    cluster.start_all();
    cluster.leader();
    cluster.wait_converged();
    for node in 0..3 {
        assert!(cluster.local_export(node) == expected, "n{}", node + 1);
    }
}

/// Named nodes only; a member that does not run is named, and the others do as they were told.
#[test]
fn named_nodes_discard_their_log_and_a_dead_one_is_said() {
    let mut cluster = without_snapshots();
    cluster.kvctl(&["set", "color", "red"]).ok();
    cluster.wait_converged();
    cluster.kvctl(&["log", "discard", "n2"]).ok();
    let first = |cluster: &Cluster, node: usize| cluster.view(node).expect("it runs").first_index;
    assert!(first(&cluster, 1) > 1);
    assert_eq!((first(&cluster, 0), first(&cluster, 2)), (1, 1));

    let dead = (cluster.leader() + 1) % 3;
    cluster.nodes[dead].kill();
    let ran = cluster.kvctl(&["log", "discard"]).expect_code(1);
    let name = format!("n{}", dead + 1);
    for line in ran.text().lines() {
        let state = line.split('\t').nth(1);
        let is_dead = line.starts_with(&name);
        assert_eq!(state == Some("done"), !is_dead, "{}", ran.text());
    }
    cluster.kvctl(&["log", "discard", "n9"]).expect_code(2);
}
