//! One error per operation that the caller can tell apart.

use crate::{EntryId, LogIndex, NodeId, Term};

/// Why [`Node::new`](crate::Node::new) refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The node id is 0.
    #[error("node id 0 is reserved")]
    NodeIdZero,
    /// The election timeout must be above the heartbeat interval, and both above 0.
    #[error("election timeout of {election} ticks with heartbeats every {heartbeat} ticks")]
    Timeouts {
        /// The election timeout.
        election: u32,
        /// The heartbeat interval.
        heartbeat: u32,
    },
    /// Without check-quorum voters do not hold off candidates, and a leader that nobody hears would
    /// believe in its lease.
    #[error("lease reads need check-quorum")]
    LeaseWithoutCheckQuorum,
    /// A limit of 0 would stop everything.
    #[error("{option} is 0")]
    ZeroLimit {
        /// Name of the option.
        option: &'static str,
    },
    /// The stored configuration breaks its rules.
    #[error("stored configuration of index {index}: {error}")]
    Configuration {
        /// Where it was appended.
        index: LogIndex,
        /// What is wrong with it.
        error: ConfigurationError,
    },
    /// The stored configurations are not ascending, or lie beyond the log.
    #[error("stored configuration of index {index} is out of order")]
    ConfigurationOrder {
        /// Where it was appended.
        index: LogIndex,
    },
    /// `first - 1 <= applied <= commit <= last` does not hold.
    #[error(
        "stored positions contradict: first {first}, applied {applied}, commit {commit}, last {last}"
    )]
    Positions {
        /// First index of the log.
        first: LogIndex,
        /// Applied index.
        applied: LogIndex,
        /// Commit index.
        commit: LogIndex,
        /// Last index of the log.
        last: LogIndex,
    },
    /// A damaged entry is out of order, is not in the log, or is covered by the snapshot.
    #[error("damaged entry {index} is out of order")]
    FaultyOrder {
        /// Where it is.
        index: LogIndex,
    },
    /// Nobody knows in which term the log ends, so it cannot be compared with others.
    #[error("the last entry, {index}, is damaged and its term is not known")]
    UnknownEnd {
        /// Last index of the log.
        index: LogIndex,
    },
    /// The log ends in a term that the stored term does not know.
    #[error("the log ends at {last}, but the stored term is {term}")]
    LogAheadOfTerm {
        /// Last entry of the log.
        last: EntryId,
        /// Stored term.
        term: Term,
    },
}

/// Why a configuration is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// Made by a newer version.
    #[error("configuration format {0} is not known")]
    UnknownVersion(u8),
    /// The bytes do not end where the content does.
    #[error("configuration has the wrong length")]
    WrongLength,
    /// A flag that this version does not know.
    #[error("configuration flags {0:#x} are not known")]
    UnknownFlags(u8),
    /// Members are not strictly ascending, or one of them is 0.
    #[error("members are not ascending node ids")]
    NotAscending,
    /// Nobody could ever commit anything.
    #[error("a configuration needs a voter")]
    NoVoter,
    /// A member may have only one part.
    #[error("{0} is both voter and learner")]
    VoterAndLearner(NodeId),
    /// Only a voter of the outgoing half of a joint configuration becomes a learner later.
    #[error("{0} is to become a learner, but is no outgoing voter")]
    NotOutgoing(NodeId),
    /// Leaving automatically makes sense in a joint configuration only.
    #[error("a simple configuration cannot be left")]
    NotJoint,
}

