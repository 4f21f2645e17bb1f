//! All nodes of a cluster are restarted or replaced one after the other, under load.

use kvd_sim::process::{Cluster, Load, dump, eventually};

/// What each client goes on with between two steps.
const SETTLED: u64 = 20;

/// Whatever was asked while this went on was answered with success, and written once.
pub(crate) fn finish(cluster: &Cluster, load: Load) {
    let told = load.finish();
    assert_eq!(told.failures(), [""; 0]);
    told.check(&dump(cluster));
    cluster.wait_converged();
}

/// Each node is stopped with SIGTERM, or killed, and started again; no request fails.
#[test]
fn rolling_restarts_fail_no_request() {
    let mut cluster = Cluster::start();
    let load = Load::writing_and_reading(&cluster, 4, "rolling");
    for by_force in [false, true] {
        for node in 0..cluster.nodes.len() {
            load.wait_for_each(SETTLED);
            if by_force {
                cluster.nodes[node].kill();
            } else {
                cluster.nodes[node].stop();
            }
            load.wait_for_each(SETTLED);
            cluster.nodes[node].start();
            cluster.nodes[node].wait_listening();
            let newest = (0..cluster.nodes.len()).filter_map(|node| cluster.view(node));
            let newest = newest.map(|view| view.commit_index).max();
            cluster.wait_applied(node, newest.expect("a node answers"));
        }
    }
    finish(&cluster, load);
}

/// Each of three nodes is replaced by a new one, while clients stay that knew only the old ones; no request fails.
#[test]
fn replacing_every_node_fails_no_request() {
    let mut cluster = Cluster::start();
    let load = Load::writing_and_reading(&cluster, 4, "rolling");
    for name in ["n4", "n5", "n6"] {
        load.wait_for_each(SETTLED);
        let old = cluster.nodes[0].name.clone();
        cluster.add_node(name, &["replace", &old]);
        eventually("the new node to vote in place of the old one", || {
            // Neither the one that leaves nor the one that comes.
            let table = cluster.kvctl_at(1, &["member", "list", "-o", "json"]);
            let table = table.json();
            let members = table["members"].as_array().cloned().unwrap_or_default();
            let state = |name: &str| {
                let member = members.iter().find(|member| member["name"] == name)?;
                member["state"].as_str()
            };
            state(name) == Some("voter") && state(&old).is_none()
        });
        cluster.nodes.remove(0).stop();
        load.wait_for_each(SETTLED);
    }
    finish(&cluster, load);
}
