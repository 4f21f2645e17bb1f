//! Durable first: a message leaves only after the state that it promises is on the disk of its sender.

use raft_core::{AppendResponse, Envelope, LogIndex, Message, NodeId};

use super::{Logs, Seen, Watcher};

/// Holds each message against the disk of its sender.
#[derive(Clone, Debug, Default)]
pub struct DurableFirst;

impl Watcher for DurableFirst {
    const RULE: &'static str = "durable first";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let Seen::Sends(envelope) = seen else {
            return Ok(());
        };
        match &envelope.message {
            // These carry a term that would be, or that nobody looks at.
            Message::PreVote(_)
            | Message::PreVoteResponse(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => Ok(()),
            Message::Vote(_) => check_vote(node, node, envelope, logs),
            Message::VoteResponse(response) if response.granted => {
                check_vote(node, envelope.to, envelope, logs)
            }
            Message::AppendResponse(AppendResponse::Accepted { matched }) => {
                check_log(node, *matched, envelope, logs)
            }
            Message::SnapshotResponse(response) => {
                check_log(node, response.matched, envelope, logs)
            }
            Message::VoteResponse(_)
            | Message::AppendResponse(AppendResponse::Rejected { .. })
            | Message::Append(_)
            | Message::Heartbeat(_)
            | Message::HeartbeatResponse(_)
            | Message::InstallSnapshot(_)
            | Message::ReadIndex(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow
            | Message::Repairing(_)
            | Message::Commit(_) => check_term(node, envelope, logs),
        }
    }
}

fn check_term(node: NodeId, envelope: &Envelope, logs: &Logs) -> Result<(), String> {
    let durable = logs.hard_state(node).term;
    if durable < envelope.term {
        return Err(format!("{durable} is durable, and this leaves: {envelope}"));
    }
    Ok(())
}

fn check_vote(
    node: NodeId,
    candidate: NodeId,
    envelope: &Envelope,
    logs: &Logs,
) -> Result<(), String> {
    check_term(node, envelope, logs)?;
    let durable = logs.hard_state(node);
    if durable.term == envelope.term && durable.vote != Some(candidate) {
        return Err(format!(
            "{durable:?} is durable, and this leaves: {envelope}"
        ));
    }
    Ok(())
}

fn check_log(
    node: NodeId,
    matched: LogIndex,
    envelope: &Envelope,
    logs: &Logs,
) -> Result<(), String> {
    check_term(node, envelope, logs)?;
    if envelope.term < logs.hard_state(node).term {
        // The leader of a later term has replaced what was accepted, in the same sync. Whoever led the earlier term may
        // count this: had that made a quorum, the later leader would hold the entries, too.
        return Ok(());
    }
    let last = logs.durable(node).map(|log| log.last()).unwrap_or_default();
    if last < matched {
        return Err(format!(
            "entries up to {last} are durable, and this leaves: {envelope}"
        ));
    }
    Ok(())
}
