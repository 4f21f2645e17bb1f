//! Writes on their way: from the request, through the leader's log, to the answer.
//!
//! A write is a *ticket* until it is answered. Where it stands decides what may be said when time runs out:
//!
//! ```text
//!   Waiting --> Proposed(index, term) --> answered when that entry is applied
//!      ^  +---> Forwarded(leader) ------> answered by the leader
//!      +------------+  leadership moved, or another entry took the place: try again
//! ```
//!
//! A ticket with a session may be sent again at any time, because the session table makes the repetition harmless. One
//! without a session is sent again only when it is certain that the first attempt had no effect.

mod check;
mod giving_up;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Proposal, ProposeError, Term};

use super::space::ENTRY_OVERHEAD_BYTES;
use super::{ClientId, Driver};
use crate::kv::auth::Principal;
use crate::kv::command::{Command, command_crc};
use crate::kv::envelope::{Envelope, SessionRef};
use crate::kv::store::Applied;
use crate::wire::client::{Outcome, Refusal, Response};
use crate::wire::peer::{ForwardedWrite, PeerMessage};

/// Largest batch of payload bytes that is proposed in one call; bounds how much one turn puts before a heartbeat.
const PROPOSE_BYTES_MAX: u64 = 4 << 20;

/// How long opening a session may take; the request carries no time of its own.
const OPEN_SESSION_TIMEOUT_MS: u32 = 5_000;

/// A life of a node has fewer tickets than two to this; there is room for sixteen million lives.
const TICKETS_PER_LIFE_BITS: u32 = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TicketId(u64);

/// Who waits for the answer.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Client {
        client: ClientId,
        id: u64,
    },
    /// A client that opens a session; the answer has its own form.
    Opening {
        client: ClientId,
        id: u64,
    },
    Peer {
        node: NodeId,
        request: u64,
    },
}

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Proposed(LogIndex, Term),
    Forwarded(NodeId),
}

#[derive(Debug)]
struct Ticket {
    origin: Origin,
    principal: Principal,
    write: ForwardedWrite,
    deadline: u64,
    stage: Stage,
    /// An earlier attempt than the present one may still take effect: then no refusal of a later one is a *failed*.
    in_doubt: bool,
}

impl Ticket {
    fn bytes(&self) -> u64 {
        self.write.command.len() as u64 + ENTRY_OVERHEAD_BYTES
    }

    /// Whether some attempt may have taken effect, or may still.
    fn may_have_effect(&self) -> bool {
        self.in_doubt || self.stage != Stage::Waiting
    }

    /// Whether a repetition is harmless even if an earlier attempt took effect.
    fn is_repeatable(&self) -> bool {
        self.write.session != SessionRef::None
    }
}

/// All tickets of a node.
#[derive(Debug)]
pub(super) struct Writes {
    tickets: BTreeMap<TicketId, Ticket>,
    /// Tickets to be sent, in the order in which they came: the sequence numbers of a session must not overtake each other.
    waiting: BTreeSet<TicketId>,
    /// Tickets by the name of their entry. A node that led twice may have two at one index, and cannot know which of them will
    /// be committed: n1 of five proposes 4@1, which only n2 gets; n3 overwrites n1's log up to 2@2; n1 leads again and
    /// proposes 4@3; before a quorum has that, n2 is elected by the others and commits 4@1.
    proposed: BTreeMap<(LogIndex, Term), TicketId>,
    deadlines: BTreeSet<(u64, TicketId)>,
    bytes: u64,
    last: u64,
    /// Nothing is sent to a leader that has just refused before this tick, so that two nodes that each take the other for
    /// the leader do not spin.
    not_before: u64,
    /// Log time at the election of this leader, and the tick of it.
    elected: (u64, u64),
}

impl Driver {
    /// Takes a client's write, or refuses it before anything is sent.
    pub(super) fn handle_write(
        &mut self,
        client: ClientId,
        id: u64,
        principal: Principal,
        write: ForwardedWrite,
    ) {
        self.take_or_refuse(Origin::Client { client, id }, principal, write);
    }

    /// Takes a write that another node forwards. The principal is the one that the other node authenticated.
    pub(super) fn handle_forward(
        &mut self,
        from: NodeId,
        request: u64,
        principal: Principal,
        write: ForwardedWrite,
    ) {
        let origin = Origin::Peer {
            node: from,
            request,
        };
        if self.suspicion.is_some() {
            self.conclude(origin, Response::Refused(self.elsewhere()));
        } else if self.is_leader() {
            self.take_or_refuse(origin, principal, write);
        } else {
            // Passing it on again could go round in circles.
            let leader = self.leader.and_then(|id| self.member(id));
            self.conclude(origin, Response::Refused(Refusal::NotLeader { leader }));
        }
    }

