//! Arithmetic of majorities. Knows nothing of Raft but the ids.

mod joint;
mod majority;

pub(crate) use self::joint::JointQuorum;

/// How a vote stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VoteResult {
    /// Enough said yes.
    Won,
    /// Enough said no, so that yes can no longer win.
    Lost,
    /// Still open.
    Pending,
}
