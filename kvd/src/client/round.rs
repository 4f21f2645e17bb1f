//! One round of dials. Pure: time comes in as an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::dial::Target;

/// An endpoint is dialled when the one before has failed, or has said nothing for this long.
pub(crate) const STAGGER: Duration = Duration::from_millis(200);

/// Whom to dial next, and when; and how many dials are under way.
#[derive(Debug, Default)]
pub(crate) struct Round {
    waiting: VecDeque<Target>,
    under_way: usize,
    /// When the next one is due.
    due: Option<Instant>,
}

impl Round {
    /// Begins with these, in this order; the first one is due now.
    pub(crate) fn begin(&mut self, targets: Vec<Target>, now: Instant) {
        self.waiting = targets.into();
        self.due = Some(now);
    }

    /// The next one to be dialled, if it is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Target> {
        self.due.filter(|due| *due <= now)?;
        let target = self.waiting.pop_front()?;
        self.under_way += 1;
        self.due = Some(now + STAGGER);
        Some(target)
    }

    /// One dial more is under way, outside of the order.
    pub(crate) fn add(&mut self) {
        self.under_way += 1;
    }

    /// A dial ended without a link: nobody waits for it any more.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.due = self.due.map(|_| now);
    }

    /// Nobody else is to be dialled.
    pub(crate) fn stop(&mut self) {
        self.waiting.clear();
    }

    /// Nothing is under way and nobody waits.
    pub(crate) fn is_over(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }

    /// When the next one is due, if there is one.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.due.filter(|_| !self.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target {
            address: address.to_owned(),
            node: None,
        }
    }

    fn taken(round: &mut Round, now: Instant) -> Option<String> {
        round.take_due(now).map(|target| target.address)
    }

    #[tokio::test(start_paused = true)]
    async fn next_one_is_due_when_the_one_before_failed_or_is_silent() {
        let now = Instant::now();
        let mut round = Round::default();
        assert!(round.is_over());
        round.begin(vec![target("a"), target("b"), target("c")], now);
        assert_eq!(taken(&mut round, now).as_deref(), Some("a"));
        assert_eq!(taken(&mut round, now), None, "a has time to answer");
        round.failed(now);
        assert_eq!(taken(&mut round, now).as_deref(), Some("b"));
        assert_eq!(taken(&mut round, now), None);
        assert_eq!(round.next_wake(), Some(now + STAGGER));
        assert_eq!(taken(&mut round, now + STAGGER).as_deref(), Some("c"));
        assert_eq!(round.next_wake(), None);
        round.failed(now);
        assert!(!round.is_over(), "b may still answer");
        round.failed(now);
        assert!(round.is_over());
    }
}
