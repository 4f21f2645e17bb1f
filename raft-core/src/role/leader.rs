//! Leading a term.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Next;
use super::lease::Lease;
use super::repairing::OwnDamage;
use super::succession::Relief;
use super::transfer::Transfer;
use crate::core::Core;
use crate::disk_health::HEALTHY_ELECTION_TIMEOUTS;
use crate::progress::{Peers, Progress};
use crate::read_index::{ReadRounds, Reader};
use crate::{
    AppendResponse, Entry, EntryId, EntryKind, Event, Heartbeat, HeartbeatResponse, LogIndex,
    Message, NodeId, PeerState, PeerStatus, Proposal, ProposeError, ReadError, ReadId, ReadIndex,
    ReadIndexResponse, Reason, Rejected, SnapshotOutcome, Storage,
};

/// What only a leader knows.
#[derive(Debug)]
pub(crate) struct Leader {
    /// All other members.
    pub(super) peers: Peers,
    /// The first entry of this term, a no-op. Once it is committed, so is everything before it.
    pub(super) first_of_term: EntryId,
    heartbeat_elapsed: u32,
    pub(super) transfer: Option<Transfer>,
    /// This node's own log is damaged.
    pub(super) own_damage: Option<OwnDamage>,
    pub(super) relief: Relief,
    pub(super) lease: Lease,
    uncommitted: Uncommitted,
    pub(super) reads: ReadRounds,
    /// Something may be sent: set by whatever could change that, cleared by [`Leader::flush`].
    pub(super) needs_flush: bool,
}

/// What was proposed in this leadership and is not committed.
#[derive(Debug, Default)]
struct Uncommitted {
    batches: VecDeque<(LogIndex, u64)>,
    bytes: u64,
}

impl Leader {
    /// Starts the term with a no-op: entries of earlier terms can only be committed together with
    /// one of this term.
    pub(crate) fn new<S: Storage>(core: &mut Core<S>) -> Leader {
        let next = core.log.last_index().next();
        let noop = Entry::noop(next, core.term());
        let first_of_term = noop.id();
        core.log.append(Vec::from([noop]));
        let mut others = core.membership.current().members();
        others.remove(&core.id());
        let mut peers = Peers::default();
        peers.follow(&others, || Progress::new(next));
        Leader {
            peers,
            first_of_term,
            heartbeat_elapsed: 0,
            transfer: None,
            own_damage: None,
            relief: Relief::NotNeeded,
            lease: Lease::default(),
            uncommitted: Uncommitted::default(),
            reads: ReadRounds::default(),
            needs_flush: true,
        }
    }

