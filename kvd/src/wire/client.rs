//! The client protocol: one frame is one request or one response.
//!
//! A version byte, then postcard. Enums are append-only; a change of shape needs a new version. Many requests may be in
//! flight on one stream; answers come in any order and carry the id of their request.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::status::NodeStatus;
use crate::kv::command::{CommandResult, Custom, RangeQuery, RangeResult};
use crate::kv::envelope::SessionRef;
use crate::kv::limits::LimitError;
use crate::kv::members::{MEMBER_EDITS_CEILING, MemberState};
use crate::kv::{DecodeError, bounded::vec_at_most, codec};

#[cfg(test)]
pub(crate) mod tests;

/// Version of the protocol, in `Hello` and as the first byte of every frame.
pub const CLIENT_VERSION: u8 = 1;

/// The most members a frame may name.
pub const MEMBERS_CEILING: usize = 256;

/// A request on its way to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the client, unique among its requests in flight on this stream.
    pub id: u64,
    /// What is asked.
    pub body: Request,
}

impl RequestFrame {
    /// The bytes of the frame.
    pub fn encode(&self) -> Bytes {
        codec::encode(CLIENT_VERSION, self).into()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// The bytes are no request that this program knows.
    pub fn decode(frame: &[u8]) -> Result<RequestFrame, DecodeError> {
        codec::decode(CLIENT_VERSION, frame)
    }
}

/// A response on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// The id of the request.
    pub id: u64,
    /// The answer.
    pub body: Response,
}

impl ResponseFrame {
    /// The bytes of the frame.
    pub fn encode(&self) -> Bytes {
        codec::encode(CLIENT_VERSION, self).into()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// The bytes are no response that this program knows.
    pub fn decode(frame: &[u8]) -> Result<ResponseFrame, DecodeError> {
        codec::decode(CLIENT_VERSION, frame)
    }
}

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// At least as new as everything acknowledged before the question was asked.
    #[default]
    Linearizable,
    /// What the asked node happens to hold.
    Local,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// The first request on a stream. Answer: [`Response::Hello`].
    Hello {
        /// The newest version the client speaks.
        version: u16,
        /// Name and version of the client's program, for the server's log.
        program: String,
    },
    /// Opens or finds the session of this name. Answer: [`Response::SessionOpened`].
    OpenSession {
        /// 128 bits made by the client.
        name: u128,
    },
    /// A write. Answer: [`Response::Written`].
    Write {
        /// In which session.
        session: SessionRef,
        /// Position in the session; the first is 1.
        sequence: u64,
        /// Sequences below are done with.
        done_below: u64,
        /// An encoded [`Command`](crate::kv::command::Command).
        command: Bytes,
        /// [`command_crc`](crate::kv::command::command_crc) of it.
        crc: u32,
        /// How long the client waits.
        timeout_ms: u32,
    },
    /// A read. Answer: [`Response::Range`].
    Read {
        /// How fresh.
        consistency: Consistency,
        /// Of what.
        query: RangeQuery,
        /// How long the client waits.
        timeout_ms: u32,
    },
    /// The state of the asked node. Answer: [`Response::Status`].
    Status,
    /// The members of the cluster. Answer: [`Response::Members`].
    Members,
    /// Whether the cluster serves, as the asked node sees it. Answer: [`Response::Health`].
    Health,
    /// Takes a snapshot now and discards the log before it, on the asked node. Answer: [`Response::Done`].
    DiscardLog,
    /// Hands leadership over. Answer: [`Response::Done`].
    TransferLeader {
        /// To the node of this name; `None`: to the one best suited.
        to: Option<String>,
    },
    /// The members with all that the asked node knows of them. Answer: [`Response::MemberTable`].
    MemberTable,
    /// Changes the members, all in one step. Answer: [`Response::MembersChanged`], once the change is in force and committed:
    /// what was added is then a learner, and becomes a voter by itself. What is so already is no error, so it may be repeated.
    ChangeMembers {
        /// What changes; each member at most once.
        #[serde(deserialize_with = "vec_at_most::<_, _, MEMBER_EDITS_CEILING>")]
        changes: Vec<MemberChange>,
        /// Only say what would come of it.
        dry_run: bool,
        /// How long the client waits.
        timeout_ms: u32,
    },
    /// A question to a state machine of the user. Answer: [`Response::Replied`].
    Ask {
        /// How fresh.
        consistency: Consistency,
        /// The machine, and the encoded question in the place of a command.
        question: Custom,
        /// How long the client waits.
        timeout_ms: u32,
    },
    /// Reads the log of the asked node through, from its front to its end. Answer: [`Response::Scrubbed`]. What is damaged is
    /// asked for at the other nodes at once.
    Scrub,
}

impl Request {
    /// Whether an attempt that was never answered may have changed something.
    pub fn changes_something(&self) -> bool {
        match self {
            Request::Write { .. } | Request::ChangeMembers { dry_run: false, .. } => true,
            Request::Hello { .. }
            | Request::OpenSession { .. }
            | Request::Read { .. }
            | Request::Status
            | Request::Members
            | Request::Health
            | Request::DiscardLog
            | Request::Scrub
            | Request::TransferLeader { .. }
            | Request::MemberTable
            | Request::Ask { .. }
            | Request::ChangeMembers { dry_run: true, .. } => false,
        }
    }
}

