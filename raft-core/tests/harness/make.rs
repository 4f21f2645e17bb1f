//! Short ways to write ids, entries and messages.

use bytes::Bytes;
use raft_core::{
    Append, AppendResponse, Configuration, Entry, EntryId, Envelope, LogIndex, Message, NodeId,
    Proposal, RepairAnswer, RepairAsk, RepairId, RepairOutcome, Term,
};

use super::Cluster;

pub(crate) fn id(id: u64) -> NodeId {
    NodeId(id)
}

pub(crate) fn index(index: u64) -> LogIndex {
    LogIndex(index)
}

pub(crate) fn entry_id(index: u64, term: u64) -> EntryId {
    EntryId {
        index: LogIndex(index),
        term: Term(term),
    }
}

/// A command with a payload that shows in transcripts.
pub(crate) fn command(index: u64, term: u64, payload: &str) -> Entry {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let checksum = checksum(&payload);
    let kind = raft_core::EntryKind::Command;
    Entry {
        index: LogIndex(index),
        term: Term(term),
        kind,
        payload,
        checksum,
    }
}

/// A message made by hand.
pub(crate) fn envelope(from: u64, to: u64, term: u64, message: Message) -> Envelope {
    Envelope {
        from: id(from),
        to: id(to),
        term: Term(term),
        message,
    }
}

/// An append with entries after `prev`.
pub(crate) fn append(prev: EntryId, entries: Vec<Entry>, commit: u64) -> Message {
    Message::Append(Append {
        prev,
        entries,
        commit: index(commit),
    })
}

/// The answers of `from` that are on their way.
pub(crate) fn answers(cluster: &mut Cluster, from: u64) -> Vec<Message> {
    cluster
        .take(|envelope| envelope.from == id(from))
        .into_iter()
        .map(|envelope| envelope.message)
        .collect()
}

/// An acknowledgement up to `matched`.
pub(crate) fn accepted(matched: u64) -> Message {
    Message::AppendResponse(AppendResponse::Accepted {
        matched: index(matched),
    })
}

/// A question of a life that never was.
pub(crate) fn ask(first: u64, last: u64, anchor: EntryId) -> RepairAsk {
    RepairAsk {
        id: RepairId(1),
        first: index(first),
        last: index(last),
        anchor,
    }
}

pub(crate) fn answer(ask: RepairAsk, outcome: RepairOutcome) -> Message {
    Message::RepairAnswer(RepairAnswer { ask, outcome })
}

/// A configuration as an entry.
pub(crate) fn configuration_entry(at: u64, term: u64, configuration: &Configuration) -> Entry {
    let payload = Bytes::from(configuration.encode());
    let checksum = checksum(&payload);
    Entry {
        index: index(at),
        term: Term(term),
        kind: raft_core::EntryKind::Configuration,
        payload,
        checksum,
    }
}

/// Any checksum will do: the core only carries it.
pub(crate) fn checksum(payload: &[u8]) -> u32 {
    payload.iter().map(|byte| u32::from(*byte) + 1).sum()
}

pub(crate) fn proposal(payload: &str) -> Proposal {
    Proposal {
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        checksum: checksum(payload.as_bytes()),
    }
}

/// A configuration as it is proposed.
pub(crate) fn configuration_proposal(configuration: &Configuration) -> Proposal {
    let payload = Bytes::from(configuration.encode());
    let checksum = checksum(&payload);
    Proposal { payload, checksum }
}
