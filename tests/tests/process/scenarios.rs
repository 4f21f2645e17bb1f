//! The scenarios that every implementation of Raft is tried with, where real processes mean more than simulated ones: lost is
//! `kill -9` or SIGSTOP. docs/testing.md lists them with their tests.

use std::time::Duration;

use kvd_sim::process::{
    Cluster, HttpAnswer, Load, NodeView, PATIENCE, dump, eventually, http_request, wait_for,
};

/// Answers of the HTTP door to a write that was not done: refused for good, or of unknown outcome.
const NOT_DONE: [u16; 2] = [503, 504];

fn set(cluster: &Cluster, node: usize, key: &str, value: &str) -> HttpAnswer {
    let path = format!("/set/{key}");
    let to = cluster.nodes[node].http;
    http_request(to, "POST", &path, &[], value.as_bytes()).expect("the door answers")
}

/// Sets a key, which must be answered at once.
fn set_ok(cluster: &Cluster, node: usize, key: &str) {
    let answer = set(cluster, node, key, "value");
    assert_eq!(answer.code, 200, "{key}: {}", answer.text());
}

/// What the node itself holds.
fn held(cluster: &Cluster, node: usize, key: &str) -> Option<String> {
    let answer = cluster.nodes[node].get(&format!("/get/{key}?consistency=local"))?;
    (answer.code == 200).then(|| answer.text())
}

/// Waits until all of these hold a key that was set.
fn wait_held(cluster: &Cluster, nodes: &[usize], key: &str) {
    eventually(&format!("{key} on all of {nodes:?}"), || {
        let held = |node: &usize| held(cluster, *node, key).as_deref() == Some("value");
        nodes.iter().all(held)
    });
}

fn view(cluster: &Cluster, node: usize) -> NodeView {
    wait_for("the status of a node", PATIENCE, || cluster.view(node))
}

/// Waits until one of these leads and all others follow it in one term. Nodes that stand still must not be asked.
fn agree(cluster: &Cluster, nodes: &[usize]) -> (usize, u64) {
    wait_for("one leader whom all follow", PATIENCE, || {
        let views: Vec<NodeView> = nodes.iter().filter_map(|it| cluster.view(*it)).collect();
        let leader = views.iter().find(|view| view.role == "leader")?;
        let is_one = views.iter().all(|view| {
            let follows = view.role == "follower" || view.name == leader.name;
            follows && view.leader.as_ref() == Some(&leader.name) && view.term == leader.term
        });
        let place = cluster.nodes.iter().position(|it| it.name == leader.name)?;
        (is_one && views.len() == nodes.len()).then_some((place, leader.term))
    })
}

fn without(nodes: &[usize], lost: usize) -> Vec<usize> {
    nodes.iter().copied().filter(|it| *it != lost).collect()
}

/// Scenarios 2, 4 and 14: the leader is killed, or stands still, right after it has answered. Another one leads in a later term
/// and holds the key; the old one comes back and follows in that term.
#[test]
fn leader_that_is_killed_or_stopped_is_replaced_and_follows_when_it_returns() {
    let mut cluster = Cluster::start();
    let all = [0, 1, 2];
    for kills in [true, false] {
        let (old, before) = agree(&cluster, &all);
        let key = format!("answered-{kills}");
        set_ok(&cluster, old, &key);
        if kills {
            cluster.nodes[old].kill();
        } else {
            cluster.nodes[old].pause();
        }
        let rest = without(&all, old);
        let led = agree(&cluster, &rest);
        assert!(led.1 > before, "term {} after term {before}", led.1);
        assert_eq!(held(&cluster, led.0, &key).as_deref(), Some("value"));
        set_ok(&cluster, rest[0], &format!("meanwhile-{kills}"));
        if kills {
            cluster.nodes[old].start();
        } else {
            cluster.nodes[old].resume();
        }
        assert_eq!(agree(&cluster, &all), led, "it disturbed the others");
        wait_held(&cluster, &[old], &format!("meanwhile-{kills}"));
    }
    cluster.wait_converged();
}

/// Scenarios 7, 15 and 18: a follower stands still while a key is set and has it soon after; the leader is gone for 10 ms, several
/// times. Nobody else stands for election.
#[test]
fn follower_that_was_stopped_and_leader_gone_for_ten_milliseconds_change_no_term() {
    // With a timeout that no delay of a busy machine reaches: only the stops are to be seen.
    let mut cluster = Cluster::builder()
        .set("raft", "election_timeout", "3s")
        .build();
    let all = [0, 1, 2];
    let led = agree(&cluster, &all);
    let follower = without(&all, led.0)[0];
    for round in 0..5 {
        let key = format!("missed-{round}");
        cluster.nodes[follower].pause();
        set_ok(&cluster, led.0, &key);
        cluster.nodes[follower].resume();
        wait_held(&cluster, &all, &key);

        cluster.nodes[led.0].pause();
        // Not to wait for anything: this is how long it is gone.
        std::thread::sleep(Duration::from_millis(10));
        cluster.nodes[led.0].resume();
        set_ok(&cluster, follower, &format!("after-{round}"));
    }
    cluster.wait_converged();
    assert_eq!(agree(&cluster, &all), led);
    for node in all {
        assert_eq!(view(&cluster, node).term, led.1);
        cluster.nodes[node].assert_alive();
    }
}