/// What is to become of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MemberChange {
    /// A new node joins: as a learner, and as a voter by itself once it has caught up.
    Add(MemberAddress),
    /// A member leaves for good.
    Remove {
        /// Its name.
        name: String,
    },
    /// A learner becomes a voter now, or this is refused.
    Promote {
        /// Its name.
        name: String,
    },
    /// A new node joins and, once it has caught up, takes the place of a member, which leaves for good in the same step.
    Replace {
        /// Name of the one that leaves.
        old: String,
        /// The one that joins.
        new: MemberAddress,
    },
    /// A member is found elsewhere.
    Update {
        /// Its name.
        name: String,
        /// Where it is found: host and port.
        address: String,
    },
}

/// A member of the cluster and where it was last heard of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberAddress {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Host and port. A hint: identity is the certificate.
    pub address: String,
}

/// A member of the cluster and the part it has in decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Who and where.
    pub address: MemberAddress,
    /// It has a vote; otherwise it is a learner.
    pub voter: bool,
}

/// A member as the asked node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberLine {
    /// Who and where.
    pub address: MemberAddress,
    /// What has become of it.
    pub state: MemberState,
    /// Whose place it takes when it becomes a voter: a name.
    pub replaces: Option<String>,
    /// The asked node has a link to it, or is it.
    pub reachable: bool,
}

/// The arithmetic of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Quorum {
    /// Members that vote.
    pub voters: u32,
    /// How many of them are needed.
    pub quorum: u32,
    /// How many of them have a link to the asked node, itself included.
    pub reachable: u32,
    /// Members that do not vote, or not yet.
    pub learners: u32,
}

impl Quorum {
    /// How many voters may be lost before nothing can be written.
    pub fn spare(&self) -> u32 {
        self.reachable.saturating_sub(self.quorum)
    }
}

/// What decisions take, for people.
impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} voters", self.voters)?;
        match self.learners {
            0 => {}
            1 => f.write_str(" and 1 learner")?,
            count => write!(f, " and {count} learners")?,
        }
        if self.reachable < self.voters {
            write!(f, ", {} of them reached", self.reachable)?;
        }
        write!(
            f,
            "; quorum is {}, {} more may fail",
            self.quorum,
            self.spare()
        )
    }
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// The version that both speak.
        version: u16,
        /// The answering node's name.
        node: String,
        /// Its id.
        node_id: u64,
        /// The cluster's id.
        cluster: u32,
        /// The cluster's name.
        cluster_name: String,
        /// All members, the answering one too.
        #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
        members: Vec<MemberAddress>,
        /// Id of the leader it knows of.
        leader: Option<u64>,
    },
    /// To [`Request::OpenSession`].
    SessionOpened {
        /// The session's id.
        session: u64,
    },
    /// To [`Request::Write`]: committed and applied.
    Written {
        /// The session's id; 0 without a session.
        session: u64,
        /// What the command did.
        result: CommandResult,
    },
    /// To [`Request::Read`].
    Range {
        /// What was found.
        result: RangeResult,
        /// Index of the last entry applied when it was read.
        applied: u64,
        /// It may be stale: it was read with [`Consistency::Local`].
        local: bool,
    },
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// To [`Request::Members`].
    Members {
        /// All members.
        #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
        members: Vec<Member>,
        /// Id of the leader the node knows of.
        leader: Option<u64>,
    },
    /// To [`Request::Health`].
    Health {
        /// Writes are possible.
        healthy: bool,
        /// Why not, or what else is noteworthy; one line each.
        #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
        reasons: Vec<String>,
    },
    /// It was done.
    Done,
    /// It was not done, or nobody knows: see [`Refusal::outcome`].
    Refused(Refusal),
    /// To [`Request::MemberTable`].
    MemberTable {
        /// All members.
        #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
        members: Vec<MemberLine>,
        /// Id of the leader the node knows of.
        leader: Option<u64>,
        /// What decisions take now.
        quorum: Quorum,
    },
    /// To [`Request::ChangeMembers`]: in force and committed, or with `dry_run` possible.
    MembersChanged {
        /// What decisions took before.
        before: Quorum,
        /// What they take when all of it has happened: learners that are on their way count as voters.
        after: Quorum,
    },
    /// To [`Request::Ask`].
    Replied {
        /// The reply as the machine encodes it.
        reply: Bytes,
        /// Index of the last entry applied when the machine was asked.
        applied: u64,
        /// It may be stale: it was asked with [`Consistency::Local`].
        local: bool,
    },
    /// To [`Request::Scrub`].
    Scrubbed(ScrubReport),
}

/// What a log was found to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Entries that were read.
    pub entries: u64,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// Places that are damaged: entries, and whatever else has a checksum.
    pub damaged: u64,
    /// The first entry among them.
    pub first_damaged: Option<u64>,
}

