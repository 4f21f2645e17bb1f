//! A plain view of a node.

use alloc::vec::Vec;
use core::fmt;

use crate::types::{write_spaced, write_unless_zero};
use crate::{Configuration, EntryId, LogIndex, NodeId, Term};

/// What a node is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads its term.
    Leader,
}

/// A plain view of a node, for operators and tests.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Its vote in this term.
    pub vote: Option<NodeId>,
    /// The leader it knows; itself if it leads.
    pub leader: Option<NodeId>,
    /// Commit index.
    pub commit: LogIndex,
    /// Applied index, as reported by the driver.
    pub applied: LogIndex,
    /// First index of the log.
    pub first: LogIndex,
    /// Last entry of the log, durable or not.
    pub last: EntryId,
    /// Last index that is durable here.
    pub persisted: LogIndex,
    /// Whether it leaves elections to others, because it gave up leading with a slow disk.
    pub is_silent: bool,
    /// Last entry of the newest snapshot, if there is one.
    pub snapshot: Option<EntryId>,
    /// Target of a leader transfer under way.
    pub transfer: Option<NodeId>,
    /// Whether an entry of this leader's own term is committed, so that reads are answered.
    pub own_term_committed: bool,
    /// Damaged entries that are being repaired; none if the log is whole.
    pub repair: Option<RepairStatus>,
    /// The other members as this leader sees them; empty on all other nodes.
    pub progress: Vec<PeerStatus>,
    /// The configuration in force.
    pub configuration: Configuration,
    /// Where it was appended.
    pub configuration_index: LogIndex,
}

/// One member as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PeerStatus {
    /// The member.
    pub id: NodeId,
    /// Last index it durably acknowledged in this leadership.
    pub matched: LogIndex,
    /// Next index to be sent.
    pub next: LogIndex,
    /// How entries are sent to it.
    pub state: PeerState,
    /// Heard since the last check of the quorum.
    pub recently_active: bool,
    /// How many damaged entries it said it has; 0 if it is whole.
    pub repairing: u64,
    /// Age of its oldest unfinished sync, as far as known.
    pub sync_age_ticks: u32,
    /// Its priority, as far as known.
    pub priority: u32,
}

/// A node that lost entries and waits to get them back.
///
/// Until then it grants no vote, does not stand, and acknowledges nothing. It counts for
/// check-quorum and for reads.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RepairStatus {
    /// How many entries.
    pub count: u64,
    /// The oldest of them.
    pub first: LogIndex,
    /// The other voters that did not say yet that they never had it. One of them may have it: if it
    /// is down, this node waits for it. Empty if all of them did: then the damaged entries may hide a
    /// change of members, and a leader or a snapshot has to decide.
    pub waiting_for: Vec<NodeId>,
}

/// How a leader sends entries to a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PeerState {
    /// One append at a time, to find where the logs agree.
    Probe,
    /// Many appends on the way.
    Replicate {
        /// How many.
        inflight: usize,
    },
    /// A snapshot is on the way.
    Snapshot {
        /// The last index it includes.
        index: LogIndex,
    },
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        })
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerState::Probe => f.write_str("probe"),
            PeerState::Replicate { inflight } => write!(f, "replicate, {inflight} in flight"),
            PeerState::Snapshot { index } => write!(f, "snapshot {index}"),
        }
    }
}

impl fmt::Display for PeerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} match {} next {} {}",
            self.id, self.matched, self.next, self.state
        )?;
        write_unless_zero(f, "repairing", self.repairing)?;
        write_unless_zero(f, "sync age", self.sync_age_ticks)?;
        write_unless_zero(f, "priority", self.priority)
    }
}

impl fmt::Display for RepairStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repairing {} from {} on", self.count, self.first)?;
        if !self.waiting_for.is_empty() {
            f.write_str(", waiting for ")?;
            write_spaced(f, &self.waiting_for)?;
        }
        Ok(())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of term {}", self.id, self.role, self.term)?;
        if let Some(leader) = self.leader.filter(|leader| *leader != self.id) {
            write!(f, " under {leader}")?;
        }
        write!(
            f,
            ", log {}..={} durable {}",
            self.first, self.last, self.persisted
        )?;
        write!(f, ", commit {} applied {}", self.commit, self.applied)?;
        match &self.repair {
            None => Ok(()),
            Some(repair) => write!(f, ", {repair}"),
        }
    }
}
