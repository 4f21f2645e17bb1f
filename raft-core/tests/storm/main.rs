//! Random storms: messages are lost, repeated, reordered and delayed, writes reach the disk late,
//! nodes crash with some of their writes done; what must hold of the cluster is checked after every
//! step.
//!
//! `RAFT_STORM_SEEDS=10000` runs more of them, from `RAFT_STORM_FIRST` on; `RAFT_STORM_SEED=17` one
//! again, and with `RAFT_STORM_TOLD=1` all that happens in it is printed.

mod damage;
#[path = "../harness/mod.rs"]
mod harness;

use harness::Cluster;
use harness::dice::Dice;
use raft_core::{
    Configuration, ConfigurationChange, LogIndex, MemberChange, NodeId, SnapshotOutcome, Storage,
};

struct Storm {
    cluster: Cluster,
    dice: Dice,
    ids: Vec<NodeId>,
    proposals: u64,
    reads: u64,
    /// Whether members come and go.
    changes_members: bool,
    /// Whether everything that happens is printed.
    is_told: bool,
    /// Whether disks lose entries.
    damages: bool,
    /// From 0, where messages arrive in order, to 3.
    roughness: u64,
    /// How often each of [`SIGNS`] was seen.
    seen: [u64; SIGNS.len()],
}

/// Lines that a storm must bring about now and then, or it tests less than it seems to.
const SIGNS: [&str; 26] = [
    "-> leader",
    "quorum lost",
    "truncates from",
    "installs snapshot",
    "may read",
    "fails r",
    "hands over to",
    ": transfer",
    "fetches",
    "rejected",
    "is alive",
    " applies ",
    "outgoing (",
    "committed the configuration",
    "no voter any more",
    ": voters (",
    " damaged from",
    "Repairing{",
    ": have [",
    " left",
    ": gives up",
    "before its log",
    "should lead",
    "nobody is better off",
    "stands for election again",
    "its priority is",
];

impl Storm {
    fn new(seed: u64, configuration: Configuration, strangers: &[NodeId]) -> Storm {
        let mut dice = Dice(seed);
        let mut cluster = Cluster::with_configuration(configuration.clone());
        for stranger in strangers {
            cluster.add(*stranger, configuration.clone());
        }
        let changes_members = !strangers.is_empty();
        let reports_sync_ages = dice.chance(25);
        let has_priorities = dice.chance(40);
        let (inflight, append_bytes) = (1 + dice.roll(6) as usize, 1 + dice.roll(300));
        for member in cluster.members.values_mut() {
            member.watch.reports = reports_sync_ages;
            let config = &mut member.config;
            config.election_timeout_ticks = 5;
            config.priority = if has_priorities {
                dice.roll(3) as u32
            } else {
                0
            };
            // Without these a node that was removed and does not know it may disturb for ever.
            config.pre_vote = dice.chance(80) || changes_members;
            config.check_quorum = dice.chance(80) || changes_members;
            config.max_inflight_appends = inflight;
            config.max_append_bytes = append_bytes;
            config.max_apply_bytes = 100;
        }
        let damages = dice.chance(50);
        cluster.start_all();
        let ids = cluster.members.keys().copied().collect();
        Storm {
            cluster,
            dice,
            ids,
            proposals: 0,
            reads: 0,
            changes_members,
            is_told: setting("RAFT_STORM_TOLD").is_some(),
            damages,
            roughness: 0,
            seen: [0; SIGNS.len()],
        }
    }

    fn any(&mut self) -> NodeId {
        self.ids[self.dice.roll(self.ids.len() as u64) as usize]
    }

