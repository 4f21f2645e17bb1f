//! Members come and go under load, by command.

use kvd_sim::process::{Cluster, Load, NodeProcess, NodeView, eventually, wait_for};
use serde_json::Value;

fn members(cluster: &Cluster) -> Value {
    cluster.kvctl(&["member", "list", "-o", "json"]).json()
}

fn state_of(cluster: &Cluster, name: &str) -> Option<String> {
    let table = members(cluster);
    let members = table["members"].as_array().expect("a list").clone();
    let member = members.into_iter().find(|member| member["name"] == name)?;
    member["state"].as_str().map(str::to_owned)
}

fn wait_voter(cluster: &Cluster, name: &str) {
    let what = format!("{name} to vote");
    eventually(&what, || {
        state_of(cluster, name).as_deref() == Some("voter")
    });
}

/// What a node that is no member any more says of itself; it must go on saying it.
fn wait_told(node: &NodeProcess) {
    let what = format!("{} to know that it was removed", node.name);
    let view = wait_for(&what, kvd_sim::process::PATIENCE, || {
        let answer = node.get("/status")?;
        let view = NodeView::parse(&answer.json());
        (view.role == "removed").then_some(view)
    });
    assert_eq!(view.name, node.name);
    let log = node.log();
    assert!(
        log.contains("was removed from the cluster"),
        "{}",
        node.log_tail()
    );
}

/// Scenario 22, and more: three nodes under writes get a fourth, which votes by itself; then the leader is removed. No write is
/// lost, and after a restart everybody knows whom to talk to.
#[test]
fn a_fourth_node_joins_and_the_leader_leaves_under_load() {
    let mut cluster = Cluster::start();
    let load = Load::writing(&cluster, 4, "load/");
    load.wait_for_more(100);
    cluster.add_node("n4", &["add"]);
    wait_voter(&cluster, "n4");
    let quorum = members(&cluster)["quorum"].clone();
    assert_eq!(
        (quorum["voters"].as_u64(), quorum["quorum"].as_u64()),
        (Some(4), Some(3))
    );
    load.wait_for_more(100);

    let leader = cluster.leader();
    let name = cluster.nodes[leader].name.clone();
    let removed = cluster
        .kvctl(&["member", "remove", &name, "-o", "json"])
        .json();
    assert_eq!(removed["before"]["quorum"], 3);
    assert_eq!(removed["after"]["voters"], 3);
    let mut former = cluster.nodes.remove(leader);
    load.wait_for_more(100);
    wait_told(&former);
    former.assert_alive();
    load.finish().check(&kvd_sim::process::dump(&cluster));
    cluster.wait_converged();
    assert_eq!(state_of(&cluster, &name), None);

    // Whom to dial and whom to let in was remembered: n4 has never met a table in a snapshot, nor has the removed one.
    for node in &mut cluster.nodes {
        node.kill();
    }
    former.kill();
    former.start();
    cluster.start_all();
    cluster.leader();
    wait_told(&former);
    cluster.kvctl(&["set", "after", "restart"]).ok();
    cluster.wait_converged();
    former.assert_alive();
}

/// Case 30: one of three is dead for ever. A new node takes its place under writes; the dead one, if it comes back after all,
/// is told so and disturbs nobody.
#[test]
fn a_dead_member_is_replaced_under_load() {
    let mut cluster = Cluster::start();
    let load = Load::writing(&cluster, 4, "load/");
    load.wait_for_more(50);
    let dead = (cluster.leader() + 1) % 3;
    let old = cluster.nodes[dead].name.clone();
    cluster.nodes[dead].kill();
    load.wait_for_more(50);
    let mut corpse = cluster.nodes.remove(dead);
    cluster.add_node("n4", &["replace", &old]);
    wait_voter(&cluster, "n4");
    assert_eq!(state_of(&cluster, &old), None);
    load.wait_for_more(50);
    let leader = cluster.leader();
    let term = cluster.view(leader).expect("it runs").term;

    corpse.start();
    wait_told(&corpse);
    load.wait_for_more(50);
    let leader = cluster.leader();
    assert_eq!(
        cluster.view(leader).expect("it runs").term,
        term,
        "it disturbed the others"
    );
    corpse.assert_alive();
    load.finish().check(&kvd_sim::process::dump(&cluster));
    cluster.wait_converged();
    let again = cluster.kvctl(&[
        "member",
        "add",
        &format!("{old}=127.0.0.1:1"),
        "--id",
        &id_of(&corpse),
    ]);
    let again = again.expect_code(7);
    assert!(
        again.stderr.contains("can never come back"),
        "{}",
        again.stderr
    );
}

