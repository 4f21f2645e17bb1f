//! Several nodes in one thread, with everything that happens between them in the hands of the test:
//! which message arrives and when, which write reaches the disk and when, and what a crash leaves
//! behind.

#![allow(dead_code, reason = "each test file uses its own part of the harness")]

pub(crate) mod dice;
pub(crate) mod disk;
mod disk_watch;
pub(crate) mod make;
pub(crate) mod safety;
pub(crate) mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft_core::{
    ChangeError, Config, Configuration, ConfigurationChange, Entry, EntryId, Envelope, Event,
    Fetch, MemoryStorage, Message, Node, NodeId, Persist, PersistId, ProposeError, ReadError,
    ReadId, ReadState, Ready, Rejected, Role, Status,
};

use self::disk_watch::DiskWatch;
pub(crate) use self::make::*;
use self::safety::Safety;

/// One member: its node while it lives, and its disk.
pub(crate) struct Member {
    pub(crate) config: Config,
    /// None while it is down.
    pub(crate) node: Option<Node<MemoryStorage>>,
    /// What survives a crash; while the node lives, its storage is the disk.
    pub(crate) disk: MemoryStorage,
    /// Handed out, not yet on disk.
    pub(crate) writes: VecDeque<Persist>,
    /// On disk, and the node is not told yet.
    pub(crate) unreported: Option<PersistId>,
    /// Messages that wait for a write.
    pub(crate) waiting: VecDeque<(PersistId, Envelope)>,
    /// Entries the state machine has applied since its last snapshot or start.
    pub(crate) applied: Vec<Entry>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) read_states: Vec<ReadState>,
    pub(crate) read_failures: Vec<ReadId>,
    /// Committed entries are kept back instead of applied.
    pub(crate) holds_apply: bool,
    pub(crate) to_apply: Vec<Entry>,
    pub(crate) watch: DiskWatch,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) members: BTreeMap<NodeId, Member>,
    /// Messages on their way.
    pub(crate) bag: Vec<Envelope>,
    /// Nodes whose messages are lost, both ways.
    pub(crate) isolated: BTreeSet<NodeId>,
    /// One line per thing that happened.
    pub(crate) transcript: Vec<String>,
    /// Also events that the rest of a transcript shows anyhow.
    pub(crate) tells_all: bool,
    pub(crate) safety: Safety,
    founding: Configuration,
    lives: u64,
}

impl Cluster {
    /// A cluster of voters `1..=count`, nobody started yet.
    pub(crate) fn new(count: u64) -> Cluster {
        Cluster::with_configuration(Configuration::new((1..=count).map(NodeId)))
    }

    pub(crate) fn with_configuration(configuration: Configuration) -> Cluster {
        let mut cluster = Cluster {
            members: BTreeMap::new(),
            bag: Vec::new(),
            isolated: BTreeSet::new(),
            transcript: Vec::new(),
            tells_all: false,
            safety: Safety::default(),
            founding: configuration.clone(),
            lives: 0,
        };
        for member in configuration.members() {
            cluster.add(member, configuration.clone());
        }
        cluster
    }

    /// Adds a member that was founded with `configuration`.
    pub(crate) fn add(&mut self, id: NodeId, configuration: Configuration) {
        let member = Member {
            config: Config::new(id, id.0),
            node: None,
            disk: MemoryStorage::with_configuration(configuration),
            writes: VecDeque::new(),
            unreported: None,
            waiting: VecDeque::new(),
            applied: Vec::new(),
            fetches: Vec::new(),
            read_states: Vec::new(),
            read_failures: Vec::new(),
            holds_apply: false,
            to_apply: Vec::new(),
            watch: DiskWatch::default(),
        };
        self.members.insert(id, member);
    }

    /// Starts a node that is no member: it knows the founding configuration, as every node that
    /// joins does.
    pub(crate) fn join(&mut self, id: NodeId) {
        self.add(id, self.founding.clone());
        self.start(id);
    }

    /// Changes the options of all members that are not started yet.
    pub(crate) fn configure(&mut self, change: impl Fn(&mut Config)) {
        self.members
            .values_mut()
            .for_each(|member| change(&mut member.config));
    }

