//! What happened inside a node: the core does not log, it tells.

use core::fmt;

use crate::{Configuration, EntryId, LogIndex, NodeId, PeerState, Role, SnapshotMeta, Term};

/// Something worth a line in a log or a count in a metric.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Event {
    /// The role changed, or the term within a role.
    RoleChanged {
        /// Before.
        from: Role,
        /// After.
        to: Role,
        /// The term after.
        term: Term,
        /// Why.
        reason: Reason,
    },
    /// Another leader is known now, or none.
    LeaderChanged {
        /// The term.
        term: Term,
        /// The leader.
        leader: Option<NodeId>,
    },
    /// This node granted its vote; the answer leaves when the vote is durable.
    VoteGranted {
        /// The term.
        term: Term,
        /// The candidate.
        to: NodeId,
    },
    /// This node refused its vote or pre-vote.
    VoteRefused {
        /// The term asked for.
        term: Term,
        /// The candidate.
        to: NodeId,
        /// Why.
        why: VoteRefusal,
    },
    /// Entries of an earlier leader were overwritten.
    Truncated {
        /// First index that is gone.
        from: LogIndex,
    },
    /// A configuration came into force.
    ConfigurationChanged {
        /// Where it was appended.
        index: LogIndex,
        /// The configuration.
        configuration: Configuration,
    },
    /// A leader knows that the configuration in force is committed: it will not be rolled back.
    ConfigurationCommitted {
        /// Where it was appended.
        index: LogIndex,
    },
    /// A leader changed the way it sends to a follower.
    PeerStateChanged {
        /// The follower.
        peer: NodeId,
        /// The way from now on.
        state: PeerState,
    },
    /// A follower, or a node that repairs its log, needs a snapshot, and the storage has none to
    /// send, or none that goes far enough.
    SnapshotUnavailable {
        /// Who needs it.
        peer: NodeId,
    },
    /// Entries of this node's own log are damaged; they are asked for.
    DamageFound {
        /// The oldest of them.
        first: LogIndex,
        /// How many there are now.
        count: u64,
    },
    /// An applied entry is damaged, and the others do not have it any more. A snapshot of this node,
    /// and a purge up to it, make the entry unnecessary.
    SnapshotWanted {
        /// The entry.
        index: LogIndex,
    },
    /// Damaged entries are back and durable.
    Repaired {
        /// How many came back.
        count: u64,
        /// How many are still damaged.
        left: u64,
    },
    /// Damaged entries that no other voter ever had are given up, with all that follows them.
    DamagedTailDropped {
        /// First index that is gone.
        from: LogIndex,
        /// Where the log ended.
        last: EntryId,
    },
    /// A follower lost entries: it acknowledges nothing before it has them back.
    PeerRepairing {
        /// The follower.
        peer: NodeId,
        /// How many entries.
        count: u64,
    },
    /// The log is replaced by a snapshot.
    SnapshotAccepted {
        /// What the snapshot stands for.
        meta: SnapshotMeta,
    },
    /// A follower does not have what it acknowledged in this leadership: its log went back.
    AcknowledgementLost {
        /// The follower.
        peer: NodeId,
        /// What it had acknowledged.
        matched: LogIndex,
        /// Where its log ends now.
        last: LogIndex,
    },
    /// A leader transfer began.
    TransferStarted {
        /// The target.
        to: NodeId,
    },
    /// A leader transfer was given up; this node leads on.
    TransferAborted {
        /// The target.
        to: NodeId,
    },
    /// A leader committed the first entry of its own term: from here on it knows the commit index
    /// of the cluster.
    OwnTermCommitted {
        /// The entry.
        id: EntryId,
    },
    /// A leader's disk has not synced for more than an election timeout.
    SlowDisk {
        /// Age of the oldest unfinished sync.
        age_ticks: u32,
        /// Who should lead instead; if nobody is better off this node leads on.
        successor: Option<NodeId>,
    },
    /// This node, which gave up leading because of its disk, stands for election again.
    SilenceEnded {
        /// The disk has been healthy for long enough; else nobody led for too long.
        disk_is_healthy: bool,
    },
}

/// Why a role changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// No leader was heard for an election timeout.
    ElectionTimeout,
    /// The driver asked for it.
    Asked,
    /// The leader handed over.
    Transfer,
    /// A quorum would vote for this node.
    PreVoteWon,
    /// A quorum voted for this node.
    ElectionWon,
    /// A quorum refused.
    ElectionLost,
    /// A message of a higher term arrived.
    HigherTerm {
        /// Its sender.
        from: NodeId,
    },
    /// The leader of this term was heard.
    LeaderHeard {
        /// The leader.
        leader: NodeId,
    },
    /// The leader heard no quorum for an election timeout.
    QuorumLost,
    /// A configuration in which the leader does not vote is committed.
    Removed,
    /// Entries of the log are damaged: a candidate found that, or a leader could not hand over.
    Damaged,
    /// The leader's disk is slow, and handing over to a voter with a better one did not succeed.
    SlowDisk {
        /// Age of the oldest unfinished sync.
        age_ticks: u32,
    },
}

