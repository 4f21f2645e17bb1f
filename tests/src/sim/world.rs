//! The world: nodes, clients, and a queue of what is due.

mod due;
mod effects;
mod faults;
mod links;
mod operator;
mod probe;
mod rot;
mod state;
mod transfers;

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use kvd::driver::{ClientId, Event};
use kvd::kv::auth::{Principal, Role as PrincipalRole};
use kvd::kv::limits::StoreLimits;
use kvd::kv::store::Store;
use kvd::wire::client::{Request, RequestFrame};
use kvd::wire::peer;
use raft_core::{Configuration, Entry, EntryKind, LogIndex, NodeId, Role};

use self::due::Due;
use self::links::Links;
use self::probe::Probes;
pub use self::transfers::OnItsWay;
use self::transfers::Transfers;
use super::client::{Call, Client};
use super::network::Network;
use super::node::{self, CLUSTER, SimNode, Starting};
use super::scenario::Scenario;
use super::timeline::Timeline;
use super::{Place, Us};
use crate::watch::{Replay, Seen, State, Violation, Watchers};

/// How often a connection that is gone, or back, is noticed.
const LINK_CHECK_US: Us = 100_000;
/// Way of an answer to its client.
const ANSWER_US: Us = 500;
/// The log thread makes the rest durable when it has been idle for so long.
const IDLE_US: Us = 50_000;
/// Time that preparing a segment takes at most.
const PREPARE_US: Us = 50_000;
/// Time that reading old entries takes.
const FETCH_US: Us = 1_000;
/// How long a full disk is left alone.
const FULL_DISK_US: Us = 100_000;

/// The store as a state machine to be replayed.
#[derive(Debug, Clone)]
pub(super) struct ReplayedStore(pub(super) Store);

impl Replay for ReplayedStore {
    fn apply(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::Command => {
                self.0.apply(entry.index.0, &entry.payload);
            }
            EntryKind::Noop | EntryKind::Configuration => self.0.skip(entry.index.0),
        }
    }

    fn hash(&self) -> u64 {
        self.0.hash()
    }
}

/// What happened in a world, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that ended, for whatever reason.
    pub deaths: u64,
    /// Processes that ended in good order, because they were told to.
    pub stops: u64,
    /// Machines that lost power.
    pub power_cuts: u64,
    /// Elections that were won.
    pub elections: u64,
    /// Snapshots that reached another node.
    pub transfers: u64,
    /// Records of a log that rotted.
    pub rotted: u64,
    /// Damaged entries that came back.
    pub repaired: u64,
    /// Configurations that a leader knew to be committed.
    pub configurations: u64,
}

impl Counts {
    /// Adds those of another world.
    pub(super) fn add(&mut self, other: &Counts) {
        self.deaths += other.deaths;
        self.stops += other.stops;
        self.power_cuts += other.power_cuts;
        self.elections += other.elections;
        self.transfers += other.transfers;
        self.rotted += other.rotted;
        self.repaired += other.repaired;
        self.configurations += other.configurations;
    }
}

/// A whole simulated cluster.
pub struct World {
    scenario: Scenario,
    rng: StdRng,
    now: Us,
    queue: BTreeMap<(Us, u64), Due>,
    planned: u64,
    nodes: Vec<SimNode>,
    network: Network,
    links: Links,
    transfers: Transfers,
    clients: Vec<Client>,
    /// When each client is looked at next.
    client_wakes: Vec<Option<Us>>,
    probes: Probes,
    /// Until when clients get no answers.
    answers_lost_until: Us,
    watchers: Watchers<ReplayedStore>,
    leaders: BTreeMap<raft_core::Term, NodeId>,
    timeline: Timeline,
    counts: Counts,
    /// Some store was made to differ, so a node may find that it does.
    may_differ: bool,
    /// Several voters decided when a leader was last seen: two at least hold what is committed. A single one has nobody to ask,
    /// nor has one that was the only founder and has lost the entry that says who joined it.
    has_copies: bool,
}

