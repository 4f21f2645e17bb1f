//! Reasons to keep one's vote beyond those that safety of elections needs. Refusing is always safe.

use crate::core::Core;
use crate::{Storage, VoteRefusal, VoteRequest};

/// For how long a preferred node holds off others. In three election timeouts it had the time to
/// stand once or twice itself.
const PREFERENCE_ELECTION_TIMEOUTS: u64 = 3;

impl<S: Storage> Core<S> {
    /// With lease reads: the ticks for which a leader may still rely on this node not to elect
    /// anybody, this node included; 0 if none does.
    ///
    /// They are counted since a leader was last heard, whatever happened to the role or the term
    /// since then: n2 answers n1's heartbeat and is then told to campaign by its driver, and so is
    /// n3. Neither knows a leader any more, but n1 counts on both.
    ///
    /// A node that has just started has forgotten whom it answered, so it counts from its start.
    pub(crate) fn owes_lease(&self) -> u32 {
        let timeout = self.config.election_timeout_ticks;
        match self.config.lease_reads {
            true => timeout.saturating_sub(self.leaderless_ticks),
            false => 0,
        }
    }

    /// Whether a vote would break what a leader relies on. A transfer is excepted: the leader that
    /// asked for it has given up its lease.
    pub(crate) fn lease_refusal(&self, request: VoteRequest) -> Option<VoteRefusal> {
        match self.owes_lease() {
            0 => None,
            _ if request.transfer => None,
            ticks => Some(VoteRefusal::LeaseOwed { ticks }),
        }
    }

    /// Whether this node should lead rather than the candidate, whose log is up to date. A transfer
    /// is the leader's own wish, and goes to whom it likes.
    ///
    /// Only against a log that is not better than our own: with a worse one we could not win against
    /// the voters that hold the better one.
    ///
    /// And not for ever. n1 is preferred and n3 is down; n1 hears n2, but n2 does not hear n1. If n1
    /// always refused, n2 would never lead, though the two are a quorum, and n1 cannot lead. So
    /// after three election timeouts without a leader n1 helps whoever asks.
    pub(crate) fn preference_refusal(&self, request: VoteRequest) -> Option<VoteRefusal> {
        let (candidate, own) = (request.priority, self.config.priority);
        let timeout = self.config.election_timeout_ticks;
        let may_lead = self.stands_by_itself() && self.disk.is_healthy(timeout);
        let is_better = !self.log.last_id().is_up_to_date_with(request.last);
        let since = u64::from(self.leaderless_ticks);
        let is_patient = since <= PREFERENCE_ELECTION_TIMEOUTS * u64::from(timeout);
        let holds_off = candidate < own && may_lead && !is_better && is_patient;
        (holds_off && !request.transfer).then_some(VoteRefusal::PreferredSelf { candidate, own })
    }
}
