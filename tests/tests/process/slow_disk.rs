//! Disks that are slow for a while, under nodes in this process.

use std::time::{Duration, Instant};

use kvd::config::{Config, Sources};
use kvd::node::Node;
use kvd_sim::process::{Cluster, Load, PATIENCE, eventually, wait_for};

use crate::rolling::finish;

/// Several election timeouts.
const SLOW: Duration = Duration::from_millis(1500);
/// How often an election that only a busy machine explains is forgiven.
const TRIES: usize = 4;

/// The nodes of a cluster that was made and not started, as a program that embeds them starts them.
fn start_here(cluster: &Cluster) -> Vec<Node> {
    let start = |file| {
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        let loaded = Config::load(&sources).expect("join writes a configuration");
        Node::start(loaded.config).expect("a joined node starts")
    };
    let files = cluster.nodes.iter().map(|node| node.config_file());
    files.map(start).collect()
}

fn stop(nodes: Vec<Node>) {
    nodes.iter().for_each(Node::shutdown);
    for node in nodes {
        node.join().expect("a clean stop");
    }
}

/// Three nodes with the timeouts that users get.
fn three_nodes() -> (Cluster, Vec<Node>) {
    let cluster = Cluster::builder()
        .as_shipped()
        .set("log", "segment_bytes", "4MiB")
        .not_started()
        .build();
    let nodes = start_here(&cluster);
    (cluster, nodes)
}

/// Who leads, and in which term.
fn leadership(cluster: &Cluster) -> Option<(usize, u64)> {
    let leader = cluster.agreed_leader()?;
    Some((leader, cluster.view(leader)?.term))
}

/// Case 54, with real threads: the disk of the leader becomes slow under load. Leadership leaves it by one transfer, does not
/// come back while the disk is slow, and clients go on without a failure.
#[test]
fn leadership_leaves_a_slow_disk_and_stays_away() {
    let (mut cluster, nodes) = three_nodes();
    let slow = cluster.leader();
    let load = Load::writing_and_reading(&cluster, 4, "slow");
    load.wait_for_each(20);
    load.begin_span();
    let begun = Instant::now();
    nodes[slow].slow_disk(SLOW);
    eventually("another leader", || {
        cluster.agreed_leader().is_some_and(|leader| leader != slow)
    });
    println!("another leader is known after {:?}", begun.elapsed());
    for _ in 0..10 {
        load.wait_for_each(20);
        assert_ne!(cluster.leader(), slow, "it leads again");
    }
    println!("longest gap of a client: {:?}", load.longest_gap());
    nodes[slow].slow_disk(Duration::ZERO);
    load.wait_for_each(20);
    finish(&cluster, load);
    stop(nodes);
}

/// Case 54: all disks are slow. Nobody is better off, so nobody gives up, and everything goes on slowly.
///
/// A machine that is busy with other things may hold a heartbeat up for an election timeout. That is not what this is about, so
/// it may happen now and then; a cluster that changes its leader for as long as the disks are slow fails.
#[test]
fn cluster_whose_disks_are_all_slow_keeps_its_leader() {
    let (mut cluster, nodes) = three_nodes();
    cluster.leader();
    let load = Load::writing_and_reading(&cluster, 4, "slow");
    load.wait_for_each(20);
    nodes.iter().for_each(|node| node.slow_disk(SLOW));
    let stays = (0..TRIES).any(|_| {
        // Whatever was begun before is over after that.
        load.wait_for_each(2);
        let before = wait_for("a leader", PATIENCE, || leadership(&cluster));
        load.wait_for_each(8);
        leadership(&cluster) == Some(before)
    });
    assert!(stays, "leadership moves on and on");
    nodes.iter().for_each(|node| node.slow_disk(Duration::ZERO));
    load.wait_for_each(20);
    finish(&cluster, load);
    stop(nodes);
}