    pub(crate) fn step<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        message: Message,
    ) -> Result<Next, Rejected> {
        match message {
            Message::Vote(request) => core.answer_vote(from, request, Some(core.id())),
            Message::AppendResponse(AppendResponse::Accepted { matched }) => {
                self.handle_accepted(core, from, matched)?;
            }
            Message::AppendResponse(AppendResponse::Rejected { prev, hint, last }) => {
                self.handle_rejected(core, from, prev, hint, last)?;
            }
            Message::HeartbeatResponse(response) => {
                self.handle_heartbeat_response(core, from, response)?
            }
            Message::SnapshotResponse(response) => {
                self.handle_accepted(core, from, response.matched)?
            }
            Message::Repairing(repairing) => self.handle_repairing(core, from, repairing)?,
            Message::ReadIndex(request) => self.handle_read_index(core, from, request)?,
            // Answers of an election that is decided.
            Message::PreVoteResponse(_) | Message::VoteResponse(_) => {
                return Err(Rejected::Unasked);
            }
            Message::Append(_)
            | Message::Commit(_)
            | Message::Heartbeat(_)
            | Message::InstallSnapshot(_)
            | Message::ReadIndexResponse(_)
            | Message::TimeoutNow => unreachable!("a second leader is refused at the gate"),
            Message::PreVote(_)
            | Message::RepairAsk(_)
            | Message::RepairAnswer(_)
            | Message::SnapshotAsk(_)
            | Message::RepairSnapshot(_) => unreachable!("handled at the gate"),
        }
        Ok(self.after_commit(core))
    }

    pub(crate) fn tick<S: Storage>(&mut self, core: &mut Core<S>) -> Next {
        core.timer.elapsed += 1;
        self.lease.tick(core.config.election_timeout_ticks);
        if core.timer.elapsed >= core.config.election_timeout_ticks {
            core.timer.elapsed = 0;
            if core.config.check_quorum && !self.hears_quorum(core) {
                return Next::Follow(Reason::QuorumLost);
            }
        }
        self.tick_transfer(core);
        self.peers.iter_mut().for_each(|(_, peer)| peer.tick());
        let next = self.tick_disk(core);
        if next != Next::Stay {
            return next;
        }
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= core.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.send_heartbeats(core);
        }
        self.tick_damage(core)
    }

    /// Whether a quorum was heard since the last time this was asked.
    fn hears_quorum<S: Storage>(&mut self, core: &Core<S>) -> bool {
        let heard = |voter| {
            voter == core.id()
                || self
                    .peers
                    .get(voter)
                    .is_some_and(|peer| peer.recently_active)
        };
        let hears = core.membership.quorum().is_met_by(heard);
        self.peers
            .iter_mut()
            .for_each(|(_, progress)| progress.on_quorum_checked());
        hears
    }

    fn send_heartbeats<S: Storage>(&mut self, core: &mut Core<S>) {
        self.begin_lease_round(core);
        let round = self.reads.newest();
        for (peer, progress) in self.peers.iter_mut() {
            progress.on_heartbeat_sent();
            core.send(
                peer,
                Message::Heartbeat(heartbeat(progress, core.log.committed(), round)),
            );
        }
    }

    /// Appends proposals as entries of this term.
    pub(crate) fn propose<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        proposals: impl IntoIterator<Item = Proposal>,
    ) -> Result<EntryId, ProposeError> {
        if let Some(transfer) = self.transfer {
            return Err(ProposeError::Transferring { to: transfer.to });
        }
        let first = core.log.last_index().next();
        let term = core.term();
        let (mut bytes, mut any_is_odd) = (0, false);
        let entry = |(index, Proposal { payload, checksum })| {
            bytes += payload.len() as u64;
            any_is_odd |= payload.is_empty() && checksum != 0;
            Entry {
                index: LogIndex(index),
                term,
                kind: EntryKind::Command,
                payload,
                checksum,
            }
        };
        let entries: Vec<Entry> = (first.0..).zip(proposals).map(entry).collect();
        if entries.is_empty() || any_is_odd {
            return Err(ProposeError::Malformed);
        }
        self.uncommitted
            .check(bytes, core.config.max_uncommitted_bytes)?;
        core.log.append(entries);
        self.uncommitted.add(core.log.last_index(), bytes);
        self.needs_flush = true;
        Ok(EntryId { index: first, term })
    }

    /// Commits what a quorum holds durably. This node counts as far as its own disk has come, not
    /// its memory.
    ///
    /// Only an entry of this term is counted (thesis 3.6.2): an older one on a majority can still
    /// be overwritten, when n5, who holds a later term's entry that never left it, is elected by
    /// those who lack ours. What lies before the counted entry is committed with it.
    pub(crate) fn maybe_commit<S: Storage>(&mut self, core: &mut Core<S>) {
        let (own, own_match) = (core.id(), self.own_match(core));
        let matched = |voter| {
            if voter == own {
                return own_match.0;
            }
            self.peers.get(voter).map_or(0, |peer| peer.matched.0)
        };
        let reached = LogIndex(core.membership.quorum().reached(matched));
        if reached <= core.log.committed() || core.log.term(reached) != Some(core.term()) {
            return;
        }
        if core.log.committed() < self.first_of_term.index {
            core.event(Event::OwnTermCommitted {
                id: self.first_of_term,
            });
        }
        let configuration_index = core.membership.current_index();
        if (core.log.committed().next()..=reached).contains(&configuration_index) {
            core.event(Event::ConfigurationCommitted {
                index: configuration_index,
            });
        }
        core.log.commit_to(reached);
        self.uncommitted.release(reached);
        self.needs_flush = true;
    }

    pub(crate) fn own_term_committed<S: Storage>(&self, core: &Core<S>) -> bool {
        core.log.committed() >= self.first_of_term.index
    }

    fn handle_accepted<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        matched: LogIndex,
    ) -> Result<(), Rejected> {
        let last = core.log.last_index();
        if matched > last {
            return Err(Rejected::AckBeyondLog { matched, last });
        }
        let first_index = core.log.first_index();
        let news = self.update_peer(core, from, |peer| {
            peer.recently_active = true;
            peer.on_accepted(matched, first_index)
        })?;
        if news {
            // Only who passes the commit index can move it.
            if matched > core.log.committed() {
                self.maybe_commit(core);
            }
            self.maybe_hand_over(core, from);
        }
        Ok(())
    }

    fn handle_rejected<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        prev: LogIndex,
        hint: EntryId,
        last: LogIndex,
    ) -> Result<(), Rejected> {
        // Everything the follower has above `hint.index` is of a later term than our `prev`, or
        // missing; and everything of ours above the found index is of a later term than `hint`. So
        // a whole term is skipped per round trip.
        let candidate = core.log.newest_not_above(hint.index, hint.term).index;
        let (acted, matched) = self.update_peer(core, from, |peer| {
            peer.recently_active = true;
            (peer.on_rejected(prev, candidate), peer.matched)
        })?;
        if let Some(next) = self.peers.get(from).map(|peer| peer.next).filter(|_| acted) {
            let peer = from;
            core.event(Event::Conflict { peer, prev, next });
        }
        if acted && prev <= matched && matched > LogIndex(0) {
            core.event(Event::AcknowledgementLost {
                peer: from,
                matched,
                last,
            });
        }
        Ok(())
    }

    fn handle_heartbeat_response<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        from: NodeId,
        response: HeartbeatResponse,
    ) -> Result<(), Rejected> {
        if response.round > self.reads.newest() {
            return Err(Rejected::Unasked);
        }
        let last = core.log.last_index();
        let timeout = core.config.election_timeout_ticks;
        let lately_ticks = timeout.saturating_mul(HEALTHY_ELECTION_TIMEOUTS);
        self.update_peer(core, from, |peer| {
            peer.note_sync_age(response.oldest_sync_age_ticks, lately_ticks);
            peer.priority = response.priority;
            peer.on_heartbeat_answered(response.round, last)
        })?;
        self.answer_confirmed_reads(core);
        Ok(())
    }

    /// Changes what is known of a member, and tells when that changed the way it is sent to.
    pub(super) fn update_peer<S: Storage, T>(
        &mut self,
        core: &mut Core<S>,
        peer: NodeId,
        change: impl FnOnce(&mut Progress) -> T,
    ) -> Result<T, Rejected> {
        let progress = self
            .peers
            .get_mut(peer)
            .ok_or(Rejected::UnknownSender { from: peer })?;
        let before = progress.state();
        let result = change(progress);
        announce_state(core, peer, before, progress.state());
        self.needs_flush |= progress.may_want(core.log.last_index(), core.log.committed());
        Ok(result)
    }

    /// Reports about members that are none any more are ignored: they come late by nature.
    fn report_peer<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        peer: NodeId,
        change: impl FnOnce(&mut Progress),
    ) {
        if self.peers.get(peer).is_some() {
            self.update_peer(core, peer, change).expect("just seen");
        }
    }

    pub(crate) fn on_snapshot_sent<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        to: NodeId,
        outcome: SnapshotOutcome,
    ) {
        let delivered = outcome == SnapshotOutcome::Delivered;
        self.report_peer(core, to, |progress| progress.on_snapshot_sent(delivered));
    }

    pub(crate) fn on_unreachable<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) {
        self.report_peer(core, peer, Progress::on_unreachable);
    }

    pub(crate) fn on_peer_restarted<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) {
        self.report_peer(core, peer, Progress::on_restarted);
    }
}

