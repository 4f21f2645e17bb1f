//! Options of a node, each with its unit in its name.

use crate::{ConfigError, NodeId};

/// Options of a node. [`Config::new`] gives the defaults; [`Node::new`](crate::Node::new) checks
/// them.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Who this node is. Not 0.
    pub id: NodeId,
    /// Seed of all chance in this node: the jitter of its election timeouts and the names of its
    /// read requests. Take another one at each start of a real node, or an answer meant for its
    /// last life could be taken for a new one.
    pub seed: u64,
    /// A follower that hears no leader for this long, and up to twice this long by chance,
    /// campaigns. Also how long a leader may go without hearing a quorum.
    pub election_timeout_ticks: u32,
    /// How often a leader shows that it lives. Well below the election timeout, or one lost message
    /// costs the leadership.
    pub heartbeat_ticks: u32,
    /// Ask whether an election could be won before raising the term, so that a node that was cut
    /// off does not depose a working leader when it returns (thesis 9.6).
    pub pre_vote: bool,
    /// A leader steps down when it hears no quorum, and nobody votes against a leader that is heard
    /// (thesis 6.2).
    pub check_quorum: bool,
    /// How much this node is preferred as leader; higher is preferred. For nodes with better machines
    /// or nearer to the clients.
    ///
    /// A preference, not a promise. A voter refuses to help a candidate of lower priority than its
    /// own whose log is no better, as long as it may stand itself and for at most three election
    /// timeouts without a leader; and a leader that hands over without a named target chooses the
    /// highest among voters that are equally fit. But those with equal priorities may have a quorum
    /// without the preferred node, and a leader is not deposed because a better one comes back:
    /// whoever wants that calls [`transfer_leader`](crate::Node::transfer_leader).
    pub priority: u32,
    /// A leader that was answered lately by a quorum tells its commit index to readers at once,
    /// instead of asking the quorum again for each round of reads (thesis 6.4.1). Needs
    /// check-quorum, and equal options on **all** nodes: a node without it would elect somebody
    /// while a leader relies on it.
    ///
    /// Reads, and only reads, then depend on clocks. What is assumed:
    ///
    /// * No node's clock runs more than a tenth faster than another's.
    /// * Ticks are done before anything else: at each call to a node it was ticked as often as its
    ///   clock says, or once less. A node that was stopped for a while catches up with its ticks
    ///   before it looks at messages and reads. A leader that did not would believe in a lease that
    ///   is over; a follower that caught up after it had answered an old heartbeat would believe
    ///   that it has kept its promise for long.
    ///
    /// A node does not vote, nor stand, within its first election timeout after its start: it has
    /// forgotten whom it answered before. Election timeouts below 5 ticks leave no time for leases,
    /// and the longer they are the more of them is lease.
    pub lease_reads: bool,
    /// Most bytes of entries in one append; a single larger entry travels alone.
    pub max_append_bytes: u64,
    /// Most appends on their way to one follower.
    pub max_inflight_appends: usize,
    /// Most bytes of entries on their way to one follower.
    pub max_inflight_bytes: u64,
    /// Most bytes of payloads that a leader proposes ahead of the commit index; beyond it proposals
    /// are refused.
    pub max_uncommitted_bytes: u64,
    /// Most bytes of committed entries that are handed out and not yet applied; a single larger
    /// entry is handed out alone.
    pub max_apply_bytes: u64,
    /// Most reads that wait for an answer; beyond it reads are refused.
    pub max_pending_reads: usize,
}

impl Config {
    /// The defaults: an election timeout of 10 ticks and a heartbeat at each tick, pre-vote and
    /// check-quorum on, lease reads off, priority 0, appends of at most 1 MiB with 256 of them or 4 MiB on the way, 64 MiB
    /// uncommitted, 4 MiB handed out for applying.
    pub fn new(id: NodeId, seed: u64) -> Config {
        Config {
            id,
            seed,
            election_timeout_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            check_quorum: true,
            priority: 0,
            lease_reads: false,
            max_append_bytes: 1 << 20,
            max_inflight_appends: 256,
            max_inflight_bytes: 4 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_apply_bytes: 4 << 20,
            max_pending_reads: 65_536,
        }
    }

    /// Refuses options that cannot work.
    ///
    /// # Errors
    /// Names the first option that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (election, heartbeat) = (self.election_timeout_ticks, self.heartbeat_ticks);
        if self.id == NodeId(0) {
            return Err(ConfigError::NodeIdZero);
        }
        if heartbeat == 0 || election <= heartbeat || election > ELECTION_TIMEOUT_TICKS_MAX {
            return Err(ConfigError::Timeouts {
                election,
                heartbeat,
            });
        }
        if self.lease_reads && !self.check_quorum {
            return Err(ConfigError::LeaseWithoutCheckQuorum);
        }
        let limits = [
            ("max_append_bytes", self.max_append_bytes),
            ("max_inflight_appends", self.max_inflight_appends as u64),
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("max_uncommitted_bytes", self.max_uncommitted_bytes),
            ("max_apply_bytes", self.max_apply_bytes),
            ("max_pending_reads", self.max_pending_reads as u64),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((option, _)) => Err(ConfigError::ZeroLimit { option }),
            None => Ok(()),
        }
    }
}

/// Far above any use; twice this still fits the counter of ticks.
const ELECTION_TIMEOUT_TICKS_MAX: u32 = 1_000_000_000;
