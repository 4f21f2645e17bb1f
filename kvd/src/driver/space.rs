//! The space in the log that a leader may propose into.

use std::collections::VecDeque;

use raft_core::{Persist, PersistId};

use crate::log_worker::LogReport;

/// What a write costs in the log beside its command, rounded up: local prefix, header, envelope and padding.
pub(super) const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Ticks after which missing room is more than a segment that is just being prepared.
const STARVED_TICKS: u64 = 100;

/// Space in the log that was prepared and is not spoken for (a leader proposes nothing beyond it).
#[derive(Debug)]
pub(super) struct LogSpace {
    prepared: u64,
    /// Bytes that were proposed and are not part of a persist yet.
    proposed: u64,
    /// Bytes of each persist that the log has been given and has not reported yet.
    spent: VecDeque<(PersistId, u64)>,
    full: bool,
    /// Since which tick a write waits that has no room.
    starved_since: Option<u64>,
    /// Writes have waited for room in vain, and none has come since then.
    lacks_room: bool,
}

impl LogSpace {
    pub(super) fn new(report: &LogReport) -> LogSpace {
        LogSpace {
            prepared: report.prepared_bytes,
            proposed: 0,
            spent: VecDeque::new(),
            full: report.full,
            starved_since: None,
            lacks_room: false,
        }
    }

    pub(super) fn report(&mut self, report: &LogReport) {
        if report.prepared_bytes > self.prepared {
            self.lacks_room = false;
        }
        self.prepared = report.prepared_bytes;
        self.full = report.full;
        let Some(persisted) = report.persisted else {
            return;
        };
        while self.spent.front().is_some_and(|(id, _)| *id <= persisted) {
            self.spent.pop_front();
        }
    }

    /// Bytes of proposals that the core has taken.
    pub(super) fn propose(&mut self, bytes: u64) {
        self.proposed += bytes;
    }

    /// Everything proposed so far is in this persist part, or was cut off again.
    pub(super) fn spend(&mut self, persist: &Persist) {
        self.proposed = 0;
        let written = persist.repaired.iter().chain(&persist.entries);
        let bytes = written
            .map(|entry| entry.payload.len() as u64 + ENTRY_OVERHEAD_BYTES)
            .sum();
        self.spent.push_back((persist.id, bytes));
    }

    /// Notes at each turn of a leader whether a write waits that has no room.
    pub(super) fn note_starved(&mut self, starved: bool, now: u64) {
        self.starved_since = match starved {
            true => self.starved_since.or(Some(now)),
            false => None,
        };
        self.lacks_room |= self.has_starved(now);
    }

    /// Whether the log lacks room: writes have waited for so long that it is not just the next segment being prepared, or
    /// the log itself could not take what it was given. That is how a follower finds out, which has no writes that wait.
    pub(super) fn is_starved(&self, now: u64) -> bool {
        self.full || self.has_starved(now)
    }

    fn has_starved(&self, now: u64) -> bool {
        let begun = self.starved_since;
        begun.is_some_and(|since| since + STARVED_TICKS <= now)
    }

    /// What an operator is told: the log could not take what it was given, or what is prepared does not suffice for the writes
    /// of this leader. That lasts until a segment comes, also while no write waits: the next one is refused as well.
    pub(super) fn is_short(&self) -> bool {
        self.full || self.lacks_room
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// What may still be proposed.
    pub(super) fn left(&self) -> u64 {
        let spent: u64 = self.spent.iter().map(|(_, bytes)| bytes).sum();
        self.prepared.saturating_sub(spent + self.proposed)
    }
}
