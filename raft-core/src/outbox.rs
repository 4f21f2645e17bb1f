//! What a node has to say and has not said yet.

use alloc::vec::Vec;

use crate::{
    AppendResponse, Envelope, Event, Fetch, HardState, LogIndex, Message, NodeId, ReadId,
    ReadState, Term, VoteResponse,
};

/// Output that waits for the next [`Ready`](crate::Ready).
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    messages: Vec<Envelope>,
    pub(crate) read_states: Vec<ReadState>,
    pub(crate) read_failures: Vec<ReadId>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) events: Vec<Event>,
}

/// What the disk holds for certain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durable {
    pub(crate) hard_state: HardState,
    pub(crate) log: LogIndex,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.len() + self.events.len() + self.reports() == 0
    }

    /// Whether there is something beside messages and events, which is rare.
    pub(crate) fn has_reports(&self) -> bool {
        self.reports() > 0
    }

    fn reports(&self) -> usize {
        self.read_states.len() + self.read_failures.len() + self.fetches.len()
    }

    #[inline]
    pub(crate) fn send(&mut self, envelope: Envelope) {
        if let Message::AppendResponse(AppendResponse::Accepted { matched }) = envelope.message
            && self.merge_acceptance(envelope.to, envelope.term, matched)
        {
            return;
        }
        self.messages.push(envelope);
    }

    pub(crate) fn answer_read(&mut self, id: ReadId, index: LogIndex) {
        self.read_states.push(ReadState { id, index });
    }

    /// One acknowledgement answers all appends of one turn: the furthest one says it all.
    fn merge_acceptance(&mut self, to: NodeId, term: Term, matched: LogIndex) -> bool {
        let to_same = |queued: &&mut Envelope| queued.to == to && queued.term == term;
        for queued in self.messages.iter_mut().rev().filter(to_same) {
            if let Message::AppendResponse(AppendResponse::Accepted { matched: earlier }) =
                &mut queued.message
            {
                *earlier = (*earlier).max(matched);
                return true;
            }
        }
        false
    }

    /// Forgets what was to be said in a term that is over. Some of it promised state of that term
    /// which now will never reach the disk, and nobody needs the rest.
    pub(crate) fn forget_messages(&mut self) {
        self.messages.clear();
    }

    /// All messages, divided into those that may leave `now` and those that must wait for what is on
    /// its way to the disk. Both vectors come empty.
    #[inline]
    pub(crate) fn take_messages(
        &mut self,
        durable: Durable,
        now: &mut Vec<Envelope>,
        after_sync: &mut Vec<Envelope>,
    ) {
        let Some((first, others)) = self.messages.split_first() else {
            return;
        };
        let leaves = may_leave(first, durable);
        // Mostly they are all of one kind, and then the vector is handed over as it is.
        if others.iter().all(|it| may_leave(it, durable) == leaves) {
            let part = if leaves { now } else { after_sync };
            core::mem::swap(&mut self.messages, part);
            return;
        }
        for envelope in self.messages.drain(..) {
            let part = if may_leave(&envelope, durable) {
                &mut *now
            } else {
                &mut *after_sync
            };
            part.push(envelope);
        }
    }
}

/// Whether everything that `envelope` promises is on disk.
fn may_leave(envelope: &Envelope, durable: Durable) -> bool {
    // A message shows its sender's term, and whoever acts on it must be able to rely on that: n1,
    // whose term 7 is not on disk, could come back in term 6 and vote there again.
    let term_is_durable = envelope.term <= durable.hard_state.term;
    match &envelope.message {
        Message::AppendResponse(AppendResponse::Accepted { matched }) => {
            term_is_durable && *matched <= durable.log
        }
        Message::SnapshotResponse(response) => term_is_durable && response.matched <= durable.log,
        // The candidate's vote for itself, and the log it boasts of.
        Message::Vote(_) => false,
        Message::VoteResponse(VoteResponse { granted: true }) => {
            durable.hard_state
                == HardState {
                    term: envelope.term,
                    vote: Some(envelope.to),
                }
        }
        // These show no term of the sender.
        Message::PreVote(_)
        | Message::PreVoteResponse(VoteResponse { granted: true })
        | Message::RepairAsk(_)
        | Message::RepairAnswer(_)
        | Message::SnapshotAsk(_) => true,
        Message::PreVoteResponse(VoteResponse { granted: false })
        | Message::VoteResponse(VoteResponse { granted: false })
        | Message::AppendResponse(AppendResponse::Rejected { .. })
        | Message::Append(_)
        | Message::Commit(_)
        | Message::Heartbeat(_)
        | Message::HeartbeatResponse(_)
        | Message::InstallSnapshot(_)
        | Message::ReadIndex(_)
        | Message::ReadIndexResponse(_)
        | Message::TimeoutNow
        | Message::Repairing(_)
        | Message::RepairSnapshot(_) => term_is_durable,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn accepted(matched: u64) -> Envelope {
        let matched = LogIndex(matched);
        Envelope {
            from: NodeId(1),
            to: NodeId(matched.0),
            term: Term(1),
            message: Message::AppendResponse(AppendResponse::Accepted { matched }),
        }
    }

    /// Which acceptances leave now and which after the sync, of a node whose log is on disk up to 4.
    fn divided(matched: &[u64]) -> (Vec<Envelope>, Vec<Envelope>) {
        let durable = Durable {
            hard_state: HardState {
                term: Term(1),
                vote: None,
            },
            log: LogIndex(4),
        };
        let mut outbox = Outbox::default();
        matched
            .iter()
            .for_each(|matched| outbox.send(accepted(*matched)));
        let (mut now, mut after_sync) = (Vec::new(), Vec::new());
        outbox.take_messages(durable, &mut now, &mut after_sync);
        assert!(outbox.is_empty());
        (now, after_sync)
    }

    #[test]
    fn messages_are_divided_by_what_they_promise() {
        assert_eq!(divided(&[]), (vec![], vec![]));
        assert_eq!(divided(&[3, 4]), (vec![accepted(3), accepted(4)], vec![]));
        assert_eq!(divided(&[5, 6]), (vec![], vec![accepted(5), accepted(6)]));
        let mixed = (
            vec![accepted(4), accepted(2)],
            vec![accepted(5), accepted(7)],
        );
        assert_eq!(divided(&[5, 4, 7, 2]), mixed);
    }
}