/// Why [`Node::step`](crate::Node::step) did not act on a message. Nothing of it has taken effect but
/// a higher term, which is taken over in any case, and copies of damaged entries that it brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The message is for another node.
    #[error("message for {to}")]
    NotForMe {
        /// Its receiver.
        to: NodeId,
    },
    /// The sender cannot take part: 0, this node itself, or no member of the configuration that the
    /// message concerns.
    #[error("unknown sender {from}")]
    UnknownSender {
        /// Its sender.
        from: NodeId,
    },
    /// The term lies in the past. A sender that believes it leads or campaigns is told the current
    /// term.
    #[error("term {term} is over, now {current}")]
    StaleTerm {
        /// Term of the message.
        term: Term,
        /// Term of this node.
        current: Term,
    },
    /// A term that no honest series of elections reaches.
    #[error("term {term} is out of range")]
    TermOutOfRange {
        /// Term of the message.
        term: Term,
    },
    /// A vote was asked for while a leader is heard (check-quorum).
    #[error("leader {leader} is alive")]
    LeaderAlive {
        /// The leader that is heard.
        leader: NodeId,
    },
    /// A vote was asked for while a leader may rely on this node not to vote (lease reads).
    #[error("no votes for another {ticks} ticks")]
    LeaseOwed {
        /// For how long.
        ticks: u32,
    },
    /// A second node claims to lead the same term.
    #[error("{from} claims term {term}, which {leader} leads")]
    SecondLeader {
        /// The sender.
        from: NodeId,
        /// The leader known so far.
        leader: NodeId,
        /// The term.
        term: Term,
    },
    /// The append contradicts itself.
    #[error("malformed append: {0}")]
    MalformedAppend(MalformedAppend),
    /// The append or snapshot contradicts an entry that is committed here.
    #[error("conflict at {conflict} below the commit index {committed}")]
    CommittedConflict {
        /// The entry as the message has it.
        conflict: EntryId,
        /// Commit index of this node.
        committed: LogIndex,
    },
    /// The leader says that something is committed which this node had acknowledged and does not
    /// have: its log went back.
    #[error("commit index {commit} is beyond the log, which ends at {last}")]
    CommitBeyondLog {
        /// Commit index of the message.
        commit: LogIndex,
        /// Last index of this node.
        last: LogIndex,
    },
    /// An acknowledgement names an index that this leader does not have.
    #[error("acknowledgement of {matched} beyond the log, which ends at {last}")]
    AckBeyondLog {
        /// Index of the message.
        matched: LogIndex,
        /// Last index of this node.
        last: LogIndex,
    },
    /// An answer to a question that was not asked, or not like this.
    #[error("answer to nothing asked")]
    Unasked,
    /// The snapshot contradicts itself.
    #[error("malformed snapshot")]
    MalformedSnapshot,
    /// Only a leader can do that, and this node is not the leader.
    #[error("not the leader")]
    NotLeader,
    /// Only a voter can do that.
    #[error("not a voter")]
    NotVoter,
    /// Asked to take over while the disk hangs.
    #[error("the disk has not synced for {age_ticks} ticks")]
    SlowDisk {
        /// Age of the oldest unfinished sync.
        age_ticks: u32,
    },
    /// Asked to take over, and not fit to lead.
    #[error("not fit to lead")]
    Unfit,
    /// Too many reads wait.
    #[error("too many reads wait")]
    Overloaded,
    /// The question or answer about damaged entries contradicts itself.
    #[error("malformed repair message")]
    MalformedRepair,
    /// This node repairs its log, and cannot do that meanwhile.
    #[error("{count} entries are being repaired")]
    Repairing {
        /// How many.
        count: u64,
    },
    /// The snapshot ends at an entry of which too little can be read here to tell whether it is
    /// the same.
    #[error("whether this log holds {id} cannot be told")]
    UnknownIdentity {
        /// Where the snapshot ends.
        id: EntryId,
    },
}

impl Rejected {
    /// Whether this happens in a healthy cluster, because messages come late, twice or after a change
    /// of leader; the others deserve a line in a log.
    pub fn is_expected(&self) -> bool {
        match self {
            Rejected::StaleTerm { .. }
            | Rejected::LeaderAlive { .. }
            | Rejected::LeaseOwed { .. }
            | Rejected::Unasked
            | Rejected::NotLeader
            | Rejected::NotVoter
            | Rejected::UnknownSender { .. }
            | Rejected::Overloaded
            | Rejected::Repairing { .. }
            | Rejected::SlowDisk { .. }
            | Rejected::Unfit
            | Rejected::UnknownIdentity { .. } => true,
            Rejected::NotForMe { .. }
            | Rejected::TermOutOfRange { .. }
            | Rejected::SecondLeader { .. }
            | Rejected::MalformedAppend(_)
            | Rejected::CommittedConflict { .. }
            | Rejected::CommitBeyondLog { .. }
            | Rejected::AckBeyondLog { .. }
            | Rejected::MalformedSnapshot
            | Rejected::MalformedRepair => false,
        }
    }
}

/// How an append contradicts itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedAppend {
    /// Index 0 has term 0, and no other index has.
    #[error("no entry is {0}")]
    ImpossibleId(EntryId),
    /// The indexes are not consecutive.
    #[error("{found} where index {expected} belongs")]
    Gap {
        /// The index that belongs there.
        expected: LogIndex,
        /// The entry found.
        found: EntryId,
    },
    /// The terms of a log never fall, and never exceed that of its leader.
    #[error("term of {0} is out of order")]
    TermOrder(EntryId),
    /// An index that no honest log reaches.
    #[error("index of {0} is out of range")]
    IndexOutOfRange(EntryId),
    /// An empty payload must have checksum 0, and a no-op must be empty.
    #[error("payload of {0} does not fit its kind")]
    Payload(EntryId),
    /// The payload of a configuration entry is not one.
    #[error("configuration of {id}: {error}")]
    Configuration {
        /// The entry.
        id: EntryId,
        /// What is wrong.
        error: ConfigurationError,
    },
}

