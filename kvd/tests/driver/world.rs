//! Drivers, what they have said to each other and to their clients, and the clock: nothing moves unless the test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use kvd::driver::{
    ClientId, Driver, DriverOptions, Effect, Event, SnapshotOrder, StagedSnapshot, TICK_MS,
    WrittenSnapshot,
};
use kvd::kv::auth::{Principal, Role};
use kvd::kv::command::{CommandResult, RangeQuery};
use kvd::kv::snapshot::{SnapshotContext, SnapshotHeader};
use kvd::snapshots::Suspect;
use kvd::wire::client::{
    Consistency, MemberAddress, MemberChange, Outcome, Refusal, Request, RequestFrame, Response,
};
use kvd::wire::peer::PeerMessage;
use raft_core::{EntryId, Envelope, LogIndex, Message, NodeId, SnapshotMeta, Term};

use crate::disk::Disk;
pub use crate::requests::{
    Packet, Write, increment, is_accepted, is_append, is_forward, is_heartbeat, is_reply, put,
};

pub use crate::make::{driver, options, peer_up};

pub const CLUSTER: u32 = 0xC0FF_EE00;
/// Election timeout in ticks.
pub const ET: u64 = 10;
/// How long clients wait, in ticks, unless the test says otherwise.
pub const PATIENCE: u64 = 200;
pub const CLIENT: ClientId = ClientId(7);
/// Nothing goes on for longer than this after one cause.
const ROUNDS_MAX: usize = 1000;

/// One driver and everything outside it.
pub struct Member {
    pub driver: Driver,
    pub disk: Disk,
    /// Its disk does nothing until the test says so.
    pub disk_held: bool,
    pub orders: Vec<SnapshotOrder>,
    pub writing: usize,
    pub outgoing_snapshots: Vec<(NodeId, Envelope)>,
    pub taken: Vec<u64>,
    pub fetches: Vec<raft_core::Fetch>,
    pub halted: Vec<LogIndex>,
    pub stopped: usize,
    /// The marks that it wanted, and the snapshots that it relied on after them.
    pub distrusts: Vec<Suspect>,
    pub trusts: Vec<EntryId>,
    /// What it was told about the members.
    pub told: Vec<(Vec<MemberAddress>, BTreeSet<NodeId>)>,
}

/// All of it.
pub struct World {
    members: BTreeMap<u64, Member>,
    pub wire: VecDeque<Packet>,
    /// Directions in which messages wait.
    held: BTreeSet<(u64, u64)>,
    /// Links that are down.
    cut: BTreeSet<(u64, u64)>,
    /// Directions in which appends are lost, and nothing else.
    no_appends: BTreeSet<(u64, u64)>,
    answers: BTreeMap<u64, Response>,
    last_request: u64,
}

impl Member {
    fn new(id: u64, count: u64, options: DriverOptions) -> Member {
        let disk = Disk::new();
        Member {
            driver: driver(id, count, options, &disk),
            disk,
            disk_held: false,
            orders: Vec::new(),
            writing: 0,
            outgoing_snapshots: Vec::new(),
            taken: Vec::new(),
            fetches: Vec::new(),
            halted: Vec::new(),
            stopped: 0,
            distrusts: Vec::new(),
            trusts: Vec::new(),
            told: Vec::new(),
        }
    }
}

impl World {
    pub fn new(count: u64) -> World {
        World::with(count, |_| {})
    }

    pub fn with(count: u64, change: impl Fn(&mut DriverOptions)) -> World {
        let mut members = BTreeMap::new();
        for id in 1..=count {
            let mut options = options(id, count);
            change(&mut options);
            members.insert(id, Member::new(id, count, options));
        }
        let mut world = World {
            members,
            wire: VecDeque::new(),
            held: BTreeSet::new(),
            cut: BTreeSet::new(),
            no_appends: BTreeSet::new(),
            answers: BTreeMap::new(),
            last_request: 0,
        };
        for a in 1..=count {
            for b in (1..=count).filter(|b| *b != a) {
                world.handle(a, peer_up(b, 1));
            }
        }
        world
    }

    /// A cluster whose leader is n1, with its first entry committed everywhere.
    pub fn led_by_n1(count: u64) -> World {
        World::led(World::new(count))
    }

    /// A node that was not among the `count` founders starts, with an empty log and links to everybody.
    pub fn start_later(&mut self, id: u64, count: u64) {
        let mut options = options(id, count);
        options.name = format!("n{id}");
        self.members.insert(id, Member::new(id, count, options));
        for other in self.others(id) {
            self.link_up(id, other);
        }
    }

