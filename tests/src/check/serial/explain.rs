//! Why a history is not strictly serializable, in a few lines of text.

use std::fmt;

use super::NumberedStore;
use crate::check::history::{History, OpId};

/// Changes before the fault that are printed.
const BEFORE_LINES_MAX: usize = 8;

/// Operations tried for a gap that are printed.
const TRIED_LINES_MAX: usize = 8;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Two operations claim to have made the same revision.
    SameRevision {
        /// The revision.
        revision: u64,
        /// One of them.
        first: OpId,
        /// The other one.
        second: OpId,
    },
    /// An operation has its place behind one that was invoked only after its return.
    OutOfOrder {
        /// It returned first, but has the later place.
        returned: OpId,
        /// It was invoked afterwards, but has the earlier place.
        invoked_later: OpId,
    },
    /// At its place an operation would have been answered otherwise.
    WrongAnswer {
        /// Its place.
        revision: u64,
        /// The operation.
        id: OpId,
        /// The right answer, as text.
        expected: String,
    },
    /// Somebody made this revision, and nobody can have: no operation of unknown outcome fits.
    Unclaimed {
        /// The revision.
        revision: u64,
        /// Operations that were invoked in time, and do not fit for what they do.
        tried: Vec<OpId>,
    },
}

impl Fault {
    /// The revision at which it shows; 0 for one that is a matter of times.
    pub fn revision(&self) -> u64 {
        match self {
            Fault::SameRevision { revision, .. }
            | Fault::WrongAnswer { revision, .. }
            | Fault::Unclaimed { revision, .. } => *revision,
            Fault::OutOfOrder { .. } => 0,
        }
    }

    /// Whether this is the operation that is wrong.
    pub(super) fn is_about(&self, operation: OpId) -> bool {
        match self {
            Fault::WrongAnswer { id, .. } => *id == operation,
            Fault::SameRevision { .. } | Fault::OutOfOrder { .. } | Fault::Unclaimed { .. } => {
                false
            }
        }
    }
}

/// Why the order that the revisions name does not explain the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialViolation {
    /// What is wrong. Where gaps can be filled in several ways: what is wrong with the way that gets furthest.
    pub fault: Fault,
    /// Who made the revisions before, as far as the fault depends on them.
    pub before: Vec<OpId>,
    lines: Vec<String>,
}

impl SerialViolation {
    pub(super) fn new<S: NumberedStore>(
        store: &S,
        history: &History<S::Input, S::Output>,
        fault: Fault,
        before: &[OpId],
    ) -> SerialViolation {
        let line = |id: &OpId| {
            let operation = &history.operations()[id.0];
            let what = store.describe(&operation.input, operation.output());
            format!("{} {what}", operation.interval())
        };
        let mut lines = vec!["not strictly serializable".to_owned()];
        let hidden = before.len().saturating_sub(BEFORE_LINES_MAX);
        if hidden > 0 {
            lines.push(format!("  before: {hidden} changes, then"));
        }
        lines.extend(
            before[hidden..]
                .iter()
                .map(|id| format!("  before: {}", line(id))),
        );
        lines.extend(tell(&fault, line));
        SerialViolation {
            fault,
            before: before.to_vec(),
            lines,
        }
    }
}

fn tell(fault: &Fault, line: impl Fn(&OpId) -> String) -> Vec<String> {
    match fault {
        Fault::SameRevision {
            revision,
            first,
            second,
        } => vec![
            format!("  made revision {revision}: {}", line(first)),
            format!("  made it too: {}", line(second)),
        ],
        Fault::OutOfOrder {
            returned,
            invoked_later,
        } => vec![
            format!("  has the earlier place: {}", line(invoked_later)),
            format!("  had returned before it was invoked: {}", line(returned)),
        ],
        Fault::WrongAnswer { id, expected, .. } => vec![
            format!("  wrong: {}", line(id)),
            format!("  expected: {expected}"),
        ],
        Fault::Unclaimed { revision, tried } => {
            let mut lines = vec![format!("  nobody can have made revision {revision}")];
            let shown = tried.iter().take(TRIED_LINES_MAX);
            lines.extend(shown.map(|id| format!("  does not fit: {}", line(id))));
            if tried.len() > TRIED_LINES_MAX {
                let more = tried.len() - TRIED_LINES_MAX;
                lines.push(format!("  and {more} more do not fit"));
            }
            lines
        }
    }
}

impl fmt::Display for SerialViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}