/// Linearizable reads.
impl Leader {
    pub(crate) fn read_index<S: Storage>(
        &mut self,
        core: &Core<S>,
        reader: Reader,
    ) -> Result<(), ReadError> {
        core.check_read_limit(self.reads.pending())?;
        self.reads.add(reader);
        self.needs_flush = true;
        Ok(())
    }

    fn handle_read_index<S: Storage>(
        &mut self,
        core: &Core<S>,
        from: NodeId,
        request: ReadIndex,
    ) -> Result<(), Rejected> {
        if self.peers.get(from).is_none() {
            return Err(Rejected::UnknownSender { from });
        }
        self.read_index(core, Reader::Peer(from, request.id))
            .map_err(|_| Rejected::Overloaded)
    }

    /// Answers the reads that came in by lease, or begins a round for them. They wait until an entry of this term is
    /// committed: until then earlier leaders may have committed more than this node knows of.
    fn begin_read_round<S: Storage>(&mut self, core: &mut Core<S>) {
        if !self.reads.has_waiting() || !self.own_term_committed(core) {
            return;
        }
        let committed = core.log.committed();
        if self.has_lease(core) {
            for reader in self.reads.take_waiting() {
                answer_reader(core, reader, committed);
            }
            return;
        }
        self.reads.begin(committed);
        let round = self.reads.newest();
        self.lease.on_round_begun(round);
        let configuration = core.membership.current();
        let voters: Vec<(NodeId, Heartbeat)> = self
            .peers
            .iter()
            .filter(|(peer, _)| configuration.is_voter(*peer))
            .map(|(peer, progress)| (peer, heartbeat(progress, committed, round)))
            .collect();
        for (voter, message) in voters {
            core.send(voter, Message::Heartbeat(message));
        }
        self.answer_confirmed_reads(core);
    }

