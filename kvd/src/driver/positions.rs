//! Replicas compare their state at fixed positions of the log.
//!
//! ```text
//!  every voter, after a position:   hash of its state --> StateHash --> leader
//!  leader, a majority reported one: Command::StateHash --> the log --> every replica compares it with its own
//!  own one differs:                 see suspicion.rs
//! ```
//!
//! A minority proves nothing: n1 and n2 of five that agree with each other may be the two that are wrong. So the leader says what the
//! state is only if a majority of the voters reported it, in each half of a joint configuration; without one there is an alarm, and
//! nobody rebuilds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft_core::{Configuration, NodeId};

use super::{Driver, Effect};
use crate::kv::command::{Command, HashAt, STATE_HASH_VERSION};
use crate::kv::state_hash::STATE_HASH_ALGORITHM;
use crate::snapshots::Suspect;
use crate::wire::peer::{PeerMessage, command_version};

/// So many own hashes are remembered, and positions with reports. What a majority has comes back within one or two.
const POSITIONS_MAX: usize = 8;

/// Election timeouts after which a report is sent again, as long as no majority is known; also how long reports may differ before
/// that is an alarm.
const PATIENCE_TIMEOUTS: u64 = 5;

/// What a node knows of positions.
#[derive(Debug)]
pub(super) struct Positions {
    /// A position is every so many entries.
    every: u64,
    /// What the own state was at the last positions, oldest first.
    own: VecDeque<HashAt>,
    /// The newest position at which a majority is known to have had the same state.
    settled: u64,
    /// The newest one at which this node is known to have had it as well.
    agreed: u64,
    /// The report that was sent last: to whom, of which position, when.
    told: Option<(NodeId, u64, u64)>,
    /// On a leader: what was reported, by position.
    reports: BTreeMap<u64, Reports>,
    /// On a leader: the newest position that it has proposed.
    proposed: u64,
    alarm: Option<String>,
    /// Protocol version of each peer, as it said when its last link was made.
    protocols: BTreeMap<NodeId, u16>,
}

/// What was reported of one position.
#[derive(Debug)]
struct Reports {
    since: u64,
    by: BTreeMap<NodeId, HashAt>,
}

impl Positions {
    pub(super) fn new(every: u64) -> Positions {
        // Each position brings an entry of its own: were it every entry, there would be no end.
        assert!(every > 1, "a position every {every} entries");
        Positions {
            every,
            own: VecDeque::new(),
            settled: 0,
            agreed: 0,
            told: None,
            reports: BTreeMap::new(),
            proposed: 0,
            alarm: None,
            protocols: BTreeMap::new(),
        }
    }

    pub(super) fn agreed(&self) -> u64 {
        self.agreed
    }

    pub(super) fn alarm(&self) -> Option<&String> {
        self.alarm.as_ref()
    }

    pub(super) fn note_protocol(&mut self, peer: NodeId, protocol: u16) {
        self.protocols.insert(peer, protocol);
        // A new link, perhaps to a new life that remembers nothing.
        self.told.take_if(|(to, ..)| *to == peer);
    }

    pub(super) fn knows_command(&self, peer: NodeId, version: u8) -> bool {
        let protocol = self.protocols.get(&peer);
        protocol.is_some_and(|protocol| command_version(*protocol) >= version)
    }

    /// Whether the own state is known to have been this one, or that of a majority later on.
    pub(super) fn has_agreed(&self, hash: &HashAt) -> bool {
        self.own.contains(hash) || self.agreed > 0 && self.agreed >= hash.index
    }

    /// The own state is not what it was taken for: nothing of what is known of it holds.
    pub(super) fn forget(&mut self) {
        self.own.clear();
        self.agreed = 0;
        self.leave_office();
    }

    fn leave_office(&mut self) {
        self.told = None;
        self.reports.clear();
        self.proposed = 0;
        self.alarm = None;
    }

    fn take_report(&mut self, from: NodeId, hash: HashAt, now: u64) {
        if hash.index <= self.settled {
            return;
        }
        let new = || Reports {
            since: now,
            by: BTreeMap::new(),
        };
        let reports = self.reports.entry(hash.index).or_insert_with(new);
        reports.by.insert(from, hash);
        while self.reports.len() > POSITIONS_MAX {
            self.reports.pop_first();
        }
    }

    /// A majority is known to have had this state.
    fn settle(&mut self, index: u64) {
        self.settled = self.settled.max(index);
        self.reports = self.reports.split_off(&(self.settled + 1));
        self.alarm = None;
    }

    fn own_at(&self, index: u64) -> Option<HashAt> {
        self.own.iter().find(|own| own.index == index).copied()
    }
}

impl Reports {
    /// What a majority of the voters has reported.
    fn majority(&self, configuration: &Configuration) -> Option<HashAt> {
        let hashes: BTreeSet<u64> = self.by.values().map(|report| report.hash).collect();
        let of = |hash: u64| {
            let same = self.by.iter().filter(|(_, report)| report.hash == hash);
            let voters: BTreeSet<NodeId> = same.clone().map(|(id, _)| *id).collect();
            let first = same.map(|(_, report)| *report).next();
            first.filter(|_| is_majority(configuration, &voters))
        };
        hashes.into_iter().find_map(of)
    }

    fn differ(&self) -> bool {
        let mut hashes = self.by.values().map(|report| report.hash);
        let first = hashes.next();
        hashes.any(|hash| Some(hash) != first)
    }
}

/// Whether these are more than half of the voters, in each half of a joint configuration.
fn is_majority(configuration: &Configuration, nodes: &BTreeSet<NodeId>) -> bool {
    let Configuration {
        voters,
        voters_outgoing,
        ..
    } = configuration;
    let more_than_half =
        |half: &BTreeSet<NodeId>| half.intersection(nodes).count() > half.len() / 2;
    more_than_half(voters) && (voters_outgoing.is_empty() || more_than_half(voters_outgoing))
}

