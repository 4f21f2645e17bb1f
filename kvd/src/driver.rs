//! The driver: one node as a pure state machine.
//!
//! Events go in ([`Driver::handle`]), effects come out ([`Driver::turn`]). The driver owns the consensus core, the replicated
//! store and every request that has not been answered yet; it touches no file, no socket, no clock and no thread, so the
//! simulator runs the very code that the daemon runs. Time is [`Event::Tick`].
//!
//! One turn is: take everything that has arrived, then call `turn` once. All writes that arrived together become one batch of
//! entries, all reads one read-index round, and the shell gets one list of effects, which it carries out in order.
//!
//! ```text
//!   requests --> writes --> core.propose -+                +-> Send      to a peer, now
//!   requests --> reads  --> core.read ----+                +-> Log       to the log thread; reports come back as an event
//!   peers    -------------> core.step ----+--> Ready ------+-> (held)    messages that wait for the log's report
//!   log      -------------> on_persisted -+                +-> Answer    to a client, after apply
//! ```

mod admin;
mod answers;
mod applying;
mod internal;
mod links;
mod machines;
mod members;
mod positions;
mod reads;
mod repair;
mod snapshotting;
mod space;
mod status;
mod suspicion;
mod syncs;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft_core::{
    Entry, EntryId, Envelope, Fetch, LogIndex, Node, NodeId, PersistId, Ready, Role, Storage as _,
    Term,
};

use crate::kv::auth::Principal;
use crate::kv::limits::CommandLimits;
use crate::kv::store::{ApplyRefusal, Store};
use crate::log_cache::LogCache;
use crate::log_worker::{LogJob, LogReport};
use crate::snapshots::Suspect;
use crate::wire::client::{MemberAddress, RequestFrame, ResponseFrame};
use crate::wire::peer::PeerMessage;

pub use self::applying::TURN_APPLY_BYTES;
pub use self::snapshotting::{SnapshotOrder, StagedSnapshot};
pub use self::status::Facts;

/// A stream of requests as the shell numbers them: a client connection, or one HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Length of one tick of the driver's clock, in milliseconds.
///
/// Timeouts are counted in ticks, so this is also their resolution; at 10 ms an idle node wakes a hundred times a second.
pub const TICK_MS: u64 = 10;

/// Entries between two positions of the log at which replicas compare their state, unless a test says otherwise. All members must
/// use the same, or they have fewer positions in common.
pub const HASH_EVERY: u64 = 4096;

/// Bounds and identity of one driver.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Seeds the checksums of every entry.
    pub cluster: u32,
    /// Name of the cluster, for people.
    pub cluster_name: String,
    /// Name of this node, for people.
    pub name: String,
    /// How often this node has started, this life included. Numbers that travel begin anew with each life and must not repeat.
    pub boot_counter: u64,
    /// The members that the cluster was founded with, or those that were known when this node joined. Once members have
    /// changed the replicated table counts, see [`Driver::members`].
    pub members: Vec<MemberAddress>,
    /// Election timeout in ticks: how long a hand-over or a read-index round may take before it is tried again.
    pub election_timeout_ticks: u64,
    /// Bytes of requests that may wait for an answer; beyond it a request is refused as overloaded.
    pub waiting_bytes: u64,
    /// Requests that may wait for an answer; beyond it a request is refused as overloaded.
    pub waiting_count: usize,
    /// Largest key, value and transaction that are proposed.
    pub limits: CommandLimits,
    /// Bytes applied since the last snapshot after which the next one is written.
    pub snapshot_every_bytes: u64,
    /// Entries between two positions at which replicas compare their state; at least two. See [`HASH_EVERY`].
    pub hash_every: u64,
}

