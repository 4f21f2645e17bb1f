//! The log of a node keeps within its limit.

use raft_core::NodeId;

use super::{Logs, Seen, Watcher};

/// Compares each report with the limit.
#[derive(Clone, Debug, Default)]
pub struct Bounds;

impl Watcher for Bounds {
    const RULE: &'static str = "bounds";

    fn see(&mut self, _: NodeId, seen: &Seen<'_>, _: &Logs) -> Result<(), String> {
        if let Seen::LogBytes(bytes, limit) = seen
            && bytes > limit
        {
            return Err(format!("the log takes {bytes} bytes, the limit is {limit}"));
        }
        Ok(())
    }
}
