//! Limits of keys and values, and bytes that no honest client sends.

use std::net::UdpSocket;

use kvd_sim::process::{Cluster, Dialler, Presented, seeded_rng};
use rand::RngExt as _;

use super::cluster;

const KEY_BYTES: usize = 4 << 10;
const VALUE_BYTES: usize = 1 << 20;

/// Case 61: a key of 0 bytes is a wrong command, the longest key is taken, one byte more is refused.
#[test]
fn a_key_has_at_least_one_byte_and_at_most_its_limit() {
    let cluster = cluster();
    cluster.kvctl(&["set", "", "v"]).expect_code(2);
    let longest = "k".repeat(KEY_BYTES);
    cluster.kvctl(&["set", &longest, "v"]).ok();
    assert_eq!(cluster.kvctl(&["get", &longest]).ok().trim_end(), "v");
    let longer = format!("{longest}k");
    assert_three_parts(&cluster.kvctl(&["set", &longer, "v"]).expect_code(7).stderr);
    assert_eq!(cluster.kvctl(&["del", &longest]).code, 0);
}

/// Case 61: the longest value is taken, one byte more is refused and changes nothing.
#[test]
fn a_value_has_at_most_its_limit() {
    let cluster = cluster();
    let longest = vec![b'v'; VALUE_BYTES];
    cluster
        .kvctl_with(&["set", "limit-value", "-"], &longest)
        .ok();
    let longer = vec![b'w'; VALUE_BYTES + 1];
    let refused = cluster
        .kvctl_with(&["set", "limit-value", "-"], &longer)
        .expect_code(7);
    assert_three_parts(&refused.stderr);
    assert_eq!(
        cluster.kvctl(&["get", "limit-value"]).expect_code(0).stdout,
        longest
    );
    cluster.kvctl(&["del", "limit-value"]).ok();
}

#[track_caller]
fn assert_three_parts(stderr: &str) {
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(
        stderr.lines().any(|line| line.starts_with("  ")),
        "nothing is said of what is known: {stderr}"
    );
    assert!(
        stderr.lines().any(|line| line.starts_with("help: ")),
        "no advice: {stderr}"
    );
}

/// Case 61: a frame that claims 2^32-1 bytes, a frame of no request, and one cut short: the connection ends, the node does not.
#[test]
fn a_frame_of_a_stranger_ends_its_connection_only() {
    let cluster = cluster();
    let admin = (cluster.secret("admin.pem"), cluster.secret("admin.key"));
    let admin = Presented::Pem {
        cert: &admin.0,
        key: &admin.1,
    };
    let dialler = Dialler::new(&cluster.secret("ca.pem"));
    let unknown = [&5_u32.to_le_bytes()[..], b"\xff\xff\xff\xff\xff"].concat();
    for bytes in [u32::MAX.to_le_bytes().to_vec(), unknown] {
        let reason = dialler.send_and_be_closed(cluster.nodes[0].address, admin, &bytes);
        assert!(!reason.contains("timed out"), "{reason}");
    }
    assert_serves(&cluster);
}

/// Must show, bad input: garbage datagrams at the port of peers and clients.
#[test]
fn garbage_datagrams_change_nothing() {
    let cluster = cluster();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut rng = seeded_rng();
    for _ in 0..2_000 {
        let mut bytes = vec![0; rng.random_range(0..1400)];
        rng.fill(&mut bytes[..]);
        socket
            .send_to(&bytes, cluster.nodes[1].address)
            .expect("loopback takes datagrams");
    }
    assert_serves(&cluster);
}

#[track_caller]
fn assert_serves(cluster: &Cluster) {
    for node in 0..cluster.nodes.len() {
        let view = cluster.view(node).expect("the node is up");
        assert!(view.leader.is_some(), "{view:?}");
    }
    cluster.kvctl(&["set", "limit-alive", "yes"]).ok();
}
