//! What nodes say to each other.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::types::{write_spaced, write_unless_zero};
use crate::{Entry, EntryId, LogIndex, NodeId, ReadId, RepairId, SnapshotMeta, Term};

/// A message with its sender, receiver and the sender's term.
///
/// A [`Message::PreVote`] and a granted [`Message::PreVoteResponse`] carry the term that *would
/// be*, one above the asker's; nobody takes such a term over. Nor does anybody look at the term of
/// [`Message::RepairAsk`], [`Message::RepairAnswer`] (which echoes the asker's) and
/// [`Message::SnapshotAsk`]: what a log holds at some place has nothing to do with who leads now.
/// All other messages carry the sender's own term.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Envelope {
    /// Who sent it.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// The sender's term, or the term that would be.
    pub term: Term,
    /// What it says.
    pub message: Message,
}

/// What a message says. The order of the variants is part of the wire form: append only.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Message {
    /// Would you vote for me? Nothing changes at the one who is asked (thesis 9.6).
    PreVote(VoteRequest),
    /// Answer to [`Message::PreVote`].
    PreVoteResponse(VoteResponse),
    /// Vote for me.
    Vote(VoteRequest),
    /// Answer to [`Message::Vote`]; a grant leaves only after the vote is durable.
    VoteResponse(VoteResponse),
    /// Entries for a follower.
    Append(Append),
    /// Answer to [`Message::Append`]; an acceptance leaves only after the entries are durable.
    AppendResponse(AppendResponse),
    /// The leader lives.
    Heartbeat(Heartbeat),
    /// Answer to [`Message::Heartbeat`]; it never waits for a disk in a term that is durable.
    HeartbeatResponse(HeartbeatResponse),
    /// A snapshot for a follower that needs entries the leader no longer has. The data moves out of
    /// band: see [`InstallSnapshot`].
    InstallSnapshot(InstallSnapshot),
    /// Answer to [`Message::InstallSnapshot`]; it leaves only after the snapshot is durable.
    SnapshotResponse(SnapshotResponse),
    /// A follower asks at which index it may read.
    ReadIndex(ReadIndex),
    /// Answer to [`Message::ReadIndex`].
    ReadIndexResponse(ReadIndexResponse),
    /// The leader asks the receiver to campaign at once (leader transfer, thesis 3.10).
    TimeoutNow,
    /// A repairing node asks everybody for entries that it lost.
    RepairAsk(RepairAsk),
    /// Answer to [`Message::RepairAsk`].
    RepairAnswer(RepairAnswer),
    /// Instead of an acknowledgement from a repairing node.
    Repairing(Repairing),
    /// A repairing node asks for a snapshot.
    SnapshotAsk(SnapshotAsk),
    /// A snapshot for a repairing node, from anybody. Its data moves as that of
    /// [`Message::InstallSnapshot`]; it is not acknowledged.
    RepairSnapshot(InstallSnapshot),
    /// News of the commit index for a follower that was sent everything else. It is not answered: what
    /// gets lost comes with the next append or heartbeat.
    Commit(Commit),
}

/// Content of [`Message::PreVote`] and [`Message::Vote`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VoteRequest {
    /// The last entry of the candidate's log.
    pub last: EntryId,
    /// The campaign was asked for by the leader itself, so that a live leader is no reason to
    /// refuse.
    pub transfer: bool,
    /// The candidate's [`Config::priority`](crate::Config::priority).
    pub priority: u32,
}

/// Content of [`Message::PreVoteResponse`] and [`Message::VoteResponse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VoteResponse {
    /// Whether the vote was granted.
    pub granted: bool,
}

/// Content of [`Message::Append`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Append {
    /// The entry before the first one sent; the follower must hold it.
    pub prev: EntryId,
    /// Consecutive entries from `prev.index + 1` on; may be empty.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
}

/// Content of [`Message::Commit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Commit {
    /// This entry of the leader's log, and all before it, are committed. A log that holds it is the
    /// leader's up to there (log matching, thesis 3.5); to any other it says nothing.
    pub id: EntryId,
}

/// Content of [`Message::AppendResponse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AppendResponse {
    /// The sender durably holds the leader's log up to here.
    Accepted {
        /// Last index known to agree with the leader's log.
        matched: LogIndex,
    },
    /// The sender does not hold the entry before the ones sent.
    Rejected {
        /// Echo of `Append::prev.index`, so that the leader can tell an old answer from the one it
        /// waits for.
        prev: LogIndex,
        /// The newest entry of the sender that could agree with the leader: at or below `prev`, of
        /// a term not above that of the leader's `prev`. With it the leader skips a whole term per
        /// round trip.
        hint: EntryId,
        /// The sender's last index.
        last: LogIndex,
    },
}