impl World {
    /// A joined cluster with empty data directories; all processes start at once.
    pub fn new(scenario: &Scenario, timeline: Timeline) -> World {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let members = node::members(scenario.nodes);
        let nodes =
            (0..scenario.machines()).map(|place| SimNode::join(place, &members, rng.random()));
        let mut world = World {
            nodes: nodes.collect(),
            rng,
            now: 0,
            queue: BTreeMap::new(),
            planned: 0,
            network: Network::new(scenario),
            links: Links::default(),
            transfers: Transfers::default(),
            clients: (0..scenario.clients)
                .map(|number| Client::new(number, scenario))
                .collect(),
            client_wakes: vec![None; scenario.clients],
            probes: Probes::default(),
            answers_lost_until: 0,
            watchers: Watchers::new(ReplayedStore(Store::new(StoreLimits::default()))),
            leaders: BTreeMap::new(),
            timeline,
            counts: Counts::default(),
            may_differ: false,
            has_copies: false,
            scenario: scenario.clone(),
        };
        for place in 0..scenario.nodes {
            world.plan(0, Due::Start { place });
        }
        for number in 0..scenario.clients {
            world.plan_client(number);
        }
        world.plan(1, Due::Links);
        world.plan_fault(0);
        world
    }

    fn plan(&mut self, at: Us, due: Due) {
        self.planned += 1;
        self.queue.insert((at.max(self.now), self.planned), due);
    }

    fn plan_in(&mut self, us: Us, due: Due) {
        self.plan(self.now + us, due);
    }

