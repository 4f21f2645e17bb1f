//! Without a quorum, and with one that changes its leader.

use std::time::{Duration, Instant};

use kvd_sim::process::{Cluster, Load, PATIENCE, Ran, dump, eventually};

#[track_caller]
fn assert_three_parts(ran: &Ran) {
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(
        lines
            .first()
            .is_some_and(|line| line.starts_with("error: ")),
        "{}",
        ran.stderr
    );
    assert!(
        lines.iter().any(|line| line.starts_with("  ")),
        "nothing is said of what is known: {}",
        ran.stderr
    );
    assert!(
        lines.iter().any(|line| line.starts_with("help: ")),
        "no advice: {}",
        ran.stderr
    );
}

/// Must show 7: with two of three nodes paused, a write ends with 4 or 5 and the three-part error within its timeout, a
/// linearizable read with 4, a local read answers. Continued, nothing is lost. And the side door: alive, not ready.
#[test]
fn without_a_quorum_the_answers_are_honest() {
    let mut cluster = Cluster::start();
    cluster.kvctl(&["set", "color", "red"]).ok();
    cluster.wait_converged();
    // Once with the leader among the paused, once as the one that is left.
    for leader_stays in [false, true] {
        let leader = cluster.leader();
        let left = if leader_stays {
            leader
        } else {
            (leader + 1) % 3
        };
        let paused: Vec<usize> = (0..3).filter(|node| *node != left).collect();
        for node in &paused {
            cluster.nodes[*node].pause();
        }
        ask_without_quorum(&cluster, left);
        for node in &paused {
            cluster.nodes[*node].resume();
        }
        cluster.leader();
        eventually("the cluster to be ready", || {
            cluster.nodes[left]
                .get("/readyz")
                .is_some_and(|it| it.code == 200)
        });
        assert_eq!(cluster.kvctl(&["get", "color"]).ok().trim_end(), "red");
        cluster.kvctl(&["set", "after", "yes"]).ok();
    }
    cluster.wait_converged();
}

fn ask_without_quorum(cluster: &Cluster, left: usize) {
    let write = cluster.kvctl(&["set", "lost", "perhaps", "--timeout", "2s"]);
    assert!([4, 5].contains(&write.code), "{write:?}");
    assert_three_parts(&write);
    assert!(write.took < Duration::from_secs(4), "{:?}", write.took);
    let read = cluster
        .kvctl(&["get", "color", "--timeout", "2s"])
        .expect_code(4);
    assert_three_parts(&read);
    assert!(read.took < Duration::from_secs(4), "{:?}", read.took);
    let local = cluster.kvctl(&["get", "color", "--consistency", "local", "--timeout", "5s"]);
    assert_eq!(local.ok().trim_end(), "red");
    let node = &cluster.nodes[left];
    assert_eq!(node.get("/livez").expect("it runs").code, 200);
    eventually("the node to be not ready", || {
        node.get("/readyz").is_some_and(|answer| answer.code == 503)
    });
    let refused = node.get("/get/color").expect("it runs");
    assert!([503, 504].contains(&refused.code), "{refused:?}");
    assert_eq!(
        node.get("/get/color?consistency=local")
            .expect("it runs")
            .text(),
        "red"
    );
    cluster.kvctl(&["health", "--timeout", "2s"]).expect_code(1);
}

/// Clean shutdown: SIGTERM of the leader hands over. It ends with 0 within five seconds, another node leads, and no
/// acknowledged write is lost.
#[test]
fn a_leader_that_is_stopped_hands_over() {
    let mut cluster = Cluster::start();
    let load = Load::writing(&cluster, 8, "handover");
    for _ in 0..3 {
        load.wait_for_more(100);
        let leader = cluster.leader();
        cluster.nodes[leader].terminate();
        let start = Instant::now();
        let status = cluster.nodes[leader].wait_exit(PATIENCE);
        assert_eq!(
            status.code(),
            Some(0),
            "{}",
            cluster.nodes[leader].log_tail()
        );
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "it took {:?}",
            start.elapsed()
        );
        let next = cluster.leader();
        assert_ne!(next, leader);
        load.wait_for_more(100);
        cluster.nodes[leader].start();
        cluster.nodes[leader].wait_listening();
    }
    let told = load.finish();
    told.check(&dump(&cluster));
    assert_eq!(
        told.unknown.len(),
        0,
        "a handover leaves no outcome open: {:?}",
        told.unknown
    );
    cluster.wait_converged();
}
