//! Several servers in one thread, and the world around them.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{NodeId, Role, SnapshotOutcome};

use super::StateMachine;
use super::server::{Disk, Packet, Server};

/// How long to wait for anything: many election timeouts.
const TICKS_MAX: u32 = 1_000;

/// The servers that live, and the disks of those that do not.
pub(crate) struct Cluster<M: StateMachine> {
    founders: Vec<NodeId>,
    servers: BTreeMap<NodeId, Server<M>>,
    disks: BTreeMap<NodeId, Disk>,
    /// Servers that run, but whose messages are lost, both ways.
    cut_off: BTreeSet<NodeId>,
    starts: u64,
}

impl<M: StateMachine> Cluster<M> {
    /// A new cluster of these voters, all of them running.
    pub(crate) fn found(founders: impl IntoIterator<Item = u64>) -> Cluster<M> {
        let mut cluster = Cluster {
            founders: founders.into_iter().map(NodeId).collect(),
            servers: BTreeMap::new(),
            disks: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            starts: 0,
        };
        for id in cluster.founders.clone() {
            cluster.start(id);
        }
        cluster
    }

    /// Starts a server on its disk, or on a new one if it was never there. A new server that is no
    /// founder waits until a leader has added it and sends it the log.
    pub(crate) fn start(&mut self, id: NodeId) {
        let disk = self.disks.remove(&id);
        let disk = disk.unwrap_or_else(|| Disk::new(&self.founders));
        self.starts += 1;
        for other in self.servers.values_mut() {
            other.node.on_peer_restarted(id);
        }
        self.servers
            .insert(id, Server::start(id, self.starts, disk));
    }

    /// Crashes a server. The others see that their connections to it break.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let server = self.servers.remove(&id).expect("a server that runs");
        self.disks.insert(id, server.crash());
        for other in self.servers.values_mut() {
            other.node.on_unreachable(id);
        }
    }

    /// Breaks the network between one server and the others.
    pub(crate) fn cut_off(&mut self, id: NodeId) {
        self.cut_off.insert(id);
    }

    /// Mends the network.
    pub(crate) fn reconnect(&mut self, id: NodeId) {
        self.cut_off.remove(&id);
    }

    /// Lets messages go back and forth until nobody has anything to say.
    pub(crate) fn settle(&mut self) {
        loop {
            let servers = self.servers.values_mut();
            let network: Vec<Packet> = servers.flat_map(Server::turn).collect();
            if network.is_empty() {
                return;
            }
            for packet in network {
                self.deliver(packet);
            }
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let (from, to) = (packet.envelope.from, packet.envelope.to);
        let is_snapshot = packet.snapshot.is_some();
        let is_lost = self.cut_off.contains(&from) || self.cut_off.contains(&to);
        let outcome = match self.servers.get_mut(&to).filter(|_| !is_lost) {
            Some(receiver) => {
                receiver.receive(packet);
                SnapshotOutcome::Delivered
            }
            // A message may get lost; the core sends again what matters.
            None => SnapshotOutcome::Failed,
        };
        // But it does not send to a follower while it believes that a snapshot is on the way there.
        if is_snapshot && let Some(sender) = self.servers.get_mut(&from) {
            sender.node.on_snapshot_sent(to, outcome);
        }
    }

    /// Lets time pass until `wanted`.
    pub(crate) fn run_until(&mut self, wanted: impl Fn(&Cluster<M>) -> bool) {
        self.settle();
        for _ in 0..TICKS_MAX {
            if wanted(self) {
                return;
            }
            self.servers
                .values_mut()
                .for_each(|server| server.node.tick());
            self.settle();
        }
        panic!("waited {TICKS_MAX} ticks in vain");
    }

    /// The servers that run.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server<M>> {
        self.servers.values()
    }

    pub(crate) fn server(&self, id: NodeId) -> &Server<M> {
        &self.servers[&id]
    }

    pub(crate) fn server_mut(&mut self, id: NodeId) -> &mut Server<M> {
        self.servers.get_mut(&id).expect("a server that runs")
    }

    /// Who leads. A leader that was cut off may not know yet that there is another one of a later
    /// term, which is the one that can do something.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let nodes = self.servers.values().map(|server| &server.node);
        nodes
            .filter(|node| node.role() == Role::Leader)
            .max_by_key(|node| node.term())
            .map(|node| node.id())
    }

    /// Waits until somebody leads.
    pub(crate) fn await_leader(&mut self) -> &mut Server<M> {
        self.run_until(|cluster| cluster.leader().is_some());
        let leader = self.leader().expect("just seen");
        self.server_mut(leader)
    }
}