/// What is known about a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// This attempt never took effect and never will.
    Definite,
    /// It may have taken effect, or may still.
    Unknown,
}

/// Why a request was not answered with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Ask the leader.
    #[error("not the leader{}", .leader.as_ref().map_or(String::new(), |leader| format!("; that is {}", leader.name)))]
    NotLeader {
        /// Who leads, if the node knows.
        leader: Option<MemberAddress>,
    },
    /// Nobody leads.
    #[error("no leader: {detail}")]
    NoLeader {
        /// What the node knows of it.
        detail: String,
    },
    /// Too few members answer.
    #[error("no quorum: {reachable} of {quorum} needed: {detail}")]
    NoQuorum {
        /// Voters that answer, this node too.
        reachable: u32,
        /// Voters that are needed.
        quorum: u32,
        /// Who does not answer, and why.
        detail: String,
    },
    /// A bounded queue is full.
    #[error("overloaded: {what}, limit {limit}")]
    Overloaded {
        /// Which queue.
        what: String,
        /// Its limit.
        limit: u64,
    },
    /// Beyond a limit.
    #[error("{what} of {bytes} is beyond the limit of {limit}")]
    TooLarge {
        /// What it is: `key`, `value`, `request`, `transaction`, `command`, `reply`.
        what: String,
        /// Its size in bytes (of a transaction: its steps).
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// No disk space.
    #[error("no space left on the disk of the leader")]
    NoSpace,
    /// The principal may not do this.
    #[error("not authorised: {why}")]
    NotAuthorised {
        /// Which right is missing.
        why: String,
    },
    /// Cannot be understood or makes no sense.
    #[error("bad request: {why}")]
    BadRequest {
        /// What is wrong with it.
        why: String,
    },
    /// The session is not known (any more). The command was not executed now; an earlier attempt may have been.
    #[error("session expired")]
    SessionExpired,
    /// An earlier sequence of the session is missing. Send the missing ones, then this one again.
    #[error("an earlier sequence of the session is missing")]
    SequenceGap,
    /// The sequence was used for another command.
    #[error("the sequence was used for another command")]
    SequenceReused,
    /// The command does not match the client's checksum. Sending it again is safe.
    #[error("the command does not match its checksum")]
    CommandCorrupt,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The node does not know this request.
    #[error("not supported by this node")]
    Unsupported,
    /// It was proposed, and then lost sight of.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// What happened.
        why: String,
    },
    /// The client has declared this sequence done, so its result is gone. An earlier attempt may have been executed.
    #[error("the client has declared this sequence done")]
    SequenceDone,
    /// The change does not fit the members.
    #[error("the members stay as they are: {why}")]
    MembersRefused {
        /// What does not fit.
        why: String,
    },
    /// Members change one step after the other. Ask again in a moment.
    #[error("the members cannot be changed now: {why}")]
    MembersBusy {
        /// What is under way.
        why: String,
    },
    /// After the change nothing could be decided.
    #[error(
        "the change would lose the quorum: {reachable} of the {quorum} voters needed afterwards can be reached: {detail}"
    )]
    QuorumAtRisk {
        /// Voters of the new configuration that the leader reaches, itself included.
        reachable: u32,
        /// Voters that would be needed.
        quorum: u32,
        /// Who is not reached.
        detail: String,
    },
    /// The node does not have the state machine that the request is for, or one of a lower version.
    #[error("state machine {machine} of version {version} is needed, the node has {}", .known.map_or("none".into(), |known| format!("version {known}")))]
    NoMachine {
        /// Its name.
        machine: String,
        /// The version that is needed.
        version: u32,
        /// The version that the node has.
        known: Option<u32>,
    },
}

impl From<LimitError> for Refusal {
    fn from(error: LimitError) -> Refusal {
        match error {
            LimitError::EmptyKey => Refusal::BadRequest {
                why: error.to_string(),
            },
            LimitError::TooLarge { what, size, limit } => Refusal::TooLarge {
                what: what.into(),
                bytes: size,
                limit,
            },
        }
    }
}

impl Refusal {
    /// What is known about this attempt. An operation has failed only if each of its attempts was definitely refused.
    pub fn outcome(&self) -> Outcome {
        match self {
            Refusal::SessionExpired | Refusal::SequenceDone | Refusal::OutcomeUnknown { .. } => {
                Outcome::Unknown
            }
            Refusal::NotLeader { .. }
            | Refusal::NoLeader { .. }
            | Refusal::NoQuorum { .. }
            | Refusal::Overloaded { .. }
            | Refusal::TooLarge { .. }
            | Refusal::NoSpace
            | Refusal::NotAuthorised { .. }
            | Refusal::BadRequest { .. }
            | Refusal::SequenceGap
            | Refusal::SequenceReused
            | Refusal::CommandCorrupt
            | Refusal::Stopping
            | Refusal::Unsupported
            | Refusal::MembersRefused { .. }
            | Refusal::MembersBusy { .. }
            | Refusal::NoMachine { .. }
            | Refusal::QuorumAtRisk { .. } => Outcome::Definite,
        }
    }
}