    /// Opens a session, or finds the one of this name: a write that changes nothing else.
    pub(super) fn handle_open_session(
        &mut self,
        client: ClientId,
        id: u64,
        principal: Principal,
        name: u128,
    ) {
        let command = Command::KeepAlive.encode();
        let origin = Origin::Opening { client, id };
        let write = ForwardedWrite {
            session: SessionRef::Named(name),
            sequence: 0,
            done_below: 0,
            crc: command_crc(&command),
            command,
            timeout_ms: OPEN_SESSION_TIMEOUT_MS,
        };
        self.take_or_refuse(origin, principal, write);
    }

    fn take_or_refuse(&mut self, origin: Origin, principal: Principal, write: ForwardedWrite) {
        match self.check_write(&write) {
            Ok(()) => self.take_write(origin, principal, write),
            Err(refusal) => self.conclude(origin, Response::Refused(refusal)),
        }
    }

    fn take_write(&mut self, origin: Origin, principal: Principal, write: ForwardedWrite) {
        self.writes.last += 1;
        let id = TicketId(self.writes.last);
        let deadline = self.deadline(write.timeout_ms);
        let ticket = Ticket {
            origin,
            principal,
            write,
            deadline,
            stage: Stage::Waiting,
            in_doubt: false,
        };
        self.writes.bytes += ticket.bytes();
        self.writes.deadlines.insert((deadline, id));
        self.writes.waiting.insert(id);
        self.writes.tickets.insert(id, ticket);
    }

    pub(super) fn deadline(&self, timeout_ms: u32) -> u64 {
        self.now + u64::from(timeout_ms).div_ceil(super::TICK_MS).max(1)
    }

    /// Sends everything that waits: into the own log as leader, else to the leader.
    pub(super) fn route_writes(&mut self) {
        if self.writes.waiting.is_empty() {
            self.space.note_starved(false, self.now);
            return;
        }
        if self.is_leader() {
            while self.propose_batch() {}
            let starved = self.next_without_room();
            self.space.note_starved(starved, self.now);
        } else if let Some(leader) = self.leader
            && self.links.contains(&leader)
            && self.now >= self.writes.not_before
        {
            self.forward_all(leader);
        } else if self.is_outside() {
            for id in std::mem::take(&mut self.writes.waiting) {
                self.finish(id, Response::Refused(Refusal::NotLeader { leader: None }));
            }
        }
    }

    /// Proposes what fits into one batch; whether there may be more to do.
    fn propose_batch(&mut self) -> bool {
        let (ids, proposals, bytes) = self.next_batch();
        if ids.is_empty() {
            return false;
        }
        match self.node.propose(proposals) {
            Ok(first) => {
                self.space.propose(bytes);
                let mut index = first.index;
                for id in ids {
                    self.writes
                        .set_stage(id, Stage::Proposed(index, first.term));
                    index = index.next();
                }
                true
            }
            // Waits in the queue, whose bound refuses what comes later.
            Err(
                ProposeError::Overloaded { .. }
                | ProposeError::NotLeader { .. }
                | ProposeError::Transferring { .. },
            ) => false,
            Err(error) => {
                tracing::error!(%error, "proposal refused by the core");
                false
            }
        }
    }

    /// The next tickets that fit, their proposals, and the bytes that these take in the log.
    fn next_batch(&self) -> (Vec<TicketId>, Vec<Proposal>, u64) {
        let left = self.space.left();
        let mut bytes = 0;
        let mut ids = Vec::new();
        let mut proposals = Vec::new();
        let log_time_ms = self.log_time_ms();
        for id in &self.writes.waiting {
            let ticket = &self.writes.tickets[id];
            let with_this = bytes + ticket.bytes();
            if with_this > left || with_this > PROPOSE_BYTES_MAX && !ids.is_empty() {
                break;
            }
            bytes = with_this;
            let payload = ticket.payload(log_time_ms);
            let checksum = raft_log::record::payload_checksum(self.options.cluster, &payload);
            ids.push(*id);
            proposals.push(Proposal { payload, checksum });
        }
        (ids, proposals, bytes)
    }

    fn next_without_room(&self) -> bool {
        let next = self
            .writes
            .waiting
            .first()
            .map(|id| &self.writes.tickets[id]);
        next.is_some_and(|ticket| ticket.bytes() > self.space.left())
    }

