//! A cluster in one process and one thread: the real driver, store and log over simulated disks, network and time.
//!
//! Everything that is drawn comes from one seed, so a run can be repeated exactly. A tick of the world is a tick of every
//! driver; messages take some ticks to arrive and keep their order per link; a sync takes some ticks, and the power can go at
//! any storage call.

mod clients;
mod links;
mod node;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use kvd::driver::ClientId;
use kvd::wire::client::Request;

pub use self::clients::Counter;
use self::links::Links;
use self::node::{Outcome, SimNode};

/// A node of the world, by its place in the list.
pub type Place = usize;

/// Bounds of one world.
#[derive(Clone, Copy, Debug)]
pub struct WorldOptions {
    /// How many nodes.
    pub nodes: usize,
    /// How many clients, each with one request in flight.
    pub clients: usize,
    /// Ticks that a node stays down after its power went.
    pub down_ticks: u64,
    /// Bytes applied between two snapshots; small, so that they happen all the time.
    pub snapshot_every_bytes: u64,
}

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            nodes: 3,
            clients: 4,
            down_ticks: 40,
            snapshot_every_bytes: 24 << 10,
        }
    }
}

/// A power cut to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut {
    /// The node whose storage calls are counted.
    pub node: Place,
    /// At which of them, counted from its first start; the call itself does not happen, or happens in part.
    pub call: u64,
    /// Whether all nodes lose power at that moment.
    pub everywhere: bool,
}

/// The whole simulated cluster.
pub struct World {
    options: WorldOptions,
    rng: StdRng,
    now: u64,
    nodes: Vec<SimNode>,
    links: Links,
    clients: Vec<Counter>,
    cut: Option<PowerCut>,
    power_cuts: u64,
}