/// What happened outside.
#[derive(Debug)]
pub enum Event {
    /// [`TICK_MS`] went by.
    Tick,
    /// A message came from a peer whose certificate says that it is `from`.
    Peer {
        /// The authenticated sender.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// A link to a peer stands.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// How often the peer has started; grows with each of its lives.
        boot_counter: u64,
        /// The newest protocol version that it speaks, as it said in the handshake.
        protocol: u16,
    },
    /// The link to a peer is gone.
    PeerDown {
        /// The peer.
        peer: NodeId,
    },
    /// A client asks for something.
    Request {
        /// Where the answer goes.
        client: ClientId,
        /// Who asks, by certificate.
        principal: Principal,
        /// What is asked.
        frame: RequestFrame,
    },
    /// Nobody waits for answers to this client any more.
    ClientGone(ClientId),
    /// The log has done what it was given.
    Log(LogReport),
    /// An answer to [`Effect::Fetch`]; `None`: no longer in the log, or damaged and told so before by [`Event::Faulty`].
    Fetched {
        /// What was asked.
        fetch: Fetch,
        /// What was found.
        entries: Option<Vec<Entry>>,
    },
    /// Stored entries turned out to be damaged.
    Faulty(Vec<LogIndex>),
    /// An answer to [`Effect::WriteSnapshot`]: the newest snapshot that is durable and verified, and the oldest one that is
    /// kept. `None`: it could not be written.
    SnapshotWritten(Option<WrittenSnapshot>),
    /// A snapshot from the leader is complete, verified and durable in the snapshot directory.
    SnapshotStaged(Box<StagedSnapshot>),
    /// An answer to [`Effect::SendSnapshot`].
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// Whether the receiver has confirmed all of it.
        outcome: raft_core::SnapshotOutcome,
    },
    /// An answer to [`Effect::Distrust`]: whether the mark is durable.
    Distrusted(bool),
    /// An answer to [`Effect::Trust`]: whether that is so, durably.
    Trusted(bool),
    /// The snapshot of this entry, which was to be sent, is damaged. Comes before the [`Event::SnapshotSent`] that says so.
    SnapshotRotten(EntryId),
    /// An answer to [`Effect::Scrub`].
    Scrubbed(ClientId, ResponseFrame),
    /// What the shell knows of the machine, for `status`.
    Facts(Facts),
    /// A peer does not let this node in, because it was removed from the cluster.
    Removed {
        /// The peer.
        by: NodeId,
    },
    /// Hand leadership over, refuse new work and then say [`Effect::Stopped`].
    Shutdown,
}

/// A snapshot that the snapshot directory has written and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenSnapshot {
    /// What it covers.
    pub meta: raft_core::SnapshotMeta,
    /// The last entry that the oldest kept snapshot covers: the log is needed from there on.
    pub oldest_kept: EntryId,
}

/// What the shell must do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send to a peer; may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// Hand to the log.
    Log(LogJob),
    /// Read old entries from the log.
    Fetch(Fetch),
    /// Answer a client.
    Answer {
        /// The client.
        client: ClientId,
        /// The answer.
        frame: ResponseFrame,
    },
    /// Write a snapshot of this view, elsewhere than in the loop.
    WriteSnapshot(Box<SnapshotOrder>),
    /// Stream the newest snapshot to a peer; the envelope travels in front of it.
    SendSnapshot {
        /// The receiver.
        to: NodeId,
        /// The core's message, to be stepped at the receiver once the data is durable there.
        envelope: Envelope,
    },
    /// Tell the sender of a staged snapshot that it arrived (and was installed, or was not needed).
    SnapshotTaken {
        /// The number under which the shell staged it.
        ticket: u64,
    },
    /// Mark the snapshot directory as suspect: this node's state is not that of the majority.
    Distrust(Suspect),
    /// The state was rebuilt from the snapshot that ends with this entry, which is in the snapshot directory: remove all older
    /// ones, and then the mark.
    Trust(EntryId),
    /// Read the log through at once, and report with [`Event::Scrubbed`].
    Scrub {
        /// For whom.
        client: ClientId,
        /// For which of its requests.
        id: u64,
    },
    /// Something worth a line in the log or a place on a timeline.
    Observe(raft_core::Event),
    /// This program cannot apply a committed entry: it is newer, or the user's state machine failed. The node must stop at once,
    /// before it applies anything else, and without a snapshot: going on would make two histories out of one log.
    Halt {
        /// The entry.
        index: LogIndex,
        /// What this program lacks.
        refusal: ApplyRefusal,
    },
    /// The members or their addresses have changed: links to new ones are to be made, and removed ones are not let in any more.
    Members {
        /// All members, this node too unless it was removed.
        members: Vec<MemberAddress>,
        /// All that were members once.
        removed: BTreeSet<NodeId>,
    },
    /// All is handed over; the shell may close the log and the endpoint.
    Stopped,
}