impl Driver {
    /// The entry at `index` was applied: if that is a position, its hash is remembered.
    pub(super) fn note_position(&mut self, index: u64) {
        if !index.is_multiple_of(self.positions.every) || self.suspicion.is_some() {
            return;
        }
        let own = HashAt {
            index,
            algorithm: STATE_HASH_ALGORITHM,
            hash: self.store.state_hash(),
        };
        self.positions.own.push_back(own);
        if self.positions.own.len() > POSITIONS_MAX {
            self.positions.own.pop_front();
        }
        if self.is_leader() {
            self.positions.take_report(self.id, own, self.now);
        }
    }

    /// An entry was applied that says what a majority has.
    pub(super) fn compare(&mut self, agreed: HashAt) {
        self.positions.settle(agreed.index);
        // A node that began from a later snapshot does not know, and of another algorithm nothing can be said.
        let own = self.positions.own_at(agreed.index);
        let Some(own) = own.filter(|own| own.algorithm == agreed.algorithm) else {
            return;
        };
        if own == agreed {
            self.positions.agreed = self.positions.agreed.max(agreed.index);
        } else {
            self.distrust(Suspect {
                agreed,
                own: own.hash,
            });
        }
    }

    /// Role, term or leader changed.
    pub(super) fn positions_leadership_changed(&mut self) {
        self.positions.leave_office();
        if self.is_leader() && self.suspicion.is_none() {
            for own in self.positions.own.clone() {
                self.positions.take_report(self.id, own, self.now);
            }
        }
    }

    /// A member says what its state is.
    pub(super) fn handle_state_hash(&mut self, from: NodeId, hash: HashAt) {
        let is_position = hash.index.is_multiple_of(self.positions.every)
            && hash.index <= self.node.commit_index().0;
        if self.is_leader() && is_position && hash.algorithm == STATE_HASH_ALGORITHM {
            self.positions.take_report(from, hash, self.now);
        }
    }

    /// Tells the leader of the newest own position, and again as long as no majority is known.
    pub(super) fn report_position(&mut self) {
        let Some(own) = self.positions.own.back().copied() else {
            return;
        };
        let Some(leader) = self.leader.filter(|leader| *leader != self.id) else {
            return;
        };
        let was_told = self.positions.told.is_some_and(|(to, index, at)| {
            let patience = PATIENCE_TIMEOUTS * self.options.election_timeout_ticks;
            (to, index) == (leader, own.index) && self.now < at + patience
        });
        if own.index <= self.positions.settled
            || was_told
            || !self.links.contains(&leader)
            || !self.positions.knows_command(leader, STATE_HASH_VERSION)
        {
            return;
        }
        self.positions.told = Some((leader, own.index, self.now));
        self.effects.push(Effect::Send {
            to: leader,
            message: PeerMessage::StateHash(own),
        });
    }

    /// Proposes what a majority has reported of a position; whether it did.
    pub(super) fn propose_hash(&mut self) -> bool {
        if !self.is_leader() || self.suspicion.is_some() || self.positions.reports.is_empty() {
            return false;
        }
        let configuration = self.node.configuration();
        let news = self.positions.reports.range(self.positions.proposed + 1..);
        let mut majorities = news.filter_map(|(_, reports)| reports.majority(configuration));
        let Some(agreed) = majorities.next() else {
            return false;
        };
        if let Some(own) = self
            .positions
            .own_at(agreed.index)
            .filter(|it| *it != agreed)
        {
            // Whoever leads next gets the reports again, and has nothing to be ashamed of.
            self.distrust(Suspect {
                agreed,
                own: own.hash,
            });
            return false;
        }
        if !self.every_member_knows(STATE_HASH_VERSION) || !self.has_room_for_internal() {
            return false;
        }
        match self.propose_internal(&Command::StateHash(agreed)) {
            Ok(entry) => {
                tracing::debug!(%entry, index = agreed.index, "a majority has the same state");
                self.positions.proposed = agreed.index;
                true
            }
            // A transfer, or too much on its way: the reports stay.
            Err(_) => false,
        }
    }

    /// Whether all members are known to understand commands of this version. One that does not would have to stop at the entry.
    fn every_member_knows(&self, version: u8) -> bool {
        let members = self.node.configuration().members();
        let mut others = members.iter().filter(|id| **id != self.id);
        others.all(|id| self.positions.knows_command(*id, version))
    }

    /// Raises the alarm if reports of the newest position with several differ, and nobody has a majority.
    pub(super) fn watch_reports(&mut self) {
        let differing = self.positions.reports.iter().rev();
        let Some((index, reports)) = differing.into_iter().find(|(_, it)| it.differ()) else {
            return;
        };
        let configuration = self.node.configuration();
        let mut voters = configuration.voters.union(&configuration.voters_outgoing);
        let all_spoke = voters.all(|id| reports.by.contains_key(id));
        let patience = PATIENCE_TIMEOUTS * self.options.election_timeout_ticks;
        let has_waited = reports.since + patience <= self.now;
        if !(all_spoke || has_waited) || reports.majority(configuration).is_some() {
            return;
        }
        let says = |(id, report): (&NodeId, &HashAt)| {
            format!("{} {:016x}", self.name_of(*id), report.hash)
        };
        let said: Vec<String> = reports.by.iter().map(says).collect();
        let alarm = format!(
            "no majority of the voters has the same state at entry {index}: {}",
            said.join(", ")
        );
        if self.positions.alarm.as_ref() != Some(&alarm) {
            tracing::error!("{alarm}; nobody rebuilds");
            self.positions.alarm = Some(alarm);
        }
    }
}