    fn forward_all(&mut self, leader: NodeId) {
        let ids: Vec<TicketId> = self.writes.waiting.iter().copied().collect();
        for id in ids {
            let ticket = &self.writes.tickets[&id];
            if let Origin::Peer { .. } = ticket.origin {
                // It came from a node that took this one for the leader; that node knows better by now where to send it.
                let leader = self.member(leader);
                self.finish(id, Response::Refused(Refusal::NotLeader { leader }));
                continue;
            }
            let left_ms = (ticket.deadline - self.now) * super::TICK_MS;
            let write = ForwardedWrite {
                timeout_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
                ..ticket.write.clone()
            };
            let message = PeerMessage::Forward {
                request: id.0,
                principal: ticket.principal.clone(),
                write,
            };
            self.effects.push(super::Effect::Send {
                to: leader,
                message,
            });
            self.writes.set_stage(id, Stage::Forwarded(leader));
        }
    }

    /// The leader's answer to a forwarded write.
    pub(super) fn handle_forward_reply(&mut self, from: NodeId, request: u64, response: Response) {
        let id = TicketId(request);
        let Some(ticket) = self.writes.tickets.get(&id) else {
            return;
        };
        if ticket.stage != Stage::Forwarded(from) {
            // Sent again elsewhere since; the newer attempt will answer, with the same result.
            return;
        }
        let repeatable = ticket.is_repeatable();
        let Response::Refused(refusal) = &response else {
            self.finish(id, response);
            return;
        };
        if matches!(refusal, Refusal::NotLeader { .. } | Refusal::Stopping) {
            self.writes.not_before = self.now + 1;
            self.writes.set_stage(id, Stage::Waiting);
        } else if matches!(refusal, Refusal::OutcomeUnknown { .. }) && repeatable {
            // The leader was deposed, or could not reach a quorum; the next one may know.
            self.writes.not_before = self.now + 1;
            self.writes.doubt(id);
        } else {
            self.finish(id, response);
        }
    }

    /// Answers the write whose entry was just applied; writes whose place another entry took are sent again.
    pub(super) fn answer_write(&mut self, index: LogIndex, term: Term, applied: Applied) {
        let own = self.writes.proposed.remove(&(index, term));
        self.reroute_displaced(index);
        if let Some(id) = own {
            self.finish(id, response_of(applied));
        }
    }

    /// Sends the writes again whose place in the log was taken by the entry that was just applied.
    pub(super) fn reroute_displaced(&mut self, index: LogIndex) {
        let later = self.writes.proposed.split_off(&(index.next(), Term(0)));
        let settled = std::mem::replace(&mut self.writes.proposed, later);
        for id in settled.into_values() {
            self.displaced(id);
        }
    }

    /// The entry of this attempt is not in the log and, its place being committed, never will be.
    fn displaced(&mut self, id: TicketId) {
        self.writes.set_stage(id, Stage::Waiting);
    }

    /// Writes that were proposed at or below an installed snapshot: it says what became of the log, but not of them.
    pub(super) fn reroute_covered(&mut self, through: LogIndex) {
        let above = self.writes.proposed.split_off(&(through.next(), Term(0)));
        let covered = std::mem::replace(&mut self.writes.proposed, above);
        for id in covered.into_values() {
            self.retry_if_harmless(id);
        }
    }

