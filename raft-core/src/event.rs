//! What happened inside a node: the core does not log, it tells.

mod reason;
mod text;

use alloc::boxed::Box;

pub use self::reason::{Reason, VoteRefusal};
use crate::{Configuration, EntryId, LogIndex, NodeId, PeerState, Role, SnapshotMeta, Term};

/// Something worth a place on a timeline, a line in a log or a count in a metric.
///
/// Together with the messages that come and go these are the whole story of a node. Those that
/// happen all the time, [`Event::Appended`] and [`Event::Committed`], come once in a batch at most.
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
    /// An election timeout was drawn anew. It runs as long as no leader is heard, and is of no
    /// account to a leader.
    TimerStarted {
        /// The timeout.
        timeout_ticks: u32,
    },
    /// This node asks whether the others would vote for it.
    PreVotesAsked {
        /// The term that would be.
        term: Term,
    },
    /// This node asks for votes; its own must be durable before the question leaves.
    VotesAsked {
        /// The term.
        term: Term,
    },
    /// This node would vote for another.
    PreVoteGranted {
        /// The term that would be.
        term: Term,
        /// Who asked.
        to: NodeId,
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
    /// The log grew since the last batch, by proposals or by what a leader sent.
    Appended {
        /// First new index.
        first: LogIndex,
        /// Last new index.
        last: LogIndex,
    },
    /// More entries are known to be committed.
    Committed {
        /// The commit index.
        index: LogIndex,
    },
    /// This follower does not hold the entry before those that the leader sent.
    AppendRefused {
        /// The leader.
        leader: NodeId,
        /// The entry that is not there.
        prev: EntryId,
        /// The newest entry that could agree.
        hint: EntryId,
    },
    /// A follower's log does not agree with this leader's where it was thought to.
    Conflict {
        /// The follower.
        peer: NodeId,
        /// Where they differ.
        prev: LogIndex,
        /// Where the leader tries next.
        next: LogIndex,
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
        configuration: Box<Configuration>,
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
    /// A snapshot is to be sent to another node.
    SnapshotSent {
        /// Who gets it.
        peer: NodeId,
        /// Its last entry.
        id: EntryId,
    },
    /// A snapshot is on this node's disk and in its state machine.
    SnapshotInstalled {
        /// Its last entry.
        id: EntryId,
    },
    /// A snapshot takes the place of the log, or of damaged entries in it, as soon as it is durable.
    SnapshotAccepted {
        /// What the snapshot stands for.
        meta: Box<SnapshotMeta>,
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
    /// The driver has told a leader that it is not fit to lead.
    Unfit {
        /// Who should lead instead; if nobody can this node leads on.
        successor: Option<NodeId>,
    },
    /// This node, which gave up leading because of its disk or because it was unfit, stands for election again.
    SilenceEnded {
        /// The disk has been healthy for long enough; else nobody led for too long.
        disk_is_healthy: bool,
    },
}
