//! Following a leader, or waiting for one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Next;
use crate::core::Core;
use crate::log::Holds;
use crate::read_index::ForwardedReads;
use crate::{
    Append, AppendResponse, Commit, Configuration, Entry, EntryId, EntryKind, Event, Heartbeat,
    HeartbeatResponse, LogIndex, Message, NodeId, ReadError, ReadId, ReadIndex, ReadIndexResponse,
    Reason, Rejected, Repairing, SnapshotMeta, SnapshotResponse, Storage,
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
            Message::Commit(commit) => {
                handle_commit(core, commit);
                Ok(Next::Stay)
            }
            Message::Heartbeat(heartbeat) => handle_heartbeat(core, from, heartbeat),
            Message::InstallSnapshot(install) => handle_snapshot(core, from, *install.meta),
            Message::ReadIndexResponse(response) => self.handle_read_index(core, response),
            Message::TimeoutNow => handle_timeout_now(core),
            Message::PreVoteResponse(_) | Message::VoteResponse(_) => Err(Rejected::Unasked),
            Message::AppendResponse(_)
            | Message::HeartbeatResponse(_)
            | Message::SnapshotResponse(_)
            | Message::Repairing(_)
            | Message::ReadIndex(_) => Err(Rejected::NotLeader),
            Message::PreVote(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => unreachable!("handled at the gate"),
        }
    }

    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        core.timer.elapsed = core.timer.elapsed.saturating_add(1);
        // A request or its answer may have got lost. It is not sent again, because the driver can
        // do that as well, and knows how long its client still waits.
        let expired = self.reads.tick(core.config.election_timeout_ticks);
        core.outbox.read_failures.extend(expired);
        if core.vote_under_way().is_some() {
            // The candidate waits for this vote, and a vote for ourselves would take the same way.
            // Its time to win begins when the vote leaves.
            core.timer.elapsed = 0;
        }
        if core.timer.elapsed >= core.timer.timeout && core.stands_by_itself() {
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
    core.log
        .commit_to(core.log.newest_known_index(heartbeat.commit));
    let answer = HeartbeatResponse {
        round: heartbeat.round,
        oldest_sync_age_ticks: core.disk.told_age_ticks(),
        priority: core.config.priority,
    };
    core.send(from, Message::HeartbeatResponse(answer));
    Ok(Next::Stay)
}

/// Stands at once, unless the disk hangs.
///
/// The vote for itself would wait for that disk. n2 would raise its term, fall silent to n1, whose
/// term is over for it, and perhaps depose n1 minutes later, when nobody wants that any more.
///
/// A node that fell silent because of its disk does stand if the disk is well by now. Falling
/// silent keeps it from disturbing by itself; here the leader asks for it, or somebody behind the
/// leader, and knows of the disk what there is to know.
fn handle_timeout_now<S: Storage>(core: &Core<S>) -> Result<Next, Rejected> {
    let age_ticks = core.disk.age_ticks();
    let count = core.log.faults.count();
    if count > 0 {
        Err(Rejected::Repairing { count })
    } else if !core.is_promotable() {
        Err(Rejected::NotVoter)
    } else if core.disk.is_unfit() {
        Err(Rejected::Unfit)
    } else if core.disk.is_healthy(core.config.election_timeout_ticks) {
        Ok(Next::Stand(Reason::Transfer))
    } else {
        Err(Rejected::SlowDisk { age_ticks })
    }
}

fn handle_append<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    append: Append,
) -> Result<Next, Rejected> {
    if core.log.is_faulty() {
        core.receive_from_leader(&append.entries);
    }
    let (prev, committed) = (append.prev, core.log.committed());
    core.log.learn_term(prev);
    let answer = if prev.index < committed {
        let rest = skip_committed(core, append.entries)?;
        let term = core
            .log
            .term(committed)
            .expect("the last committed entry is never compacted before it is applied");
        let prev = EntryId {
            index: committed,
            term,
        };
        accept(core, prev, rest, append.commit)
    } else {
        match core.log.may_hold(prev) {
            Holds::Yes => accept(core, prev, append.entries, append.commit),
            Holds::No => refuse(core, from, prev),
            // Behind the newest known entry the leader's log says more.
            Holds::Perhaps => repairing(core, core.log.newest_known(prev.index).index.next()),
        }
    };
    core.send(from, answer);
    Ok(Next::Stay)
}

/// Not held: it will come, and the news with it or after it.
fn handle_commit<S: Storage>(core: &mut Core<S>, commit: Commit) {
    if core.log.may_hold(commit.id) == Holds::Yes {
        commit_known(core, commit.id.index);
    }
}

/// Takes over a commit index up to which this log is the leader's. What is committed is named by an
/// entry whose term is known: later appends are compared with it.
fn commit_known<S: Storage>(core: &mut Core<S>, commit: LogIndex) {
    let known = core.log.newest_known_index(commit);
    core.log.commit_to(known.max(core.log.committed()));
}