    pub fn led(mut world: World) -> World {
        world.elect(1);
        world
    }

    pub fn node(&self, id: u64) -> &Member {
        &self.members[&id]
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).unwrap()
    }

    pub fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.ids()
            .into_iter()
            .filter(|other| *other != id)
            .collect()
    }

    pub fn is_leader(&self, id: u64) -> bool {
        self.node(id).driver.node().role() == raft_core::Role::Leader
    }

    /// Gives an event to a driver, without a turn.
    pub fn handle(&mut self, id: u64, event: Event) {
        self.node_mut(id).driver.handle(event);
    }

    pub fn turn(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let effects = member.driver.turn();
        if member.halted.is_empty() {
            member.driver.node().check_invariants();
        }
        for effect in effects {
            self.take_effect(id, effect);
        }
    }

    fn take_effect(&mut self, id: u64, effect: Effect) {
        let member = self.members.get_mut(&id).unwrap();
        match effect {
            Effect::Send { to, message } => {
                if let PeerMessage::Raft(envelope) = &message {
                    member.disk.check_promise(envelope);
                }
                let (from, to) = (id, to.0);
                let packet = Packet { from, to, message };
                let lost = self.cut.contains(&(from, to))
                    || self.no_appends.contains(&(from, to)) && is_append(&packet);
                if !lost {
                    self.wire.push_back(packet);
                }
            }
            Effect::Log(job) => member.disk.push(job),
            Effect::Fetch(fetch) => member.fetches.push(fetch),
            Effect::Answer { client, frame } => {
                assert_eq!(client, CLIENT);
                let before = self.answers.insert(frame.id, frame.body);
                assert_eq!(before, None, "request {} is answered twice", frame.id);
            }
            Effect::WriteSnapshot(order) => {
                assert!(
                    order.only_one || order.meta.id.index <= member.disk.synced(),
                    "a snapshot at {}, but only {} is synced",
                    order.meta.id,
                    member.disk.synced()
                );
                assert_eq!(order.view.applied_index(), order.meta.id.index.0);
                member.writing += 1;
                assert_eq!(member.writing, 1, "two snapshots are written at once");
                member.orders.push(*order);
            }
            Effect::SendSnapshot { to, envelope } => member.outgoing_snapshots.push((to, envelope)),
            Effect::SnapshotTaken { ticket } => member.taken.push(ticket),
            Effect::Observe(_) => {}
            Effect::Distrust(suspect) => member.distrusts.push(suspect),
            Effect::Trust(id) => member.trusts.push(id),
            Effect::Scrub { .. } => panic!("no test asks for it"),
            Effect::Halt { index, .. } => member.halted.push(index),
            Effect::Members { members, removed } => member.told.push((members, removed)),
            Effect::Stopped => member.stopped += 1,
        }
    }

    /// `ticks` ticks of one node's clock.
    pub fn tick(&mut self, id: u64, ticks: u64) {
        for _ in 0..ticks {
            self.handle(id, Event::Tick);
            self.turn(id);
        }
    }

    /// Ticks everywhere, with everything delivered and synced in between.
    pub fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            for id in self.ids() {
                self.tick(id, 1);
            }
            self.settle();
        }
    }

    /// Lets the disk of a node sync everything it has, and report once.
    pub fn sync(&mut self, id: u64) {
        let count = self.node(id).disk.queue.len();
        self.sync_some(id, count);
    }

    /// Lets the disk of a node sync its next `count` parts, and report once.
    pub fn sync_some(&mut self, id: u64, count: usize) {
        let report = self.node_mut(id).disk.sync(count);
        self.handle(id, Event::Log(report));
        self.turn(id);
    }

    /// A report of the log that completes nothing, with the space as it is now.
    pub fn look(&mut self, id: u64) {
        let report = self.node(id).disk.report();
        self.handle(id, Event::Log(report));
        self.turn(id);
    }

    /// Delivers every message that is on its way now and passes the test, in order; the others stay.
    pub fn deliver(&mut self, passes: impl Fn(&Packet) -> bool) {
        let mut receivers = BTreeSet::new();
        // What goes to a node that is not started is lost.
        self.wire
            .retain(|packet| self.members.contains_key(&packet.to));
        for packet in std::mem::take(&mut self.wire) {
            if !passes(&packet) || self.held.contains(&(packet.from, packet.to)) {
                self.wire.push_back(packet);
                continue;
            }
            let event = Event::Peer {
                from: NodeId(packet.from),
                message: packet.message,
            };
            self.handle(packet.to, event);
            receivers.insert(packet.to);
        }
        for id in receivers {
            self.turn(id);
        }
    }

    /// Loses every message on its way that passes the test.
    pub fn lose(&mut self, passes: impl Fn(&Packet) -> bool) {
        self.wire.retain(|packet| !passes(packet));
    }

    /// Turns, deliveries and syncs until nothing more happens. No time goes by.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            for id in self.ids() {
                self.turn(id);
                if !self.node(id).disk_held && !self.node(id).disk.queue.is_empty() {
                    self.sync(id);
                }
            }
            let held = &self.held;
            let idle = self.wire.iter().all(|p| held.contains(&(p.from, p.to)));
            let busy = |m: &Member| !m.disk_held && !m.disk.queue.is_empty();
            if idle && !self.members.values().any(busy) {
                return;
            }
            self.deliver(|_| true);
        }
        panic!("it never ends; on the wire: {:?}", self.wire);
    }

    pub fn hold_disk(&mut self, id: u64) {
        self.node_mut(id).disk_held = true;
    }

    pub fn free_disk(&mut self, id: u64) {
        self.node_mut(id).disk_held = false;
    }

    /// Messages from `from` to `to` wait on the wire.
    pub fn hold(&mut self, from: u64, to: u64) {
        self.held.insert((from, to));
    }

    pub fn release(&mut self) {
        self.held.clear();
    }

    /// Appends from `from` to `to` are lost, until [`World::allow_appends`].
    pub fn lose_appends(&mut self, from: u64, to: u64) {
        self.no_appends.insert((from, to));
    }

    pub fn allow_appends(&mut self) {
        self.no_appends.clear();
    }

    /// The link between two nodes breaks: what is on it is lost, and both notice.
    pub fn link_down(&mut self, a: u64, b: u64) {
        for (from, to) in [(a, b), (b, a)] {
            self.cut.insert((from, to));
            self.lose(|p| p.from == from && p.to == to);
            self.handle(from, Event::PeerDown { peer: NodeId(to) });
        }
        self.turn(a);
        self.turn(b);
    }

    /// Messages between two nodes are lost, and nobody notices.
    pub fn silence(&mut self, a: u64, b: u64) {
        for (from, to) in [(a, b), (b, a)] {
            self.cut.insert((from, to));
            self.lose(|p| p.from == from && p.to == to);
        }
    }

    /// The link stands again.
    pub fn link_up(&mut self, a: u64, b: u64) {
        for (from, to) in [(a, b), (b, a)] {
            self.cut.remove(&(from, to));
            self.handle(from, peer_up(to, 1));
        }
    }

    pub fn isolate(&mut self, id: u64) {
        for other in self.others(id) {
            self.link_down(id, other);
        }
    }

    pub fn rejoin(&mut self, id: u64) {
        for other in self.others(id) {
            self.link_up(id, other);
        }
    }

    /// Makes `id` the leader: the others it reaches forget the old one, then it stands until it is elected.
    pub fn elect(&mut self, id: u64) {
        for _ in 0..5 {
            for other in self.others(id) {
                if !self.is_leader(other) && !self.cut.contains(&(id, other)) {
                    self.tick(other, ET);
                }
            }
            // What they said meanwhile is as good as lost: they must not win themselves.
            let stands =
                |p: &Packet| matches!(p.raft(), Some(Message::PreVote(_) | Message::Vote(_)));
            self.lose(stands);
            while !self.is_leader(id) && !self.wire.iter().any(|p| p.from == id && stands(p)) {
                self.tick(id, 1);
                if self.members.len() == 1 {
                    self.settle();
                }
            }
            self.settle();
            if self.is_leader(id) {
                return;
            }
        }
        panic!("n{id} is not elected");
    }

    pub fn ask_as(&mut self, id: u64, principal: Principal, body: Request) -> u64 {
        self.last_request += 1;
        let frame = RequestFrame {
            id: self.last_request,
            body,
        };
        self.handle(
            id,
            Event::Request {
                client: CLIENT,
                principal,
                frame,
            },
        );
        self.last_request
    }

    /// An administrator wants other members.
    pub fn change(&mut self, id: u64, changes: Vec<MemberChange>) -> u64 {
        let change = Request::ChangeMembers {
            changes,
            dry_run: false,
            timeout_ms: u32::try_from(PATIENCE * TICK_MS).unwrap(),
        };
        self.ask_as(id, Principal::new(Role::Admin, "root"), change)
    }

    pub fn ask(&mut self, id: u64, body: Request) -> u64 {
        self.ask_as(id, Principal::new(Role::Client, "app"), body)
    }

    /// A write; it waits for the next turn of that node.
    pub fn write(&mut self, id: u64, write: Write) -> u64 {
        self.ask(id, write.request())
    }

    pub fn read(&mut self, id: u64, key: &str, consistency: Consistency) -> u64 {
        self.read_within(id, key, consistency, PATIENCE)
    }

    pub fn read_within(&mut self, id: u64, key: &str, consistency: Consistency, ticks: u64) -> u64 {
        let timeout_ms = u32::try_from(ticks * TICK_MS).unwrap();
        let query = RangeQuery::key(key.to_owned());
        self.ask(
            id,
            Request::Read {
                consistency,
                query,
                timeout_ms,
            },
        )
    }

    pub fn answer(&self, request: u64) -> Option<&Response> {
        self.answers.get(&request)
    }

    pub fn refusal(&self, request: u64) -> &Refusal {
        match self.answer(request) {
            Some(Response::Refused(refusal)) => refusal,
            other => panic!("request {request} is not refused, but {other:?}"),
        }
    }

    /// The refusal after one turn of the asked node, with nothing delivered.
    pub fn refusal_at_once(&mut self, id: u64, request: u64) -> &Refusal {
        self.turn(id);
        self.refusal(request)
    }

    pub fn is_unanswered(&self, request: u64) -> bool {
        self.answer(request).is_none()
    }

    pub fn written(&self, request: u64) -> &CommandResult {
        match self.answer(request) {
            Some(Response::Written { result, .. }) => result,
            other => panic!("request {request} is not written, but {other:?}"),
        }
    }

    pub fn assert_unknown(&self, request: u64) {
        let refusal = self.refusal(request);
        assert!(
            matches!(refusal, Refusal::OutcomeUnknown { .. }),
            "{refusal:?}"
        );
    }

    pub fn assert_no_leader(&self, request: u64) {
        let refusal = self.refusal(request);
        assert_eq!(refusal.outcome(), Outcome::Definite);
        assert!(matches!(refusal, Refusal::NoLeader { .. }), "{refusal:?}");
    }

    /// The values of a read's answer, whether it is marked as local, and the index it was read at.
    pub fn found(&self, request: u64) -> (Vec<Bytes>, bool, u64) {
        match self.answer(request) {
            Some(Response::Range {
                result,
                applied,
                local,
            }) => {
                let values = result.items.iter().map(|item| item.value.clone());
                (values.collect(), *local, *applied)
            }
            other => panic!("request {request} found nothing, but {other:?}"),
        }
    }

    /// What the store of a node holds under a key.
    pub fn value(&self, id: u64, key: &str) -> Option<Bytes> {
        let query = RangeQuery::key(key.to_owned());
        let found = self.node(id).driver.store().query(&query);
        found.items.first().map(|item| item.value.clone())
    }

    /// An administrator asks for a snapshot, and it is written.
    pub fn ask_for_snapshot(&mut self, id: u64) {
        self.ask_as(id, Principal::new(Role::Admin, "root"), Request::DiscardLog);
        self.turn(id);
        self.snapshot_written(id, None);
    }

    /// Answers the outstanding snapshot order of a node.
    pub fn snapshot_written(&mut self, id: u64, oldest_kept: Option<EntryId>) -> SnapshotMeta {
        let member = self.node_mut(id);
        member.writing -= 1;
        let meta = member.orders.last().unwrap().meta.clone();
        let written = WrittenSnapshot {
            oldest_kept: oldest_kept.unwrap_or(meta.id),
            meta: meta.clone(),
        };
        self.handle(id, Event::SnapshotWritten(Some(written)));
        self.turn(id);
        meta
    }

    /// A snapshot of what `of` holds, as it would be staged at `to` out of the message `envelope`.
    pub fn stage(of: &SnapshotOrder, ticket: u64, from: u64, to: u64, term: Term) -> Event {
        let context = SnapshotContext {
            term: of.meta.id.term.0,
            configuration: of.meta.configuration.encode().into(),
            configuration_index: of.meta.configuration_index.0,
            members: Vec::new(),
            cluster: CLUSTER,
            cluster_version: 1,
        };
        let header = SnapshotHeader::new(&of.view, context);
        let envelope = Envelope {
            from: NodeId(from),
            to: NodeId(to),
            term,
            message: Message::InstallSnapshot(raft_core::InstallSnapshot {
                meta: Box::new(of.meta.clone()),
            }),
        };
        Event::SnapshotStaged(Box::new(StagedSnapshot {
            ticket,
            envelope,
            header,
            store: of.view.clone(),
        }))
    }
}
