//! A node whose state is not that of the majority takes itself out of service, and rebuilds it from a node that agreed.
//!
//! ```text
//!             mark durable           snapshot from one that agreed      older snapshots and mark removed, durably
//!  Marking ----------------> Asking --------------------------> Settling -----------------> in service
//!                              ^  every start with a mark         |  the snapshot has rotted
//!                              +----------------------------------+
//! ```
//!
//! Only the state is wrong: the log is as good as ever, so the node goes on voting and acknowledging, and counts for commits.
//! It applies nothing, answers no question from its state, writes no snapshot and sends none, and leads only if nobody else can.

use raft_core::{Entry, EntryId, Envelope, LogIndex, Message, NodeId, SnapshotAsk};

use super::{Driver, Effect, StagedSnapshot};
use crate::kv::command::{HashAt, STATE_HASH_VERSION};
use crate::snapshots::Suspect;
use crate::wire::client::{Consistency, Refusal, Request};
use crate::wire::peer::PeerMessage;

/// Ticks to wait after a mark that could not be written: the disk may be full for a while.
const RETRY_TICKS: u64 = 100;

/// Election timeouts after which the same node is asked again: it may have had to write a snapshot first.
const ASK_AGAIN_TIMEOUTS: u64 = 2;

/// So often one node is asked before the next.
const ASKS_MAX: u32 = 5;

/// What a node does about its own state.
#[derive(Debug)]
pub(super) struct Suspicion {
    suspect: Suspect,
    stage: Stage,
    /// Committed entries that wait for a state to be applied to. The core hands out a bounded number of bytes.
    pub(super) pending: Vec<Entry>,
}

#[derive(Debug)]
enum Stage {
    /// The mark is to be made durable before anything else; tried again at this tick.
    Marking { again: Option<u64> },
    /// For a snapshot: the last one who was asked, how often in a row, and when.
    Asking {
        asked: Option<NodeId>,
        times: u32,
        at: u64,
    },
    /// The state is that of this node's snapshot. The files are not in order yet.
    Settling { from: NodeId },
}

impl Stage {
    fn ask(now: u64) -> Stage {
        Stage::Asking {
            asked: None,
            times: 0,
            at: now,
        }
    }
}

impl Suspicion {
    /// Whether there is no state that entries could be applied to.
    pub(super) fn is_frozen(&self) -> bool {
        match self.stage {
            Stage::Marking { .. } | Stage::Asking { .. } => true,
            Stage::Settling { .. } => false,
        }
    }
}

impl Driver {
    /// The own state is not that of the majority.
    pub(super) fn distrust(&mut self, suspect: Suspect) {
        if self.suspicion.is_some() {
            return;
        }
        self.begin_suspicion(suspect, Stage::Marking { again: None });
        self.effects.push(Effect::Distrust(suspect));
    }

    /// The state of this node is not that of the majority, as the mark on its disk said when it started. To be called before
    /// anything else.
    pub fn start_suspect(&mut self, suspect: Suspect) {
        self.begin_suspicion(suspect, Stage::ask(self.now));
    }

    fn begin_suspicion(&mut self, suspect: Suspect, stage: Stage) {
        let HashAt { index, hash, .. } = suspect.agreed;
        tracing::error!(
            "the state at entry {index} is {:016x}, a majority has {hash:016x}: out of service until it is rebuilt",
            suspect.own
        );
        self.suspicion = Some(Suspicion {
            suspect,
            stage,
            pending: Vec::new(),
        });
        self.node.report_fit(false);
        self.node.storage_mut().forget_snapshot();
        self.snapshots.forget_newest();
        self.positions.forget();
        self.give_up_reads();
        self.give_up_writes();
        self.members_leadership_changed();
    }

    /// Why this is not answered here, if it is not: it concerns the state, and that is suspect.
    pub(super) fn out_of_service(&self, request: &Request) -> Option<Refusal> {
        self.suspicion.as_ref()?;
        match request {
            Request::Hello { .. }
            | Request::Status
            | Request::Members
            | Request::Health
            | Request::DiscardLog
            | Request::Scrub
            | Request::TransferLeader { .. } => None,
            // Whoever reads here does not want to be sent elsewhere.
            Request::Read {
                consistency: Consistency::Local,
                ..
            }
            | Request::Ask {
                consistency: Consistency::Local,
                ..
            } => Some(self.no_state()),
            Request::OpenSession { .. }
            | Request::Write { .. }
            | Request::Read { .. }
            | Request::Ask { .. }
            | Request::MemberTable
            | Request::ChangeMembers { .. } => Some(self.elsewhere()),
        }
    }

    /// The refusal of a node whose state is suspect, to one who may ask another.
    pub(super) fn elsewhere(&self) -> Refusal {
        let leader = self.leader.filter(|leader| *leader != self.id);
        match leader.and_then(|leader| self.member(leader)) {
            None => self.no_state(),
            leader => Refusal::NotLeader { leader },
        }
    }

    fn no_state(&self) -> Refusal {
        Refusal::NoLeader {
            detail: self.suspicion_text().unwrap_or_default(),
        }
    }

