//! Links to peers that come and go, and what the core is to know of them.

use raft_core::NodeId;

use super::Driver;

impl Driver {
    pub(super) fn handle_peer_up(&mut self, peer: NodeId, boot_counter: u64) {
        self.links.insert(peer);
        self.node.on_reachable(peer);
        let before = self.boots.insert(peer, boot_counter);
        if before.is_some_and(|seen| seen < boot_counter) {
            self.node.on_peer_restarted(peer);
        }
    }

    pub(super) fn handle_peer_down(&mut self, peer: NodeId) {
        self.links.remove(&peer);
        self.node.on_unreachable(peer);
        self.reroute_forwarded_to(peer);
        if self.leader == Some(peer) {
            self.reads.ask_again();
        }
    }
}