    /// Plays until the given time.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn run_to(&mut self, until: Us) -> Result<(), Violation> {
        while let Some(next) = self.queue.first_entry()
            && next.key().0 <= until
        {
            let ((at, _), due) = next.remove_entry();
            self.now = at;
            self.happen(due)?;
        }
        self.now = until;
        Ok(())
    }

    /// Plays until `done` holds; whether it did within `us`.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn run_until(&mut self, us: Us, done: impl Fn(&World) -> bool) -> Result<bool, Violation> {
        let until = self.now + us;
        while self.now < until {
            if done(self) {
                return Ok(true);
            }
            self.run_to((self.now + kvd::driver::TICK_MS * 1_000).min(until))?;
        }
        Ok(done(self))
    }

    /// What is due, unless the process is gone, or stands still: then it waits until the process goes on.
    fn unless_held_up(&mut self, place: Place, life: u64, due: Due) -> Option<Due> {
        let node = &self.nodes[place];
        if !node.is_live() || node.lives != life {
            return None;
        }
        if self.now < node.paused_until {
            let until = node.paused_until;
            self.plan(until, due);
            return None;
        }
        Some(due)
    }

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        let due = match due.place() {
            Some(place) => {
                let life = due.life().unwrap_or(self.nodes[place].lives);
                let Some(due) = self.unless_held_up(place, life, due) else {
                    return Ok(());
                };
                due
            }
            None => due,
        };
        match due {
            Due::Tick { place, life } => self.tick(place, life),
            Due::Packet {
                from,
                to,
                connection,
                bytes,
            } => self.arrive(from, to, connection, bytes),
            Due::Log { place, .. } => self.work_on_log(place),
            Due::LogIdle { place, works, .. } => self.idle_log(place, works),
            Due::Prepared { place, .. } => self.prepare(place),
            Due::Snapshot { place, order, .. } => self.write_snapshot(place, &order),
            Due::Told { place, event, .. } => self.handle(place, *event),
            Due::Transfer { number } => self.step_transfer(number),
            Due::Space { place } => {
                self.free_disk(place);
                Ok(())
            }
            Due::Client { number } => self.wake_client(number),
            Due::Answer {
                client,
                id,
                response,
            } => {
                self.clients[client].answered(self.now, id, *response);
                self.plan_client(client);
                Ok(())
            }
            Due::Links => {
                self.plan_in(LINK_CHECK_US, Due::Links);
                self.check_links()
            }
            Due::Start { place } => self.start(place),
            Due::Fault { number } => self.begin_fault(number),
        }
    }

    fn tick(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        let us = self.nodes[place].tick_us(self.now);
        self.plan_in(us, Due::Tick { place, life });
        self.handle(place, Event::Tick)
    }

    /// Hands an event to a living node and carries out what follows; to one that stands still, when it goes on.
    fn handle(&mut self, place: Place, event: Event) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        if self.now < node.paused_until {
            let until = node.paused_until;
            self.tell_at(until, place, event);
            return Ok(());
        }
        if let Some(life) = &mut node.life {
            life.driver.handle(event);
            self.turn(place)?;
        }
        Ok(())
    }

    /// Plans to hand an event to the present process of a node.
    fn tell_at(&mut self, at: Us, place: Place, event: Event) {
        let life = self.nodes[place].lives;
        let event = Box::new(event);
        self.plan(at, Due::Told { place, life, event });
    }

    fn arrive(
        &mut self,
        from: Place,
        to: Place,
        connection: u64,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        if !self.links.stands(from, to, connection) {
            return Ok(());
        }
        let message = peer::decode(CLUSTER, bytes).expect("this network does not alter bytes");
        let from = node::id(from);
        self.handle(to, Event::Peer { from, message })
    }

    fn start(&mut self, place: Place) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        if node.is_live() || self.now < node.back_at {
            return Ok(());
        }
        let seed = if self.now < self.scenario.same_draws_ms * 1_000 {
            self.scenario.seed
        } else {
            self.rng.random()
        };
        let starting = Starting {
            snapshot_bytes: self.scenario.snapshot_bytes,
        };
        match node.start(seed, &starting) {
            Ok(()) => {}
            Err(_) if node.disk.is_stopped() => return self.power_went(place),
            Err(_) if std::mem::take(&mut node.expects_sync_error) => {
                let down_us = node.down_us;
                self.die(place, down_us);
                return Ok(());
            }
            Err(why) => {
                return Err(Violation {
                    rule: "starts again",
                    text: format!("{}: {why}", node.id()),
                });
            }
        }
        if let Some(life) = &self.nodes[place].life {
            let found = format!("starts: {}", life.found);
            self.timeline.note(self.now, place, &found);
        }
        self.tell_of_start(place)?;
        let life = self.nodes[place].lives;
        self.plan_in(
            self.nodes[place].tick_us(self.now),
            Due::Tick { place, life },
        );
        self.plan_preparing(place);
        self.check_links()?;
        self.turn(place)
    }

    /// Shows the watchers what a node found on its disk.
    fn tell_of_start(&mut self, place: Place) -> Result<(), Violation> {
        let life = self.nodes[place]
            .life
            .as_ref()
            .expect("it has just started");
        let first = life.reader.first_index();
        let entries = self.entries_of(place, life);
        let storage = life.driver.node().storage();
        let floor = raft_core::EntryId {
            index: LogIndex(first - 1),
            term: raft_core::Storage::term(storage, LogIndex(first - 1)).unwrap_or_default(),
        };
        let status = life.driver.node().status();
        let hard_state = raft_core::HardState {
            term: status.term,
            vote: status.vote,
        };
        self.watchers.see(
            node::id(place),
            &Seen::Started {
                hard_state,
                floor,
                entries: &entries,
            },
        )
    }

    /// Shows the watchers what a node is after its turn.
    fn tell_of_turn(&mut self, place: Place) -> Result<(), Violation> {
        let Some(life) = &self.nodes[place].life else {
            return Ok(());
        };
        let (core, store) = (life.driver.node(), life.driver.store());
        let state = State {
            term: core.term(),
            role: core.role(),
            commit: core.commit_index(),
            applied: LogIndex(store.applied_index()),
            hash: store.hash(),
            configuration: core.configuration(),
        };
        if state.role == Role::Leader {
            let Configuration {
                voters,
                voters_outgoing,
                ..
            } = state.configuration;
            self.has_copies =
                self.scenario.nodes > 1 && voters.len() > 1 && voters_outgoing.len() != 1;
        }
        if state.role == Role::Leader && self.leaders.insert(state.term, core.id()).is_none() {
            self.counts.elections += 1;
        }
        self.watchers.see(core.id(), &Seen::Turned(state))
    }

    /// Looks at a client, unless it was to be looked at earlier and has been.
    fn wake_client(&mut self, number: usize) -> Result<(), Violation> {
        if self.client_wakes[number] != Some(self.now) {
            return Ok(());
        }
        self.client_wakes[number] = None;
        self.act(number)
    }

    fn act(&mut self, number: usize) -> Result<(), Violation> {
        let asked = self.clients[number].act(self.now, self.nodes.len());
        if let Some((place, id, request)) = asked {
            if self.nodes[place].is_live() {
                self.clients[number].sent();
                self.ask(place, number, id, request)?;
            } else {
                self.clients[number].refused_at_the_door(self.now);
            }
        }
        self.plan_client(number);
        Ok(())
    }

    fn ask(
        &mut self,
        place: Place,
        client: usize,
        id: u64,
        request: Request,
    ) -> Result<(), Violation> {
        let event = Event::Request {
            client: ClientId(client as u64),
            principal: Principal::new(PrincipalRole::Admin, "sim"),
            frame: RequestFrame { id, body: request },
        };
        self.handle(place, event)
    }

    fn plan_client(&mut self, number: usize) {
        let Some(at) = self.clients[number].next_at() else {
            return;
        };
        let at = at.max(self.now);
        if self.client_wakes[number].is_none_or(|planned| at < planned) {
            self.client_wakes[number] = Some(at);
            self.plan(at, Due::Client { number });
        }
    }
}