/// One node: the core, the store, and everything that waits.
pub struct Driver {
    id: NodeId,
    options: DriverOptions,
    node: Node<LogCache>,
    store: Store,
    now: u64,
    persisted: PersistId,
    committed_noted: LogIndex,
    applying: applying::Applying,
    /// Messages that promise durable state, each with the persist that must be on disk before it may leave.
    held: VecDeque<(PersistId, Vec<Envelope>)>,
    boots: BTreeMap<NodeId, u64>,
    links: BTreeSet<NodeId>,
    leader: Option<NodeId>,
    role: Role,
    term: Term,
    writes: writes::Writes,
    reads: reads::Reads,
    members: members::Members,
    snapshots: snapshotting::Snapshots,
    positions: positions::Positions,
    /// The state of this node is not that of the majority.
    suspicion: Option<suspicion::Suspicion>,
    space: space::LogSpace,
    syncs: syncs::Syncs,
    facts: Facts,
    stopping: Option<Stopping>,
    /// [`Effect::Halt`] was said; nothing happens any more.
    halted: bool,
    effects: Vec<Effect>,
}

/// A hand-over under way.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    deadline: u64,
    /// It led when it was told to stop.
    leads: bool,
    stopped: bool,
}

impl Driver {
    /// A driver over a recovered log and store.
    ///
    /// `log` is what the log said when it was opened; it carries the space that writes may use.
    pub fn new(
        options: DriverOptions,
        node: Node<LogCache>,
        store: Store,
        log: &LogReport,
    ) -> Driver {
        Driver {
            id: node.id(),
            now: 0,
            persisted: PersistId(0),
            committed_noted: LogIndex(0),
            applying: applying::Applying::default(),
            held: VecDeque::new(),
            boots: BTreeMap::new(),
            links: BTreeSet::new(),
            leader: None,
            role: node.role(),
            term: node.term(),
            writes: writes::Writes::new(options.boot_counter),
            reads: reads::Reads::default(),
            members: members::Members::default(),
            snapshots: snapshotting::Snapshots::new(node.storage().snapshot()),
            positions: positions::Positions::new(options.hash_every),
            suspicion: None,
            space: space::LogSpace::new(log),
            syncs: syncs::Syncs::default(),
            facts: Facts::default(),
            stopping: None,
            halted: false,
            effects: Vec::new(),
            options,
            node,
            store,
        }
    }

    /// Flips a bit in a value of the store: for tests of what finds it. False if there is no such value.
    #[doc(hidden)]
    pub fn rot(&mut self, key: &[u8]) -> bool {
        self.store.rot(key)
    }

