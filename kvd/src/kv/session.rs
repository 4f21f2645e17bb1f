//! Client sessions: what makes a retried write harmless.
//!
//! A client numbers its writes 1, 2, 3... within a session, and repeats one with the same number until it has an answer.
//! The table is replicated state like the data: every replica keeps the same sessions, results and order of expiry.
//!
//! Which sequences are accepted, of a session that has applied everything below `next`:
//!
//! ```text
//!    done: refused      kept: answered from the table       |  next: applied   |  beyond: a gap, refused
//!  1 ................. done_below ......................... next               next + 1 ..............
//! ```
//!
//! Nothing is applied out of order. A client pipelines over one stream to one leader, so its writes enter the log in
//! order, and what a change of leader cuts off is the end of that row: resent in order, it continues where the log ended. Were
//! 5 applied before 4, then 4 could still follow from a slow node after the client had gone on, and the client's writes
//! would take effect in an order it never asked for.
//!
//! A client that gives a sequence up (or whose write was refused before it reached the log) raises `done_below` above it:
//! that closes the gap, and fences copies of it that may still arrive.
//!
//! A refusal is no use of the sequence: the same number may be sent again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::auth::{Principal, PrincipalRef};
use super::bounded::deque_at_most;
use super::command::{CommandResult, OpResult};
use super::envelope::{Envelope, SessionRef};
use super::limits::{SESSION_RESULTS_CEILING, SessionLimits};
use super::map::CowMap;
use super::store::ApplyRefusal;

/// One session. Travels in snapshots: append a new shape, never change this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Whose it is. Ids are easy to guess, so nobody else may use it.
    pub(crate) principal: Principal,
    /// The client's name for it.
    pub(crate) name: u128,
    /// Everything below was applied, or given up by the client.
    pub(crate) next: u64,
    /// The client has done with everything below; results are kept from here on.
    pub(crate) done_below: u64,
    /// The results of `done_below..next`, in order.
    #[serde(deserialize_with = "deque_at_most::<_, _, SESSION_RESULTS_CEILING>")]
    pub(crate) kept: VecDeque<Kept>,
    /// Sum of the sizes of `kept`.
    pub(crate) kept_bytes: u64,
    /// Log time of the last use.
    pub(crate) used_at_ms: u64,
    /// Index of the entry of the last use: the place in the order of expiry.
    pub(crate) used_at_index: u64,
    /// Ended by the client. It stays in the table like any other, so that a late copy of a request that names it does
    /// not register it anew and run twice.
    pub(crate) closed: bool,
}

/// The result of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Hash of the command's bytes: another command under the same number is a mistake of the client.
    pub(crate) content: u64,
    /// What it did.
    pub(crate) result: CommandResult,
}

const _: () = assert!(SESSION_RESULTS_CEILING * size_of::<Kept>() <= 64 << 10);

impl Kept {
    /// About what this takes in memory, from contents alone so that all replicas agree.
    fn bytes(&self) -> u64 {
        const BASE_BYTES: u64 = 64;
        const STEP_BYTES: u64 = 128;
        let items = self.result.results.iter().flat_map(|result| match result {
            OpResult::Put { previous, .. } => previous.as_slice(),
            OpResult::Deleted { previous, .. } => previous,
            OpResult::Range(range) => &range.items,
            OpResult::Incremented { .. }
            | OpResult::NotANumber
            | OpResult::Overflow
            | OpResult::AnswerTooLarge { .. }
            | OpResult::Answered { .. }
            | OpResult::Rejected { .. }
            | OpResult::WriteRefused { .. } => &[],
        });
        let answers = self.result.results.iter().map(|result| match result {
            OpResult::Answered { answer } => answer.len() as u64,
            OpResult::Rejected { rejection } => rejection.len() as u64,
            OpResult::WriteRefused { why } => why.len() as u64,
            OpResult::Put { .. }
            | OpResult::Deleted { .. }
            | OpResult::Range(_)
            | OpResult::Incremented { .. }
            | OpResult::NotANumber
            | OpResult::Overflow
            | OpResult::AnswerTooLarge { .. } => 0,
        });
        let answers: u64 = answers.sum();
        let items: u64 = items
            .map(|item| STEP_BYTES + (item.key.len() + item.value.len()) as u64)
            .sum();
        BASE_BYTES + self.result.results.len() as u64 * STEP_BYTES + items + answers
    }
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is new and next: run it, then [`SessionTable::keep`] the result.
    Run,
    /// It was run before.
    Repeated(CommandResult),
}