    fn any_up(&mut self) -> Option<NodeId> {
        let id = self.any();
        self.cluster.is_up(id).then_some(id)
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..50 => self.deliver_some(),
            50..67 => self.sync_one(),
            67..80 => self.tick_one(),
            80..88 => self.propose(),
            88..91 => self.read(),
            93 | 95 if self.changes_members => self.change_members(),
            92 if self.damages && self.dice.chance(30) => self.damage(),
            91..94 => self.serve(),
            94 if self.dice.chance(50) => self.hold_or_apply(),
            95 if self.dice.chance(50) => self.purge(),
            94..96 => self.compact(),
            96 => self.crash_or_restart(),
            97 => self.transfer_or_report(),
            98 => self.isolate_or_heal(),
            _ => self.roughness = self.dice.roll(4),
        }
        self.note_what_happened();
    }

    fn note_what_happened(&mut self) {
        for line in self.cluster.transcript.drain(..) {
            if self.is_told {
                println!("{line}");
            }
            for (position, sign) in SIGNS.iter().enumerate() {
                self.seen[position] += u64::from(line.contains(sign));
            }
        }
    }

    /// Any message of the bag may be next, may stay there to arrive again, or may be lost. How
    /// often depends on the weather, so that there are times in which something is achieved and
    /// times in which it is endangered.
    fn deliver_some(&mut self) {
        for _ in 0..=self.dice.roll(4) {
            let count = self.cluster.bag.len() as u64;
            if count == 0 {
                return;
            }
            let out_of_order = self.dice.chance(15 * self.roughness);
            let position = if out_of_order {
                self.dice.roll(count) as usize
            } else {
                0
            };
            let envelope = if self.dice.chance(4 * self.roughness) {
                self.cluster.bag[position].clone()
            } else {
                self.cluster.bag.remove(position)
            };
            if !self.dice.chance(5 * self.roughness) {
                self.cluster.deliver(envelope).ok();
            }
        }
        // Very old messages are kept a while, but not for ever, or nothing else would arrive.
        if self.cluster.bag.len() > BAG_MAX {
            self.cluster.bag.drain(..BAG_MAX / 2);
        }
    }

    fn sync_one(&mut self) {
        if let Some(id) = self.any_up() {
            let count = 1 + self.dice.roll(3) as usize;
            if self.damages && self.dice.chance(10) {
                self.cluster.repair_ahead(id);
            } else if self.dice.chance(40) {
                self.cluster.write_ahead(id, count);
            } else {
                self.cluster.sync_together(id, count);
            }
        }
    }

    fn tick_one(&mut self) {
        if let Some(id) = self.any_up() {
            for _ in 0..=self.dice.roll(1 + 2 * self.roughness) {
                self.cluster.tick(id);
            }
        }
    }

    /// Proposes, mostly to somebody who believes it leads: also one that is cut off, so that logs part.
    fn propose(&mut self) {
        let leaders = self.cluster.leaders();
        let asked = if leaders.is_empty() || self.dice.chance(20) {
            self.any_up()
        } else {
            Some(leaders[self.dice.roll(leaders.len() as u64) as usize])
        };
        if let Some(id) = asked {
            self.proposals += 1;
            let payloads: Vec<String> = (0..=self.dice.roll(3))
                .map(|n| format!("{}.{n}", self.proposals))
                .collect();
            let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
            self.cluster.propose(id, &payloads).ok();
        }
    }

    /// Asks a leader for one to three changes. Three voters are kept, or the storm soon has nothing
    /// to endanger.
    fn change_members(&mut self) {
        let leaders = self.cluster.leaders();
        if leaders.is_empty() {
            return;
        }
        let id = leaders[self.dice.roll(leaders.len() as u64) as usize];
        let current = self.cluster.status(id).configuration;
        if current.is_joint() && self.dice.chance(50) {
            self.cluster.leave(id).ok();
            return;
        }
        let mut change = ConfigurationChange::new([]);
        change.auto_leave = self.dice.chance(70);
        for _ in 0..=self.dice.roll(3) {
            let node = self.any();
            change.changes.push(self.change_of(node, &current));
        }
        let is_large = |next: Configuration| next.voters.len() >= 3;
        if current.changed(&change).is_ok_and(is_large) {
            self.cluster.change(id, &change).ok();
        }
    }

    fn change_of(&mut self, node: NodeId, current: &Configuration) -> MemberChange {
        let first = self.dice.chance(50);
        match (current.is_voter(node), current.contains(node)) {
            (true, _) if first => MemberChange::Demote(node),
            (_, true) if first => MemberChange::Promote(node),
            (_, true) => MemberChange::Remove(node),
            (_, false) if first => MemberChange::AddLearner(node),
            (_, false) => MemberChange::AddVoter(node),
        }
    }

    fn read(&mut self) {
        if let Some(id) = self.any_up() {
            self.reads += 1;
            self.cluster.read(id, self.reads).ok();
        }
    }

    fn serve(&mut self) {
        if let Some(id) = self.any_up() {
            self.cluster.serve_fetches(id);
            let last = self.cluster.node(id).storage().last_index();
            let below = LogIndex(self.dice.roll(last.0 + 2));
            self.cluster.node(id).storage_mut().evict_below(below);
            self.cluster.pump(id);
        }
    }

    /// Applying falls behind, or catches up.
    fn hold_or_apply(&mut self) {
        if let Some(id) = self.any_up() {
            self.cluster.member(id).holds_apply = self.dice.chance(50);
            self.apply_unless_held(id);
        }
    }

    fn apply_unless_held(&mut self, id: NodeId) {
        if !self.cluster.member(id).holds_apply {
            self.cluster.apply(id);
            self.cluster.pump(id);
        }
    }

    /// Drops what the newest snapshot covers, at any time.
    fn purge(&mut self) {
        let Some(id) = self.any_up() else { return };
        let applied = self.cluster.status(id).applied;
        let storage = self.cluster.node(id).storage_mut();
        if let Some(meta) = storage.snapshot() {
            let through = meta.id.index.min(applied).0;
            storage.purge(LogIndex(self.dice.roll(1 + through)));
            self.cluster.pump(id);
        }
    }

    /// Takes a snapshot of what is applied, and purges up to there or a little less.
    fn compact(&mut self) {
        if let Some(id) = self.any_up() {
            self.compact_at(id);
        }
    }

    fn compact_at(&mut self, id: NodeId) {
        let storage = self.cluster.node(id).storage().clone();
        let status = self.cluster.status(id);
        // What is applied but not yet on this disk must not go into a snapshot.
        let at = status
            .applied
            .min(status.persisted)
            .min(storage.last_index());
        let newest = storage.snapshot().map_or(LogIndex(0), |meta| meta.id.index);
        if at > newest && at >= storage.first_index() && self.cluster.is_idle(id) {
            let through = LogIndex(at.0 - self.dice.roll(2).min(at.0 - newest.0));
            let node = self.cluster.node(id);
            node.storage_mut().take_snapshot(at);
            node.storage_mut().purge(through);
            node.on_applied(status.applied);
            self.cluster.pump(id);
        }
    }

    fn crash_or_restart(&mut self) {
        let id = self.any();
        if self.cluster.is_up(id) && self.dice.chance(70) {
            return;
        }
        if self.cluster.is_up(id) {
            let pending = self.cluster.member(id).writes.len() as u64;
            let kept = self.dice.roll(pending + 1) as usize;
            self.cluster.crash(id, kept);
        } else {
            self.restart(id);
        }
    }

    fn restart(&mut self, id: NodeId) {
        self.cluster.start(id);
        // The transport tells the others about the new life, sooner or later.
        let up: Vec<NodeId> = self
            .ids
            .iter()
            .copied()
            .filter(|peer| self.cluster.is_up(*peer))
            .collect();
        for peer in up {
            if self.dice.chance(50) {
                self.cluster.node(peer).on_peer_restarted(id);
                self.cluster.pump(peer);
            }
        }
    }

    fn transfer_or_report(&mut self) {
        let (Some(id), peer) = (self.any_up(), self.any()) else {
            return;
        };
        let roll = self.dice.roll(4);
        let node = self.cluster.node(id);
        match roll {
            0 => drop(node.transfer_leader(None)),
            1 => node.on_unreachable(peer),
            2 => node.on_snapshot_sent(peer, SnapshotOutcome::Failed),
            _ => node.on_snapshot_sent(peer, SnapshotOutcome::Delivered),
        }
        self.cluster.pump(id);
    }

    fn isolate_or_heal(&mut self) {
        if self.dice.chance(30) {
            // Leaders are worth more trouble.
            let id = match self.cluster.leaders().first() {
                Some(leader) if self.dice.chance(60) => *leader,
                Some(_) | None => self.any(),
            };
            self.cluster.isolated.insert(id);
        } else {
            self.cluster.isolated.clear();
        }
    }

    /// The storm is over: the cluster must find a leader, commit, and agree.
    fn calm_down(&mut self) {
        self.cluster.isolated.clear();
        for id in self.ids.clone() {
            self.restart(id);
            self.cluster.member(id).holds_apply = false;
            self.apply_unless_held(id);
        }
        self.end_snapshot_transfers();
        self.cluster.run(CALM_TICKS);
        if self.damages {
            self.take_wanted_snapshots();
            self.cluster.run(CALM_TICKS);
            // What a repairing node cannot tell apart waits for a snapshot that goes far enough.
            self.end_snapshot_transfers();
            let leader = self.only_leader();
            self.cluster.propose(leader, &["more"]).ok();
            self.cluster.run(CALM_TICKS);
            self.compact_at(leader);
            self.cluster.run(CALM_TICKS);
            self.take_wanted_snapshots();
            self.end_snapshot_transfers();
            self.cluster.run(CALM_TICKS);
        }
        if self.changes_members {
            let leader = self.only_leader();
            self.cluster.leave(leader).ok();
            self.cluster.run(CALM_TICKS);
        }
        let leader = self.only_leader();
        self.cluster
            .propose(leader, &["calm"])
            .expect("the leader takes proposals");
        self.cluster.run(30);
        self.check_agreement(leader);
    }

    /// What was applied before it was damaged a node has in its own state: its driver is asked for a
    /// snapshot, and for a purge up to it.
    fn take_wanted_snapshots(&mut self) {
        for id in self.ids.clone() {
            if self.cluster.status(id).repair.is_some() {
                self.compact_at(id);
                self.cluster.node(id).storage_mut().purge_damaged();
                self.cluster.pump(id);
            }
        }
    }

    /// No transfer is under way any more, as the drivers report; leaders are to find out anew what
    /// everybody has.
    fn end_snapshot_transfers(&mut self) {
        for id in self.ids.clone() {
            for peer in self.ids.clone() {
                let node = self.cluster.node(id);
                node.on_snapshot_sent(peer, SnapshotOutcome::Failed);
                self.cluster.pump(id);
            }
        }
    }

    fn only_leader(&self) -> NodeId {
        let leaders = self.cluster.leaders();
        assert_eq!(
            leaders.len(),
            1,
            "no single leader after the storm: {leaders:?}, {}\n{}",
            self.tell_all(),
            self.cluster.transcript[self.cluster.transcript.len().saturating_sub(60)..].join("\n")
        );
        leaders[0]
    }

    fn tell_all(&self) -> String {
        let statuses = self.ids.iter().map(|id| self.cluster.status(*id));
        let lines: Vec<String> = statuses
            .map(|status| format!("{status}; {}", status.configuration))
            .collect();
        lines.join("\n")
    }

    /// All members have all of the leader's log. A node that was removed may lack the end of it.
    fn check_agreement(&self, leader: NodeId) {
        let expected = self.cluster.status(leader);
        let configuration = &expected.configuration;
        if self.changes_members {
            assert!(!configuration.is_joint(), "still {configuration}");
        }
        for member in configuration.members() {
            let status = self.cluster.status(member);
            assert_eq!(
                status.applied, expected.last.index,
                "{status} is behind {expected}, {:?}",
                expected.progress
            );
            assert_eq!(
                status.last, expected.last,
                "{status} differs from {expected}"
            );
            assert_eq!(
                status.configuration, *configuration,
                "{status} has other members than {expected}"
            );
        }
    }
}