    /// Takes one event in. Call [`Driver::turn`] after everything that waits has been taken.
    pub fn handle(&mut self, event: Event) {
        if self.halted {
            return;
        }
        self.tell_applied();
        match event {
            Event::Tick => self.handle_tick(),
            Event::Peer { from, message } => self.handle_peer(from, message),
            Event::PeerUp {
                peer,
                boot_counter,
                protocol,
            } => {
                self.positions.note_protocol(peer, protocol);
                self.handle_peer_up(peer, boot_counter);
            }
            Event::PeerDown { peer } => self.handle_peer_down(peer),
            Event::Request {
                client,
                principal,
                frame,
            } => self.handle_request(client, principal, frame),
            Event::ClientGone(client) => self.reads.forget_client(client),
            Event::Log(report) => self.handle_log_report(&report),
            Event::Fetched {
                fetch,
                entries: Some(entries),
            } => self.node.on_fetched(fetch, entries),
            Event::Fetched {
                fetch,
                entries: None,
            } => self.node.on_fetch_failed(fetch),
            Event::Faulty(indexes) => self.handle_faulty(&indexes),
            Event::Distrusted(done) => self.handle_distrusted(done),
            Event::Trusted(done) => self.handle_trusted(done),
            Event::Scrubbed(client, frame) => self.effects.push(Effect::Answer { client, frame }),
            Event::SnapshotRotten(id) => self.handle_snapshot_rotten(id),
            Event::SnapshotWritten(written) => self.handle_snapshot_written(written),
            Event::SnapshotStaged(staged) => self.handle_snapshot_staged(*staged),
            Event::SnapshotSent { to, outcome } => self.node.on_snapshot_sent(to, outcome),
            Event::Facts(facts) => self.facts = facts,
            Event::Removed { by } => self.handle_removed(by),
            Event::Shutdown => self.handle_shutdown(),
        }
    }

    /// Works on what the events of this turn brought, and returns what must be done about it, in order.
    pub fn turn(&mut self) -> Vec<Effect> {
        self.applying.begin_turn();
        if !self.halted {
            self.tell_applied();
            self.route_writes();
            self.route_reads();
            self.run_core();
        }
        if !self.halted {
            self.answer_reads();
            self.maybe_write_snapshot();
            self.report_position();
            self.advance_suspicion();
            self.tell_members();
            self.maybe_stop();
        }
        std::mem::take(&mut self.effects)
    }

    /// Does everything that the core wants done now.
    fn run_core(&mut self) {
        loop {
            while !self.halted && self.node.has_ready() {
                let ready = self.node.ready();
                self.carry_out(ready);
            }
            if !self.advance_members() && !self.propose_hash() {
                return;
            }
        }
    }

    /// The core, for status pages and checkers.
    pub fn node(&self) -> &Node<LogCache> {
        &self.node
    }

    /// The store, for status pages and checkers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Ticks since the driver was made.
    pub fn ticks(&self) -> u64 {
        self.now
    }