impl World {
    /// A joined cluster with empty data directories, all nodes started.
    pub fn new(seed: u64, options: WorldOptions) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let members = node::members(options.nodes);
        let nodes = (0..options.nodes)
            .map(|place| SimNode::join(place, &members, rng.random()))
            .collect();
        let clients = (0..options.clients)
            .map(|number| Counter::new(number as u64, rng.random()))
            .collect();
        let links = Links::default();
        let mut world = World {
            options,
            rng,
            now: 0,
            nodes,
            links,
            clients,
            cut: None,
            power_cuts: 0,
        };
        for place in 0..world.options.nodes {
            world.start(place);
        }
        world
    }

    /// Plans a power cut.
    pub fn plan(&mut self, cut: PowerCut) {
        self.nodes[cut.node].disk.power_cut_at_call(cut.call);
        self.cut = Some(cut);
    }

    /// Storage calls that a node has made since it was joined.
    pub fn storage_calls(&self, place: Place) -> u64 {
        self.nodes[place].disk.calls()
    }

    /// How many nodes have lost power so far, each time counted.
    pub fn power_cuts(&self) -> u64 {
        self.power_cuts
    }

    /// One tick: time, messages, disks, clients.
    pub fn tick(&mut self) {
        self.now += 1;
        self.restart_due();
        for place in 0..self.nodes.len() {
            self.nodes[place].tick();
        }
        for packet in self.links.due(self.now) {
            self.nodes[packet.to].receive(packet);
        }
        self.run_clients();
        for place in 0..self.nodes.len() {
            self.turn(place);
        }
    }

    /// Runs until `done` of every client holds.
    ///
    /// # Panics
    /// If that takes longer than `ticks`.
    pub fn run_until(&mut self, what: &str, ticks: u64, done: impl Fn(&World) -> bool) {
        for _ in 0..ticks {
            if done(self) {
                return;
            }
            self.tick();
        }
        panic!("not within {ticks} ticks: {what}\n{}", self.picture());
    }

    /// Whether every client has got this many answers.
    pub fn clients_have(&self, answers: u64) -> bool {
        self.clients
            .iter()
            .all(|client| client.acknowledged() >= answers)
    }

    /// Whether all nodes live and have the same state, and a leader knows that nothing is missing from it.
    ///
    /// Without a leader, nodes that have just started look level at their snapshots.
    pub fn is_level(&self) -> bool {
        if !self.nodes.iter().any(SimNode::leads_level) {
            return false;
        }
        let mut states = self.nodes.iter().map(SimNode::state);
        let Some(Some(first)) = states.next() else {
            return false;
        };
        states.all(|state| state == Some(first))
    }

    /// Stops asking for new work.
    pub fn stop_clients(&mut self) {
        self.clients.iter_mut().for_each(Counter::stop);
    }

    /// Checks what was promised: every acknowledged increment happened, once, on every node.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn check_promises(&self) {
        for node in &self.nodes {
            let store = node
                .store()
                .expect("the world is level, so every node lives");
            for client in &self.clients {
                client.check(&node.name(), store);
            }
        }
    }

    /// A line per node, for failures.
    pub fn picture(&self) -> String {
        let nodes = self.nodes.iter().map(SimNode::picture);
        let lines: Vec<String> = nodes
            .chain(self.clients.iter().map(Counter::picture))
            .collect();
        format!("tick {}\n{}", self.now, lines.join("\n"))
    }

    fn start(&mut self, place: Place) {
        let every = self.options.snapshot_every_bytes;
        match self.nodes[place].start(self.rng.random(), every) {
            Ok(()) => self.introduce(place),
            Err(()) => self.power_went(place),
        }
    }

    /// Tells the new life of a node and all others of each other, as the handshake does.
    fn introduce(&mut self, place: Place) {
        for other in (0..self.nodes.len()).filter(|other| *other != place) {
            if let (Some(own), Some(theirs)) = (self.nodes[place].boot(), self.nodes[other].boot())
            {
                let (own_id, other_id) = (self.nodes[place].id(), self.nodes[other].id());
                self.nodes[other].peer_up(own_id, own);
                self.nodes[place].peer_up(other_id, theirs);
            }
        }
    }

    fn restart_due(&mut self) {
        for place in 0..self.nodes.len() {
            if self.nodes[place].is_due(self.now) {
                self.start(place);
            }
        }
    }

    fn turn(&mut self, place: Place) {
        let outcome = self.nodes[place].turn(&mut self.rng);
        match outcome {
            Outcome::Sent(packets) => {
                for packet in packets {
                    self.links.send(self.now, packet, &mut self.rng);
                }
            }
            Outcome::PowerWent => self.power_went(place),
        }
        for (client, answer) in self.nodes[place].take_answers() {
            self.clients[client.0 as usize].answered(place, answer);
        }
    }

    /// A storage call of this node failed because the power is gone, here or everywhere.
    fn power_went(&mut self, place: Place) {
        let everywhere = self.cut.take().is_some_and(|cut| cut.everywhere);
        let places: Vec<Place> = if everywhere {
            (0..self.nodes.len()).collect()
        } else {
            vec![place]
        };
        for place in places {
            self.power_cuts += 1;
            let back = self.now + self.options.down_ticks + self.rng.random_range(0..10);
            self.nodes[place].lose_power(&mut self.rng, back);
            self.links.forget(place);
            let gone = self.nodes[place].id();
            for other in self.nodes.iter_mut() {
                other.peer_down(gone);
            }
            self.clients
                .iter_mut()
                .for_each(|client| client.lost(place));
        }
    }

    fn run_clients(&mut self) {
        for number in 0..self.clients.len() {
            let live: Vec<Place> = (0..self.nodes.len())
                .filter(|place| self.nodes[*place].is_live())
                .collect();
            if live.is_empty() {
                return;
            }
            let place = live[self.rng.random_range(0..live.len())];
            if let Some(request) = self.clients[number].next(self.now, place) {
                self.ask(place, number, request);
            }
        }
    }

    fn ask(&mut self, place: Place, client: usize, request: (u64, Request)) {
        self.nodes[place].ask(ClientId(client as u64), request);
    }
}
