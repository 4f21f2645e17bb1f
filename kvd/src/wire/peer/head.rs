//! The heads of consensus messages.
//!
//! These mirror the messages of the consensus crate, so that its types can change without changing what travels: enums are
//! append-only, structs keep their fields.

use raft_core::{
    Append, AppendResponse, Commit, Entry, EntryId, Envelope, Heartbeat, HeartbeatResponse,
    InstallSnapshot, LogIndex, Message, NodeId, ReadId, ReadIndex, ReadIndexResponse,
    SnapshotResponse, Term, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

mod repair;

use self::repair::{Ask, Meta, RepairHead};
use super::WireError;

/// An envelope without its entries.
#[derive(Serialize, Deserialize)]
pub(super) struct RaftHead<'a> {
    from: u64,
    to: u64,
    term: u64,
    #[serde(borrow)]
    message: MessageHead<'a>,
}

#[derive(Serialize, Deserialize)]
struct Id {
    index: u64,
    term: u64,
}

/// A message without its entries, whose number it gives.
#[derive(Serialize, Deserialize)]
enum MessageHead<'a> {
    PreVote {
        last: Id,
        transfer: bool,
        priority: u32,
    },
    PreVoteResponse {
        granted: bool,
    },
    Vote {
        last: Id,
        transfer: bool,
        priority: u32,
    },
    VoteResponse {
        granted: bool,
    },
    Append {
        prev: Id,
        commit: u64,
        entries: u32,
    },
    AppendAccepted {
        matched: u64,
    },
    AppendRejected {
        prev: u64,
        hint: Id,
        last: u64,
    },
    Heartbeat {
        commit: u64,
        round: u64,
    },
    HeartbeatResponse {
        round: u64,
        oldest_sync_age_ticks: u32,
        priority: u32,
    },
    InstallSnapshot {
        #[serde(borrow)]
        meta: Meta<'a>,
    },
    SnapshotResponse {
        matched: u64,
    },
    ReadIndex {
        id: u64,
    },
    ReadIndexResponse {
        id: u64,
        index: u64,
    },
    TimeoutNow,
    Repair(#[serde(borrow)] RepairHead<'a>),
    Commit {
        id: Id,
    },
}

/// The configuration in a message, encoded; empty if there is none.
pub(super) fn configuration_bytes(message: &Message) -> Vec<u8> {
    let snapshot = message.snapshot();
    snapshot.map_or_else(Vec::new, |meta| meta.configuration.encode())
}

impl<'a> RaftHead<'a> {
    /// The head and the entries that follow it. `configuration` is what [`configuration_bytes`] made of the message.
    pub(super) fn of<'e>(
        envelope: &'e Envelope,
        configuration: &'a [u8],
    ) -> (RaftHead<'a>, &'e [Entry]) {
        let (message, entries) = MessageHead::of(&envelope.message, configuration);
        let head = RaftHead {
            from: envelope.from.0,
            to: envelope.to.0,
            term: envelope.term.0,
            message,
        };
        (head, entries)
    }

    /// How many records follow.
    pub(super) fn entry_count(&self) -> u32 {
        match &self.message {
            MessageHead::Append { entries, .. } => *entries,
            MessageHead::Repair(repair) => repair.entry_count(),
            MessageHead::PreVote { .. }
            | MessageHead::PreVoteResponse { .. }
            | MessageHead::Vote { .. }
            | MessageHead::VoteResponse { .. }
            | MessageHead::AppendAccepted { .. }
            | MessageHead::AppendRejected { .. }
            | MessageHead::Heartbeat { .. }
            | MessageHead::HeartbeatResponse { .. }
            | MessageHead::InstallSnapshot { .. }
            | MessageHead::SnapshotResponse { .. }
            | MessageHead::ReadIndex { .. }
            | MessageHead::ReadIndexResponse { .. }
            | MessageHead::TimeoutNow
            | MessageHead::Commit { .. } => 0,
        }
    }

    /// The envelope with the entries that followed.
    pub(super) fn into_envelope(self, entries: Vec<Entry>) -> Result<Envelope, WireError> {
        Ok(Envelope {
            from: NodeId(self.from),
            to: NodeId(self.to),
            term: Term(self.term),
            message: self.message.into_message(entries)?,
        })
    }
}

