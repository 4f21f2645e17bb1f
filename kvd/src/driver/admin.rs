//! Requests at the door: who may ask what, and where each kind goes. Also the orderly stop.

use raft_core::NodeId;

use super::members::Asked;
use super::{ClientId, Driver, Effect, Stopping};
use crate::kv::auth::{Operation, Principal, may};
use crate::wire::client::{
    CLIENT_VERSION, Member, MemberAddress, Refusal, Request, RequestFrame, Response,
};
use crate::wire::peer::ForwardedWrite;

/// Election timeouts that a hand-over may take before a stopping leader goes without one.
const HAND_OVER_TIMEOUTS: u64 = 4;

impl Driver {
    /// Takes one request. Rights are checked here, at one place, for every kind; writes again when they are applied.
    pub(super) fn handle_request(
        &mut self,
        client: ClientId,
        principal: Principal,
        frame: RequestFrame,
    ) {
        let RequestFrame { id, body } = frame;
        let refusal = refuse_rights(&principal, &body).or_else(|| self.out_of_service(&body));
        if let Some(refusal) = refusal {
            return self.refuse(client, id, refusal);
        }
        match body {
            Request::Hello { version, program } => self.answer_hello(client, id, version, &program),
            Request::OpenSession { name } => self.handle_open_session(client, id, principal, name),
            Request::Write {
                session,
                sequence,
                done_below,
                command,
                crc,
                timeout_ms,
            } => {
                let write = ForwardedWrite {
                    session,
                    sequence,
                    done_below,
                    command,
                    crc,
                    timeout_ms,
                };
                self.handle_write(client, id, principal, write);
            }
            Request::Read {
                consistency,
                query,
                timeout_ms,
            } => {
                self.handle_read(client, id, consistency, query, timeout_ms);
            }
            Request::Ask {
                consistency,
                question,
                timeout_ms,
            } => self.handle_ask(client, id, consistency, question, timeout_ms),
            Request::Status => {
                let status = Box::new(self.status());
                self.answer(client, id, Response::Status(status));
            }
            Request::Members => {
                let response = self.answer_members();
                self.answer(client, id, response);
            }
            Request::Health => {
                let response = self.health();
                self.answer(client, id, response);
            }
            Request::DiscardLog => {
                self.want_snapshot();
                self.answer(client, id, Response::Done);
            }
            Request::Scrub => self.effects.push(Effect::Scrub { client, id }),
            Request::TransferLeader { to } => self.handle_transfer(client, id, to.as_deref()),
            Request::MemberTable => {
                let response = self.answer_member_table();
                self.answer(client, id, response);
            }
            Request::ChangeMembers {
                changes,
                dry_run,
                timeout_ms,
            } => self.handle_change_members(Asked {
                client,
                id,
                changes,
                dry_run,
                timeout_ms,
            }),
        }
    }

    fn answer_hello(&mut self, client: ClientId, id: u64, version: u16, program: &str) {
        if version < u16::from(CLIENT_VERSION) {
            let why =
                format!("protocol version {version} of {program} is older than {CLIENT_VERSION}");
            self.refuse(client, id, Refusal::BadRequest { why });
            return;
        }
        let hello = Response::Hello {
            version: u16::from(CLIENT_VERSION),
            node: self.options.name.clone(),
            node_id: self.id.0,
            cluster: self.options.cluster,
            cluster_name: self.options.cluster_name.clone(),
            members: self.members(),
            leader: self.leader.map(|leader| leader.0),
        };
        self.answer(client, id, hello);
    }

    fn answer_member_table(&self) -> Response {
        // It may never have applied what it was removed by, and would show itself as a member.
        match self.is_outside() {
            true => Response::Refused(Refusal::NotLeader { leader: None }),
            false => self.member_table(),
        }
    }

