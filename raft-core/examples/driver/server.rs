//! One server: its node, its disk and its state machine.

use std::collections::{BTreeMap, HashMap};

use raft_core::{
    ChangeError, Config, Configuration, ConfigurationChange, Entry, EntryId, EntryKind, Envelope,
    Fetch, LogIndex, MemoryStorage, Message, Node, NodeId, Persist, Proposal, ProposeError,
    ReadError, ReadId, Ready, SnapshotMeta, Storage,
};

use super::{Encoded, StateMachine};

/// What survives a crash.
pub(crate) struct Disk {
    /// Term, vote, entries, and what the newest snapshot stands for.
    log: MemoryStorage,
    /// The state that belongs to this snapshot: the core carries no such data.
    snapshot: Vec<u8>,
}

/// A message, and beside an [`InstallSnapshot`](raft_core::InstallSnapshot) the state it is about.
pub(crate) struct Packet {
    pub(super) envelope: Envelope,
    pub(super) snapshot: Option<Vec<u8>>,
}

/// What became of a proposal.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Outcome<A> {
    /// It is applied, with this answer.
    Applied(A),
    /// Another entry has its place in the log: it took no effect and never will.
    Lost,
    /// Its place in the log is covered by a snapshot of another server: it may have taken effect.
    Unknown,
}

/// One server while it lives.
pub(crate) struct Server<M: StateMachine> {
    pub(crate) node: Node<MemoryStorage>,
    pub(crate) machine: M,
    applied: LogIndex,
    snapshot: Vec<u8>,
    /// States that arrived and are not installed, by the entry that they include last.
    staged: HashMap<EntryId, Vec<u8>>,
    /// Proposals made here that wait for their outcome.
    proposed: Vec<EntryId>,
    outcomes: HashMap<EntryId, Outcome<M::Answer>>,
    last_read: ReadId,
    /// Reads that may be served, and what must be applied before.
    reads: BTreeMap<ReadId, LogIndex>,
}

impl Disk {
    /// The disk of a new server. Every server of a cluster begins with the members that the cluster
    /// was founded with, be it one of them or not: what came after is in the log.
    pub(crate) fn new(founders: &[NodeId]) -> Disk {
        Disk {
            log: MemoryStorage::new(founders.iter().copied()),
            snapshot: Vec::new(),
        }
    }
}

impl<M: StateMachine> Server<M> {
    /// Starts on what the disk holds. `seed` is another one at each start.
    pub(crate) fn start(id: NodeId, seed: u64, disk: Disk) -> Server<M> {
        let machine = match disk.log.snapshot() {
            Some(_) => M::decode(&disk.snapshot).expect("encoded by this program"),
            None => M::default(),
        };
        let node = Node::new(Config::new(id, seed), disk.log).expect("a disk that we left behind");
        Server {
            // The log after the snapshot comes again, as soon as it is known to be committed.
            applied: node.status().applied,
            node,
            machine,
            snapshot: disk.snapshot,
            staged: HashMap::new(),
            proposed: Vec::new(),
            outcomes: HashMap::new(),
            last_read: ReadId(0),
            reads: BTreeMap::new(),
        }
    }

    /// Loses everything but the disk.
    pub(crate) fn crash(self) -> Disk {
        Disk {
            log: self.node.storage().clone(),
            snapshot: self.snapshot,
        }
    }

    /// Does everything the node wants done. Returns what is to be sent.
    pub(crate) fn turn(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while self.node.has_ready() {
            // Named one by one, so that the compiler reminds us of what we do not do.
            let Ready {
                persist,
                messages,
                messages_after_sync,
                after_sync: _, // Already on disk when we come to these messages.
                committed,
                read_states,
                read_failures,
                fetches,
                events,
            } = self.node.ready();
            for event in events {
                println!("{}: {event}", self.node.id());
            }
            packets.extend(messages.into_iter().map(|message| self.pack(message)));
            // A real server hands this to a thread that writes and syncs, and goes on meanwhile.
            if let Some(persist) = persist {
                self.persist(persist);
            }
            packets.extend(messages_after_sync.into_iter().map(|it| self.pack(it)));
            self.apply(committed);
            self.reads
                .extend(read_states.iter().map(|read| (read.id, read.index)));
            for read in read_failures {
                println!("{}: {read} is not answered, ask again", self.node.id());
            }
            for fetch in fetches {
                self.fetch(fetch);
            }
            self.leave_joint_configuration();
        }
        packets
    }

    fn pack(&self, envelope: Envelope) -> Packet {
        let carries_snapshot = envelope.message.snapshot().is_some();
        Packet {
            envelope,
            snapshot: carries_snapshot.then(|| self.snapshot.clone()),
        }
    }

    fn persist(&mut self, persist: Persist) {
        let (id, snapshot) = (persist.id, persist.snapshot.clone());
        self.node.storage_mut().persist(persist);
        if let Some(meta) = snapshot {
            self.install(&meta);
        }
        self.node.on_persisted(id);
    }

    /// Takes over the state of another server in place of our own.
    fn install(&mut self, meta: &SnapshotMeta) {
        self.snapshot = self.staged.remove(&meta.id).expect("staged when it came");
        self.staged.clear();
        self.machine = M::decode(&self.snapshot).expect("encoded by this program");
        self.applied = meta.id.index;
        for covered in self.due_proposals() {
            self.outcomes.insert(covered, Outcome::Unknown);
        }
    }