    /// The newest round that a quorum, this node included, has answered.
    pub(super) fn confirmed_round<S: Storage>(&self, core: &Core<S>) -> u64 {
        let (own, newest) = (core.id(), self.reads.newest());
        let acked = |voter| match self.peers.get(voter) {
            Some(progress) => progress.acked_round,
            None if voter == own => newest,
            None => 0,
        };
        core.membership.quorum().reached(acked)
    }

    /// Answers the reads of all rounds that a quorum, this node included, has confirmed.
    pub(super) fn answer_confirmed_reads<S: Storage>(&mut self, core: &mut Core<S>) {
        let confirmed = self.confirmed_round(core);
        for answered in self.reads.confirmed(confirmed) {
            for reader in answered.readers {
                answer_reader(core, reader, answered.index);
            }
        }
    }

    /// The reads of this node's own driver that wait.
    pub(crate) fn into_local_reads(self) -> impl Iterator<Item = ReadId> {
        self.reads.into_readers().filter_map(|reader| match reader {
            Reader::Local(id) => Some(id),
            Reader::Peer(..) => None,
        })
    }
}

/// Sending what was put off.
impl Leader {
    pub(crate) fn has_unsent(&self) -> bool {
        self.needs_flush
    }

    pub(crate) fn flush<S: Storage>(&mut self, core: &mut Core<S>) {
        if !core::mem::take(&mut self.needs_flush) {
            return;
        }
        self.begin_read_round(core);
        self.replicate(core);
    }

    pub(crate) fn peer_status(&self) -> Vec<PeerStatus> {
        let peers = self.peers.iter().map(|(peer, progress)| PeerStatus {
            id: peer,
            matched: progress.matched,
            next: progress.next,
            state: progress.state(),
            recently_active: progress.recently_active,
            repairing: progress.repairing,
            sync_age_ticks: progress.sync_age_ticks,
            priority: progress.priority,
        });
        peers.collect()
    }
}

impl Uncommitted {
    /// Empty payloads are always let through: what keeps the protocol going must not depend on the
    /// load.
    fn check(&self, bytes: u64, limit: u64) -> Result<(), ProposeError> {
        // A single batch above the limit must pass when nothing else waits, or it never could.
        if bytes > 0 && self.bytes > 0 && self.bytes + bytes > limit {
            return Err(ProposeError::Overloaded {
                bytes: self.bytes,
                limit,
            });
        }
        Ok(())
    }

    fn add(&mut self, last: LogIndex, bytes: u64) {
        if bytes > 0 {
            self.batches.push_back((last, bytes));
            self.bytes += bytes;
        }
    }

    fn release(&mut self, committed: LogIndex) {
        while self
            .batches
            .front()
            .is_some_and(|(last, _)| *last <= committed)
        {
            let (_, bytes) = self.batches.pop_front().expect("just seen");
            self.bytes -= bytes;
        }
    }
}

fn heartbeat(progress: &Progress, committed: LogIndex, round: u64) -> Heartbeat {
    Heartbeat {
        commit: committed.min(progress.matched),
        round,
    }
}

fn answer_reader<S: Storage>(core: &mut Core<S>, reader: Reader, index: LogIndex) {
    match reader {
        Reader::Local(id) => core.outbox.answer_read(id, index),
        Reader::Peer(peer, id) => core.send(
            peer,
            Message::ReadIndexResponse(ReadIndexResponse { id, index }),
        ),
    }
}

pub(super) fn announce_state<S: Storage>(
    core: &mut Core<S>,
    peer: NodeId,
    before: PeerState,
    after: PeerState,
) {
    if core::mem::discriminant(&before) != core::mem::discriminant(&after) {
        core.event(Event::PeerStateChanged { peer, state: after });
    }
}