/// Messages that are kept to arrive late.
const BAG_MAX: usize = 100;
/// Ample time for an election after the storm, at five ticks of election timeout.
const CALM_TICKS: u32 = 100;
const STEPS: u32 = 1_500;
const DEFAULT_SEEDS: u64 = 2_000;

fn run(seed: u64) -> [u64; SIGNS.len()] {
    let voters = |count: u64| (1..=count).map(NodeId);
    let mut configuration = Configuration::new(voters(match seed % 6 {
        0 | 3 => 5,
        4 => 7,
        _ if seed % 22 == 10 => 2,
        _ => 3,
    }));
    // Every seventh cluster is in the middle of a change of members, and has a learner.
    if seed.is_multiple_of(7) {
        configuration.voters_outgoing = [NodeId(1), NodeId(2), NodeId(6)].into();
        configuration.learners = [NodeId(9)].into();
    }
    // In every second one members come and go.
    let strangers: &[NodeId] = match seed % 2 {
        0 => &[],
        _ => &[NodeId(6), NodeId(7)],
    };
    let strangers: Vec<NodeId> = strangers
        .iter()
        .copied()
        .filter(|stranger| !configuration.contains(*stranger))
        .collect();
    let mut storm = Storm::new(seed, configuration, &strangers);
    // A change takes two commits and somebody who leads for so long.
    let steps = if storm.changes_members {
        2 * STEPS
    } else {
        STEPS
    };
    for _ in 0..steps {
        storm.step();
    }
    storm.calm_down();
    storm.seen
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

#[test]
fn storms_never_break_safety_and_always_end_in_agreement() {
    if let Some(seed) = setting("RAFT_STORM_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let first = setting("RAFT_STORM_FIRST").unwrap_or(0);
    let last = first + setting("RAFT_STORM_SEEDS").unwrap_or(DEFAULT_SEEDS);
    println!(
        "storms with seeds {first}..{last}, {STEPS} steps each, twice that where members change"
    );
    let mut seen = [0; SIGNS.len()];
    for seed in first..last {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(more) => seen
                .iter_mut()
                .zip(more)
                .for_each(|(total, more)| *total += more),
            Err(panic) => {
                eprintln!("run again with RAFT_STORM_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    for (sign, total) in SIGNS.iter().zip(seen) {
        println!("{total:8} x {sign}");
        assert!(total > 0, "no storm ever brought about: {sign}");
    }
}
