//! A replica whose state is not that of the others, though its log is.

use bytes::Bytes;
use kvd::driver::HASH_EVERY;
use kvd::identity::snapshot_dir;
use kvd::kv::limits::StoreLimits;
use kvd::kv::{SnapshotContext, SnapshotReader, SnapshotWriter};
use kvd_sim::process::{Cluster, eventually};

use crate::small_log::{overwrite, small_segments};

/// Keys that are overwritten all the time, beside the one that is not.
const KEYS: u64 = 100;
/// Writes so many values.
fn write(cluster: &Cluster, count: u64) {
    let value = |number| format!("value {number:08}");
    overwrite(cluster, KEYS, (0..count).map(value));
}

/// Exchanges the newest snapshot of a stopped node by one of the same entry that is sound in all but one value, as a machine
/// with bad memory would have written it.
fn exchange_snapshot(cluster: &Cluster, node: usize, key: &str) {
    let dir = snapshot_dir(&cluster.nodes[node].data_dir());
    let files = std::fs::read_dir(dir).expect("a data directory can be read");
    let files = files.map(|entry| entry.expect("a data directory can be read").path());
    let newest = files.max().expect("it has a snapshot");
    let bytes = std::fs::read(&newest).expect("a snapshot can be read");
    let (header, mut store) =
        SnapshotReader::read(StoreLimits::default(), &bytes).expect("it is sound");
    assert!(store.rot(key.as_bytes()), "{key} is not in the snapshot");
    let context = SnapshotContext {
        term: header.term,
        configuration: header.configuration,
        configuration_index: header.configuration_index,
        members: header.members,
        cluster: header.cluster,
        cluster_version: header.cluster_version,
    };
    let blocks: Vec<Bytes> = SnapshotWriter::new(store, context).collect();
    std::fs::write(&newest, blocks.concat()).expect("a snapshot can be written");
}

/// A node starts from a snapshot that is sound and wrong. At the next position of the log it finds out, leaves service, gets the
/// state of a node that agreed, and is equal to the others again, also after another start.
#[test]
fn a_node_with_a_wrong_snapshot_takes_itself_out_and_is_rebuilt() {
    let mut cluster = small_segments()
        .set("log", "max_bytes", "2MiB")
        .set("snapshot", "every_bytes", "128KiB")
        .build();
    cluster.kvctl(&["set", "cold", "as it was"]).expect_code(0);
    write(&cluster, HASH_EVERY / 2);
    cluster.wait_converged();
    let leader = cluster.leader();
    let node = (leader + 1) % 3;
    assert!(cluster.view(node).expect("it runs").snapshot_index > 0);
    cluster.nodes[node].kill();
    exchange_snapshot(&cluster, node, "cold");
    cluster.nodes[node].start();
    cluster.wait_converged();
    assert!(
        cluster.local_export(node) != cluster.local_export(leader),
        "nobody knows yet"
    );
    write(&cluster, HASH_EVERY);
    eventually("the node to be in service again", || {
        cluster.nodes[node].log().contains("in service again")
    });
    let log = cluster.nodes[node].log();
    assert!(log.contains("out of service until it is rebuilt"), "{log}");
    cluster.wait_converged();
    assert!(cluster.local_export(node) == cluster.local_export(leader));
    let view = cluster.view(node).expect("it runs");
    assert_eq!((&*view.storage, view.repair_waits_for.len()), ("ok", 0));
    cluster.nodes[node].kill();
    cluster.nodes[node].start();
    cluster.wait_converged();
    assert!(cluster.local_export(node) == cluster.local_export(leader));
    for other in (0..3).filter(|other| *other != node) {
        let log = cluster.nodes[other].log();
        assert!(!log.contains("out of service"), "n{}: {log}", other + 1);
    }
}