/// Why [`Node::propose`](crate::Node::propose) refuses. Definite: nothing of the batch will ever
/// take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Ask the leader.
    #[error("not the leader of {term}")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
        /// The current term.
        term: Term,
    },
    /// Too much waits for its commit.
    #[error("{bytes} uncommitted bytes, limit {limit}")]
    Overloaded {
        /// Bytes that wait.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The leadership is being handed over; ask again in a moment.
    #[error("leadership is being transferred to {to}")]
    Transferring {
        /// Who takes over.
        to: NodeId,
    },
    /// An empty batch, or an empty payload with a checksum other than 0.
    #[error("malformed proposal")]
    Malformed,
}

/// Why [`Node::plan_configuration`](crate::Node::plan_configuration) or
/// [`Node::propose_configuration`](crate::Node::propose_configuration) refuses. Definite: the change
/// will never take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Ask the leader.
    #[error("not the leader of {term}")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
        /// The current term.
        term: Term,
    },
    /// The leadership is being handed over; ask again in a moment.
    #[error("leadership is being transferred to {to}")]
    Transferring {
        /// Who takes over.
        to: NodeId,
    },
    /// No entry of this leader's term is committed yet; ask again in a moment.
    #[error("{first} of the leader's own term is not committed yet")]
    OwnTermUncommitted {
        /// The entry that must be committed first.
        first: EntryId,
    },
    /// The change before this one is not committed; ask again when it is.
    #[error("the change of {index} is not committed yet")]
    InProgress {
        /// Where it was appended.
        index: LogIndex,
    },
    /// The joint configuration must be left first.
    #[error("a joint configuration is to be left first")]
    Joint,
    /// There is no joint configuration to leave.
    #[error("no joint configuration is in force")]
    NotJoint,
    /// A learner that lacks so much would hold up the cluster as a voter.
    #[error("{learner} holds the log up to {matched} of {last}")]
    Behind {
        /// The learner.
        learner: NodeId,
        /// What it acknowledged.
        matched: LogIndex,
        /// Last index of the leader.
        last: LogIndex,
    },
    /// A learner that waits for a snapshot does not become a voter.
    #[error("a snapshot is on the way to {0}")]
    SnapshotPending(NodeId),
    /// A learner that repairs its log does not become a voter.
    #[error("{0} repairs its log")]
    Repairing(NodeId),
    /// Only a node that is no member can be added.
    #[error("{0} is a member already")]
    AlreadyMember(NodeId),
    /// Only a member can be removed.
    #[error("{0} is no member")]
    NotMember(NodeId),
    /// Only a learner can be promoted.
    #[error("{0} is no learner")]
    NotLearner(NodeId),
    /// Only a voter can be demoted.
    #[error("{0} is no voter")]
    NotVoter(NodeId),
    /// One request can do one thing to a node.
    #[error("{0} is named twice")]
    NamedTwice(NodeId),
    /// The change changes nothing.
    #[error("nothing would change")]
    Unchanged,
    /// The resulting configuration could not work, or the payload is none.
    #[error("{0}")]
    Configuration(ConfigurationError),
    /// The proposed configuration was not planned from the one in force: their quorums need not
    /// have a member in common.
    #[error("the configuration does not follow from the one in force")]
    NotSuccessor,
}

/// Why [`Node::read_index`](crate::Node::read_index) refuses. Definite: nothing was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nobody is known who could tell the index.
    #[error("no leader in term {term}")]
    NoLeader {
        /// The current term.
        term: Term,
    },
    /// Too many reads wait.
    #[error("{pending} reads wait, limit {limit}")]
    Overloaded {
        /// Reads that wait.
        pending: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why [`Node::transfer_leader`](crate::Node::transfer_leader) refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Only the leader can hand over.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The target is no voter, or is this node.
    #[error("{to} cannot take over")]
    NotVoter {
        /// The target.
        to: NodeId,
    },
    /// The target repairs its log, and would not stand.
    #[error("{to} repairs its log")]
    Repairing {
        /// The target.
        to: NodeId,
    },
    /// No other voter has been heard lately.
    #[error("no other voter is in reach")]
    NoCandidate,
    /// Another transfer is under way.
    #[error("a transfer to {to} is under way")]
    InProgress {
        /// Its target.
        to: NodeId,
    },
}
