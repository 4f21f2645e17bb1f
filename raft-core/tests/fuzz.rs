//! Random messages, sound or not, at a node with a damaged log in any state, whose driver does what a
//! driver may: write and report late, answer fetches late, find damage, purge. Nothing of that panics.
//!
//! `RAFT_FUZZ_SEEDS=100000` runs more of them, `RAFT_FUZZ_SEED=17` one again.

mod harness;

use harness::dice::Dice;
use harness::{command, configuration_entry, entry_id, envelope, id, index, proposal};
use raft_core::{
    Append, AppendResponse, Commit, Config, Configuration, Entry, EntryId, FaultyEntry, Fetch,
    HardState, Heartbeat, HeartbeatResponse, InstallSnapshot, LogIndex, MemoryStorage, Message,
    Node, NodeId, Persist, PersistId, RepairAnswer, RepairAsk, RepairId, RepairOutcome, Repairing,
    SnapshotAsk, SnapshotMeta, SnapshotResponse, Storage, StorageError, Term, VoteRequest,
    VoteResponse,
};

/// Makes messages. Numbers are small, so that they often fit, and now and then at the very end.
struct Source {
    dice: Dice,
    /// The number of the node's newest question, so that some answers are to it.
    asked: RepairId,
}

impl Source {
    fn roll(&mut self, bound: u64) -> u64 {
        self.dice.roll(bound)
    }

    fn flip(&mut self) -> bool {
        self.roll(2) == 0
    }

    fn at(&mut self) -> u64 {
        match self.roll(60) {
            0 => u64::MAX - self.roll(2),
            _ => self.roll(14),
        }
    }

    fn id(&mut self) -> EntryId {
        entry_id(self.at(), self.roll(6))
    }

    fn configuration(&mut self) -> Configuration {
        Configuration::new((1..=1 + self.roll(4)).map(NodeId))
    }

    fn entry(&mut self, at: u64, term: u64) -> Entry {
        match self.roll(6) {
            0 => configuration_entry(at, term, &self.configuration()),
            _ => command(at, term, "x"),
        }
    }

    fn entries(&mut self, first: u64, least_term: u64) -> Vec<Entry> {
        let mut term = least_term.max(1);
        let mut entries = Vec::new();
        for offset in 0..self.roll(4) {
            term += u64::from(self.roll(3) == 0);
            entries.push(self.entry(first.saturating_add(offset), term));
        }
        entries
    }

    fn snapshot(&mut self) -> InstallSnapshot {
        let id = self.id();
        let meta = SnapshotMeta {
            configuration: self.configuration(),
            configuration_index: LogIndex(self.roll(id.index.0.min(20) + 1)),
            id,
        };
        InstallSnapshot { meta: meta.into() }
    }

    fn vote_request(&mut self) -> VoteRequest {
        VoteRequest {
            last: self.id(),
            transfer: self.flip(),
            priority: self.roll(2) as u32,
        }
    }

    fn vote_response(&mut self) -> VoteResponse {
        let granted = self.flip();
        VoteResponse { granted }
    }

    fn append(&mut self) -> Append {
        let prev = self.id();
        let entries = self.entries(prev.index.0.saturating_add(1), prev.term.0);
        let commit = index(self.at());
        Append {
            prev,
            entries,
            commit,
        }
    }

    fn ask(&mut self) -> RepairAsk {
        let first = self.at();
        let is_foreign = self.roll(4) == 0;
        RepairAsk {
            id: if is_foreign {
                RepairId(self.roll(9))
            } else {
                self.asked
            },
            first: index(first),
            last: index(first.saturating_add(self.roll(4))),
            anchor: entry_id(first.saturating_add(self.roll(4)), self.roll(6)),
        }
    }

    fn answer(&mut self) -> RepairAnswer {
        let ask = self.ask();
        let outcome = match self.roll(5) {
            0 | 1 => {
                let least_term = self.roll(5);
                let entries = self.entries(ask.first.0, least_term);
                RepairOutcome::Have { entries }
            }
            2 => RepairOutcome::Never { held: None },
            3 => {
                let held = Some(Term(self.roll(5)));
                RepairOutcome::Never { held }
            }
            _ => {
                let snapshot = self.id();
                RepairOutcome::Compacted { snapshot }
            }
        };
        RepairAnswer { ask, outcome }
    }

    fn message(&mut self) -> Message {
        match self.roll(22) {
            0 => Message::PreVote(self.vote_request()),
            1 => Message::PreVoteResponse(self.vote_response()),
            2 => Message::Vote(self.vote_request()),
            3 => Message::VoteResponse(self.vote_response()),
            4..8 => Message::Append(self.append()),
            8 => {
                let matched = index(self.at());
                Message::AppendResponse(AppendResponse::Accepted { matched })
            }
            9 => Message::AppendResponse(AppendResponse::Rejected {
                prev: index(self.at()),
                hint: self.id(),
                last: index(self.at()),
            }),
            10 => Message::Heartbeat(Heartbeat {
                commit: index(self.at()),
                round: self.roll(3),
            }),
            11 => Message::HeartbeatResponse(HeartbeatResponse {
                round: self.roll(3),
                oldest_sync_age_ticks: self.roll(9) as u32,
                priority: self.roll(2) as u32,
            }),
            12 => Message::InstallSnapshot(self.snapshot()),
            13 => {
                let matched = index(self.at());
                Message::SnapshotResponse(SnapshotResponse { matched })
            }
            14 => Message::TimeoutNow,
            15 => Message::RepairAsk(self.ask()),
            16 | 17 => Message::RepairAnswer(self.answer()),
            18 => Message::Repairing(Repairing {
                count: self.roll(3),
                next: index(self.at()),
            }),
            19 => {
                let covering = index(self.at());
                Message::SnapshotAsk(SnapshotAsk { covering })
            }
            20 => Message::Commit(Commit { id: self.id() }),
            _ => Message::RepairSnapshot(self.snapshot()),
        }
    }

