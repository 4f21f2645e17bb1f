//! Reasons to keep one's vote beyond those that safety of elections needs. Refusing is always safe.

use crate::core::Core;
use crate::{Storage, VoteRefusal, VoteRequest};

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
}
