//! The examples do what they say, and are as short as promised.

use std::net::SocketAddr;

#[path = "../../examples/join.rs"]
#[expect(
    dead_code,
    reason = "its main reads the command line and waits for Ctrl-C"
)]
mod join;
#[path = "../../examples/three_nodes.rs"]
#[expect(
    dead_code,
    reason = "its main reads the command line and waits for Ctrl-C"
)]
mod three_nodes;

#[tokio::test]
async fn three_nodes_bear_the_death_of_their_leader() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes::start(dir.path()).unwrap();
    three_nodes::run(nodes).await.unwrap();
}

#[tokio::test]
async fn a_node_joins_by_command_and_comes_back_as_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_nodes::start(dir.path()).unwrap();
    let free: SocketAddr = kvd::found::free_addresses(1).unwrap()[0];
    for _ in 0..2 {
        let joined = join::run(dir.path(), "n4", &free.to_string())
            .await
            .unwrap();
        nodes.push(joined);
        three_nodes::stop(nodes).unwrap();
        nodes = three_nodes::start(dir.path()).unwrap();
    }
    three_nodes::stop(nodes).unwrap();
}

#[test]
fn each_example_has_fewer_than_120_lines_with_its_machine() {
    let lines = |text: &str| text.lines().count();
    let bank = lines(include_str!("../../examples/bank/mod.rs"));
    for example in [
        include_str!("../../examples/three_nodes.rs"),
        include_str!("../../examples/join.rs"),
    ] {
        assert!(lines(example) < 120);
    }
    let three_nodes = lines(include_str!("../../examples/three_nodes.rs"));
    assert!(three_nodes + bank < 120, "{three_nodes} and {bank}");
}
