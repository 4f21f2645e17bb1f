//! A machine without a cluster, for tests of the machine itself.

use super::{Machines, StateMachine, codec};
use crate::kv::auth::{Principal, Role};
use crate::kv::command::{Command, Custom, OpResult, command_crc};
use crate::kv::envelope::{Envelope, SessionRef};
use crate::kv::limits::StoreLimits;
use crate::kv::store::{Applied, Store};

/// One state machine over a store in memory: what each replica does with a command, and nothing else.
#[derive(Debug)]
pub struct Alone<M> {
    store: Store,
    log_time_ms: u64,
    machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: StateMachine> Alone<M> {
    /// The machine with an empty state.
    #[must_use]
    pub fn new(machine: M) -> Alone<M> {
        Alone {
            store: Store::new(StoreLimits::default()).with_machines(Machines::from(machine)),
            log_time_ms: 0,
            machine: std::marker::PhantomData,
        }
    }

    /// Applies a command.
    ///
    /// # Errors
    /// The machine's own rejection.
    ///
    /// # Panics
    /// Where a node would stop, or undo the command because of a limit.
    pub fn submit(&mut self, command: &M::Command) -> Result<M::Answer, M::Rejection> {
        let encoded = codec::encode(command).expect("the command can be encoded");
        let custom = Custom {
            machine: M::NAME.to_owned(),
            version: M::version_of(command),
            command: encoded.into(),
        };
        let applied = self.apply(&Command::Custom(custom));
        let Applied::Done { result, .. } = &applied else {
            panic!("a node stops at this command: {applied:?}");
        };
        match result.results.as_slice() {
            [OpResult::Answered { answer }] => Ok(own(answer)),
            [OpResult::Rejected { rejection }] => Err(own(rejection)),
            other => panic!("the command is undone: {other:?}"),
        }
    }

    fn apply(&mut self, command: &Command) -> Applied {
        let command = command.encode();
        let payload = Envelope {
            principal: Principal::new(Role::Client, "alone").borrowed(),
            session: SessionRef::None,
            sequence: 0,
            done_below: 0,
            log_time_ms: self.log_time_ms,
            command_crc: command_crc(&command),
            command: &command,
        }
        .encode();
        self.store.apply(self.store.applied_index() + 1, &payload)
    }

    /// Asks a question.
    ///
    /// # Panics
    /// The machine does, or its reply is too large.
    pub fn ask(&self, question: M::Question) -> M::Reply {
        let encoded = codec::encode(&question).expect("the question can be encoded");
        let asked = Custom {
            machine: M::NAME.to_owned(),
            version: M::VERSION,
            command: encoded.into(),
        };
        match self.store.ask(&asked) {
            Ok(reply) => own(&reply),
            Err(refusal) => panic!("the question is refused: {refusal}"),
        }
    }

    /// Lets time of the log go by.
    pub fn pass(&mut self, time: std::time::Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.log_time_ms = self.log_time_ms.saturating_add(ms);
    }
}

fn own<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    codec::decode(bytes).expect("what the machine encoded itself can be decoded")
}
