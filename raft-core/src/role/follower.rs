//! Following a leader, or waiting for one.

use alloc::vec::Vec;

use super::Next;
use crate::core::Core;
use crate::read_index::ForwardedReads;
use crate::{
    Append, AppendResponse, Configuration, Entry, EntryId, EntryKind, Event, Heartbeat,
    HeartbeatResponse, LogIndex, Message, NodeId, ReadError, ReadId, ReadIndex, ReadIndexResponse,
    Reason, Rejected, SnapshotMeta, SnapshotResponse, Storage,
};

/// What only a follower knows.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) leader: Option<NodeId>,
    pub(crate) reads: ForwardedReads,
}

impl Follower {
    pub(crate) fn new(leader: Option<NodeId>) -> Follower {
        Follower {
            leader,
            reads: ForwardedReads::default(),
        }
    }

    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        message: Message,
    ) -> Result<Next, Rejected> {
        match message {
            Message::Vote(request) => {
                core.answer_vote(from, request, self.leader);
                Ok(Next::Stay)
            }
            Message::Append(append) => handle_append(core, from, append),
            Message::Heartbeat(heartbeat) => handle_heartbeat(core, from, heartbeat),
            Message::InstallSnapshot(install) => handle_snapshot(core, from, *install.meta),
            Message::ReadIndexResponse(response) => self.handle_read_index(core, response),
            Message::TimeoutNow if core.is_promotable() => Ok(Next::Stand(Reason::Transfer)),
            Message::TimeoutNow => Err(Rejected::NotVoter),
            Message::PreVoteResponse(_) | Message::VoteResponse(_) => Err(Rejected::Unasked),
            Message::AppendResponse(_)
            | Message::HeartbeatResponse(_)
            | Message::SnapshotResponse(_)
            | Message::ReadIndex(_) => Err(Rejected::NotLeader),
            Message::PreVote(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::Repairing(_) => {
                unreachable!("handled at the gate")
            }
        }
    }

    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        core.timer.elapsed = core.timer.elapsed.saturating_add(1);
        // A request or its answer may have got lost. It is not sent again, because the driver can
        // do that as well, and knows how long its client still waits.
        let expired = self.reads.tick(core.config.election_timeout_ticks);
        core.outbox.read_failures.extend(expired);
        if core.timer.elapsed >= core.timer.timeout && core.is_promotable() {
            Next::Campaign(Reason::ElectionTimeout)
        } else {
            Next::Stay
        }
    }

    pub(crate) fn read_index<S: Storage>(
        &mut self,
        core: &Core<S>,
        id: ReadId,
    ) -> Result<(), ReadError> {
        if self.leader.is_none() {
            return Err(ReadError::NoLeader { term: core.term() });
        }
        core.check_read_limit(self.reads.pending())?;
        self.reads.add(id);
        Ok(())
    }

    /// Sends one request to the leader for all reads that came in.
    pub(crate) fn flush<S: Storage>(&mut self, core: &mut Core<S>) {
        if !self.reads.has_waiting() {
            return;
        }
        let leader = self.leader.expect("reads wait only under a leader");
        let id = core.next_forward;
        core.next_forward = ReadId(id.0.wrapping_add(1));
        self.reads.send(id);
        core.send(leader, Message::ReadIndex(ReadIndex { id }));
    }

    fn handle_read_index<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        response: ReadIndexResponse,
    ) -> Result<Next, Rejected> {
        let reads = self.reads.answered(response.id).ok_or(Rejected::Unasked)?;
        for read in reads {
            core.outbox.answer_read(read, response.index);
        }
        Ok(Next::Stay)
    }
}

fn handle_heartbeat<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    heartbeat: Heartbeat,
) -> Result<Next, Rejected> {
    let last = core.log.last_index();
    // The leader names nothing as committed here that this node did not acknowledge, so its log
    // went back. Taking over the index would declare committed whatever lies there.
    if heartbeat.commit > last {
        return Err(Rejected::CommitBeyondLog {
            commit: heartbeat.commit,
            last,
        });
    }
    core.log.commit_to(heartbeat.commit);
    let answer = HeartbeatResponse {
        round: heartbeat.round,
        oldest_sync_age_ticks: 0,
    };
    core.send(from, Message::HeartbeatResponse(answer));
    Ok(Next::Stay)
}