    fn apply(&mut self, committed: Vec<Entry>) {
        let Some(last) = committed.last().map(|entry| entry.index) else {
            return;
        };
        for entry in committed {
            let id = entry.id();
            let answer = match entry.kind {
                EntryKind::Command => Some(self.apply_command(&entry)),
                // What the core itself has put into the log. It counts, but changes no state.
                EntryKind::Noop | EntryKind::Configuration => None,
            };
            self.applied = id.index;
            self.tell_proposer(id, answer);
        }
        self.node.on_applied(last);
    }

    fn apply_command(&mut self, entry: &Entry) -> M::Answer {
        assert_eq!(entry.checksum, checksum(&entry.payload), "{entry}");
        // A server that does not know a command must not leave it out: it would go on with another
        // state than the others.
        let command = M::Command::decode(&entry.payload).expect("a command that we know");
        self.machine.apply(command)
    }

    /// Only the index and the term together name a proposal: another leader may have put another
    /// entry at its index, and then it is lost.
    fn tell_proposer(&mut self, applied: EntryId, mut answer: Option<M::Answer>) {
        for proposed in self.due_proposals() {
            let outcome = match answer.take_if(|_| proposed == applied) {
                Some(answer) => Outcome::Applied(answer),
                None => Outcome::Lost,
            };
            self.outcomes.insert(proposed, outcome);
        }
    }

    /// The proposals whose place in the log is decided.
    fn due_proposals(&mut self) -> Vec<EntryId> {
        let applied = self.applied;
        let due = self.proposed.extract_if(.., |id| id.index <= applied);
        due.collect()
    }

    /// Reads entries that the storage did not have at hand.
    fn fetch(&mut self, fetch: Fetch) {
        let range = fetch.range.clone();
        match self.node.storage().read(range, fetch.max_bytes) {
            Ok(entries) => self.node.on_fetched(fetch, entries),
            Err(_) => self.node.on_fetch_failed(fetch),
        }
    }

    /// A change of more than one voter takes two entries. The second one is due when the first is
    /// committed, and whoever leads then proposes it.
    fn leave_joint_configuration(&mut self) {
        if let Some(next) = self.node.pending_leave() {
            self.propose_configuration(&next)
                .expect("the node asked for it");
        }
    }

    /// A message arrived. The state that came with it is on disk before the node hears of it.
    pub(crate) fn receive(&mut self, packet: Packet) {
        if let (Some(meta), Some(state)) = (packet.envelope.message.snapshot(), packet.snapshot) {
            self.staged.insert(meta.id, state);
        }
        // Most rejected messages are late, which is no error of anybody.
        match self.node.step(packet.envelope) {
            Err(rejected) if !rejected.is_expected() => {
                println!("{}: rejects a message: {rejected}", self.node.id());
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Proposes a command. What becomes of it comes by [`Server::take_outcome`], if this server
    /// lives until then.
    pub(crate) fn propose(&mut self, command: &M::Command) -> Result<EntryId, ProposeError> {
        let id = self.node.propose(vec![proposal(command.encode())])?;
        self.proposed.push(id);
        Ok(id)
    }

    pub(crate) fn has_outcome(&self, proposed: EntryId) -> bool {
        self.outcomes.contains_key(&proposed)
    }

    pub(crate) fn take_outcome(&mut self, proposed: EntryId) -> Option<Outcome<M::Answer>> {
        self.outcomes.remove(&proposed)
    }

    /// Proposes a change of the members.
    pub(crate) fn change(&mut self, change: &ConfigurationChange) -> Result<EntryId, ChangeError> {
        let next = self.node.plan_configuration(change)?;
        self.propose_configuration(&next)
    }

    fn propose_configuration(&mut self, next: &Configuration) -> Result<EntryId, ChangeError> {
        self.node.propose_configuration(proposal(next.encode()))
    }

    /// Begins a linearizable read, on a leader or a follower alike.
    pub(crate) fn begin_read(&mut self) -> Result<ReadId, ReadError> {
        let id = ReadId(self.last_read.0 + 1);
        self.node.read_index(id)?;
        self.last_read = id;
        Ok(id)
    }

    /// The state, once everything is applied that was committed when the read began.
    pub(crate) fn read(&self, id: ReadId) -> Option<&M> {
        let index = self.reads.get(&id)?;
        (*index <= self.applied).then_some(&self.machine)
    }

    /// Puts the state in place of the entries that led to it.
    pub(crate) fn compact(&mut self) -> SnapshotMeta {
        self.snapshot = self.machine.encode();
        let meta = self.node.storage_mut().take_snapshot(self.applied);
        self.node.storage_mut().purge(meta.id.index);
        meta
    }
}

fn proposal(payload: Vec<u8>) -> Proposal {
    Proposal {
        checksum: checksum(&payload),
        payload: payload.into(),
    }
}

/// Made where a command comes in, checked where it is applied; the core only carries it. A real
/// server takes a CRC. Nothing has checksum 0, as the core demands.
fn checksum(payload: &[u8]) -> u32 {
    let mix = |sum: u32, byte: &u8| sum.wrapping_add(u32::from(*byte) + 1).wrapping_mul(31);
    payload.iter().fold(0, mix)
}
