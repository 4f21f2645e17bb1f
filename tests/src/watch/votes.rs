//! One vote in a term, whatever happened to the voter in between (thesis 3.4, 3.8).

use std::collections::BTreeMap;

use raft_core::{Message, NodeId, Term};

use super::{Logs, Seen, Watcher};

/// Whom a message gives the vote of its sender.
fn vote_in(message: &Message, sender: NodeId, receiver: NodeId) -> Option<NodeId> {
    if let Message::Vote(_) = message {
        return Some(sender); // Who asks for votes has given its own.
    }
    if let Message::VoteResponse(response) = message
        && response.granted
    {
        return Some(receiver);
    }
    None
}

/// Remembers every vote that left its voter.
#[derive(Clone, Debug, Default)]
pub struct Votes(BTreeMap<(NodeId, Term), NodeId>);

impl Watcher for Votes {
    const RULE: &'static str = "one vote";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, _: &Logs) -> Result<(), String> {
        let Seen::Sends(envelope) = seen else {
            return Ok(());
        };
        let Some(candidate) = vote_in(&envelope.message, node, envelope.to) else {
            return Ok(());
        };
        let before = *self.0.entry((node, envelope.term)).or_insert(candidate);
        if before != candidate {
            return Err(format!(
                "voted for {candidate} in {}, and for {before} before",
                envelope.term
            ));
        }
        Ok(())
    }
}