    fn answer_members(&self) -> Response {
        let voters = &self.node.configuration().voters;
        let member = |address: MemberAddress| Member {
            voter: voters.contains(&NodeId(address.id)),
            address,
        };
        Response::Members {
            members: self.members().into_iter().map(member).collect(),
            leader: self.leader.map(|leader| leader.0),
        }
    }

    fn health(&self) -> Response {
        let mut reasons = Vec::new();
        if self.is_removed() {
            reasons.push("this node was removed from the cluster".into());
        } else if self.leader.is_none() {
            reasons.push(self.no_leader().to_string());
        }
        if self.space.is_short() {
            reasons.push("no space left for the log".into());
        }
        if let Some(repair) = self.repair_progress() {
            reasons.push(repair.to_string());
        }
        reasons.extend(self.suspicion_text());
        if self.stopping.is_some() {
            reasons.push("the node is stopping".into());
        }
        Response::Health {
            healthy: reasons.is_empty(),
            reasons,
        }
    }

    fn handle_transfer(&mut self, client: ClientId, id: u64, to: Option<&str>) {
        let response = match self.transfer(to) {
            Ok(()) => Response::Done,
            Err(refusal) => Response::Refused(refusal),
        };
        self.answer(client, id, response);
    }

    fn transfer(&mut self, to: Option<&str>) -> Result<(), Refusal> {
        if !self.is_leader() {
            return Err(Refusal::NotLeader {
                leader: self.leader.and_then(|id| self.member(id)),
            });
        }
        let to = to.map(|name| self.member_named(name)).transpose()?;
        let target = self.node.transfer_leader(to);
        target.map(|_| ()).map_err(|error| Refusal::BadRequest {
            why: error.to_string(),
        })
    }

    /// Begins an orderly stop: leadership first, so that clients find another node before this one falls silent.
    pub(super) fn handle_shutdown(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let deadline = self.now + HAND_OVER_TIMEOUTS * self.options.election_timeout_ticks;
        self.stopping = Some(Stopping {
            deadline,
            leads: self.is_leader(),
            stopped: false,
        });
        if self.is_leader()
            && let Err(error) = self.node.transfer_leader(None)
        {
            tracing::info!(%error, "leadership cannot be handed over");
        }
    }

    /// Says so once when nothing keeps the node any more: another leads, and its own requests are answered.
    pub(super) fn maybe_stop(&mut self) {
        let Some(stopping) = self.stopping else {
            return;
        };
        // Nobody needs a follower's leave; a leader stays until it has heard its successor.
        let alone = self.node.configuration().voters.len() == 1;
        let succeeded = !stopping.leads || alone || !self.is_leader() && self.leader.is_some();
        let idle = self.writes_are_idle() && self.reads.are_idle();
        let done = succeeded && idle || stopping.deadline <= self.now;
        if done && !stopping.stopped {
            self.stopping = Some(Stopping {
                stopped: true,
                ..stopping
            });
            // The last that the log is told, so that a later start knows all that was committed here.
            self.note_commit();
            self.effects.push(Effect::Stopped);
        }
    }
}

/// The refusal of a request that this principal may not make.
fn refuse_rights(principal: &Principal, request: &Request) -> Option<Refusal> {
    let operation = operation_of(request);
    if may(principal.borrowed(), operation) {
        return None;
    }
    let why = format!(
        "{} {} may not {}",
        principal.role.as_str(),
        principal.name,
        operation.as_str()
    );
    Some(Refusal::NotAuthorised { why })
}

fn operation_of(request: &Request) -> Operation {
    match request {
        Request::OpenSession { .. } | Request::Write { .. } => Operation::Write,
        Request::Read { .. } | Request::Ask { .. } => Operation::Read,
        Request::Hello { .. }
        | Request::Status
        | Request::Members
        | Request::MemberTable
        | Request::Health => Operation::Status,
        Request::DiscardLog
        | Request::Scrub
        | Request::TransferLeader { .. }
        | Request::ChangeMembers { .. } => Operation::Operate,
    }
}