/// Content of [`Message::Heartbeat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Heartbeat {
    /// The leader's commit index, but not above what this follower acknowledged.
    pub commit: LogIndex,
    /// The newest round of leadership confirmation. An answer proves that the sender followed this
    /// leader after the round began.
    pub round: u64,
}

/// Content of [`Message::HeartbeatResponse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HeartbeatResponse {
    /// Echo of [`Heartbeat::round`].
    pub round: u64,
    /// Age of the sender's oldest unfinished sync, so that a leader with a slow disk knows who has a
    /// better one. `u32::MAX`: the sender is not fit to lead, see
    /// [`Node::report_fit`](crate::Node::report_fit).
    pub oldest_sync_age_ticks: u32,
    /// The sender's [`Config::priority`](crate::Config::priority), so that a leader knows whom to hand
    /// over to.
    pub priority: u32,
}

/// Content of [`Message::InstallSnapshot`].
///
/// The sending driver moves the snapshot's data together with this envelope, and reports the end of
/// the transfer with [`Node::on_snapshot_sent`](crate::Node::on_snapshot_sent). The receiving
/// driver steps its node with the envelope only after the data is staged on its disk.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InstallSnapshot {
    /// What the snapshot stands for. On the heap, so that the rare message that names one does not
    /// make all the others as large.
    pub meta: Box<SnapshotMeta>,
}

/// Content of [`Message::SnapshotResponse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotResponse {
    /// The sender durably holds everything up to here, be it by this snapshot or because it was
    /// further already.
    pub matched: LogIndex,
}

/// Content of [`Message::ReadIndex`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReadIndex {
    /// Names the request between these two nodes. It stands for all reads that waited at the
    /// follower when it was sent, and is made by the core, not by the driver.
    pub id: ReadId,
}

/// Content of [`Message::ReadIndexResponse`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReadIndexResponse {
    /// Echo of [`ReadIndex::id`].
    pub id: ReadId,
    /// Reads of that request are linearizable once this index is applied.
    pub index: LogIndex,
}

/// Content of [`Message::RepairAsk`]: which entries, and of which log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RepairAsk {
    /// Names the question.
    pub id: RepairId,
    /// First index asked for.
    pub first: LogIndex,
    /// Last index asked for.
    pub last: LogIndex,
    /// An entry of the log that is meant, at or above `first`: the first one asked for if its term
    /// is known, else the next one that is known. All logs that hold it are the same up to there
    /// (log matching, thesis 3.5).
    pub anchor: EntryId,
}

/// Content of [`Message::RepairAnswer`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RepairAnswer {
    /// Echo of the question.
    pub ask: RepairAsk,
    /// What the sender can say.
    pub outcome: RepairOutcome,
}

/// What the log of the one who was asked has of entries that another lost.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RepairOutcome {
    /// The sender's log holds the anchor, and these are the intact entries among those asked for,
    /// or the first of them.
    Have {
        /// Consecutive entries.
        entries: Vec<Entry>,
    },
    /// The sender's log begins later; it has a snapshot of committed state instead.
    Compacted {
        /// The last entry that the snapshot includes.
        snapshot: EntryId,
    },
    /// The sender knows its log, and it does not hold the anchor.
    Never {
        /// Term of what the sender's log holds at [`RepairAsk::first`]; none if it ends before.
        held: Option<Term>,
    },
    /// The sender's own copy is damaged or unknown.
    Maybe,
}

/// Content of [`Message::SnapshotAsk`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotAsk {
    /// The least index that the snapshot must include to be of use.
    pub covering: LogIndex,
}

/// Content of [`Message::Repairing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Repairing {
    /// How many entries are damaged.
    pub count: u64,
    /// Where the leader goes on sending: behind what the sender has of its log, or could compare.
    /// No acknowledgement.
    pub next: LogIndex,
}

