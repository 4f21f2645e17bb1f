//! Machines of any type side by side, over bytes.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{self, CodecError};
use super::state::{State, View};
use super::{NAME_BYTES_MAX, StateMachine};

/// The state machines that a program has.
#[derive(Clone, Default)]
pub struct Machines {
    by_name: Arc<BTreeMap<&'static str, Arc<dyn Erased>>>,
}

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The encoded answer.
    Answered(Vec<u8>),
    /// The encoded rejection.
    Rejected(Vec<u8>),
}

/// Why a machine has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The bytes are no command, or no question, of this machine.
    Undecodable(CodecError),
    /// The machine panicked, or its answer cannot be encoded.
    Panicked(String),
}

/// A [`StateMachine`] over bytes.
pub(crate) trait Erased: Send + Sync {
    fn version(&self) -> u32;
    /// Whether these bytes are a command.
    fn check(&self, command: &[u8]) -> Result<(), Broken>;
    fn apply(&self, state: &mut State<'_>, command: &[u8]) -> Result<Outcome, Broken>;
    fn query(&self, view: &View<'_>, question: &[u8]) -> Result<Vec<u8>, Broken>;
}

impl Machines {
    /// None.
    #[must_use]
    pub fn new() -> Machines {
        Machines::default()
    }

    /// These and one more.
    ///
    /// # Panics
    /// Its name is empty, longer than [`NAME_BYTES_MAX`], or another machine's; or its version is 0.
    #[must_use]
    pub fn with<M: StateMachine>(mut self, machine: M) -> Machines {
        assert!(
            (1..=NAME_BYTES_MAX).contains(&M::NAME.len()),
            "the name of a state machine has 1 to {NAME_BYTES_MAX} bytes"
        );
        assert!(M::VERSION > 0, "version 0 of state machine {}", M::NAME);
        let before = Arc::make_mut(&mut self.by_name).insert(M::NAME, Arc::new(Typed(machine)));
        assert!(before.is_none(), "two state machines named {}", M::NAME);
        self
    }

    /// Names and versions.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        let machines = self.by_name.iter();
        machines.map(|(name, machine)| (*name, machine.version()))
    }

    /// The machine of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&dyn Erased> {
        self.by_name.get(name).map(|machine| &**machine)
    }
}

impl<M: StateMachine> From<M> for Machines {
    fn from(machine: M) -> Machines {
        Machines::new().with(machine)
    }
}

impl fmt::Debug for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

struct Typed<M>(M);

impl<M: StateMachine> Erased for Typed<M> {
    fn version(&self) -> u32 {
        M::VERSION
    }

    fn check(&self, command: &[u8]) -> Result<(), Broken> {
        unpanicked(|| decoded::<M::Command>(command).map(drop))
    }

    fn apply(&self, state: &mut State<'_>, command: &[u8]) -> Result<Outcome, Broken> {
        unpanicked(|| match self.0.apply(state, decoded(command)?) {
            Ok(answer) => encoded(&answer).map(Outcome::Answered),
            Err(rejection) => encoded(&rejection).map(Outcome::Rejected),
        })
    }

    fn query(&self, view: &View<'_>, question: &[u8]) -> Result<Vec<u8>, Broken> {
        unpanicked(|| encoded(&self.0.query(view, decoded(question)?)))
    }
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Broken> {
    codec::decode(bytes).map_err(Broken::Undecodable)
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, Broken> {
    codec::encode(value).map_err(|error| Broken::Panicked(format!("its answer: {error}")))
}

/// Code of users must not take the thread with it: what it leaves half done is undone, or the node stops and nobody looks at it.
fn unpanicked<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(payload) => Err(Broken::Panicked(words(&*payload))),
    }
}

/// What a panic said.
fn words(payload: &(dyn Any + Send)) -> String {
    let said = payload
        .downcast_ref::<&str>()
        .map(|said| (*said).to_owned());
    said.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Never;

    struct Named<const VERSION: u32>;

    impl<const VERSION: u32> StateMachine for Named<VERSION> {
        const NAME: &'static str = "named";
        const VERSION: u32 = VERSION;
        type Command = ();
        type Answer = ();
        type Rejection = Never;
        type Question = ();
        type Reply = ();

        fn apply(&self, _: &mut State<'_>, (): ()) -> Result<(), Never> {
            Ok(())
        }

        fn query(&self, _: &View<'_>, (): ()) {}
    }

    #[test]
    #[should_panic(expected = "two state machines named named")]
    fn two_machines_of_one_name_are_refused() {
        let _ = Machines::from(Named::<1>).with(Named::<2>);
    }

    #[test]
    #[should_panic(expected = "version 0")]
    fn version_0_is_refused() {
        let _ = Machines::from(Named::<0>);
    }
}
