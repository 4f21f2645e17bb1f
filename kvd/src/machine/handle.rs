//! Commands and questions with their types, over a [`Client`].

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{StateMachine, codec};
use crate::client::{Client, ClientError};
use crate::kv::command::{Command, CommandResult, Custom, OpResult};
use crate::wire::client::Consistency;

/// A state machine of a cluster, as programs use it. Cheap to clone; clones share the client and its session.
pub struct Handle<M> {
    client: Client,
    machine: PhantomData<fn() -> M>,
}

/// Why a command has no answer. `R` is the machine's own rejection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError<R> {
    /// The machine rejected the command. Nothing was written.
    #[error("rejected: {0}")]
    Rejected(R),
    /// The command was undone because of a limit: its answer, or what it wrote, is too large. Nothing was written.
    #[error("undone: {0}")]
    Undone(String),
    /// It certainly had no effect and never will.
    #[error(transparent)]
    Failed(ClientError),
    /// Nobody knows whether it took effect, or still will; a second submission is another command. Use
    /// [`Handle::submit_named`] for what must be repeated safely beyond the client's own time.
    #[error(transparent)]
    Unknown(ClientError),
    /// It took effect, and its answer is none of the type that this program expects.
    #[error("applied, but its answer cannot be read: {0}")]
    Unreadable(String),
    /// The command cannot be encoded. Nothing was sent.
    #[error("the command cannot be sent: {0}")]
    Unencodable(String),
}

/// Why a question has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// There was none in time, or the nodes refused.
    #[error(transparent)]
    Failed(ClientError),
    /// The reply is none of the type that this program expects.
    #[error("the reply cannot be read: {0}")]
    Unreadable(String),
    /// The question cannot be encoded.
    #[error("the question cannot be sent: {0}")]
    Unencodable(String),
}

/// A reply, and where in the log it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replied<T> {
    /// The reply.
    pub reply: T,
    /// Index of the last entry applied when the machine was asked.
    pub applied: u64,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Handle<M> {
        Handle {
            client: self.client.clone(),
            machine: PhantomData,
        }
    }
}

impl<M: StateMachine> std::fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("machine", &M::NAME)
            .finish_non_exhaustive()
    }
}

impl<M: StateMachine> Handle<M> {
    pub(crate) fn new(client: Client) -> Handle<M> {
        Handle {
            client,
            machine: PhantomData,
        }
    }

    /// The client that it uses.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Submits a command and waits for the machine's answer: committed and applied.
    ///
    /// Works on any node. It is repeated through elections and lost connections until the client's time is over, and takes
    /// effect at most once.
    ///
    /// # Errors
    /// See [`SubmitError`]: only [`SubmitError::Unknown`] leaves it open whether the command took effect.
    pub async fn submit(
        &self,
        command: &M::Command,
    ) -> Result<M::Answer, SubmitError<M::Rejection>> {
        let command = custom::<M>(command)?;
        answer(self.client.write(command).await)
    }

    /// Like [`Handle::submit`] under a name: submitting the same command again with the same name, even from another process
    /// after a crash, gives the first answer and has no further effect, for as long as the cluster remembers the name: an hour of
    /// its time after the last use.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit_named(
        &self,
        command: &M::Command,
        name: u128,
    ) -> Result<M::Answer, SubmitError<M::Rejection>> {
        let command = custom::<M>(command)?;
        answer(self.client.write_named(command, name).await)
    }

    /// Asks a question; the reply takes in every command that was answered before.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, question: &M::Question) -> Result<M::Reply, AskError> {
        let replied = self.ask_at(question, Consistency::Linearizable).await?;
        Ok(replied.reply)
    }

    /// Asks the connected node alone, even without a quorum; the reply may be out of date.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask_local(&self, question: &M::Question) -> Result<Replied<M::Reply>, AskError> {
        self.ask_at(question, Consistency::Local).await
    }

    async fn ask_at(
        &self,
        question: &M::Question,
        consistency: Consistency,
    ) -> Result<Replied<M::Reply>, AskError> {
        let encoded =
            codec::encode(question).map_err(|error| AskError::Unencodable(error.to_string()))?;
        let asked = Custom {
            machine: M::NAME.to_owned(),
            version: M::VERSION,
            command: encoded.into(),
        };
        let (reply, applied) = self
            .client
            .ask_machine(asked, consistency)
            .await
            .map_err(AskError::Failed)?;
        let reply =
            codec::decode(&reply).map_err(|error| AskError::Unreadable(error.to_string()))?;
        Ok(Replied { reply, applied })
    }
}

fn custom<M: StateMachine>(command: &M::Command) -> Result<Command, SubmitError<M::Rejection>> {
    let encoded =
        codec::encode(command).map_err(|error| SubmitError::Unencodable(error.to_string()))?;
    Ok(Command::Custom(Custom {
        machine: M::NAME.to_owned(),
        version: M::version_of(command),
        command: encoded.into(),
    }))
}

fn answer<A: DeserializeOwned, R: DeserializeOwned>(
    written: Result<CommandResult, ClientError>,
) -> Result<A, SubmitError<R>> {
    let result = match written {
        Ok(result) => result,
        Err(error @ ClientError::Unknown { .. }) => return Err(SubmitError::Unknown(error)),
        Err(error) => return Err(SubmitError::Failed(error)),
    };
    let unreadable = |error: codec::CodecError| SubmitError::Unreadable(error.to_string());
    match result.results.into_iter().next() {
        Some(OpResult::Answered { answer }) => codec::decode(&answer).map_err(unreadable),
        Some(OpResult::Rejected { rejection }) => match codec::decode(&rejection) {
            Ok(rejection) => Err(SubmitError::Rejected(rejection)),
            Err(error) => Err(SubmitError::Undone(format!("rejected; {error}"))),
        },
        Some(OpResult::WriteRefused { why }) => Err(SubmitError::Undone(why)),
        Some(OpResult::AnswerTooLarge { limit_bytes }) => Err(SubmitError::Undone(format!(
            "its answer is beyond the limit of {limit_bytes} bytes"
        ))),
        other => Err(SubmitError::Unreadable(format!(
            "the result is of another kind: {other:?}"
        ))),
    }
}
