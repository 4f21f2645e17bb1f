//! Linearizable reads: asked together, confirmed together, answered when the store has caught up.
//!
//! ```text
//!   waiting --> asked (read index round) --> confirmed at an index --> answered when applied >= index
//!      ^              |
//!      +--------------+  round failed, leader changed, or no answer for an election timeout
//! ```

use std::collections::BTreeMap;

use raft_core::{LogIndex, ReadId, ReadState};

use super::{ClientId, Driver};
use crate::kv::command::{Custom, RangeQuery};
use crate::kv::limits;
use crate::wire::client::{Consistency, Refusal, Response};

/// What is read.
#[derive(Debug)]
pub(super) enum Wanted {
    Range(RangeQuery),
    /// The reply of a state machine.
    Reply(Custom),
}

#[derive(Debug)]
struct Read {
    client: ClientId,
    id: u64,
    wanted: Wanted,
    deadline: u64,
}

#[derive(Debug)]
struct Round {
    asked_at: u64,
    reads: Vec<Read>,
}

/// All reads of a node that have not been answered.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: Vec<Read>,
    asked: BTreeMap<ReadId, Round>,
    confirmed: BTreeMap<LogIndex, Vec<Read>>,
    last: u64,
    count: usize,
    /// A round was refused; nothing is asked before this tick.
    not_before: u64,
}

impl Reads {
    /// The core has confirmed rounds.
    pub(super) fn confirmed(&mut self, states: Vec<ReadState>) {
        for state in states {
            if let Some(round) = self.asked.remove(&state.id) {
                self.confirmed
                    .entry(state.index)
                    .or_default()
                    .extend(round.reads);
            }
        }
    }

    /// The core cannot answer these rounds; the reads try again.
    pub(super) fn failed(&mut self, ids: &[ReadId]) {
        for id in ids {
            if let Some(round) = self.asked.remove(id) {
                self.waiting.extend(round.reads);
            }
        }
    }

    /// All open rounds start again. A late answer to an old round finds nobody, so it cannot confirm a newer read.
    pub(super) fn ask_again(&mut self) {
        for round in std::mem::take(&mut self.asked).into_values() {
            self.waiting.extend(round.reads);
        }
    }

    /// Whether nothing waits.
    pub(super) fn are_idle(&self) -> bool {
        self.count == 0
    }

    pub(super) fn forget_client(&mut self, client: ClientId) {
        let mut gone = 0;
        let mut forget = |reads: &mut Vec<Read>| {
            let before = reads.len();
            reads.retain(|read| read.client != client);
            gone += before - reads.len();
        };
        forget(&mut self.waiting);
        self.asked
            .values_mut()
            .for_each(|round| forget(&mut round.reads));
        self.confirmed.values_mut().for_each(forget);
        self.count -= gone;
    }
}

impl Driver {
    pub(super) fn handle_read(
        &mut self,
        client: ClientId,
        id: u64,
        consistency: Consistency,
        query: RangeQuery,
        timeout_ms: u32,
    ) {
        if let Err(error) = limits::check_query(&self.options.limits, &query) {
            self.refuse(client, id, error.into());
            return;
        }
        self.take_read(client, id, consistency, Wanted::Range(query), timeout_ms);
    }

    pub(super) fn take_read(
        &mut self,
        client: ClientId,
        id: u64,
        consistency: Consistency,
        wanted: Wanted,
        timeout_ms: u32,
    ) {
        match consistency {
            Consistency::Local => self.answer_from_store(client, id, &wanted, true),
            Consistency::Linearizable => {
                self.handle_linearizable_read(client, id, wanted, timeout_ms)
            }
        }
    }

    /// Takes a read that must see every write acknowledged before it began.
    fn handle_linearizable_read(
        &mut self,
        client: ClientId,
        id: u64,
        wanted: Wanted,
        timeout_ms: u32,
    ) {
        if self.stopping.is_some() && !self.is_leader() {
            self.refuse(client, id, Refusal::Stopping);
            return;
        }
        if self.reads.count >= self.options.waiting_count {
            let limit = self.options.waiting_count as u64;
            self.refuse(
                client,
                id,
                Refusal::Overloaded {
                    what: "reads waiting".into(),
                    limit,
                },
            );
            return;
        }
        let deadline = self.deadline(timeout_ms);
        self.reads.count += 1;
        self.reads.waiting.push(Read {
            client,
            id,
            wanted,
            deadline,
        });
    }