/// The id of a node, by its own word.
fn id_of(node: &NodeProcess) -> String {
    let answer = node.get("/status").expect("it runs");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// What cannot be is refused with its reason and its exit code, and nothing comes of it.
#[test]
fn changes_that_cannot_be_are_refused() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let (down, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let other = cluster.nodes[other].name.clone();
    let bundle = cluster.secrets().join("n4.kvd");
    let bundle = bundle.display().to_string();
    let before = members(&cluster);

    let cases: [(&[&str], i32, &str); 6] = [
        (&["member", "remove", "n9"], 7, "no member is called n9"),
        (
            &["member", "remove", &other, "--confirm", "n9"],
            2,
            "--confirm does not name",
        ),
        (&["member", "promote", "n9"], 7, "no member is called n9"),
        (
            &["member", "add", "n4=nowhere.invalid:1", "--bundle", &bundle],
            2,
            "cannot be reached",
        ),
        (
            &["member", "add", "n4=0.0.0.0:1", "--bundle", &bundle],
            7,
            "none that others can reach",
        ),
        (&["member", "add", "n4=127.0.0.1:1"], 2, "bundle"),
    ];
    for (words, code, why) in cases {
        let ran = cluster.kvctl(words).expect_code(code);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    assert!(!std::path::Path::new(&bundle).exists());
    let dry = cluster
        .kvctl(&["member", "remove", &other, "--dry-run", "-o", "json"])
        .json();
    assert_eq!(
        (dry["dry_run"].as_bool(), dry["after"]["voters"].as_u64()),
        (Some(true), Some(2))
    );

    cluster.nodes[down].kill();
    eventually("the leader to notice", || {
        let table = cluster
            .kvctl_at(leader, &["member", "list", "-o", "json"])
            .json();
        table["quorum"]["reachable"] == 2
    });
    let ran = cluster.kvctl(&["member", "remove", &other]).expect_code(7);
    assert!(
        ran.stderr
            .contains("would lose the quorum: 1 of the 2 voters"),
        "{}",
        ran.stderr
    );
    cluster.nodes[down].start();
    eventually("all to be as before", || {
        let table = members(&cluster);
        table["members"].as_array().map(Vec::len) == before["members"].as_array().map(Vec::len)
            && table["quorum"] == before["quorum"]
    });
}

/// The configurations that this node has proposed as leader, by its log.
fn proposed(node: &NodeProcess) -> Vec<String> {
    let log = node.log();
    let lines = log
        .lines()
        .filter(|it| it.contains("change of members proposed"));
    lines.map(str::to_owned).collect()
}

/// Scenarios 20 and 21: two nodes join five with one command, and vote; then two leave with one command, through one joint
/// configuration. Writes go on, and the removed ones are told.
#[test]
fn two_nodes_join_five_at_once_and_two_leave_at_once_under_load() {
    let mut cluster = Cluster::builder().nodes(5).build();
    let load = Load::writing(&cluster, 4, "load/");
    load.wait_for_more(50);
    let leader = cluster.leader();
    cluster.add_nodes(&["n6", "n7"], &["add"]);
    wait_voter(&cluster, "n6");
    wait_voter(&cluster, "n7");
    assert_eq!(members(&cluster)["quorum"]["quorum"], 4);
    load.wait_for_more(50);

    let before = proposed(&cluster.nodes[leader]);
    let added = before.first().expect("the leader has added them");
    let learners = added.split("learners").nth(1).unwrap_or_default();
    assert_eq!(
        learners.matches('n').count(),
        2,
        "both with one entry: {added}"
    );
    let leavers = [(leader + 1) % 5, (leader + 2) % 5].map(|node| cluster.nodes[node].name.clone());
    let removed = cluster.kvctl(&["member", "remove", &leavers[0], &leavers[1], "-o", "json"]);
    assert_eq!(removed.json()["after"]["voters"], 5);
    let steps = proposed(&cluster.nodes[leader]).split_off(before.len());
    let joint: Vec<bool> = steps.iter().map(|it| it.contains("outgoing")).collect();
    assert_eq!(joint, [true, false], "{steps:?}");
    load.wait_for_more(50);
    let mut former = Vec::new();
    for name in &leavers {
        let place = cluster.nodes.iter().position(|node| node.name == *name);
        former.push(cluster.nodes.remove(place.expect("it was started")));
        assert_eq!(state_of(&cluster, name), None);
    }
    for node in &mut former {
        wait_told(node);
        node.assert_alive();
    }
    load.wait_for_more(50);
    load.finish().check(&kvd_sim::process::dump(&cluster));
    cluster.wait_converged();
}