    pub(crate) fn start_all(&mut self) {
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        ids.into_iter().for_each(|id| self.start(id));
    }

    /// Starts a node on its disk, if it is down.
    pub(crate) fn start(&mut self, id: NodeId) {
        self.lives += 1;
        let seed = self.lives * 1000 + id.0;
        let member = self.member(id);
        if member.node.is_some() {
            return;
        }
        member.disk.purge_damaged();
        let mut config = member.config.clone();
        config.seed = seed;
        let node = Node::new(config, member.disk.clone())
            .expect("a disk that a node left behind is sound");
        member.applied.clear();
        member.node = Some(node);
        self.observe_log(id);
        self.pump(id);
    }

    /// Kills a node. Of its pending writes the first `kept` reach the disk; nobody is told.
    pub(crate) fn crash(&mut self, id: NodeId, kept: usize) {
        let member = self.member(id);
        let Some(node) = member.node.take() else {
            return;
        };
        member.disk = node.storage().clone();
        for write in member.writes.drain(..).take(kept) {
            member.disk.persist(write);
        }
        member.unreported = None;
        member.watch.on_crash();
        member.waiting.clear();
        member.to_apply.clear();
        member.fetches.clear();
        self.safety.on_crash(id);
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.members[&id].node.is_some()
    }

    pub(crate) fn member(&mut self, id: NodeId) -> &mut Member {
        self.members.get_mut(&id).expect("a member of the test")
    }

    pub(crate) fn node(&mut self, id: NodeId) -> &mut Node<MemoryStorage> {
        self.member(id).node.as_mut().expect("the node is up")
    }