    /// Answers from this node's store as it is now.
    fn answer_from_store(&mut self, client: ClientId, id: u64, wanted: &Wanted, local: bool) {
        let applied = self.store.applied_index();
        let response = match wanted {
            Wanted::Range(query) => Response::Range {
                result: self.store.query(query),
                applied,
                local,
            },
            Wanted::Reply(question) => match self.store.ask(question) {
                Ok(reply) => Response::Replied {
                    reply,
                    applied,
                    local,
                },
                Err(refusal) => Response::Refused(refusal),
            },
        };
        self.answer(client, id, response);
    }

    /// One round of the core for all reads that wait.
    pub(super) fn route_reads(&mut self) {
        if self.reads.waiting.is_empty() || self.now < self.reads.not_before {
            return;
        }
        if self.is_outside() {
            for read in std::mem::take(&mut self.reads.waiting) {
                self.reads.count -= 1;
                self.refuse(read.client, read.id, Refusal::NotLeader { leader: None });
            }
            return;
        }
        let has_no_link = |leader| !self.links.contains(&leader);
        if !self.is_leader() && self.leader.is_some_and(has_no_link) {
            // The question would be lost, and that be noticed an election timeout later.
            self.reads.not_before = self.now + 1;
            return;
        }
        let id = ReadId(self.reads.last + 1);
        match self.node.read_index(id) {
            Ok(()) => {
                self.reads.last += 1;
                let reads = std::mem::take(&mut self.reads.waiting);
                self.reads.asked.insert(
                    id,
                    Round {
                        asked_at: self.now,
                        reads,
                    },
                );
            }
            // No leader is known: the reads wait for one, or for their deadline.
            Err(_) => self.reads.not_before = self.now + 1,
        }
    }

    pub(super) fn answer_reads(&mut self) {
        let applied = LogIndex(self.store.applied_index());
        while let Some(first) = self.reads.confirmed.first_entry() {
            if *first.key() > applied {
                return;
            }
            for read in first.remove() {
                self.reads.count -= 1;
                self.answer_from_store(read.client, read.id, &read.wanted, false);
            }
        }
    }

    /// The state of this node is suspect: no read is answered from it.
    pub(super) fn give_up_reads(&mut self) {
        let reads = &mut self.reads;
        let mut open = std::mem::take(&mut reads.waiting);
        let rounds = std::mem::take(&mut reads.asked).into_values();
        open.extend(rounds.flat_map(|round| round.reads));
        open.extend(std::mem::take(&mut reads.confirmed).into_values().flatten());
        for read in open {
            self.reads.count -= 1;
            let refusal = self.elsewhere();
            self.refuse(read.client, read.id, refusal);
        }
    }

    /// Refuses the reads whose time is over, and asks again where a round's messages were lost.
    pub(super) fn expire_reads(&mut self) {
        if self.reads.count == 0 {
            return;
        }
        let patience = self.options.election_timeout_ticks;
        let stale: Vec<ReadId> = self
            .reads
            .asked
            .iter()
            .filter(|(_, round)| round.asked_at + patience <= self.now)
            .map(|(id, _)| *id)
            .collect();
        self.reads.failed(&stale);
        let now = self.now;
        let mut late = Vec::new();
        let mut expire =
            |reads: &mut Vec<Read>| late.extend(reads.extract_if(.., |read| read.deadline <= now));
        expire(&mut self.reads.waiting);
        self.reads
            .asked
            .values_mut()
            .for_each(|round| expire(&mut round.reads));
        self.reads.confirmed.values_mut().for_each(expire);
        for read in late {
            self.reads.count -= 1;
            let refusal = self.no_leader();
            self.refuse(read.client, read.id, refusal);
        }
    }
}
