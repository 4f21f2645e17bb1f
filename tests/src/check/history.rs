//! What clients did and what they saw, and the model that says what they could have seen.

use std::fmt;
use std::fmt::Debug;
use std::hash::Hash;

/// A moment, in any unit that all clients share and that never goes back: ticks, nanoseconds, a counter.
pub type Time = u64;

/// The place of an operation in its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub usize);

/// What became of an operation, as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<O> {
    /// It was answered: it took effect at one moment between its invocation and this return.
    Returned {
        /// When the answer arrived.
        at: Time,
        /// The answer.
        output: O,
    },
    /// No answer, or one that leaves it open: it takes effect at any one moment after its invocation, or never.
    Unknown,
    /// It was refused for good: it never takes effect.
    Failed,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who asked. Only for explanations: a client may have several operations in flight.
    pub process: u64,
    /// When the request was sent, or earlier.
    pub invoked: Time,
    /// What was asked.
    pub input: I,
    /// What became of it.
    pub outcome: Outcome<O>,
}

impl<I, O> Operation<I, O> {
    /// The answer, if there was one.
    pub fn output(&self) -> Option<&O> {
        match &self.outcome {
            Outcome::Returned { output, .. } => Some(output),
            Outcome::Unknown | Outcome::Failed => None,
        }
    }

    /// When the answer came, if there was one.
    pub fn returned(&self) -> Option<Time> {
        match &self.outcome {
            Outcome::Returned { at, .. } => Some(*at),
            Outcome::Unknown | Outcome::Failed => None,
        }
    }

    /// Whether it may have taken effect.
    pub fn is_possible(&self) -> bool {
        match &self.outcome {
            Outcome::Returned { .. } | Outcome::Unknown => true,
            Outcome::Failed => false,
        }
    }

    /// Whether this one had been answered before the other one was asked. Equal times overlap: clocks may be that coarse.
    pub fn is_before(&self, other: &Operation<I, O>) -> bool {
        self.returned().is_some_and(|at| at < other.invoked)
    }

    /// Process and times, as in the text format: `c3 10..25`, `c3 10..?` if unknown, `c3 10..!` if failed.
    pub fn interval(&self) -> String {
        let end = match &self.outcome {
            Outcome::Returned { at, .. } => at.to_string(),
            Outcome::Unknown => "?".to_owned(),
            Outcome::Failed => "!".to_owned(),
        };
        format!("c{} {}..{end}", self.process, self.invoked)
    }
}

/// Why something cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryError {
    /// There is no such operation.
    NoSuchOperation(OpId),
    /// What became of it has been said before.
    AlreadyEnded(OpId),
    /// It would return before it was invoked.
    ReturnsTooEarly {
        /// When it was invoked.
        invoked: Time,
        /// When it would have returned.
        returned: Time,
    },
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryError::NoSuchOperation(OpId(id)) => write!(f, "there is no operation {id}"),
            HistoryError::AlreadyEnded(OpId(id)) => write!(f, "operation {id} ends twice"),
            HistoryError::ReturnsTooEarly { invoked, returned } => {
                write!(f, "returned at {returned}, but was invoked at {invoked}")
            }
        }
    }
}

impl std::error::Error for HistoryError {}

/// All operations of all clients, in any order.
///
/// Either record them as they happen ([`invoke`](History::invoke), then [`answer`](History::answer) or
/// [`fail`](History::fail); what is never ended stays unknown), or [`push`](History::push) them whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<I, O> {
    operations: Vec<Operation<I, O>>,
}

impl<I, O> Default for History<I, O> {
    fn default() -> History<I, O> {
        History {
            operations: Vec::new(),
        }
    }
}

impl<I, O> History<I, O> {
    /// Records that a client asks. Until more is said, the outcome is unknown.
    pub fn invoke(&mut self, process: u64, invoked: Time, input: I) -> OpId {
        self.operations.push(Operation {
            process,
            invoked,
            input,
            outcome: Outcome::Unknown,
        });
        OpId(self.operations.len() - 1)
    }

    /// Records an answer.
    ///
    /// # Errors
    /// There is no such operation, it has ended before, or it was invoked later than `at`.
    pub fn answer(&mut self, id: OpId, at: Time, output: O) -> Result<(), HistoryError> {
        let operation = self.open(id)?;
        check_times(operation.invoked, at)?;
        operation.outcome = Outcome::Returned { at, output };
        Ok(())
    }

    /// Records that an operation was refused for good, and never takes effect.
    ///
    /// # Errors
    /// There is no such operation, or it has ended before.
    pub fn fail(&mut self, id: OpId) -> Result<(), HistoryError> {
        self.open(id)?.outcome = Outcome::Failed;
        Ok(())
    }