impl<'a> MessageHead<'a> {
    fn of<'e>(message: &'e Message, configuration: &'a [u8]) -> (MessageHead<'a>, &'e [Entry]) {
        let head = match message {
            Message::Append(append) => {
                let head = MessageHead::Append {
                    prev: id(append.prev),
                    commit: append.commit.0,
                    entries: count(&append.entries),
                };
                return (head, &append.entries);
            }
            Message::RepairAnswer(answer) => {
                let (head, entries) = RepairHead::of_answer(answer);
                return (MessageHead::Repair(head), entries);
            }
            Message::PreVote(vote) => MessageHead::PreVote {
                last: id(vote.last),
                transfer: vote.transfer,
                priority: vote.priority,
            },
            Message::PreVoteResponse(response) => MessageHead::PreVoteResponse {
                granted: response.granted,
            },
            Message::Vote(vote) => MessageHead::Vote {
                last: id(vote.last),
                transfer: vote.transfer,
                priority: vote.priority,
            },
            Message::VoteResponse(response) => MessageHead::VoteResponse {
                granted: response.granted,
            },
            Message::AppendResponse(AppendResponse::Accepted { matched }) => {
                MessageHead::AppendAccepted { matched: matched.0 }
            }
            Message::AppendResponse(AppendResponse::Rejected { prev, hint, last }) => {
                MessageHead::AppendRejected {
                    prev: prev.0,
                    hint: id(*hint),
                    last: last.0,
                }
            }
            Message::Heartbeat(beat) => MessageHead::Heartbeat {
                commit: beat.commit.0,
                round: beat.round,
            },
            Message::HeartbeatResponse(response) => MessageHead::HeartbeatResponse {
                round: response.round,
                oldest_sync_age_ticks: response.oldest_sync_age_ticks,
                priority: response.priority,
            },
            Message::InstallSnapshot(install) => MessageHead::InstallSnapshot {
                meta: Meta::of(&install.meta, configuration),
            },
            Message::SnapshotResponse(response) => MessageHead::SnapshotResponse {
                matched: response.matched.0,
            },
            Message::ReadIndex(read) => MessageHead::ReadIndex { id: read.id.0 },
            Message::ReadIndexResponse(read) => MessageHead::ReadIndexResponse {
                id: read.id.0,
                index: read.index.0,
            },
            Message::TimeoutNow => MessageHead::TimeoutNow,
            Message::Commit(commit) => MessageHead::Commit { id: id(commit.id) },
            Message::RepairAsk(ask) => MessageHead::Repair(RepairHead::Ask(Ask::of(ask))),
            Message::Repairing(repairing) => MessageHead::Repair(RepairHead::Repairing {
                count: repairing.count,
                next: repairing.next.0,
            }),
            Message::SnapshotAsk(ask) => MessageHead::Repair(RepairHead::SnapshotAsk {
                covering: ask.covering.0,
            }),
            Message::RepairSnapshot(install) => MessageHead::Repair(RepairHead::Snapshot {
                meta: Meta::of(&install.meta, configuration),
            }),
        };
        (head, &[])
    }

    fn into_message(self, entries: Vec<Entry>) -> Result<Message, WireError> {
        Ok(match self {
            MessageHead::PreVote {
                last,
                transfer,
                priority,
            } => Message::PreVote(VoteRequest {
                last: last.into(),
                transfer,
                priority,
            }),
            MessageHead::PreVoteResponse { granted } => {
                Message::PreVoteResponse(VoteResponse { granted })
            }
            MessageHead::Vote {
                last,
                transfer,
                priority,
            } => Message::Vote(VoteRequest {
                last: last.into(),
                transfer,
                priority,
            }),
            MessageHead::VoteResponse { granted } => {
                Message::VoteResponse(VoteResponse { granted })
            }
            MessageHead::Append {
                prev,
                commit,
                entries: _,
            } => Message::Append(Append {
                prev: prev.into(),
                entries,
                commit: LogIndex(commit),
            }),
            MessageHead::AppendAccepted { matched } => {
                Message::AppendResponse(AppendResponse::Accepted {
                    matched: LogIndex(matched),
                })
            }
            MessageHead::AppendRejected { prev, hint, last } => {
                Message::AppendResponse(AppendResponse::Rejected {
                    prev: LogIndex(prev),
                    hint: hint.into(),
                    last: LogIndex(last),
                })
            }
            MessageHead::Heartbeat { commit, round } => Message::Heartbeat(Heartbeat {
                commit: LogIndex(commit),
                round,
            }),
            MessageHead::HeartbeatResponse {
                round,
                oldest_sync_age_ticks,
                priority,
            } => Message::HeartbeatResponse(HeartbeatResponse {
                round,
                oldest_sync_age_ticks,
                priority,
            }),
            MessageHead::InstallSnapshot { meta } => {
                let meta = Box::new(meta.decode()?);
                Message::InstallSnapshot(InstallSnapshot { meta })
            }
            MessageHead::SnapshotResponse { matched } => {
                Message::SnapshotResponse(SnapshotResponse {
                    matched: LogIndex(matched),
                })
            }
            MessageHead::ReadIndex { id } => Message::ReadIndex(ReadIndex { id: ReadId(id) }),
            MessageHead::ReadIndexResponse { id, index } => {
                Message::ReadIndexResponse(ReadIndexResponse {
                    id: ReadId(id),
                    index: LogIndex(index),
                })
            }
            MessageHead::TimeoutNow => Message::TimeoutNow,
            MessageHead::Commit { id } => Message::Commit(Commit { id: id.into() }),
            MessageHead::Repair(repair) => repair.into_message(entries)?,
        })
    }
}

fn id(id: EntryId) -> Id {
    Id {
        index: id.index.0,
        term: id.term.0,
    }
}

impl From<Id> for EntryId {
    fn from(id: Id) -> EntryId {
        EntryId {
            index: LogIndex(id.index),
            term: Term(id.term),
        }
    }
}

fn count(entries: &[Entry]) -> u32 {
    u32::try_from(entries.len()).expect("one message is bounded in bytes, far below 2^32 entries")
}
