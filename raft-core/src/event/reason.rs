//! Why a role changed, why a vote was refused.

use core::fmt;

use crate::{EntryId, NodeId, Term};

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
    /// The leader is not fit to lead, and handing over did not succeed.
    Unfit,
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
    /// The vote of an earlier term is not on the disk yet: whoever got it may be about to win.
    VoteUnderWay {
        /// To whom.
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
            Reason::Unfit => f.write_str("not fit to lead"),
        }
    }
}

impl fmt::Display for VoteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VoteRefusal::LeaderAlive { leader } => write!(f, "{leader} is alive"),
            VoteRefusal::LeaseOwed { ticks } => write!(f, "no votes for another {ticks} ticks"),
            VoteRefusal::AlreadyVoted { to } => write!(f, "voted for {to}"),
            VoteRefusal::VoteUnderWay { to } => {
                write!(f, "its vote for {to} is on its way to the disk")
            }
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
