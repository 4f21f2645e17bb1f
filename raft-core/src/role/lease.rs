//! Reads by lease: for a while after a quorum has answered, nobody else can have been elected
//! (thesis 6.4.1).
//!
//! The argument. A voter that answers a heartbeat neither votes, nor asks for votes, within the
//! election timeout that begins when it *received* it ([`Core::owes_lease`](crate::core::Core)).
//! Whoever is elected needs one of each quorum, so nobody is elected within the election timeout
//! that begins when the oldest of the heartbeats, to which a quorum's newest answers belong, was
//! *sent*. Nothing was committed elsewhere meanwhile, and the leader's commit index is the
//! cluster's.
//!
//! The moment of sending, not that of the answer: n1 sends, the heartbeat travels for nine ticks,
//! n2 answers, the answer travels for nine. n2 has promised nothing beyond tick 19, and n1, which
//! counted from the answer, would read until tick 28.

use alloc::collections::VecDeque;

use super::leader::Leader;
use crate::Storage;
use crate::core::Core;

/// How much faster the clock of one node may run than that of another: by this part of a hundred.
/// Clocks of computers differ by some ten in a million, and are set right by at most 500 in a
/// million; what is meant are virtual machines that are slowed down and caught up again.
const DRIFT_PERCENT_MAX: u64 = 10;

/// A count of ticks says little about the time within a tick: an event just before one tick and
/// another just after a later one are more ticks apart than time, and each tick may come up to one
/// tick late. So a span of n ticks lasts more than n - 2 and less than n + 2.
const SPAN_ERROR_TICKS: u64 = 2;

/// When rounds of confirmation began, and whether they may give a lease.
#[derive(Debug, Default)]
pub(super) struct Lease {
    now: u64,
    /// The first round of each tick in which one began, and the tick; oldest first.
    begun: VecDeque<(u64, u64)>,
    /// `TimeoutNow` was sent.
    is_over: bool,
}

impl Lease {
    pub(super) fn tick(&mut self, election_timeout_ticks: u32) {
        self.now += 1;
        let timeout = u64::from(election_timeout_ticks);
        while self
            .begun
            .front()
            .is_some_and(|(_, tick)| tick + timeout < self.now)
        {
            self.begun.pop_front();
        }
    }

    /// Heartbeats of a new round leave now.
    pub(super) fn on_round_begun(&mut self, round: u64) {
        if self.begun.back().is_none_or(|(_, tick)| *tick < self.now) {
            self.begun.push_back((round, self.now));
        }
    }

    /// The leader has asked another node to take over. Voters do not hold that one off, whatever
    /// they promised, and it may get the message, stand and win at any later time in this term: even
    /// when the transfer was given up long ago. So this leadership has no lease any more; the next
    /// one has, because a quorum that has seen its term refuses candidates of this one.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether nobody else leads now, given that a quorum has answered `confirmed` or a later round.
    fn is_valid(&self, confirmed: u64, election_timeout_ticks: u32) -> bool {
        let sent = self
            .begun
            .iter()
            .rev()
            .find(|(first, _)| *first <= confirmed)
            .map(|(_, tick)| *tick);
        let promised = u64::from(election_timeout_ticks).saturating_sub(SPAN_ERROR_TICKS);
        let least = promised * (100 - DRIFT_PERCENT_MAX) / 100;
        !self.is_over && sent.is_some_and(|sent| self.now - sent + SPAN_ERROR_TICKS <= least)
    }
}

impl Leader {
    /// Whether the commit index may be told without asking anybody. Not while a transfer is under
    /// way: `TimeoutNow` leaves as soon as the target has the log.
    pub(super) fn has_lease<S: Storage>(&self, core: &Core<S>) -> bool {
        core.config.lease_reads
            && self.transfer.is_none()
            && self.lease.is_valid(
                self.confirmed_round(core),
                core.config.election_timeout_ticks,
            )
    }

    /// Each regular heartbeat begins a round, so that its answers tell to which one they belong.
    pub(super) fn begin_lease_round<S: Storage>(&mut self, core: &Core<S>) {
        if core.config.lease_reads {
            let round = self.reads.begin_without_readers();
            self.lease.on_round_begun(round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten ticks of election timeout are at least (10 - 2) * 0.9 = 7 ticks of the leader's clock
    /// after all errors, of which it may miscount 2.
    #[test]
    fn lease_runs_from_the_sending_for_the_election_timeout_less_all_errors() {
        let mut lease = Lease::default();
        lease.on_round_begun(1);
        (0..5).for_each(|_| lease.tick(10));
        assert!(lease.is_valid(1, 10));
        assert!(!lease.is_valid(0, 10), "nobody answered");
        lease.tick(10);
        assert!(!lease.is_valid(1, 10));
    }

    #[test]
    fn later_rounds_of_a_tick_count_as_its_first_and_answers_to_old_rounds_as_old() {
        let mut lease = Lease::default();
        lease.on_round_begun(1);
        (0..4).for_each(|_| lease.tick(10));
        lease.on_round_begun(2);
        lease.on_round_begun(3);
        (0..4).for_each(|_| lease.tick(10));
        assert!(!lease.is_valid(1, 10));
        assert!(lease.is_valid(2, 10));
        assert!(lease.is_valid(3, 10));
        assert!(lease.begun.len() == 2);
        (0..7).for_each(|_| lease.tick(10));
        assert!(lease.begun.is_empty(), "what is too old is forgotten");
    }

    #[test]
    fn short_election_timeouts_give_no_lease() {
        let mut lease = Lease::default();
        lease.on_round_begun(1);
        assert!(lease.is_valid(1, 5));
        assert!(!lease.is_valid(1, 4));
        assert!(!lease.is_valid(1, 1));
    }

    #[test]
    fn ended_lease_does_not_come_back() {
        let mut lease = Lease::default();
        lease.on_round_begun(1);
        lease.end();
        lease.tick(10);
        lease.on_round_begun(2);
        assert!(!lease.is_valid(2, 10));
    }
}
