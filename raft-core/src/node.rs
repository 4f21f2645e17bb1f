//! The node: inputs are calls, the output is one [`Ready`] batch.

mod damage;
mod start;

use alloc::vec::Vec;

use self::start::check_initial;
use crate::core::{Core, ElectionTimer, Told};
use crate::disk_health::{DiskHealth, SilenceEnd};
use crate::log::{KeptLog, RaftLog};
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::persistence::Persistence;
use crate::read_index::Reader;
use crate::repair::Repair;
use crate::rng::Rng;
use crate::role::{Follower, Leader, Next, RoleState};
use crate::{
    ChangeError, Config, ConfigError, Configuration, ConfigurationChange, Entry, EntryId, Event,
    Fetch, FetchPurpose, InitialState, LogIndex, NodeId, Persist, PersistId, Proposal,
    ProposeError, ReadError, ReadId, Ready, Reason, RepairId, Role, SnapshotOutcome, Status,
    Storage, Term, TransferError,
};

/// One member of a cluster.
///
/// The caller owns time, network and disk. It calls in whatever happens, takes a [`Ready`] whenever
/// [`has_ready`](Node::has_ready) says so, and does what the batch says in the order that [`Ready`]
/// describes. Calls never block, and bytes from elsewhere never panic; a broken promise of the
/// caller does.
#[derive(Debug)]
pub struct Node<S> {
    pub(crate) core: Core<S>,
    pub(crate) role: RoleState,
    /// The term of the newest event about a role, so that a new term within a role is told too.
    pub(crate) announced_term: Term,
}

impl<S: Storage> Node<S> {
    /// Starts a node on what its storage holds. It is a follower of nobody.
    ///
    /// # Errors
    /// If the options or the stored state contradict themselves.
    pub fn new(config: Config, storage: S) -> Result<Node<S>, ConfigError> {
        config.check()?;
        let initial = storage.initial_state();
        check_initial(&initial, &storage)?;
        let mut rng = Rng::new(config.seed);
        let timer = ElectionTimer::draw(&config, &mut rng);
        // Where the names of this life's requests begin, with room to count up.
        let base = rng.next_u64() >> 1;
        let InitialState {
            hard_state,
            configuration,
            configuration_index,
            applied,
            commit,
            configurations,
            faulty,
        } = initial;
        let mut membership = Membership::new(configuration_index, configuration);
        for (index, configuration) in configurations {
            if index > configuration_index {
                membership.append(index, configuration);
            }
        }
        let mut core = Core {
            config,
            hard_state,
            log: RaftLog::new(storage, applied, commit, faulty, RepairId(base)),
            membership,
            persistence: Persistence::new(hard_state),
            timer,
            outbox: Outbox::default(),
            repair: Repair::default(),
            rng,
            next_forward: ReadId(base),
            disk: DiskHealth::default(),
            leaderless_ticks: 0,
            told: Told::default(),
        };
        core.told = Told {
            last: core.log.last_index(),
            committed: core.log.committed(),
        };
        let announced_term = core.term();
        Ok(Node {
            core,
            role: RoleState::Follower(Follower::new(None)),
            announced_term,
        })
    }

    /// One tick of the caller's clock has passed.
    pub fn tick(&mut self) {
        self.core.tick_repair();
        self.tick_disk();
        let next = self.role.tick(&mut self.core);
        self.apply_next(next);
    }

    /// Reports the age of the oldest persist part that was handed out and is not on disk yet, in
    /// ticks; 0 if none waits. To be called before each [`tick`](Node::tick). Without it the disk
    /// counts as healthy.
    ///
    /// A leader whose disk is slow hands over to a voter with a better one, and leaves the next
    /// elections to others for a while ([`Event::SlowDisk`](crate::Event::SlowDisk)).
    pub fn report_sync_age(&mut self, age_ticks: u32) {
        self.core.disk.report(age_ticks);
    }