/// All sessions.
#[derive(Debug, Clone, Default)]
pub struct SessionTable {
    by_id: CowMap<u64, Arc<Session>>,
    /// Live names. A name belongs to a principal: two users may choose the same.
    by_name: CowMap<(u128, Principal), u64>,
    /// Session by index of last use. Log time does not fall, so this is also the order of expiry.
    by_use: CowMap<u64, u64>,
    kept_bytes: u64,
}

impl SessionTable {
    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// About how many bytes the kept results take.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// All of them.
    pub(crate) fn by_id(&self) -> &CowMap<u64, Arc<Session>> {
        &self.by_id
    }

    #[cfg(test)]
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Arc<Session>> {
        self.by_id.get_mut(&id)
    }

    /// The sessions with an id above this one, in order.
    pub(crate) fn iter_after(&self, id: u64) -> impl Iterator<Item = (u64, &Session)> {
        self.by_id
            .iter_from(std::ops::Bound::Excluded(&id))
            .map(|(&id, session)| (id, &**session))
    }

    /// Adds a session out of a snapshot. `false` if it contradicts one that is there.
    pub(crate) fn restore(&mut self, id: u64, session: Session) -> bool {
        let bytes: u64 = session.kept.iter().map(Kept::bytes).sum();
        let window = session.next.checked_sub(session.done_below);
        let sound = session.kept_bytes == bytes && window == Some(session.kept.len() as u64);
        self.kept_bytes += bytes;
        sound
            && self.by_use.insert(session.used_at_index, id).is_none()
            && self
                .by_name
                .insert((session.name, session.principal.clone()), id)
                .is_none()
            && self.by_id.insert(id, Arc::new(session)).is_none()
    }

    /// Removes all sessions that have been idle for too long.
    pub(crate) fn expire(&mut self, now_ms: u64, limits: &SessionLimits) {
        while self
            .oldest_idle_ms(now_ms)
            .is_some_and(|idle| idle > limits.idle_ms)
        {
            self.remove_oldest();
        }
    }

    fn oldest_idle_ms(&self, now_ms: u64) -> Option<u64> {
        let (_, id) = self.by_use.first()?;
        let session = self
            .by_id
            .get(id)
            .expect("by_use names only sessions in by_id");
        Some(now_ms.saturating_sub(session.used_at_ms))
    }

    fn remove_oldest(&mut self) {
        let Some((&used, &id)) = self.by_use.first() else {
            return;
        };
        self.by_use.remove(&used);
        let session = self
            .by_id
            .remove(&id)
            .expect("by_use names only sessions in by_id");
        self.by_name
            .remove(&(session.name, session.principal.clone()));
        self.kept_bytes -= session.kept_bytes;
    }

    /// Makes room by removing sessions that are unused for long enough. `false` if that was not possible.
    fn make_room(
        &mut self,
        now_ms: u64,
        limits: &SessionLimits,
        full: impl Fn(&SessionTable) -> bool,
    ) -> bool {
        while full(self) {
            if self
                .oldest_idle_ms(now_ms)
                .is_none_or(|idle| idle < limits.kept_at_least_ms)
            {
                return false;
            }
            self.remove_oldest();
        }
        true
    }

    /// Finds or registers the session of a request; `index` is that of its entry. `None`: it wants no session.
    pub(crate) fn resolve(
        &mut self,
        index: u64,
        now_ms: u64,
        envelope: &Envelope<'_>,
        limits: &SessionLimits,
    ) -> Result<Option<u64>, ApplyRefusal> {
        let id = match envelope.session {
            SessionRef::None => return Ok(None),
            SessionRef::Id(id) => id,
            SessionRef::Named(name) => {
                match self.by_name.get(&(name, envelope.principal.to_owned())) {
                    Some(&id) => id,
                    None => self.register(index, now_ms, name, envelope.principal, limits)?,
                }
            }
        };
        self.touch(id, index, now_ms, envelope)?;
        Ok(Some(id))
    }

    fn register(
        &mut self,
        index: u64,
        now_ms: u64,
        name: u128,
        principal: PrincipalRef<'_>,
        limits: &SessionLimits,
    ) -> Result<u64, ApplyRefusal> {
        if !self.make_room(now_ms, limits, |table| table.len() >= limits.count) {
            return Err(ApplyRefusal::SessionsFull {
                limit: limits.count as u64,
            });
        }
        let principal = principal.to_owned();
        let session = Session {
            principal: principal.clone(),
            name,
            next: 1,
            done_below: 1,
            kept: VecDeque::new(),
            kept_bytes: 0,
            used_at_ms: now_ms,
            used_at_index: index,
            closed: false,
        };
        self.by_name.insert((name, principal), index);
        self.by_use.insert(index, index);
        self.by_id.insert(index, Arc::new(session));
        Ok(index)
    }

