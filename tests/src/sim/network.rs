//! The network of the world: who reaches whom, and when a packet arrives.
//!
//! Everything that can be wrong with a way has a time at which it ends. What the weather draws comes from a generator of
//! its own, so that what else is drawn does not move when a fault is taken out of a schedule.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::scenario::Scenario;
use super::{Place, Us};

/// Two nodes that have not reached each other for so long take the connection for dead.
const DEAD_AFTER_US: Us = 600_000;

/// One way from one node to another.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    cut_until: Us,
    slow_until: Us,
    slow_us: Us,
    /// No packet that keeps its place arrives before this one.
    last_arrival: Us,
}

/// All ways between the nodes.
#[derive(Debug)]
pub(super) struct Network {
    nodes: usize,
    rng: StdRng,
    ways: Vec<Way>,
    clogged_until: Vec<Us>,
    loss_until: (Us, u32),
    loss_permille: u32,
    duplicate_permille: u32,
    reorder_permille: u32,
    delay_us: Us,
    /// Since when each pair has not been able to talk, both ways; none if it can.
    silent_since: Vec<Option<Us>>,
}

impl Network {
    pub(super) fn new(scenario: &Scenario) -> Network {
        let nodes = scenario.machines();
        Network {
            nodes,
            rng: StdRng::seed_from_u64(scenario.seed ^ 0x6e65_7477_6f72_6b00),
            ways: vec![Way::default(); nodes * nodes],
            clogged_until: vec![0; nodes],
            loss_until: (0, 0),
            loss_permille: scenario.loss_permille,
            duplicate_permille: scenario.duplicate_permille,
            reorder_permille: scenario.reorder_permille,
            delay_us: scenario.delay_ms.max(1) * 1_000,
            silent_since: vec![None; nodes * nodes],
        }
    }

    fn way(&mut self, from: Place, to: Place) -> &mut Way {
        &mut self.ways[from * self.nodes + to]
    }

    /// When the copies of a packet that leaves now arrive: none if it is lost, two if it is doubled.
    pub(super) fn arrivals(&mut self, now: Us, from: Place, to: Place) -> Vec<Us> {
        let (until, permille) = self.loss_until;
        let loss = self
            .loss_permille
            .max(if now < until { permille } else { 0 });
        if now < self.way(from, to).cut_until || self.rng.random_ratio(loss, 1_000) {
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(now, from, to)];
        if self.rng.random_ratio(self.duplicate_permille, 1_000) {
            arrivals.push(self.arrival(now, from, to));
        }
        arrivals
    }

    fn arrival(&mut self, now: Us, from: Place, to: Place) -> Us {
        let mut at = now + self.rng.random_range(self.delay_us / 10..=self.delay_us);
        let may_be_overtaken = self.rng.random_ratio(self.reorder_permille, 1_000);
        let clogged = self.clogged_until[from].max(self.clogged_until[to]);
        let way = self.way(from, to);
        if now < way.slow_until {
            at += way.slow_us;
        }
        at = at.max(clogged);
        if !may_be_overtaken {
            at = at.max(way.last_arrival);
            way.last_arrival = at;
        }
        at
    }

    /// When something that is repeated until it arrives gets there; none while the way is cut.
    pub(super) fn reliable_arrival(&mut self, now: Us, from: Place, to: Place) -> Option<Us> {
        let way = *self.way(from, to);
        if now < way.cut_until {
            return None;
        }
        let clogged = self.clogged_until[from].max(self.clogged_until[to]);
        let slow = if now < way.slow_until { way.slow_us } else { 0 };
        Some((now + self.delay_us + slow).max(clogged))
    }

    pub(super) fn cut(&mut self, from: Place, to: Place, until: Us) {
        let way = self.way(from, to);
        way.cut_until = way.cut_until.max(until);
    }

    pub(super) fn isolate(&mut self, node: Place, until: Us) {
        self.split(1 << node, until);
    }

    /// Cuts all ways between the places whose bits are set and the others.
    pub(super) fn split(&mut self, side: u32, until: Us) {
        let in_side = |place: Place| side >> place & 1 == 1;
        for from in 0..self.nodes {
            for to in (0..self.nodes).filter(|to| in_side(*to) != in_side(from)) {
                self.cut(from, to, until);
            }
        }
    }

    pub(super) fn clog(&mut self, node: Place, until: Us) {
        self.clogged_until[node] = self.clogged_until[node].max(until);
    }

    pub(super) fn slow(&mut self, from: Place, to: Place, by: Us, until: Us) {
        let way = self.way(from, to);
        way.slow_until = way.slow_until.max(until);
        way.slow_us = by;
    }

    pub(super) fn lose(&mut self, permille: u32, until: Us) {
        self.loss_until = (until, permille);
    }

    /// Good weather from now on, all ways open.
    pub(super) fn heal(&mut self) {
        self.ways.fill(Way::default());
        self.clogged_until.fill(0);
        self.loss_until = (0, 0);
        (
            self.loss_permille,
            self.duplicate_permille,
            self.reorder_permille,
        ) = (0, 0, 0);
        self.delay_us = self.delay_us.min(5_000);
    }

    /// Whether packets between two nodes pass in both directions at the moment.
    fn passes(&mut self, now: Us, one: Place, other: Place) -> bool {
        let clogged = self.clogged_until[one].max(self.clogged_until[other]);
        let cut = self
            .way(one, other)
            .cut_until
            .max(self.way(other, one).cut_until);
        now >= cut.max(clogged)
    }

    /// Whether a connection between two living nodes holds: it outlives a short silence.
    pub(super) fn is_connected(&mut self, now: Us, one: Place, other: Place) -> bool {
        let passes = self.passes(now, one, other);
        let silent = &mut self.silent_since[one.min(other) * self.nodes + one.max(other)];
        if passes {
            *silent = None;
            return true;
        }
        now < silent.get_or_insert(now).saturating_add(DEAD_AFTER_US)
    }
}