    /// Adds an operation with all that is known of it.
    ///
    /// # Errors
    /// It returns before it is invoked.
    pub fn push(&mut self, operation: Operation<I, O>) -> Result<OpId, HistoryError> {
        if let Some(at) = operation.returned() {
            check_times(operation.invoked, at)?;
        }
        self.operations.push(operation);
        Ok(OpId(self.operations.len() - 1))
    }

    /// All operations; an [`OpId`] is a position here.
    pub fn operations(&self) -> &[Operation<I, O>] {
        &self.operations
    }

    /// One operation, if there is one of this id.
    pub fn operation(&self, id: OpId) -> Option<&Operation<I, O>> {
        self.operations.get(id.0)
    }

    fn open(&mut self, id: OpId) -> Result<&mut Operation<I, O>, HistoryError> {
        let operation = self.operations.get_mut(id.0);
        let operation = operation.ok_or(HistoryError::NoSuchOperation(id))?;
        match operation.outcome {
            Outcome::Unknown => Ok(operation),
            Outcome::Returned { .. } | Outcome::Failed => Err(HistoryError::AlreadyEnded(id)),
        }
    }
}

fn check_times(invoked: Time, returned: Time) -> Result<(), HistoryError> {
    if returned < invoked {
        return Err(HistoryError::ReturnsTooEarly { invoked, returned });
    }
    Ok(())
}

/// What the clients talk to, as if it ran one operation at a time.
///
/// The state may also stand for a set of possible states, of which an answer tells more: then a step must not refuse, from a
/// larger set, what it takes from a smaller one.
///
/// A register that holds a number:
/// ```
/// use kvd_sim::check::history::Model;
///
/// struct Register;
///
/// #[derive(Debug, Clone, PartialEq, Eq, Hash)]
/// enum Ask {
///     Write(u8),
///     Read,
/// }
///
/// impl Model for Register {
///     type State = u8;
///     type Input = Ask;
///     type Output = u8;
///
///     fn initial(&self) -> u8 {
///         0
///     }
///
///     fn step(&self, state: &u8, input: &Ask, output: Option<&u8>) -> Option<u8> {
///         match input {
///             Ask::Write(value) => Some(*value),
///             Ask::Read => output.is_none_or(|seen| seen == state).then_some(*state),
///         }
///     }
/// }
/// ```
pub trait Model {
    /// What it holds. Cheap to clone: the checker keeps many.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked.
    type Input: Eq + Hash + Debug;
    /// What is answered.
    type Output: Debug;

    /// What it holds before the first operation.
    fn initial(&self) -> Self::State;

    /// What it holds after this operation, or `None` if the operation cannot be answered like that in this state. Without
    /// an output nobody saw the answer, and any will do.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether an operation with this answer changes nothing, whatever the state was; what it tells of a state that is
    /// partly unknown does not count as a change. `false` is always right, and slower.
    fn is_read(&self, input: &Self::Input, output: Option<&Self::Output>) -> bool {
        let _ = (input, output);
        false
    }

    /// Whether this answer is impossible now and in every state that can follow, such as a number that only grows and is
    /// higher already. `false` is always right, and slower.
    fn is_out_of_reach(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: &Self::Output,
    ) -> bool {
        let _ = (state, input, output);
        false
    }

    /// The operation in explanations.
    fn describe(&self, input: &Self::Input, output: Option<&Self::Output>) -> String {
        match output {
            Some(output) => format!("{input:?} -> {output:?}"),
            None => format!("{input:?}"),
        }
    }

    /// The state in explanations.
    fn describe_state(&self, state: &Self::State) -> String {
        format!("{state:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_ends_once_and_not_before_it_began() {
        let mut history: History<&str, u8> = History::default();
        let (first, second) = (history.invoke(1, 10, "a"), history.invoke(2, 10, "b"));
        let early = HistoryError::ReturnsTooEarly {
            invoked: 10,
            returned: 9,
        };
        assert_eq!(history.answer(first, 9, 0), Err(early));
        assert_eq!(history.answer(first, 10, 0), Ok(()));
        assert_eq!(history.fail(first), Err(HistoryError::AlreadyEnded(first)));
        assert_eq!(history.fail(second), Ok(()));
        let again = history.answer(second, 11, 0);
        assert_eq!(again, Err(HistoryError::AlreadyEnded(second)));
        let other = OpId(2);
        assert_eq!(
            history.fail(other),
            Err(HistoryError::NoSuchOperation(other))
        );
    }

    #[test]
    fn what_is_never_ended_is_unknown() {
        let mut history: History<&str, u8> = History::default();
        let id = history.invoke(1, 10, "a");
        let operation = history.operation(id).unwrap();
        assert_eq!(operation.outcome, Outcome::Unknown);
        assert_eq!(operation.interval(), "c1 10..?");
    }
}