    /// The link to `peer` is gone, or it leads no longer: what was forwarded to it may never be answered.
    pub(super) fn reroute_forwarded_to(&mut self, peer: NodeId) {
        let lost: Vec<TicketId> = self
            .writes
            .tickets
            .iter()
            .filter(|(_, t)| t.stage == Stage::Forwarded(peer))
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.retry_if_harmless(id);
        }
    }

    fn retry_if_harmless(&mut self, id: TicketId) {
        match self.writes.tickets.get(&id) {
            Some(ticket) if ticket.is_repeatable() => self.writes.doubt(id),
            Some(_) => self.finish(
                id,
                unknown("the leader was lost after the write was sent to it"),
            ),
            None => {}
        }
    }

    /// Role, term or leader changed.
    pub(super) fn leadership_changed(&mut self, before: Option<NodeId>) {
        if let Some(old) = before.filter(|old| Some(*old) != self.leader) {
            self.reroute_forwarded_to(old);
        }
        if self.is_leader() {
            self.writes.elected = (self.store.log_time_ms(), self.now);
        } else {
            self.reroute_proposed();
        }
        self.reads.ask_again();
        self.members_leadership_changed();
    }

    /// This node leads no longer: what it proposed may or may not survive. What may be repeated is sent to the next leader at
    /// once instead of waiting for other entries to reach its index.
    fn reroute_proposed(&mut self) {
        let proposed = std::mem::take(&mut self.writes.proposed);
        for (entry, id) in proposed {
            match self.writes.tickets.get(&id) {
                Some(ticket) if ticket.is_repeatable() => self.writes.doubt(id),
                Some(_) => {
                    self.writes.proposed.insert(entry, id);
                }
                None => {}
            }
        }
    }

    /// Time of the log: what it had reached when this leader was elected, and what has gone by here since. Never a wall clock.
    pub(super) fn log_time_ms(&self) -> u64 {
        let (at_election, tick) = self.writes.elected;
        (at_election + (self.now - tick) * super::TICK_MS).max(self.store.log_time_ms())
    }

    pub(super) fn expire_writes(&mut self) {
        while let Some(&(deadline, id)) = self.writes.deadlines.first() {
            if deadline > self.now {
                return;
            }
            self.writes.deadlines.pop_first();
            let Some(ticket) = self.writes.tickets.get(&id) else {
                continue;
            };
            let response = match ticket.may_have_effect() {
                true => unknown("no quorum has confirmed it in time; it may still take effect"),
                false if self.is_leader() && self.has_no_space() => {
                    Response::Refused(Refusal::NoSpace)
                }
                false => Response::Refused(self.no_leader()),
            };
            self.finish(id, response);
        }
    }

    fn has_no_space(&self) -> bool {
        self.space.is_full() || self.space.is_starved(self.now)
    }

    fn finish(&mut self, id: TicketId, response: Response) {
        let Some(ticket) = self.writes.tickets.remove(&id) else {
            return;
        };
        self.writes.bytes -= ticket.bytes();
        self.writes.waiting.remove(&id);
        self.writes.deadlines.remove(&(ticket.deadline, id));
        self.conclude(ticket.origin, honest(&ticket, response));
    }

    fn conclude(&mut self, origin: Origin, response: Response) {
        match origin {
            Origin::Client { client, id } => self.answer(client, id, response),
            Origin::Opening { client, id } => self.answer(client, id, opened(response)),
            Origin::Peer { node, request } => {
                self.effects.push(super::Effect::Send {
                    to: node,
                    message: PeerMessage::ForwardReply { request, response },
                });
            }
        }
    }

    /// Whether nothing is on its way any more.
    pub(super) fn writes_are_idle(&self) -> bool {
        self.writes.tickets.is_empty()
    }
}

impl Writes {
    /// No tickets yet. Their numbers begin behind those of every earlier life of this node: they travel with forwarded
    /// writes, and the answer to one of an earlier life must not be taken for the answer to a new one.
    pub(super) fn new(boot_counter: u64) -> Writes {
        Writes {
            tickets: BTreeMap::new(),
            waiting: BTreeSet::new(),
            proposed: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            last: boot_counter << TICKETS_PER_LIFE_BITS,
            not_before: 0,
            elected: (0, 0),
        }
    }

    /// The present attempt may take effect or not; the next one goes out as soon as there is a leader.
    fn doubt(&mut self, id: TicketId) {
        if let Some(ticket) = self.tickets.get_mut(&id) {
            ticket.in_doubt = true;
        }
        self.set_stage(id, Stage::Waiting);
    }

    fn set_stage(&mut self, id: TicketId, stage: Stage) {
        let Some(ticket) = self.tickets.get_mut(&id) else {
            return;
        };
        ticket.stage = stage;
        match stage {
            Stage::Waiting => {
                self.waiting.insert(id);
            }
            Stage::Proposed(index, term) => {
                self.waiting.remove(&id);
                self.proposed.insert((index, term), id);
            }
            Stage::Forwarded(_) => {
                self.waiting.remove(&id);
            }
        }
    }
}

impl Ticket {
    fn payload(&self, log_time_ms: u64) -> Bytes {
        Envelope {
            principal: self.principal.borrowed(),
            session: self.write.session,
            sequence: self.write.sequence,
            done_below: self.write.done_below,
            log_time_ms,
            command_crc: self.write.crc,
            command: &self.write.command,
        }
        .encode()
    }
}

/// A definite refusal of the last attempt says nothing of an earlier one that is in doubt. Nor does an expired session: the
/// client would take it for the end of its one attempt, and begin anew under another session.
fn honest(ticket: &Ticket, response: Response) -> Response {
    if let Response::Refused(refusal) = &response
        && ticket.in_doubt
        && (refusal.outcome() == Outcome::Definite || *refusal == Refusal::SessionExpired)
    {
        return unknown(&format!(
            "an earlier attempt may take effect; the last one was refused: {refusal}"
        ));
    }
    response
}

/// The answer to a request for a session.
fn opened(response: Response) -> Response {
    if let Response::Written { session, .. } = response {
        return Response::SessionOpened { session };
    }
    response
}

fn unknown(why: &str) -> Response {
    Response::Refused(Refusal::OutcomeUnknown { why: why.into() })
}

fn response_of(applied: Applied) -> Response {
    match applied {
        Applied::Done { session, result } => Response::Written { session, result },
        Applied::Refused(refusal) => Response::Refused(refusal.into()),
    }
}
