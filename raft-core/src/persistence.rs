//! What was handed out to be persisted, what of it is done, and what a completion proves.

use alloc::collections::VecDeque;

use crate::log::KeptLog;
use crate::{EntryId, HardState, LogIndex, PersistId};

/// One persist part on its way to the disk.
#[derive(Debug)]
struct Submitted {
    id: PersistId,
    hard_state: Option<HardState>,
    snapshot: Option<EntryId>,
    /// The last index of the *current* log that is durable when this part is done; lowered when the
    /// log is truncated.
    ///
    /// A story of why this is kept by part and not compared by term: n3 hands out 12@1 in p1, is
    /// told by the leader of term 2 to overwrite it (p2 holds 12@2), and by the leader of term 3,
    /// who has the old entry, to overwrite it again (p3 holds 12@1). When p1 completes, the disk
    /// holds 12@1, and so does the log; but p2 will overwrite it on the disk before p3 brings it
    /// back. An acknowledgement after p1 would be lost by a crash after p2.
    covers: Option<LogIndex>,
}

/// What a completion proves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The current log is durable at least up to here.
    pub(crate) covers: Option<LogIndex>,
    /// The newest snapshot that is durable now.
    pub(crate) snapshot: Option<EntryId>,
}

/// The persist parts under way, and the durable term and vote.
///
/// Invariant: `durable.term <= handed_out.term`; ids ascend by one.
#[derive(Debug)]
pub(crate) struct Persistence {
    submitted: VecDeque<Submitted>,
    newest: PersistId,
    handed_out: HardState,
    durable: HardState,
}

impl Persistence {
    pub(crate) fn new(durable: HardState) -> Persistence {
        Persistence {
            submitted: VecDeque::new(),
            newest: PersistId(0),
            handed_out: durable,
            durable,
        }
    }

    /// Term and vote as the disk holds them for certain.
    pub(crate) fn durable(&self) -> HardState {
        self.durable
    }

    /// Term and vote as they were last handed out.
    pub(crate) fn handed_out(&self) -> HardState {
        self.handed_out
    }

    pub(crate) fn newest(&self) -> PersistId {
        self.newest
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.submitted.is_empty()
    }

    /// Notes a part that is handed out now. `last_entry` is the last index it writes.
    #[inline]
    pub(crate) fn submit(
        &mut self,
        hard_state: Option<HardState>,
        snapshot: Option<(EntryId, KeptLog)>,
        last_entry: Option<LogIndex>,
    ) -> PersistId {
        self.newest = self.newest.next();
        self.handed_out = hard_state.unwrap_or(self.handed_out);
        // A snapshot that keeps the log makes nothing durable that was not.
        let replaces = snapshot.filter(|(_, kept)| *kept == KeptLog::Nothing);
        let covers = last_entry.or(replaces.map(|(id, _)| id.index));
        self.submitted.push_back(Submitted {
            id: self.newest,
            hard_state,
            snapshot: snapshot.map(|(id, _)| id),
            covers,
        });
        self.newest
    }

    /// The log was truncated: no part on its way proves anything about `from` and what follows any
    /// more.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        for part in &mut self.submitted {
            part.covers = part.covers.map(|covers| covers.min(from.prev()));
        }
    }

    /// The log was replaced by a snapshot: no part on its way proves anything about the new one.
    pub(crate) fn replace(&mut self) {
        for part in &mut self.submitted {
            part.covers = None;
        }
    }

    /// The parts up to `id` are on disk.
    #[inline]
    pub(crate) fn complete(&mut self, id: PersistId) -> Completion {
        assert!(
            id <= self.newest,
            "{id} is done, but only {} was handed out",
            self.newest
        );
        let mut completion = Completion::default();
        while let Some(part) = self.submitted.front().filter(|part| part.id <= id) {
            self.durable = part.hard_state.unwrap_or(self.durable);
            completion.snapshot = part.snapshot.or(completion.snapshot);
            completion.covers = completion.covers.max(part.covers);
            self.submitted.pop_front();
        }
        completion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 11: a write that was overtaken proves nothing, even if the same entry came back.
    #[test]
    fn overwritten_part_proves_nothing_about_the_entry_that_came_back() {
        let mut persistence = Persistence::new(HardState::default());
        let at = |index| Some(LogIndex(index));
        let first = persistence.submit(None, None, at(12));
        persistence.truncate(LogIndex(12));
        let second = persistence.submit(None, None, at(12));
        persistence.truncate(LogIndex(12));
        let third = persistence.submit(None, None, at(12));
        assert_eq!(persistence.complete(first).covers, at(11));
        assert_eq!(persistence.complete(second).covers, at(11));
        assert_eq!(persistence.complete(third).covers, at(12));
    }

    #[test]
    fn completion_is_cumulative() {
        let mut persistence = Persistence::new(HardState::default());
        let state = HardState {
            term: crate::Term(3),
            vote: None,
        };
        persistence.submit(Some(state), None, Some(LogIndex(4)));
        let second = persistence.submit(None, None, Some(LogIndex(6)));
        assert_eq!(persistence.complete(second).covers, Some(LogIndex(6)));
        assert_eq!(persistence.durable(), state);
        assert!(persistence.is_idle());
    }
}
