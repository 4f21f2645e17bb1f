//! Connections between processes: they are made when both live and reach each other, and are gone when a process ends or
//! has been silent for long.

use std::collections::BTreeMap;

use kvd::driver::Event;
use kvd::wire::peer::PEER_VERSION;

use super::World;
use crate::sim::{Place, node};
use crate::watch::Violation;

/// A connection: its number, and the lives at its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    number: u64,
    lives: (u64, u64),
}

/// All connections that stand, by their ends in order.
#[derive(Debug, Default)]
pub(super) struct Links {
    standing: BTreeMap<(Place, Place), Connection>,
    made: u64,
}

impl Links {
    /// Number of the connection between two nodes, if there is one.
    pub(super) fn connection(&self, one: Place, other: Place) -> Option<u64> {
        let pair = (one.min(other), one.max(other));
        self.standing.get(&pair).map(|connection| connection.number)
    }

    /// Whether this very connection still stands.
    pub(super) fn stands(&self, one: Place, other: Place, number: u64) -> bool {
        self.connection(one, other) == Some(number)
    }
}

impl World {
    /// Notices which connections are gone and which can be made, and tells the nodes.
    pub(super) fn check_links(&mut self) -> Result<(), Violation> {
        let nodes = self.nodes.len();
        for one in 0..nodes {
            for other in one + 1..nodes {
                self.check_link(one, other)?;
            }
        }
        Ok(())
    }

    fn check_link(&mut self, one: Place, other: Place) -> Result<(), Violation> {
        let passes = self.network.is_connected(self.now, one, other);
        let both_live = self.nodes[one].is_live() && self.nodes[other].is_live();
        let lives = (self.nodes[one].lives, self.nodes[other].lives);
        let standing = self.links.standing.get(&(one, other)).copied();
        let holds = passes && both_live;
        if let Some(connection) = standing
            && !(holds && connection.lives == lives)
        {
            self.links.standing.remove(&(one, other));
            self.fail_transfers(one, other)?;
            self.tell_down(one, other)?;
            self.tell_down(other, one)?;
        }
        if holds && !self.links.standing.contains_key(&(one, other)) {
            self.links.made += 1;
            let number = self.links.made;
            let connection = Connection { number, lives };
            self.links.standing.insert((one, other), connection);
            self.tell_up(one, other)?;
            self.tell_up(other, one)?;
        }
        Ok(())
    }

    fn tell_down(&mut self, to: Place, gone: Place) -> Result<(), Violation> {
        let peer = node::id(gone);
        self.handle(to, Event::PeerDown { peer })
    }

    fn tell_up(&mut self, to: Place, of: Place) -> Result<(), Violation> {
        let Some(life) = &self.nodes[of].life else {
            return Ok(());
        };
        let (peer, boot_counter) = (node::id(of), life.boot_counter);
        let protocol = u16::from(PEER_VERSION);
        self.handle(
            to,
            Event::PeerUp {
                peer,
                boot_counter,
                protocol,
            },
        )
    }
}