    /// Notes a use of the session and what its client has done with.
    fn touch(
        &mut self,
        id: u64,
        index: u64,
        now_ms: u64,
        envelope: &Envelope<'_>,
    ) -> Result<(), ApplyRefusal> {
        // A foreign session looks to its guesser like one that does not exist.
        let known = self.by_id.get(&id).is_some_and(|session| {
            session.principal.role == envelope.principal.role
                && session.principal.name == envelope.principal.name
        });
        if !known {
            return Err(ApplyRefusal::SessionExpired);
        }
        let session = Arc::make_mut(self.by_id.get_mut(&id).expect("looked up above"));
        self.by_use.remove(&session.used_at_index);
        self.by_use.insert(index, id);
        (session.used_at_index, session.used_at_ms) = (index, now_ms);
        self.kept_bytes -= session.forget_below(envelope.done_below);
        Ok(())
    }

    /// Decides about a request of this session.
    pub(crate) fn turn(
        &mut self,
        id: u64,
        now_ms: u64,
        sequence: u64,
        content: u64,
        limits: &SessionLimits,
    ) -> Result<Turn, ApplyRefusal> {
        let session = self.by_id.get(&id).ok_or(ApplyRefusal::SessionExpired)?;
        if let Some(repeated) = session.find(sequence, content)? {
            return Ok(Turn::Repeated(repeated.clone()));
        }
        if session.closed {
            return Err(ApplyRefusal::SessionExpired);
        }
        if sequence > session.next {
            return Err(ApplyRefusal::SequenceGap {
                expected: session.next,
            });
        }
        if session.kept.len() >= limits.results {
            return Err(ApplyRefusal::SessionFull {
                limit: limits.results as u64,
            });
        }
        if session.kept_bytes >= limits.result_bytes as u64 {
            return Err(ApplyRefusal::SessionFull {
                limit: limits.result_bytes as u64,
            });
        }
        // This session was used just now, so it is the last to go; if it went, there was no room even so.
        let limit = limits.total_result_bytes as u64;
        let roomy = self.make_room(now_ms, limits, |table| table.kept_bytes >= limit);
        if !roomy || self.by_id.get(&id).is_none() {
            return Err(ApplyRefusal::SessionsFull { limit });
        }
        Ok(Turn::Run)
    }

    /// Keeps the result of the request that [`SessionTable::turn`] let run.
    pub(crate) fn keep(&mut self, id: u64, content: u64, result: CommandResult) {
        let session = Arc::make_mut(
            self.by_id
                .get_mut(&id)
                .expect("turn() found it, and nothing came between"),
        );
        let kept = Kept { content, result };
        let bytes = kept.bytes();
        session.kept.push_back(kept);
        session.kept_bytes += bytes;
        session.next += 1;
        self.kept_bytes += bytes;
    }

    /// Ends a session: nothing more runs in it.
    pub(crate) fn close(&mut self, id: u64) {
        if let Some(session) = self.by_id.get_mut(&id) {
            Arc::make_mut(session).closed = true;
        }
    }
}

impl Session {
    /// Drops the results that the client has done with; answers how many bytes they took. What it has done with and never
    /// sent is skipped.
    fn forget_below(&mut self, done_below: u64) -> u64 {
        let mut freed = 0;
        while self.done_below < done_below {
            match self.kept.pop_front() {
                Some(kept) => {
                    freed += kept.bytes();
                    self.done_below += 1;
                }
                None => {
                    self.done_below = done_below;
                    self.next = self.next.max(done_below);
                }
            }
        }
        self.kept_bytes -= freed;
        freed
    }

    /// The result of a sequence that was applied before.
    fn find(&self, sequence: u64, content: u64) -> Result<Option<&CommandResult>, ApplyRefusal> {
        let Some(place) = sequence.checked_sub(self.done_below) else {
            return Err(ApplyRefusal::SequenceDone {
                done_below: self.done_below,
            });
        };
        // A window is bounded by the number of kept results, far below what usize holds.
        match usize::try_from(place)
            .ok()
            .and_then(|place| self.kept.get(place))
        {
            None => Ok(None),
            Some(kept) if kept.content == content => Ok(Some(&kept.result)),
            Some(_) => Err(ApplyRefusal::SequenceReused { sequence }),
        }
    }
}