/// Scenario 17: the followers are dead when the leader is given a command, and the leader dies with it. The others go on without
/// it; when the old leader is back, nobody has ever seen the command.
#[test]
fn command_given_to_a_leader_whose_followers_are_dead_never_takes_effect() {
    let mut cluster = Cluster::start();
    let all = [0, 1, 2];
    let (old, before) = agree(&cluster, &all);
    let followers = without(&all, old);
    for node in &followers {
        cluster.nodes[*node].kill();
    }
    let answer = set(&cluster, old, "lost", "value");
    assert!(NOT_DONE.contains(&answer.code), "{answer:?}");
    assert_eq!(held(&cluster, old, "lost"), None);
    cluster.nodes[old].kill();
    for node in &followers {
        cluster.nodes[*node].start();
    }
    let led = agree(&cluster, &followers);
    assert!(led.1 > before, "term {} after term {before}", led.1);
    set_ok(&cluster, led.0, "kept");
    cluster.nodes[old].start();
    assert_eq!(agree(&cluster, &all), led, "it disturbed the others");
    wait_held(&cluster, &all, "kept");
    cluster.wait_converged();
    for node in all {
        let exported = String::from_utf8(cluster.local_export(node)).expect("text");
        assert_eq!(exported, "kept\tvalue\n", "n{}", node + 1);
    }
}

/// Waits until all of these know that there is no leader.
fn wait_leaderless(cluster: &Cluster, nodes: &[usize]) {
    eventually("nobody to lead", || {
        let views = nodes.iter().map(|node| view(cluster, *node));
        views
            .into_iter()
            .all(|view| view.role != "leader" && view.leader.is_none())
    });
}

/// What two of five that are left do: nobody leads, and nothing is taken.
fn assert_stuck(cluster: &Cluster, left: &[usize]) {
    wait_leaderless(cluster, left);
    for node in left {
        let answer = set(cluster, *node, "refused", "value");
        assert_eq!(answer.code, 503, "{}", answer.text());
        assert_ne!(view(cluster, *node).role, "leader");
        let ready = cluster.nodes[*node].get("/readyz").expect("it runs");
        assert_eq!(ready.code, 503);
    }
}

/// Scenarios 6 and 19: five nodes lose two leaders and go on, lose a third and wait, and go on with one of them back. Then two
/// followers are killed and after them the leader, and all come back. Nothing acknowledged is lost, nothing refused is there.
#[test]
fn five_nodes_lose_three_leaders_and_then_two_followers_and_the_leader() {
    let mut cluster = Cluster::builder().nodes(5).build();
    let all = [0, 1, 2, 3, 4];
    let (mut rest, mut keys) = (all.to_vec(), Vec::new());
    let mut last = 0;
    for round in 0..3 {
        let (leader, term) = agree(&cluster, &rest);
        assert!(term > last, "term {term} after term {last}");
        last = term;
        keys.push(format!("round-{round}"));
        set_ok(&cluster, leader, &keys[round]);
        cluster.nodes[leader].kill();
        rest = without(&rest, leader);
    }
    assert_stuck(&cluster, &rest);
    cluster.start_all();
    let (leader, _) = agree(&cluster, &all);
    for key in &keys {
        assert_eq!(held(&cluster, leader, key).as_deref(), Some("value"));
    }

    let followers = without(&all, leader);
    let (lost, left) = followers.split_at(2);
    for node in lost {
        cluster.nodes[*node].kill();
    }
    keys.push("without-two".to_owned());
    set_ok(&cluster, left[0], "without-two");
    cluster.nodes[leader].kill();
    assert_stuck(&cluster, left);
    cluster.start_all();
    agree(&cluster, &all);
    for key in &keys {
        wait_held(&cluster, &all, key);
    }
    cluster.wait_converged();
    assert!(
        all.iter()
            .all(|node| held(&cluster, *node, "refused").is_none())
    );
}

/// Scenario 23: all nodes get SIGTERM at once under writes. Each ends with 0 and without a panic, what was acknowledged is there
/// when they are back, and writes that waited are answered then.
#[test]
fn all_nodes_that_are_told_to_stop_at_once_end_with_zero_and_lose_nothing() {
    let mut cluster = Cluster::start();
    let load = Load::writing(&cluster, 8, "stop");
    for _ in 0..2 {
        load.wait_for_more(200);
        for node in &cluster.nodes {
            node.terminate();
        }
        for node in &mut cluster.nodes {
            let status = node.wait_exit(PATIENCE);
            assert_eq!(status.code(), Some(0), "{}", node.log_tail());
            assert!(!node.log().contains("panicked"), "{}", node.log_tail());
        }
        cluster.start_all();
    }
    load.wait_for_more(100);
    load.finish().check(&dump(&cluster));
    cluster.wait_converged();
}
