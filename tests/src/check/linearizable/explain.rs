//! Why a history is not linearizable, or not known to be, in a few lines of text.

use std::fmt;

use super::search::Search;
use crate::check::history::{Model, OpId, Time};

/// Operations of the prefix that are printed; all of them are in [`Violation::fits`].
const FITS_LINES_MAX: usize = 12;

/// Possible states that are printed.
const STATES_LINES_MAX: usize = 6;

/// Why there is no order that explains all answers.
///
/// What was invoked before the return of [`stuck`](Violation::stuck) is already wrong: later operations have no part in it.
/// Without the answers from that one on, it would be linearizable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The part of the history, its key, as text.
    pub part: String,
    /// An order of the operations before, with as many answered ones as can be.
    pub fits: Vec<OpId>,
    /// The operation that has no place.
    pub stuck: OpId,
    /// When it returned.
    pub returned: Time,
    /// Other operations that could have taken effect by then, but have no place in `fits`.
    pub open: Vec<OpId>,
    /// All states that were possible before, as text.
    pub states: Vec<String>,
    /// How many answered operations the part has.
    pub answered: usize,
    lines: Vec<String>,
}

impl Violation {
    pub(super) fn new<M: Model>(search: &Search<'_, M>, part: String) -> Violation {
        let at = search.furthest();
        let (states, fits) = search.reached(at);
        let mut states: Vec<String> = states
            .iter()
            .map(|state| search.model.describe_state(state))
            .collect();
        states.sort();
        let stuck = &search.plan.answered[at];
        let mut violation = Violation {
            part,
            open: open(search, at, &fits),
            fits,
            stuck: stuck.id,
            returned: stuck.returned,
            states,
            answered: search.plan.answered.len(),
            lines: Vec::new(),
        };
        violation.lines = violation.tell(search);
        violation
    }

    fn tell<M: Model>(&self, search: &Search<'_, M>) -> Vec<String> {
        let line = |id: &OpId| tell_operation(search, *id);
        let mut lines = vec![format!(
            "not linearizable, part {}: of {} answered operations, those that returned before {} fit",
            self.part, self.answered, self.returned
        )];
        let hidden = self.fits.len().saturating_sub(FITS_LINES_MAX);
        if hidden > 0 {
            lines.push(format!("  fits: {hidden} operations, then"));
        }
        lines.extend(
            self.fits[hidden..]
                .iter()
                .map(|id| format!("  fits: {}", line(id))),
        );
        lines.push(format!("  cannot be placed: {}", line(&self.stuck)));
        lines.extend(
            self.open
                .iter()
                .map(|id| format!("  also open: {}", line(id))),
        );
        let shown = self.states.iter().take(STATES_LINES_MAX);
        lines.extend(shown.map(|state| format!("  possible state before: {state}")));
        if self.states.len() > STATES_LINES_MAX {
            let more = self.states.len() - STATES_LINES_MAX;
            lines.push(format!("  and {more} more possible states"));
        }
        lines
    }
}

/// Operations invoked by the return `at` that are not in `fits`, except the one that is stuck.
fn open<M: Model>(search: &Search<'_, M>, at: usize, fits: &[OpId]) -> Vec<OpId> {
    let plan = search.plan;
    let others = plan.open[at].iter().filter(|&&it| it as usize != at);
    let answered = others.map(|&it| plan.answered[it as usize].id);
    let now = plan.answered[at].returned;
    let unknown = plan.unknown.iter();
    let unknown = unknown.flat_map(|alike| alike.members[..alike.invoked_by(now)].iter());
    let mut open: Vec<OpId> = answered.chain(unknown.map(|(_, id)| *id)).collect();
    open.retain(|id| !fits.contains(id));
    open
}

fn tell_operation<M: Model>(search: &Search<'_, M>, id: OpId) -> String {
    let operation = &search.plan.history.operations()[id.0];
    let what = search.model.describe(&operation.input, operation.output());
    format!("{} {what}", operation.interval())
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// The search was given up before it came to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// The part of the history, its key, as text.
    pub part: String,
    /// Steps of the search in this part.
    pub steps: u64,
    /// How many returns, in the order of time, have an order that explains them.
    pub reached: usize,
    /// How many answered operations the part has.
    pub answered: usize,
}

impl Undecided {
    pub(super) fn new<M: Model>(search: &Search<'_, M>, part: String) -> Undecided {
        Undecided {
            part,
            steps: search.steps(),
            reached: search.furthest(),
            answered: search.plan.answered.len(),
        }
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "undecided, part {}: after {} steps, {} of {} returns are explained",
            self.part, self.steps, self.reached, self.answered
        )
    }
}