impl Message {
    /// Whether only the leader of its term sends such a message: receiving one shows who the leader
    /// is.
    pub(crate) fn is_from_leader(&self) -> bool {
        match self {
            Message::Append(_)
            | Message::Commit(_)
            | Message::Heartbeat(_)
            | Message::InstallSnapshot(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow => true,
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::Vote(_)
            | Message::VoteResponse(_)
            | Message::AppendResponse(_)
            | Message::HeartbeatResponse(_)
            | Message::SnapshotResponse(_)
            | Message::ReadIndex(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::Repairing(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => false,
        }
    }

    /// Whether the envelope's term is one that would be, so that it says nothing about the sender's
    /// own term.
    pub(crate) fn has_future_term(&self) -> bool {
        matches!(
            self,
            Message::PreVote(_) | Message::PreVoteResponse(VoteResponse { granted: true })
        )
    }

    /// The snapshot whose data has to move together with this message, if it is about one. A
    /// receiving driver steps the message only when the data is staged on its disk.
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        match self {
            Message::InstallSnapshot(install) | Message::RepairSnapshot(install) => {
                Some(&install.meta)
            }
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::Vote(_)
            | Message::VoteResponse(_)
            | Message::Append(_)
            | Message::AppendResponse(_)
            | Message::Heartbeat(_)
            | Message::HeartbeatResponse(_)
            | Message::SnapshotResponse(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::Repairing(_)
            | Message::SnapshotAsk(_)
            | Message::Commit(_) => None,
        }
    }

    /// The name of the kind, as in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Message::PreVote(_) => "PreVote",
            Message::PreVoteResponse(_) => "PreVoteResponse",
            Message::Vote(_) => "Vote",
            Message::VoteResponse(_) => "VoteResponse",
            Message::Append(_) => "Append",
            Message::AppendResponse(_) => "AppendResponse",
            Message::Heartbeat(_) => "Heartbeat",
            Message::HeartbeatResponse(_) => "HeartbeatResponse",
            Message::InstallSnapshot(_) => "InstallSnapshot",
            Message::SnapshotResponse(_) => "SnapshotResponse",
            Message::ReadIndex(_) => "ReadIndex",
            Message::ReadIndexResponse(_) => "ReadIndexResponse",
            Message::TimeoutNow => "TimeoutNow",
            Message::RepairAsk(_) => "RepairAsk",
            Message::RepairAnswer(_) => "RepairAnswer",
            Message::Repairing(_) => "Repairing",
            Message::SnapshotAsk(_) => "SnapshotAsk",
            Message::RepairSnapshot(_) => "RepairSnapshot",
            Message::Commit(_) => "Commit",
        }
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} {}{{term {}",
            self.from,
            self.to,
            self.message.name(),
            self.term
        )?;
        self.message.fmt_fields(f)?;
        f.write_str("}")
    }
}

impl Message {
    fn fmt_fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::PreVote(request) | Message::Vote(request) => {
                write!(f, ", last {}", request.last)?;
                f.write_str(if request.transfer { ", transfer" } else { "" })?;
                write_unless_zero(f, "priority", request.priority)
            }
            Message::PreVoteResponse(response) | Message::VoteResponse(response) => {
                f.write_str(if response.granted {
                    ", granted"
                } else {
                    ", refused"
                })
            }
            Message::Append(append) => append.fmt_fields(f),
            Message::AppendResponse(AppendResponse::Accepted { matched }) => {
                write!(f, ", matched {matched}")
            }
            Message::AppendResponse(AppendResponse::Rejected { prev, hint, last }) => {
                write!(f, ", rejected {prev}, hint {hint}, last {last}")
            }
            Message::Heartbeat(heartbeat) => write!(
                f,
                ", commit {}, round {}",
                heartbeat.commit, heartbeat.round
            ),
            Message::HeartbeatResponse(response) => {
                write!(f, ", round {}", response.round)?;
                write_unless_zero(f, "sync age", response.oldest_sync_age_ticks)?;
                write_unless_zero(f, "priority", response.priority)
            }
            Message::InstallSnapshot(install) | Message::RepairSnapshot(install) => {
                write!(f, ", {}", install.meta)
            }
            Message::SnapshotResponse(response) => write!(f, ", matched {}", response.matched),
            Message::ReadIndex(_) => Ok(()),
            Message::ReadIndexResponse(response) => write!(f, ", index {}", response.index),
            Message::TimeoutNow => Ok(()),
            Message::RepairAsk(ask) => write!(f, ", {ask}"),
            Message::RepairAnswer(answer) => write!(f, ", {}: {}", answer.ask, answer.outcome),
            Message::Repairing(repairing) => {
                write!(f, ", {} damaged, next {}", repairing.count, repairing.next)
            }
            Message::SnapshotAsk(ask) => write!(f, ", covering {}", ask.covering),
            Message::Commit(commit) => write!(f, ", {}", commit.id),
        }
    }
}

impl Append {
    fn fmt_fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", prev {}, [", self.prev)?;
        write_spaced(f, &self.entries)?;
        write!(f, "], commit {}", self.commit)
    }
}

impl fmt::Display for RepairAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={} of {}", self.first, self.last, self.anchor)
    }
}

impl fmt::Display for RepairOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepairOutcome::Have { entries } => {
                f.write_str("have [")?;
                write_spaced(f, entries)?;
                f.write_str("]")
            }
            RepairOutcome::Compacted { snapshot } => write!(f, "compacted up to {snapshot}"),
            RepairOutcome::Never { held: Some(term) } => write!(f, "never, term {term} instead"),
            RepairOutcome::Never { held: None } => f.write_str("never, ends before"),
            RepairOutcome::Maybe => f.write_str("maybe"),
        }
    }
}