    pub(crate) fn status(&self, id: NodeId) -> Status {
        self.members[&id]
            .node
            .as_ref()
            .expect("the node is up")
            .status()
    }

    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let up = self
            .members
            .iter()
            .filter_map(|(id, member)| Some((*id, member.node.as_ref()?)));
        up.filter(|(_, node)| node.status().role == Role::Leader)
            .map(|(id, _)| id)
            .collect()
    }

    fn say(&mut self, line: String) {
        self.transcript.push(line);
    }

    /// Takes all output of a node and puts it where it belongs.
    pub(crate) fn pump(&mut self, id: NodeId) {
        while self.node(id).has_ready() {
            // What was said before damage was found may still leave.
            let was_repairing = self.status(id).repair.is_some();
            let ready = self.node(id).ready();
            assert!(
                !ready.is_empty() || !self.node(id).has_ready(),
                "{id} spins: ready without end"
            );
            self.take_ready(id, ready, was_repairing);
            self.leave_if_wanted(id);
        }
        self.check(id);
    }

    /// Ends a committed joint configuration, as a driver does after each turn.
    fn leave_if_wanted(&mut self, id: NodeId) {
        if let Some(configuration) = self.node(id).pending_leave() {
            self.node(id)
                .propose_configuration(configuration_proposal(&configuration))
                .expect("what the node asks for it takes");
        }
    }

    fn check(&mut self, id: NodeId) {
        let member = &self.members[&id];
        let node = member.node.as_ref().expect("the node is up");
        node.check_invariants();
        self.safety.observe(id, node);
    }

    fn observe_log(&mut self, id: NodeId) {
        let node = self.members[&id].node.as_ref().expect("the node is up");
        self.safety.observe_log(node);
    }

    fn take_ready(&mut self, id: NodeId, ready: Ready, was_repairing: bool) {
        for event in &ready.events {
            if self.tells_all || !is_seen_elsewhere(event) {
                self.say(format!("{id}: {event}"));
            }
            if let Event::RoleChanged {
                to: Role::Leader,
                term,
                ..
            } = event
            {
                self.safety.on_leader(id, *term);
            }
        }
        if let Some(persist) = ready.persist {
            self.say(format!("{id} writes {persist}"));
            self.member(id).watch.on_handed_out(persist.id);
            self.member(id).writes.push_back(persist);
        }
        if was_repairing {
            let promised = ready.messages.iter().chain(&ready.messages_after_sync);
            promised.for_each(|envelope| self.safety.on_message_of_repairing(envelope));
        }
        for envelope in ready.messages {
            self.say(envelope.to_string());
            self.post(envelope);
        }
        for envelope in ready.messages_after_sync {
            self.say(format!("{envelope} after {}", ready.after_sync));
            self.member(id)
                .waiting
                .push_back((ready.after_sync, envelope));
        }
        for fetch in ready.fetches {
            self.say(format!("{id} fetches {fetch}"));
            self.member(id).fetches.push(fetch);
        }
        for state in ready.read_states {
            self.say(format!("{id} may read {state}"));
            self.safety.on_read(id, state);
            self.member(id).read_states.push(state);
        }
        for read in ready.read_failures {
            self.say(format!("{id} fails {read}"));
            self.safety.on_read_failed(id, read);
            self.member(id).read_failures.push(read);
        }
        self.take_committed(id, ready.committed);
    }

    fn take_committed(&mut self, id: NodeId, committed: Vec<Entry>) {
        self.member(id).to_apply.extend(committed);
        if !self.member(id).holds_apply {
            self.apply(id);
        }
    }

    /// Applies what was kept back.
    pub(crate) fn apply(&mut self, id: NodeId) {
        let entries = std::mem::take(&mut self.member(id).to_apply);
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        for entry in entries {
            self.say(format!("{id} applies {entry}"));
            self.safety.on_applied(id, &entry);
            self.member(id).applied.push(entry);
        }
        self.node(id).on_applied(last);
    }

    /// A message leaves its sender.
    fn post(&mut self, envelope: Envelope) {
        // Only while the receiver leads the message's term is its log the one that is acknowledged.
        let receiver = self
            .members
            .get(&envelope.to)
            .and_then(|member| member.node.as_ref());
        let leads = receiver
            .map(|node| node.status())
            .is_some_and(|status| status.role == Role::Leader && status.term == envelope.term);
        let leader_log = if leads {
            self.log_of(envelope.to)
        } else {
            Vec::new()
        };
        let sender = self.members[&envelope.from]
            .node
            .as_ref()
            .expect("only the living send");
        self.safety
            .on_message(&envelope, sender.storage(), &leader_log);
        self.bag.push(envelope);
    }

    /// Delivers one message, unless its receiver is down or cut off.
    pub(crate) fn deliver(&mut self, envelope: Envelope) -> Result<(), Rejected> {
        let (from, to) = (envelope.from, envelope.to);
        let is_cut = self.isolated.contains(&from) || self.isolated.contains(&to);
        if is_cut
            || self
                .members
                .get(&to)
                .is_none_or(|member| member.node.is_none())
        {
            return Ok(());
        }
        let shown = envelope.to_string();
        let result = self.node(to).step(envelope);
        if let Err(rejected) = result {
            self.say(format!("{to} rejects {shown}: {rejected}"));
        }
        self.pump(to);
        result
    }

    /// As [`Cluster::run`], but snapshots for repair take long: they are put aside.
    pub(crate) fn run_without_snapshots(&mut self, ticks: u32, aside: &mut Vec<Envelope>) {
        for _ in 0..ticks {
            let up: Vec<NodeId> = self.members.keys().copied().collect();
            up.iter().for_each(|id| self.tick(*id));
            loop {
                let synced = up.iter().any(|id| self.sync(*id));
                aside.extend(self.take(|it| matches!(it.message, Message::RepairSnapshot(_))));
                if self.deliver_matching(|_| true) == 0 && !synced {
                    break;
                }
            }
        }
    }

    /// Takes the messages out of the bag that match, oldest first.
    pub(crate) fn take(&mut self, matches: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
        let (taken, kept) = std::mem::take(&mut self.bag).into_iter().partition(matches);
        self.bag = kept;
        taken
    }

    pub(crate) fn deliver_matching(&mut self, matches: impl Fn(&Envelope) -> bool) -> usize {
        let taken = self.take(matches);
        let count = taken.len();
        for envelope in taken {
            self.deliver(envelope).ok();
        }
        count
    }

    /// Syncs and delivers everything until nothing is left to do. Snapshots arrive.
    pub(crate) fn settle(&mut self) {
        for _ in 0..SETTLE_ROUNDS_MAX {
            let mut progress = false;
            let up: Vec<NodeId> = self
                .members
                .keys()
                .copied()
                .filter(|id| self.is_up(*id))
                .collect();
            for id in up {
                while !self.members[&id].watch.is_held && self.sync(id) {
                    progress = true;
                }
                progress |= self.serve_fetches(id);
            }
            progress |= self.deliver_matching(|_| true) > 0;
            if !progress {
                return;
            }
        }
        let last = self.transcript.len().saturating_sub(SHOWN_LINES);
        let end = self.transcript[last..].join("\n");
        panic!("the cluster does not come to rest:\n{end}");
    }

    pub(crate) fn tick(&mut self, id: NodeId) {
        self.tick_disk(id);
        self.node(id).tick();
        self.pump(id);
    }

    /// Lets everybody tick and everything arrive, `count` times.
    pub(crate) fn run(&mut self, count: u32) {
        for _ in 0..count {
            let up: Vec<NodeId> = self
                .members
                .keys()
                .copied()
                .filter(|id| self.is_up(*id))
                .collect();
            up.into_iter().for_each(|id| self.tick(id));
            self.settle();
        }
    }

    pub(crate) fn campaign(&mut self, id: NodeId) {
        self.node(id).campaign();
        self.pump(id);
    }

    /// Makes `id` leader with everybody's help.
    pub(crate) fn elect(&mut self, id: NodeId) {
        self.campaign(id);
        self.settle();
        assert_eq!(self.leaders(), [id], "{}", self.transcript.join("\n"));
    }

    pub(crate) fn propose(
        &mut self,
        id: NodeId,
        payloads: &[&str],
    ) -> Result<EntryId, ProposeError> {
        let proposals = payloads.iter().map(|payload| proposal(payload));
        let result = self.node(id).propose(proposals);
        self.pump(id);
        result
    }

    /// Plans a change and proposes it.
    pub(crate) fn change(
        &mut self,
        id: NodeId,
        change: &ConfigurationChange,
    ) -> Result<EntryId, ChangeError> {
        let node = self.node(id);
        let result = node
            .plan_configuration(change)
            .and_then(|next| node.propose_configuration(configuration_proposal(&next)));
        self.pump(id);
        result
    }

    /// Leaves a joint configuration by hand.
    pub(crate) fn leave(&mut self, id: NodeId) -> Result<EntryId, ChangeError> {
        let node = self.node(id);
        let result = node
            .plan_leave()
            .and_then(|next| node.propose_configuration(configuration_proposal(&next)));
        self.pump(id);
        result
    }

    pub(crate) fn read(&mut self, id: NodeId, read: u64) -> Result<(), ReadError> {
        let result = self.ask_to_read(id, read);
        self.pump(id);
        result
    }

    /// Asks, and leaves it to others to pump: several reads of one turn.
    pub(crate) fn ask_to_read(&mut self, id: NodeId, read: u64) -> Result<(), ReadError> {
        self.safety.on_read_asked(id, ReadId(read));
        self.node(id).read_index(ReadId(read))
    }
}

/// Whether messages and writes tell the same, so that transcripts are easier to read without.
fn is_seen_elsewhere(event: &Event) -> bool {
    matches!(
        event,
        Event::TimerStarted { .. }
            | Event::PreVotesAsked { .. }
            | Event::VotesAsked { .. }
            | Event::PreVoteGranted { .. }
            | Event::Appended { .. }
            | Event::Committed { .. }
            | Event::AppendRefused { .. }
            | Event::Conflict { .. }
            | Event::SnapshotSent { .. }
            | Event::SnapshotInstalled { .. }
    )
}

/// Far above what any script needs; a livelock must end the test.
const SETTLE_ROUNDS_MAX: usize = 10_000;
const SHOWN_LINES: usize = 40;
