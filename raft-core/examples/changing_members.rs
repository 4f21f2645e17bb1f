//! Servers come and go while the cluster works: n1 founds it alone, n2 and n3 join, and at last n4
//! takes the place of n1, which leads.
//!
//! `driver/server.rs` has the part that every driver needs: it encodes and proposes what the node
//! planned, and ends a joint configuration when the node asks for it.
//!
//! `cargo run -p raft-core --example changing_members`

mod driver;

use driver::Cluster;
use raft_core::{
    ChangeError, Configuration, ConfigurationChange, MemberChange, NodeId, Role, Status,
};

/// The state machine is a list of lines: what it does is not the matter here.
type Lines = Vec<String>;

/// Enough that a server without any of them is far behind.
const LINES: usize = 20;

/// Has a line added to the log by whoever leads.
fn write(cluster: &mut Cluster<Lines>, line: &str) {
    let leader = cluster.await_leader();
    let proposed = leader.propose(&line.to_owned());
    proposed.expect("the leader takes proposals");
    cluster.settle();
}

/// Changes members, and waits until the change is over. The leader's refusal is definite: nothing
/// has changed.
fn change(cluster: &mut Cluster<Lines>, changes: &[MemberChange]) -> Result<(), ChangeError> {
    let leader = cluster.await_leader();
    let entry = leader.change(&ConfigurationChange::new(changes.iter().copied()))?;
    println!("-- {changes:?} proposed as {entry}");
    cluster.run_until(|cluster| {
        let leader = cluster.leader().map(|id| &cluster.server(id).node);
        leader.is_some_and(|node| is_settled(&node.status()))
    });
    Ok(())
}

/// Whether the members are known to be those of the configuration in force: it is committed, and it
/// is not the first step of two.
fn is_settled(status: &Status) -> bool {
    status.own_term_committed
        && status.configuration_index <= status.commit
        && !status.configuration.is_joint()
}

/// Brings in a new server: first it learns the log, then it votes. Added as a voter at once it
/// would count for every majority from that moment on, and could not help with any.
fn join(cluster: &mut Cluster<Lines>, id: NodeId) {
    change(cluster, &[MemberChange::AddLearner(id)]).expect("a node that is no member");
    let refused = change(cluster, &[MemberChange::Promote(id)]);
    let refused = refused.expect_err("it is not even started");
    println!("-- {id} is no voter yet: {refused}");
    assert!(matches!(refused, ChangeError::Behind { learner, .. } if learner == id));

    cluster.start(id);
    await_log(cluster, id);
}

/// Waits until a learner has the log. The leader's view of it is in the status.
fn await_log(cluster: &mut Cluster<Lines>, id: NodeId) {
    cluster.run_until(|cluster| {
        let leader = cluster.leader().expect("the leader is in no danger");
        let status = cluster.server(leader).node.status();
        let mut progress = status.progress.iter();
        progress.any(|peer| peer.id == id && peer.matched == status.last.index)
    });
}

/// n4 takes the place of n1. Two voters change, so that a majority of the old members and one of
/// the new ones could know nothing of each other: the node plans a joint configuration, in which
/// both are needed, and then a second entry that leaves the old members behind.
fn replace_the_leader(cluster: &mut Cluster<Lines>, leaver: NodeId, joiner: NodeId) {
    assert_eq!(cluster.leader(), Some(leaver));
    let changes = [MemberChange::Promote(joiner), MemberChange::Remove(leaver)];
    change(cluster, &changes).expect("n4 has the log");

    // It led until its own removal was committed, and is a follower of nobody from then on. It may
    // be turned off, and its disk thrown away.
    assert_eq!(cluster.server(leaver).node.role(), Role::Follower);
    cluster.crash(leaver);
}

pub(crate) fn main() {
    let [n1, n2, n3, n4] = [1, 2, 3, 4].map(NodeId);
    let mut cluster: Cluster<Lines> = Cluster::found([1]);
    for line in 0..LINES {
        write(&mut cluster, &format!("line {line} by one voter"));
    }

    for id in [n2, n3] {
        join(&mut cluster, id);
        change(&mut cluster, &[MemberChange::Promote(id)]).expect("it has the log");
    }
    write(&mut cluster, "by three voters");

    join(&mut cluster, n4);
    replace_the_leader(&mut cluster, n1, n4);
    write(&mut cluster, "by the three that are left");

    let expected = Configuration::new([n2, n3, n4]);
    for server in cluster.servers() {
        println!("{}; {}", server.node.status(), server.node.configuration());
        assert_eq!(server.node.configuration(), &expected);
        assert_eq!(server.machine.len(), LINES + 2);
        assert_eq!(
            server.machine.last().map(String::as_str),
            Some("by the three that are left")
        );
    }
}