    /// The leader that this node knows of, itself included.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    fn handle_tick(&mut self) {
        self.now += 1;
        self.node.report_sync_age(self.syncs.age_ticks(self.now));
        // A node that was removed and has not seen the entry that says so would stand for election for ever.
        if !self.is_removed() {
            self.node.tick();
        }
        self.expire_writes();
        self.expire_reads();
        self.expire_members();
        self.watch_reports();
        self.note_commit();
    }

    fn handle_peer(&mut self, from: NodeId, message: PeerMessage) {
        if self.store.members().is_removed(from.0) {
            tracing::debug!(%from, "message of a removed node dropped");
            return;
        }
        match message {
            PeerMessage::Raft(envelope) => self.handle_raft(from, envelope),
            PeerMessage::Forward {
                request,
                principal,
                write,
            } => self.handle_forward(from, request, principal, write),
            PeerMessage::ForwardReply { request, response } => {
                self.handle_forward_reply(from, request, response)
            }
            PeerMessage::StateHash(hash) => self.handle_state_hash(from, hash),
            PeerMessage::StateAsk { agreed, covering } => {
                self.handle_state_ask(from, agreed, covering)
            }
        }
    }

    /// Steps the core with a message, after checking that the link's identity is the one that the message claims.
    fn handle_raft(&mut self, from: NodeId, envelope: Envelope) {
        if envelope.from != from {
            tracing::warn!(%from, claimed = %envelope.from, "message under a foreign name dropped");
            return;
        }
        if envelope.message.snapshot().is_some() {
            // The data of a snapshot comes on a stream of its own; the bare message would install nothing.
            tracing::warn!(%from, "snapshot message without its data dropped");
            return;
        }
        match self.node.step(envelope) {
            Ok(()) => {}
            Err(rejected) if rejected.is_expected() => {
                tracing::debug!(%from, %rejected, "message rejected");
            }
            Err(rejected) => tracing::warn!(%from, %rejected, "message rejected"),
        }
    }

    fn handle_log_report(&mut self, report: &LogReport) {
        self.space.report(report);
        self.facts.log_bytes = report.size_bytes;
        if let Some(id) = report.repaired {
            self.node.on_repaired(id);
        }
        let Some(id) = report.persisted else { return };
        if id <= self.persisted {
            return;
        }
        self.persisted = id;
        self.syncs.finish(id);
        self.node.on_persisted(id);
        self.release_held();
        let applied = LogIndex(self.store.applied_index());
        let needless = self.node.persisted_index().min(applied);
        self.node.storage_mut().evict(needless);
    }

    /// Lets the messages go whose persist is on disk by now.
    fn release_held(&mut self) {
        while self
            .held
            .front()
            .is_some_and(|(after, _)| *after <= self.persisted)
        {
            let (_, messages) = self.held.pop_front().expect("there is a first one");
            self.send_all(messages);
        }
    }

    /// Carries out one `Ready` in the order of its contract: what may leave leaves first, so that the followers work while
    /// the own disk does.
    fn carry_out(&mut self, ready: Ready) {
        self.observe(ready.events);
        self.send_all(ready.messages);
        if let Some(persist) = ready.persist {
            self.install_if_staged(&persist);
            self.node.storage_mut().persist(&persist);
            self.space.spend(&persist);
            self.syncs.begin(persist.id, self.now);
            self.effects.push(Effect::Log(LogJob::Persist(persist)));
            self.note_commit();
        }
        if !ready.messages_after_sync.is_empty() {
            self.hold(ready.after_sync, ready.messages_after_sync);
        }
        self.apply(ready.committed);
        self.reads.confirmed(ready.read_states);
        self.reads.failed(&ready.read_failures);
        self.effects
            .extend(ready.fetches.into_iter().map(Effect::Fetch));
    }

    fn hold(&mut self, after: PersistId, messages: Vec<Envelope>) {
        if after <= self.persisted {
            self.send_all(messages);
        } else {
            self.held.push_back((after, messages));
        }
    }

    fn send_all(&mut self, messages: Vec<Envelope>) {
        for envelope in messages {
            let to = envelope.to;
            let effect = if envelope.message.snapshot().is_some() {
                Effect::SendSnapshot { to, envelope }
            } else {
                let message = PeerMessage::Raft(envelope);
                Effect::Send { to, message }
            };
            self.effects.push(effect);
        }
    }

    fn observe(&mut self, events: Vec<raft_core::Event>) {
        self.heed(&events);
        self.effects.extend(events.into_iter().map(Effect::Observe));
        let (leader, role, term) = (self.node.leader(), self.node.role(), self.node.term());
        if leader != self.leader || role != self.role || term != self.term {
            let before = std::mem::replace(&mut self.leader, leader);
            self.role = role;
            self.term = term;
            self.leadership_changed(before);
            self.positions_leadership_changed();
        }
    }

    /// Tells the log how far the commit index has come, so that a node that starts alone can serve local reads.
    ///
    /// Never beyond what is synced here: a commit index that points past the log would make a later start look like damage.
    fn note_commit(&mut self) {
        let commit = self.node.commit_index().min(self.node.persisted_index());
        if commit > self.committed_noted {
            self.committed_noted = commit;
            self.effects.push(Effect::Log(LogJob::NoteCommit(commit)));
        }
    }
}