fn handle_append<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    append: Append,
) -> Result<Next, Rejected> {
    let committed = core.log.committed();
    let answer = if append.prev.index < committed {
        let rest = skip_committed(core, append.entries)?;
        let term = core
            .log
            .term(committed)
            .expect("the last committed entry is never compacted before it is applied");
        accept(
            core,
            EntryId {
                index: committed,
                term,
            },
            rest,
            append.commit,
        )
    } else if core.log.holds(append.prev) {
        accept(core, append.prev, append.entries, append.commit)
    } else {
        let last = core.log.last_index();
        let hint = core
            .log
            .newest_not_above(append.prev.index, append.prev.term);
        AppendResponse::Rejected {
            prev: append.prev.index,
            hint,
            last,
        }
    };
    core.send(from, Message::AppendResponse(answer));
    Ok(Next::Stay)
}

/// Leaves out what is committed here, which the log of every later leader holds (leader
/// completeness).
fn skip_committed<S: Storage>(core: &Core<S>, entries: Vec<Entry>) -> Result<Vec<Entry>, Rejected> {
    let committed = core.log.committed();
    let differs = |entry: &&Entry| {
        core.log
            .term(entry.index)
            .is_some_and(|term| term != entry.term)
    };
    let known = entries.iter().take_while(|entry| entry.index <= committed);
    if let Some(entry) = known.clone().find(differs) {
        return Err(Rejected::CommittedConflict {
            conflict: entry.id(),
            committed,
        });
    }
    let count = known.count();
    Ok(entries.into_iter().skip(count).collect())
}

/// Appends entries after `prev`, which this log holds. What is already there stays, and the rest of
/// the log with it: an old, shorter append must not cut off what a newer one brought and this node
/// acknowledged.
fn accept<S: Storage>(
    core: &mut Core<S>,
    prev: EntryId,
    entries: Vec<Entry>,
    commit: LogIndex,
) -> AppendResponse {
    let matched = entries.last().map_or(prev.index, |entry| entry.index);
    let present = entries
        .iter()
        .take_while(|entry| core.log.holds(entry.id()))
        .count();
    if let Some(first_new) = entries.get(present).map(Entry::id) {
        if first_new.index <= core.log.last_index() {
            // Above the commit index, because `prev` is not below it.
            core.truncate_log(first_new.index);
        }
        append_entries(core, entries.into_iter().skip(present).collect());
    }
    core.log
        .commit_to(commit.min(matched).max(core.log.committed()));
    AppendResponse::Accepted { matched }
}

fn append_entries<S: Storage>(core: &mut Core<S>, entries: Vec<Entry>) {
    for entry in entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Configuration)
    {
        let configuration = Configuration::decode(&entry.payload).expect("checked at the gate");
        core.follow_configuration(entry.index, configuration);
    }
    core.log.append(entries);
}

/// Takes over a snapshot, unless this log is already there.
fn handle_snapshot<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    meta: SnapshotMeta,
) -> Result<Next, Rejected> {
    let (id, committed) = (meta.id, core.log.committed());
    let matched = if id.index <= committed {
        if core.log.term(id.index).is_some_and(|term| term != id.term) {
            return Err(Rejected::CommittedConflict {
                conflict: id,
                committed,
            });
        }
        committed
    } else if core.log.holds(id) {
        // All up to `id` is the same here (log matching), and what follows may be acknowledged
        // already: it must stay.
        core.log.commit_to(id.index);
        id.index
    } else {
        install(core, meta);
        id.index
    };
    core.send(
        from,
        Message::SnapshotResponse(SnapshotResponse { matched }),
    );
    Ok(Next::Stay)
}

fn install<S: Storage>(core: &mut Core<S>, meta: SnapshotMeta) {
    let known = core.membership.current_index();
    core.membership
        .replace(meta.configuration_index, meta.configuration.clone());
    if meta.configuration_index != known {
        core.announce_configuration();
    }
    core.event(Event::SnapshotAccepted { meta: meta.clone() });
    core.log.install(meta);
    core.persistence.replace();
}
