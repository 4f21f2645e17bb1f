//! How long the log has been at its oldest unfinished work.

use std::collections::VecDeque;

use raft_core::PersistId;

/// Persist parts that the log was given and has not reported yet, by the tick in which they were given.
///
/// A part that waits for space counts as well: a leader that cannot write should not lead either.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// The newest part of each tick, and the tick; oldest first.
    unfinished: VecDeque<(PersistId, u64)>,
}

impl Syncs {
    pub(super) fn begin(&mut self, id: PersistId, now: u64) {
        match self.unfinished.back_mut() {
            Some((newest, tick)) if *tick == now => *newest = id,
            Some(_) | None => self.unfinished.push_back((id, now)),
        }
    }

    /// Everything up to `id` is on the disk.
    pub(super) fn finish(&mut self, id: PersistId) {
        while self
            .unfinished
            .front()
            .is_some_and(|(newest, _)| *newest <= id)
        {
            self.unfinished.pop_front();
        }
    }

    /// Age of the oldest unfinished part in ticks; 0 if there is none.
    pub(super) fn age_ticks(&self, now: u64) -> u32 {
        let since = self.unfinished.front().map_or(now, |(_, tick)| *tick);
        u32::try_from(now - since).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_that_of_the_oldest_unfinished_part() {
        let mut syncs = Syncs::default();
        assert_eq!(syncs.age_ticks(9), 0);
        syncs.begin(PersistId(1), 9);
        syncs.begin(PersistId(2), 9);
        syncs.begin(PersistId(3), 12);
        assert_eq!(syncs.age_ticks(13), 4);
        syncs.finish(PersistId(1));
        assert_eq!(syncs.age_ticks(13), 4);
        syncs.finish(PersistId(2));
        assert_eq!(syncs.age_ticks(13), 1);
        syncs.finish(PersistId(3));
        assert_eq!(syncs.age_ticks(13), 0);
    }
}