/// What is known of the world from outside.
impl World {
    /// Its time.
    pub fn now(&self) -> Us {
        self.now
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The story so far.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Everything that clients asked, client by client.
    pub fn calls(&self) -> Vec<Call> {
        let calls = self.clients.iter().map(Client::calls);
        calls.flatten().cloned().collect()
    }

    /// All committed entries, from index 1 on.
    pub fn committed(&self) -> &[Entry] {
        self.watchers.logs().committed()
    }

    /// The state after all of them.
    pub fn replayed(&self) -> &Store {
        &self.watchers.replayed().0
    }

    /// The store of a node, if its process runs.
    pub fn store(&self, place: Place) -> Option<&Store> {
        let life = self.nodes[place].life.as_ref();
        life.map(|life| life.driver.store())
    }

    /// What a node says of itself, if its process runs.
    pub fn status(&self, place: Place) -> Option<raft_core::Status> {
        let life = self.nodes[place].life.as_ref();
        life.map(|life| life.driver.node().status())
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Storage calls that a node has made since it was joined.
    pub fn storage_calls(&self, place: Place) -> u64 {
        self.nodes[place].disk.calls()
    }

    /// The node that leads and has committed an entry of its own term.
    pub fn leader(&self) -> Option<Place> {
        let leads =
            |status: raft_core::Status| status.role == Role::Leader && status.own_term_committed;
        (0..self.nodes()).find(|place| self.status(*place).is_some_and(leads))
    }

    /// The members of the configuration under this leader.
    pub fn members(&self) -> Vec<Place> {
        let Some(status) = self.leader().and_then(|leader| self.status(leader)) else {
            return Vec::new();
        };
        let members = status.configuration.members();
        members.into_iter().map(node::place).collect()
    }

    /// Whether all members run, the leader knows that nothing is missing, and all have applied all of it.
    pub fn is_level(&self) -> bool {
        let Some(leader) = self.leader().and_then(|leader| self.status(leader)) else {
            return false;
        };
        self.members().into_iter().all(|place| {
            self.status(place).is_some_and(|status| {
                status.last == leader.last && status.applied == leader.last.index
            })
        })
    }

    /// Whether no client waits for an answer.
    pub fn clients_are_idle(&self) -> bool {
        self.clients.iter().all(Client::is_idle)
    }

    /// A line per node, for failures.
    pub fn picture(&self) -> String {
        let line = |place: Place| match self.status(place) {
            None => format!("{}: down", node::name(place)),
            Some(status) => format!("{}: {status}", node::name(place)),
        };
        let lines: Vec<String> = (0..self.nodes()).map(line).collect();
        format!("at {} ms\n{}", self.now / 1_000, lines.join("\n"))
    }
}