    /// Tells whether this node is fit to lead, as far as the driver knows: a state machine that does not
    /// hold what the log says is a reason for it not to be. Holds until the next call; a new node is fit.
    ///
    /// An unfit leader hands over to a voter that has its log, and leaves elections to others until
    /// nobody has led for three election timeouts ([`Event::Unfit`](crate::Event::Unfit)). It
    /// votes, acknowledges and counts itself as ever: these promises rest on its log alone.
    pub fn report_fit(&mut self, is_fit: bool) {
        self.core.disk.report_unfit(!is_fit);
    }

    fn tick_disk(&mut self) {
        let core = &mut self.core;
        core.leaderless_ticks = match self.role {
            RoleState::Leader(_) => 0,
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                core.leaderless_ticks.saturating_add(1)
            }
        };
        let timeout = core.config.election_timeout_ticks;
        if let Some(end) = core.disk.tick(timeout, core.leaderless_ticks) {
            core.event(Event::SilenceEnded {
                disk_is_healthy: end == SilenceEnd::DiskIsHealthy,
            });
        }
    }

    /// Appends commands to the log. Success means that this leader has them in memory; they may
    /// still be lost with its leadership, until they come back in [`Ready::committed`].
    ///
    /// Returns the name of the first entry; the others follow it in order. What became of an entry
    /// is known when its index is applied: if the entry applied there has its term, it was executed,
    /// and if it has another, it never will be. Until then nothing is certain, not even when the
    /// leadership ends or the entry is truncated here: another node may hold it. If a snapshot takes
    /// its place the outcome stays unknown, unless the state machine itself remembers it.
    ///
    /// # Errors
    /// Definite: nothing of the batch will ever take effect.
    pub fn propose(
        &mut self,
        proposals: impl IntoIterator<Item = Proposal>,
    ) -> Result<EntryId, ProposeError> {
        match &mut self.role {
            RoleState::Leader(leader) => leader.propose(&mut self.core, proposals),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                let leader = self.role.leader(self.core.id());
                Err(ProposeError::NotLeader {
                    leader,
                    term: self.core.term(),
                })
            }
        }
    }

    /// The configuration that a change leads to next, for the caller to encode, checksum and
    /// [propose](Node::propose_configuration) in the same turn.
    ///
    /// If more than one voter comes or goes this is a joint configuration (thesis 4.3), which is to
    /// be left as soon as it is committed: see [`pending_leave`](Node::pending_leave).
    ///
    /// # Errors
    /// If this node cannot make the change, or not now.
    pub fn plan_configuration(
        &self,
        change: &ConfigurationChange,
    ) -> Result<Configuration, ChangeError> {
        let planned = self.core.membership.current().changed(change);
        let leader = self.leading().ok_or_else(|| self.cannot_change())?;
        leader.check_may_change(&self.core)?;
        let planned = planned?;
        leader.check_promoted(&self.core, &planned)?;
        Ok(planned)
    }

    /// The configuration that ends the joint one in force, to be proposed as a planned one is. For
    /// changes without `auto_leave`.
    ///
    /// # Errors
    /// If no joint configuration is in force and committed, or this node cannot end it.
    pub fn plan_leave(&self) -> Result<Configuration, ChangeError> {
        let leader = self.leading().ok_or_else(|| self.cannot_change())?;
        leader.check_may_change(&self.core)?;
        let left = self.core.membership.current().left();
        left.ok_or(ChangeError::NotJoint)
    }

    /// The configuration that ends the joint one in force, if this leader should propose it now on
    /// its own: the change asked for that, and the joint configuration is committed.
    ///
    /// The core does not append this entry itself, because each configuration entry carries its
    /// whole content, and the checksum is the caller's business. So ask here after each turn, and
    /// propose what comes. The answer follows from the log alone: whoever leads next is asked to do
    /// what the last leader did not.
    pub fn pending_leave(&self) -> Option<Configuration> {
        let wanted = self.core.membership.current().auto_leave;
        self.plan_leave().ok().filter(|_| wanted)
    }

    /// Appends an encoded configuration, which is in force from now on (thesis 4.1). It is
    /// committed as any other entry, by its own rules, and may be lost with this leadership; the
    /// configuration before is then in force again.
    ///
    /// A leader that is no voter afterwards goes on until the entry is committed, without counting
    /// itself, and then steps down (thesis 4.2.2).
    ///
    /// # Errors
    /// Definite: the change will never take effect.
    pub fn propose_configuration(&mut self, proposal: Proposal) -> Result<EntryId, ChangeError> {
        let refused = self.cannot_change();
        match &mut self.role {
            RoleState::Leader(leader) => leader.propose_configuration(&mut self.core, proposal),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                Err(refused)
            }
        }
    }

    fn leading(&self) -> Option<&Leader> {
        match &self.role {
            RoleState::Leader(leader) => Some(leader),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    fn cannot_change(&self) -> ChangeError {
        ChangeError::NotLeader {
            leader: self.leader(),
            term: self.core.term(),
        }
    }

    /// Asks at which index a linearizable read may be served. The answer comes in
    /// [`Ready::read_states`], or the id in [`Ready::read_failures`].
    ///
    /// # Errors
    /// Definite: nothing was read, and no answer will come.
    pub fn read_index(&mut self, id: ReadId) -> Result<(), ReadError> {
        match &mut self.role {
            RoleState::Leader(leader) => leader.read_index(&self.core, Reader::Local(id)),
            RoleState::Follower(follower) => follower.read_index(&self.core, id),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => Err(ReadError::NoLeader {
                term: self.core.term(),
            }),
        }
    }

    /// Hands the leadership over, to the voter that has most of the log if none is named. Returns
    /// who it is. Proposals are refused until it has happened, or is given up after an election
    /// timeout.
    ///
    /// # Errors
    /// If this node does not lead, or nobody can take over.
    pub fn transfer_leader(&mut self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        match &mut self.role {
            RoleState::Leader(leader) => leader.begin_transfer(&mut self.core, to),
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                Err(TransferError::NotLeader {
                    leader: self.role.leader(self.core.id()),
                })
            }
        }
    }

    /// Stands for election now, by pre-vote first if that is on, also if the disk is slow. Does
    /// nothing on a leader, on a node that does not vote, or, with lease reads, on one that heard a
    /// leader or was started less than an election timeout ago.
    pub fn campaign(&mut self) {
        match self.role {
            RoleState::Leader(_) => {}
            RoleState::Follower(_) | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                if self.core.is_promotable() && self.core.owes_lease() == 0 {
                    self.apply_next(Next::Campaign(Reason::Asked));
                }
            }
        }
    }

    /// Whether [`ready`](Node::ready) should be called. The batch may turn out to be empty; after it
    /// was taken nothing is left.
    pub fn has_ready(&self) -> bool {
        let core = &self.core;
        !core.outbox.is_empty()
            || core.has_unsubmitted()
            || core.log.has_committed(core.config.max_apply_bytes)
            || self.role.has_unsent()
            || core.repair_is_due()
    }

    /// Takes everything that is to be done. The persist part counts as handed out, in the order of
    /// the calls.
    pub fn ready(&mut self) -> Ready {
        let mut ready = Ready::default();
        self.ready_into(&mut ready);
        ready
    }

    /// As [`ready`](Node::ready), into the vectors of an earlier batch, whose memory is used again.
    /// What the caller left in that batch is dropped, so take it out before, with `drain` or `take`.
    pub fn ready_into(&mut self, ready: &mut Ready) {
        ready.clear();
        self.role.flush(&mut self.core);
        take_committed(&mut self.core, &mut ready.committed);
        self.stand_back_if_damaged(); // Reading may have found it.
        let core = &mut self.core;
        core.flush_repair();
        core.tell_positions();
        if core.has_unsubmitted() {
            ready.persist = Some(take_persist(core));
        }
        ready.after_sync = core.persistence.newest();
        let durable = core.durable();
        let outbox = &mut core.outbox;
        outbox.take_messages(durable, &mut ready.messages, &mut ready.messages_after_sync);
        core::mem::swap(&mut outbox.events, &mut ready.events);
        if outbox.has_reports() {
            core::mem::swap(&mut outbox.read_states, &mut ready.read_states);
            core::mem::swap(&mut outbox.read_failures, &mut ready.read_failures);
            core::mem::swap(&mut outbox.fetches, &mut ready.fetches);
        }
    }

    /// The persist parts up to `id` are on disk, and a snapshot among them is loaded into the state
    /// machine.
    ///
    /// # Panics
    /// If `id` was never handed out.
    pub fn on_persisted(&mut self, id: PersistId) {
        let completion = self.core.persistence.complete(id);
        if let Some(snapshot) = completion.snapshot {
            self.core.log.installed(snapshot);
            self.core.event(Event::SnapshotInstalled { id: snapshot });
        }
        if let Some(index) = completion.covers {
            self.core.log.persisted_to(index);
        }
        if self.core.log.is_faulty() {
            self.complete_repair(id);
        }
        self.on_durable();
    }

    /// The committed entries up to `index` are applied.
    ///
    /// # Panics
    /// If `index` was never handed out.
    pub fn on_applied(&mut self, index: LogIndex) {
        self.core.log.on_applied(index);
        let compacted = self.core.log.first_index().prev();
        self.core
            .membership
            .forget_before(compacted.min(self.core.log.committed()));
    }

    /// The entries of a [`Fetch`], or a non-empty prefix of them. Answers that nobody waits for any
    /// more are ignored.
    pub fn on_fetched(&mut self, fetch: Fetch, entries: Vec<Entry>) {
        match fetch.purpose {
            FetchPurpose::Apply => self
                .core
                .log
                .on_fetched_committed(fetch.range.start, entries),
            FetchPurpose::Peer(peer) => {
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.on_fetched(&mut self.core, peer, fetch.range.start, entries);
                }
            }
            FetchPurpose::Repair(peer, ask) => {
                let start = fetch.range.start;
                self.core.on_fetched_for_repair(peer, ask, start, entries);
            }
        }
    }

    /// The entries of a [`Fetch`] are gone, compacted meanwhile, or damaged, which was reported by
    /// [`on_faulty`](Node::on_faulty) before. The core decides again what to do.
    pub fn on_fetch_failed(&mut self, fetch: Fetch) {
        match fetch.purpose {
            FetchPurpose::Apply => self.core.log.on_fetch_failed(fetch.range.start),
            FetchPurpose::Peer(peer) => {
                if let RoleState::Leader(leader) = &mut self.role {
                    leader.on_fetch_failed(&mut self.core, peer, fetch.range.start);
                }
            }
            FetchPurpose::Repair(..) => {} // The other one asks again.
        }
    }

    /// The transfer of a snapshot, begun by [`InstallSnapshot`](crate::InstallSnapshot), has ended.
    ///
    /// To be reported for each of these messages, whatever became of it: until then, or until the
    /// follower acknowledges, nothing else is sent to it. The same holds for
    /// [`Message::RepairSnapshot`](crate::Message::RepairSnapshot), of which the same node gets no
    /// other meanwhile.
    pub fn on_snapshot_sent(&mut self, to: NodeId, outcome: SnapshotOutcome) {
        self.core.repair.on_snapshot_sent(to);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.on_snapshot_sent(&mut self.core, to, outcome);
        }
    }

    /// The transport lost `peer`: what was sent to it may be lost.
    pub fn on_unreachable(&mut self, peer: NodeId) {
        self.core.repair.on_peer_lost(peer);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.on_unreachable(&mut self.core, peer);
        }
    }

    /// The transport reaches `peer`, for the first time or again: what was asked of it before may be
    /// lost, and is asked again at once. Without it that takes longer, the longer `peer` was away.
    pub fn on_reachable(&mut self, peer: NodeId) {
        self.core.repair.forget_questions_to(peer);
    }

    /// `peer` was started anew: what its last life acknowledged in this leadership counts no more.
    pub fn on_peer_restarted(&mut self, peer: NodeId) {
        self.core.repair.on_peer_lost(peer);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.on_peer_restarted(&mut self.core, peer);
        }
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.core.id()
    }

    /// What it is. This and the following are what a driver looks at every turn; [`Node::status`]
    /// has all of it.
    pub fn role(&self) -> Role {
        self.role.role()
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.core.term()
    }

    /// The leader it knows; itself if it leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.role.leader(self.core.id())
    }

    /// Entries up to here are committed.
    pub fn commit_index(&self) -> LogIndex {
        self.core.log.committed()
    }

    /// Entries up to here are applied, as the driver reported.
    pub fn applied_index(&self) -> LogIndex {
        self.core.log.applied()
    }

    /// Entries up to here are durable on this node.
    pub fn persisted_index(&self) -> LogIndex {
        self.core.log.persisted()
    }

    /// The configuration in force.
    pub fn configuration(&self) -> &Configuration {
        self.core.membership.current()
    }

    /// A plain view of this node.
    pub fn status(&self) -> Status {
        let core = &self.core;
        let leader = self.leading();
        Status {
            id: core.id(),
            role: self.role.role(),
            term: core.term(),
            vote: core.hard_state.vote,
            leader: self.role.leader(core.id()),
            commit: core.log.committed(),
            applied: core.log.applied(),
            first: core.log.first_index(),
            last: core.log.last_id(),
            persisted: core.log.persisted(),
            is_silent: core.disk.is_silent(),
            snapshot: core.log.storage.snapshot().map(|meta| meta.id),
            transfer: leader.and_then(|leader| leader.transfer_target()),
            repair: core.repair_status(),
            own_term_committed: leader.is_some_and(|leader| leader.own_term_committed(core)),
            progress: leader
                .map(|leader| leader.peer_status())
                .unwrap_or_default(),
            configuration: core.membership.current().clone(),
            configuration_index: core.membership.current_index(),
        }
    }

    /// The configuration that was in force at `index`, and where it was appended: what the metadata
    /// of a snapshot taken there must say. None below the newest snapshot.
    pub fn configuration_at(&self, index: LogIndex) -> Option<(LogIndex, &Configuration)> {
        self.core
            .membership
            .at(index)
            .map(|(since, configuration)| (*since, configuration))
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.core.log.storage
    }

    /// Ends the node's life, and gives its storage back.
    pub fn into_storage(self) -> S {
        self.core.log.storage
    }

    /// The storage, for the driver to carry out what [`Ready`] asked for.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.core.log.storage
    }
}

fn take_persist<S: Storage>(core: &mut Core<S>) -> Persist {
    let hard_state = Some(core.hard_state).filter(|state| *state != core.persistence.handed_out());
    let (snapshot, kept) = core.log.submit_snapshot().unzip();
    let entries = core.log.submit_entries();
    let last_entry = entries.last().map(|entry| entry.index);
    let installed = snapshot
        .as_ref()
        .zip(kept)
        .map(|(meta, kept)| (meta.id, kept));
    let id = core.persistence.submit(hard_state, installed, last_entry);
    Persist {
        id,
        hard_state,
        snapshot,
        snapshot_keeps_log: kept == Some(KeptLog::AfterSnapshot),
        repaired: core.log.submit_repaired(id),
        entries,
    }
}

fn take_committed<S: Storage>(core: &mut Core<S>, into: &mut Vec<Entry>) {
    let max_bytes = core.config.max_apply_bytes;
    if let Some(range) = core.log.take_committed(max_bytes, into) {
        core.outbox.fetches.push(Fetch {
            purpose: FetchPurpose::Apply,
            range,
            max_bytes,
        });
    }
}
