//! Consensus in a loop: three nodes in one thread, a vector for a network, memory for disks.
//!
//! The loop itself is in `driver/server.rs`.
//!
//! `cargo run -p raft-core --example three_nodes`

mod driver;

use driver::Cluster;

pub(crate) fn main() {
    let mut cluster: Cluster<Vec<String>> = Cluster::found([1, 2, 3]);

    // Time passes until the first election timeout; the seeds decide whose it is.
    let leader = cluster.await_leader();
    let commands = ["set x = 1", "set y = 2", "delete x"];
    for command in commands {
        let entry = leader
            .propose(&command.to_owned())
            .expect("the leader takes proposals");
        println!("proposed '{command}' as {entry}");
    }
    cluster.settle();

    for server in cluster.servers() {
        println!("{}; applied {:?}", server.node.status(), server.machine);
        assert_eq!(server.machine, commands);
    }
}
