//! Consensus in a loop: three nodes in one thread, a vector for a network, memory for disks.
//!
//! `cargo run -p raft-core --example three_nodes`

use std::collections::BTreeMap;

use raft_core::{Config, EntryKind, Envelope, MemoryStorage, Node, NodeId, Proposal, Ready, Role};

/// One node and the state machine that its commands build: here just the list of them.
struct Server {
    node: Node<MemoryStorage>,
    applied: Vec<String>,
}

impl Server {
    fn new(id: NodeId, voters: &[NodeId]) -> Server {
        let storage = MemoryStorage::new(voters.iter().copied());
        // A real node takes another seed at each start.
        let node =
            Node::new(Config::new(id, id.0), storage).expect("sound options and an empty log");
        Server {
            node,
            applied: Vec::new(),
        }
    }

    /// Does everything the node wants done, and returns the messages to carry.
    fn turn(&mut self) -> Vec<Envelope> {
        let mut outgoing = Vec::new();
        while self.node.has_ready() {
            let Ready {
                persist,
                messages,
                messages_after_sync,
                committed,
                events,
                ..
            } = self.node.ready();
            for event in events {
                println!("{}: {event}", self.node.status().id);
            }
            outgoing.extend(messages);
            // A real server hands this to a thread that writes and syncs, and goes on meanwhile.
            if let Some(persist) = persist {
                let id = persist.id;
                self.node.storage_mut().persist(persist);
                self.node.on_persisted(id);
            }
            outgoing.extend(messages_after_sync);
            if let Some(last) = committed.last().map(|entry| entry.index) {
                let commands = committed
                    .iter()
                    .filter(|entry| entry.kind == EntryKind::Command);
                self.applied.extend(
                    commands.map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()),
                );
                self.node.on_applied(last);
            }
        }
        outgoing
    }
}

/// Lets messages go back and forth until nobody has anything to say.
fn settle(servers: &mut BTreeMap<NodeId, Server>) {
    loop {
        let network: Vec<Envelope> = servers.values_mut().flat_map(Server::turn).collect();
        if network.is_empty() {
            return;
        }
        for envelope in network {
            if let Some(receiver) = servers.get_mut(&envelope.to) {
                // A rejected message is no error of ours: most are late.
                if let Err(rejected) = receiver.node.step(envelope) {
                    println!("{}: {rejected}", receiver.node.status().id);
                }
            }
        }
    }
}

fn leader(servers: &mut BTreeMap<NodeId, Server>) -> &mut Server {
    let leads = |server: &&mut Server| server.node.status().role == Role::Leader;
    servers.values_mut().find(leads).expect("somebody leads")
}

fn main() {
    let voters = [1, 2, 3].map(NodeId);
    let mut servers: BTreeMap<NodeId, Server> =
        voters.map(|id| (id, Server::new(id, &voters))).into();

    // Time passes until the first election timeout; the seeds decide whose it is.
    while servers
        .values()
        .all(|server| server.node.status().leader.is_none())
    {
        servers.values_mut().for_each(|server| server.node.tick());
        settle(&mut servers);
    }

    let commands = ["set x = 1", "set y = 2", "delete x"];
    let proposals = commands.map(|command| Proposal {
        payload: command.into(),
        // A real server has a real checksum here; the core only carries it.
        checksum: command.len() as u32,
    });
    let first = leader(&mut servers)
        .node
        .propose(proposals.into())
        .expect("the leader takes proposals");
    println!("proposed from {first} on");
    settle(&mut servers);

    for server in servers.values() {
        println!("{}; applied {:?}", server.node.status(), server.applied);
        assert_eq!(server.applied, commands);
    }
}