    /// A log of up to ten entries, of which some are damaged.
    fn disk(&mut self) -> MemoryStorage {
        let mut disk = MemoryStorage::new([1, 2, 3].map(NodeId));
        let mut term = 1;
        let mut entries = Vec::new();
        for at in 1..=1 + self.roll(10) {
            term += u64::from(self.roll(3) == 0);
            entries.push(self.entry(at, term));
        }
        disk.append(entries.clone());
        let term = Term(term);
        disk.set_hard_state(HardState { term, vote: None });
        for entry in entries {
            let is_unknown = self.flip() && entry.index < disk.last_index();
            let knows_kind = !is_unknown && self.flip();
            if self.roll(4) == 0 {
                disk.damage(FaultyEntry {
                    index: entry.index,
                    term: (!is_unknown).then_some(entry.term),
                    kind: knows_kind.then_some(entry.kind),
                });
            }
        }
        disk
    }

    fn node(&mut self, seed: u64) -> Node<MemoryStorage> {
        let mut config = Config::new(id(1), seed);
        config.pre_vote = self.flip();
        config.election_timeout_ticks = 3;
        config.max_apply_bytes = 1 + self.roll(100);
        Node::new(config, self.disk()).expect("a sound log")
    }
}

/// The node and what its driver has not done yet.
struct Driven {
    node: Node<MemoryStorage>,
    source: Source,
    writes: Vec<Persist>,
    unreported: Option<PersistId>,
    fetches: Vec<Fetch>,
    applied: LogIndex,
    is_told: bool,
}

impl Driven {
    fn new(seed: u64, is_told: bool) -> Driven {
        let mut source = Source {
            dice: Dice(seed),
            asked: RepairId(0),
        };
        Driven {
            node: source.node(seed),
            source,
            writes: Vec::new(),
            unreported: None,
            fetches: Vec::new(),
            applied: LogIndex(0),
            is_told,
        }
    }

    fn turn(&mut self) {
        match self.source.roll(12) {
            0..6 => self.step(),
            6 => self.node.tick(),
            7 => self.write(),
            8 => {
                if let Some(done) = self.unreported.take() {
                    self.node.on_persisted(done);
                }
            }
            9 => self.serve(),
            10 => self.damage(),
            _ => drop(self.node.propose(vec![proposal("p")])),
        }
        self.pump();
    }

    fn step(&mut self) {
        let message = self.source.message();
        let (from, term) = (2 + self.source.roll(3), self.source.roll(8));
        let message = envelope(from, 1, term, message);
        let shown = message.to_string();
        let result = self.node.step(message);
        if self.is_told {
            println!("{shown}: {result:?}\n    {}", self.node.status());
        }
    }

    fn write(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let write = self.writes.remove(0);
        if let Some(meta) = &write.snapshot {
            self.applied = self.applied.max(meta.id.index);
        }
        self.unreported = Some(write.id);
        self.node.storage_mut().persist(write);
    }

    fn serve(&mut self) {
        let below = LogIndex(self.source.roll(12));
        self.node.storage_mut().evict_below(below);
        for fetch in std::mem::take(&mut self.fetches) {
            let read = self.node.storage().read(fetch.range.clone(), 1_000);
            match read {
                Ok(entries) => self.node.on_fetched(fetch, entries),
                Err(error) => {
                    if error == StorageError::Faulty {
                        self.node.on_faulty([fetch.range.start]);
                    }
                    self.node.on_fetch_failed(fetch);
                }
            }
        }
    }

    /// The driver is told at once, or an entry turns out to be damaged when it is read.
    fn damage(&mut self) {
        let at = LogIndex(self.source.roll(12));
        let is_idle = self.writes.is_empty() && self.unreported.is_none();
        let storage = self.node.storage_mut();
        let is_stored = storage.stored().any(|entry| entry.index == at);
        let Some(term) = storage.term(at).ok().filter(|_| is_stored && is_idle) else {
            return;
        };
        storage.damage(FaultyEntry {
            index: at,
            term: Some(term),
            kind: None,
        });
        if self.source.flip() {
            self.node.on_faulty([at]);
        }
    }

    fn pump(&mut self) {
        while self.node.has_ready() {
            let ready = self.node.ready();
            for envelope in ready.messages.iter().chain(&ready.messages_after_sync) {
                if let Message::RepairAsk(ask) = &envelope.message {
                    self.source.asked = ask.id;
                }
            }
            self.writes.extend(ready.persist);
            self.fetches.extend(ready.fetches);
            for entry in &ready.committed {
                assert!(
                    entry.index > self.applied,
                    "{} is applied twice",
                    entry.id()
                );
                self.applied = entry.index;
            }
            if !ready.committed.is_empty() {
                self.node.on_applied(self.applied);
            }
        }
    }
}

fn run(seed: u64, is_told: bool) {
    const TURNS: u32 = 60;
    let mut driven = Driven::new(seed, is_told);
    for _ in 0..TURNS {
        driven.turn();
    }
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

#[test]
fn nothing_a_peer_sends_panics() {
    if let Some(seed) = setting("RAFT_FUZZ_SEED") {
        return run(seed, true);
    }
    let count = setting("RAFT_FUZZ_SEEDS").unwrap_or(20_000);
    println!("seeds 0..{count}");
    for seed in 0..count {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed, false)) {
            eprintln!("run again with RAFT_FUZZ_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