/// Why a vote was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum VoteRefusal {
    /// A leader is heard.
    LeaderAlive {
        /// The leader.
        leader: NodeId,
    },
    /// With lease reads: a leader may rely on this node not to vote.
    LeaseOwed {
        /// For how long.
        ticks: u32,
    },
    /// The vote of this term is given.
    AlreadyVoted {
        /// To whom; the leader of the term if no vote was given.
        to: NodeId,
    },
    /// The candidate's log lacks entries that may be committed.
    LogBehind {
        /// Last entry of the candidate.
        candidate: EntryId,
        /// Last entry here.
        own: EntryId,
    },
    /// This node repairs its log, and cannot judge that of another.
    Repairing {
        /// How many entries are damaged.
        count: u64,
    },
    /// This node is preferred as leader, and could be one.
    PreferredSelf {
        /// Priority of the candidate.
        candidate: u32,
        /// Priority of this node.
        own: u32,
    },
    /// The term asked for is not above the current one.
    TermTooLow {
        /// The current term.
        current: Term,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::RoleChanged {
                from,
                to,
                term,
                reason,
            } => write!(f, "{from} -> {to}, term {term}: {reason}"),
            Event::LeaderChanged {
                term,
                leader: Some(leader),
            } => write!(f, "leader of term {term} is {leader}"),
            Event::LeaderChanged { term, leader: None } => write!(f, "no leader in term {term}"),
            Event::VoteGranted { term, to } => write!(f, "votes for {to} in term {term}"),
            Event::VoteRefused { term, to, why } => write!(f, "refuses {to} in term {term}: {why}"),
            Event::Truncated { from } => write!(f, "truncates from {from}"),
            Event::ConfigurationChanged {
                index,
                configuration,
            } => write!(f, "{configuration} of {index}"),
            Event::ConfigurationCommitted { index } => {
                write!(f, "committed the configuration of {index}")
            }
            Event::PeerStateChanged { peer, state } => write!(f, "{peer} is at {state}"),
            Event::SnapshotUnavailable { peer } => write!(f, "no snapshot for {peer}"),
            Event::DamageFound { first, count } => {
                write!(f, "{count} damaged from {first} on")
            }
            Event::SnapshotWanted { index } => write!(f, "wants a snapshot beyond {index}"),
            Event::Repaired { count, left } => write!(f, "repaired {count}, {left} left"),
            Event::DamagedTailDropped { from, last } => {
                write!(f, "gives up {from}..={last}, which nobody else ever had")
            }
            Event::PeerRepairing { peer, count } => write!(f, "{peer} repairs {count} entries"),
            Event::SnapshotAccepted { meta } => write!(f, "installs {meta}"),
            Event::AcknowledgementLost {
                peer,
                matched,
                last,
            } => {
                write!(f, "{peer} acknowledged {matched} and ends at {last}")
            }
            Event::TransferStarted { to } => write!(f, "hands over to {to}"),
            Event::TransferAborted { to } => write!(f, "gives up handing over to {to}"),
            Event::OwnTermCommitted { id } => write!(f, "committed {id} of its own term"),
            Event::SlowDisk {
                age_ticks,
                successor: Some(successor),
            } => write!(f, "no sync for {age_ticks} ticks, {successor} should lead"),
            Event::SlowDisk {
                age_ticks,
                successor: None,
            } => write!(f, "no sync for {age_ticks} ticks, but nobody is better off"),
            Event::SilenceEnded {
                disk_is_healthy: true,
            } => f.write_str("stands for election again, the disk is healthy"),
            Event::SilenceEnded {
                disk_is_healthy: false,
            } => f.write_str("stands for election again, nobody leads"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ElectionTimeout => f.write_str("election timeout"),
            Reason::Asked => f.write_str("asked"),
            Reason::Transfer => f.write_str("transfer"),
            Reason::PreVoteWon => f.write_str("pre-vote won"),
            Reason::ElectionWon => f.write_str("election won"),
            Reason::ElectionLost => f.write_str("election lost"),
            Reason::HigherTerm { from } => write!(f, "higher term from {from}"),
            Reason::LeaderHeard { leader } => write!(f, "heard {leader}"),
            Reason::QuorumLost => f.write_str("quorum lost"),
            Reason::Removed => f.write_str("no voter any more"),
            Reason::Damaged => f.write_str("damaged log"),
            Reason::SlowDisk { age_ticks } => write!(f, "no sync for {age_ticks} ticks"),
        }
    }
}

impl fmt::Display for VoteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VoteRefusal::LeaderAlive { leader } => write!(f, "{leader} is alive"),
            VoteRefusal::LeaseOwed { ticks } => write!(f, "no votes for another {ticks} ticks"),
            VoteRefusal::AlreadyVoted { to } => write!(f, "voted for {to}"),
            VoteRefusal::LogBehind { candidate, own } => {
                write!(f, "its log ends at {candidate}, ours at {own}")
            }
            VoteRefusal::Repairing { count } => write!(f, "repairing {count} entries"),
            VoteRefusal::PreferredSelf { candidate, own } => {
                write!(f, "its priority is {candidate}, ours {own}")
            }
            VoteRefusal::TermTooLow { current } => write!(f, "now at {current}"),
        }
    }
}
