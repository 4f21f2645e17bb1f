//! Appends on their way to one follower.

use alloc::collections::VecDeque;

use crate::LogIndex;

/// A window of appends that were sent and not acknowledged, bounded in count and in bytes.
///
/// Invariant: last indexes ascend strictly; `bytes` is the sum over the window.
#[derive(Debug, Default)]
pub(crate) struct Inflights {
    appends: VecDeque<(LogIndex, u64)>,
    bytes: u64,
}

impl Inflights {
    pub(crate) fn count(&self) -> usize {
        self.appends.len()
    }

    pub(crate) fn is_full(&self, count_max: usize, bytes_max: u64) -> bool {
        self.appends.len() >= count_max || self.bytes >= bytes_max
    }

    /// Notes an append whose last entry is at `last`.
    #[inline]
    pub(crate) fn add(&mut self, last: LogIndex, bytes: u64) {
        if let Some((newest, _)) = self.appends.back() {
            assert!(
                last > *newest,
                "append up to {last} after one up to {newest}"
            );
        }
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Frees all appends that the acknowledgement of `matched` answers.
    #[inline]
    pub(crate) fn free_to(&mut self, matched: LogIndex) {
        while self
            .appends
            .front()
            .is_some_and(|(last, _)| *last <= matched)
        {
            let (_, bytes) = self.appends.pop_front().expect("just seen");
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_bounded_in_count_and_bytes_and_freed_in_order() {
        let mut inflights = Inflights::default();
        inflights.add(LogIndex(3), 10);
        inflights.add(LogIndex(5), 10);
        assert!(inflights.is_full(2, 100));
        assert!(inflights.is_full(3, 20));
        assert!(!inflights.is_full(3, 21));
        inflights.free_to(LogIndex(4));
        assert_eq!(inflights.count(), 1);
        assert!(!inflights.is_full(2, 20));
        inflights.free_to(LogIndex(5));
        assert!(!inflights.is_full(1, 1));
    }
}