fn refuse<S: Storage>(core: &mut Core<S>, leader: NodeId, prev: EntryId) -> Message {
    let hint = core.log.newest_not_above(prev.index, prev.term);
    core.event(Event::AppendRefused { leader, prev, hint });
    Message::AppendResponse(AppendResponse::Rejected {
        prev: prev.index,
        hint,
        last: core.log.last_index(),
    })
}

/// What a node with damaged entries says instead of an acknowledgement.
fn repairing<S: Storage>(core: &Core<S>, next: LogIndex) -> Message {
    let count = core.log.faults.count();
    Message::Repairing(Repairing { count, next })
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
///
/// Where our own entry is damaged and cannot be compared the append ends, as if it had been
/// shorter: see `docs/design/004-undecided-entries-wait.md`.
fn accept<S: Storage>(
    core: &mut Core<S>,
    prev: EntryId,
    mut entries: Vec<Entry>,
    commit: LogIndex,
) -> Message {
    let present = entries
        .iter()
        .take_while(|entry| core.log.may_hold(entry.id()) == Holds::Yes)
        .count();
    let first_new = entries.get(present).map(Entry::id);
    if first_new.is_some_and(|id| must_wait(core, id)) {
        entries.truncate(present);
    }
    let matched = entries.last().map_or(prev.index, |entry| entry.index);
    if let Some(first_new) = entries.get(present).map(Entry::id) {
        if first_new.index <= core.log.last_index() {
            // Above the commit index, because `prev` is not below it.
            core.truncate_log(first_new.index);
        }
        if present > 0 {
            entries.drain(..present);
        }
        append_entries(core, entries);
    }
    commit_known(core, commit.min(matched));
    if core.log.is_faulty() {
        return repairing(core, matched.next());
    }
    Message::AppendResponse(AppendResponse::Accepted { matched })
}

/// Whether a leader's entry cannot be written yet: it cannot be told whether this log holds it, or
/// the log would be cut behind an entry of which the disk does not know the term. A crash before the
/// entry is appended would leave a log that cannot say in which term it ends.
fn must_wait<S: Storage>(core: &Core<S>, id: EntryId) -> bool {
    let cuts = id.index <= core.log.last_index();
    core.log.may_hold(id) == Holds::Perhaps
        || (cuts && core.log.faults.disk_forgot_term(id.index.prev()))
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

fn handle_snapshot<S: Storage>(
    core: &mut Core<S>,
    from: NodeId,
    meta: SnapshotMeta,
) -> Result<Next, Rejected> {
    let matched = take_snapshot(core, meta)?;
    let answer = if core.log.is_faulty() {
        repairing(core, matched.next())
    } else {
        Message::SnapshotResponse(SnapshotResponse { matched })
    };
    core.send(from, answer);
    Ok(Next::Stay)
}

/// Takes over a snapshot, unless this log is already there. Returns up to where this log holds what
/// is committed.
pub(crate) fn take_snapshot<S: Storage>(
    core: &mut Core<S>,
    meta: SnapshotMeta,
) -> Result<LogIndex, Rejected> {
    let (id, committed) = (meta.id, core.log.committed());
    let is_known_other = |term| term != id.term;
    if id.index <= committed && core.log.term(id.index).is_some_and(is_known_other) {
        return Err(Rejected::CommittedConflict {
            conflict: id,
            committed,
        });
    }
    core.log.learn_committed(id);
    core.log.learn_term(id);
    match core.log.may_hold(id) {
        // All up to `id` is the same here (log matching), and what follows may be acknowledged
        // already: it must stay.
        Holds::Yes if core.log.is_blocked_below(id.index) => cover(core, meta),
        Holds::Yes => core.log.commit_to(id.index),
        Holds::Perhaps => return Err(Rejected::UnknownIdentity { id }),
        Holds::No if id.index <= committed => {} // Compacted here.
        Holds::No => install(core, meta),
    }
    Ok(id.index.max(committed))
}

/// The state machine needs an entry that is damaged; the snapshot is what it led to.
fn cover<S: Storage>(core: &mut Core<S>, meta: SnapshotMeta) {
    let (index, configuration) = (meta.configuration_index, meta.configuration.clone());
    if core.membership.learn(index, configuration) {
        core.announce_configuration();
    }
    let accepted = Box::new(meta.clone());
    core.event(Event::SnapshotAccepted { meta: accepted });
    core.log.cover(meta);
    if core.log.is_installing() {
        core.persistence.replace();
    }
}

fn install<S: Storage>(core: &mut Core<S>, meta: SnapshotMeta) {
    let known = core.membership.current_index();
    core.membership
        .replace(meta.configuration_index, meta.configuration.clone());
    if meta.configuration_index != known {
        core.announce_configuration();
    }
    let accepted = Box::new(meta.clone());
    core.event(Event::SnapshotAccepted { meta: accepted });
    core.told.last = meta.id.index;
    core.log.install(meta);
    core.persistence.replace();
}