    /// For people; `None` if nothing is wrong.
    pub(super) fn suspicion_text(&self) -> Option<String> {
        let Suspicion { suspect, stage, .. } = self.suspicion.as_ref()?;
        let from = match stage {
            Stage::Marking { .. } | Stage::Asking { asked: None, .. } => String::new(),
            Stage::Asking {
                asked: Some(from), ..
            }
            | Stage::Settling { from } => format!(" from {}", self.name_of(*from)),
        };
        let HashAt { index, hash, .. } = suspect.agreed;
        Some(format!(
            "the state of this node differs from that of the majority at entry {index} ({:016x}, not {hash:016x}) and is being \
             rebuilt{from}",
            suspect.own
        ))
    }

    /// The mark is durable, or could not be written.
    pub(super) fn handle_distrusted(&mut self, done: bool) {
        let now = self.now;
        if let Some(suspicion) = &mut self.suspicion
            && let Stage::Marking { again } = &mut suspicion.stage
        {
            match done {
                true => suspicion.stage = Stage::ask(now),
                false => *again = Some(now + RETRY_TICKS),
            }
        }
    }

    /// Takes the next step towards a state that can be trusted.
    pub(super) fn advance_suspicion(&mut self) {
        let Some(Suspicion { suspect, stage, .. }) = &mut self.suspicion else {
            return;
        };
        let (suspect, now) = (*suspect, self.now);
        match stage {
            Stage::Marking { again } => {
                if again.take_if(|again| *again <= now).is_some() {
                    self.effects.push(Effect::Distrust(suspect));
                }
            }
            Stage::Asking { asked, times, at } => {
                let (asked, times, at) = (*asked, *times, *at);
                self.maybe_ask(suspect.agreed, asked, times, at);
            }
            Stage::Settling { .. } => {}
        }
    }

    /// Asks for a snapshot, if nobody was asked yet or the answer does not come.
    ///
    /// Not while one of this node is being written: it would get the name of the one that is asked for.
    fn maybe_ask(&mut self, agreed: HashAt, asked: Option<NodeId>, times: u32, at: u64) {
        let patience = ASK_AGAIN_TIMEOUTS * self.options.election_timeout_ticks;
        let is_due = match asked {
            None => at <= self.now,
            Some(peer) => at + patience <= self.now || !self.links.contains(&peer),
        };
        if !is_due || self.snapshots.is_writing() {
            return;
        }
        let again = asked.filter(|peer| times < ASKS_MAX && self.links.contains(peer));
        let Some(peer) = again.or_else(|| self.next_to_ask(asked)) else {
            return;
        };
        let times = if again.is_some() { times + 1 } else { 1 };
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.stage = Stage::Asking {
                asked: Some(peer),
                times,
                at: self.now,
            };
        }
        let covering = LogIndex(self.store.applied_index());
        self.effects.push(Effect::Send {
            to: peer,
            message: PeerMessage::StateAsk { agreed, covering },
        });
    }

    /// The member in reach after this one, in the order of their ids and round again.
    fn next_to_ask(&self, after: Option<NodeId>) -> Option<NodeId> {
        let members = self.node.configuration().members();
        let in_reach = |peer: &&NodeId| {
            self.links.contains(peer) && self.positions.knows_command(**peer, STATE_HASH_VERSION)
        };
        let mut peers = members.iter().filter(in_reach);
        let first = peers.clone().next();
        let next = peers.find(|peer| after.is_some_and(|after| **peer > after));
        next.or(first).copied()
    }

    /// Somebody's state is suspect. It gets a snapshot only if the own state is known to have been that of the majority.
    pub(super) fn handle_state_ask(&mut self, from: NodeId, agreed: HashAt, covering: LogIndex) {
        if self.suspicion.is_some() || !self.positions.has_agreed(&agreed) {
            tracing::debug!(%from, "no snapshot for it: this node is not known to have agreed");
            return;
        }
        let ask = Envelope {
            from,
            to: self.id,
            term: self.node.term(),
            message: Message::SnapshotAsk(SnapshotAsk { covering }),
        };
        if let Err(rejected) = self.node.step(ask) {
            tracing::debug!(%from, %rejected, "no snapshot for it");
        }
    }

    /// Takes a snapshot that the core has no use for, if it is the one that was asked for.
    pub(super) fn maybe_rebuild(&mut self, staged: StagedSnapshot) {
        let from = staged.envelope.from;
        let applied = self.store.applied_index();
        let Some(suspicion) = &mut self.suspicion else {
            return;
        };
        let is_answer = matches!(staged.envelope.message, Message::RepairSnapshot(_));
        let was_asked =
            matches!(suspicion.stage, Stage::Asking { asked: Some(asked), .. } if asked == from);
        if !is_answer || !was_asked || staged.header.index < applied {
            return;
        }
        let id = EntryId {
            index: LogIndex(staged.header.index),
            term: raft_core::Term(staged.header.term),
        };
        tracing::info!(%from, %id, "state rebuilt");
        suspicion.stage = Stage::Settling { from };
        let pending = std::mem::take(&mut suspicion.pending);
        self.store = staged.store.with_machines(self.store.programs().clone());
        self.snapshots.restart_at(id);
        self.effects.push(Effect::Trust(id));
        self.apply(pending);
    }

    /// The files say what the state is, or do not: then another snapshot is asked for.
    pub(super) fn handle_trusted(&mut self, done: bool) {
        let now = self.now;
        let Some(suspicion) = &mut self.suspicion else {
            return;
        };
        if !matches!(suspicion.stage, Stage::Settling { .. }) {
            return;
        }
        if !done {
            suspicion.stage = Stage::ask(now);
            return;
        }
        tracing::info!("in service again");
        self.suspicion = None;
        self.node.report_fit(true);
        self.want_snapshot();
    }
}
