//! State machines of your own: replicated, durable and linearizable, without a line about any of that in them.
//!
//! A [`StateMachine`] is a deterministic function over an ordered map of bytes of its own, see [`State`]. It runs in every
//! replica when an entry is applied, inside the store: so snapshots, catching up, repair, hashes of the state and sessions
//! (each command takes effect exactly once) hold for it as they do for keys and values.
//!
//! ```
//! use kvd::machine::{Never, State, StateMachine, View};
//! use serde::{Deserialize, Serialize};
//!
//! struct Bank;
//!
//! #[derive(Serialize, Deserialize)]
//! enum Command {
//!     Deposit { to: String, amount: u64 },
//!     Transfer { from: String, to: String, amount: u64 },
//! }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Overdrawn { balance: u64 }
//!
//! impl StateMachine for Bank {
//!     const NAME: &'static str = "bank";
//!     type Command = Command;
//!     type Answer = u64;
//!     type Rejection = Overdrawn;
//!     type Question = String;
//!     type Reply = u64;
//!
//!     fn apply(&self, state: &mut State<'_>, command: Command) -> Result<u64, Overdrawn> {
//!         let (to, amount) = match command {
//!             Command::Deposit { to, amount } => (to, amount),
//!             Command::Transfer { from, to, amount } => {
//!                 let balance: u64 = state.load(&from).unwrap_or(0);
//!                 let left = balance.checked_sub(amount).ok_or(Overdrawn { balance })?;
//!                 state.store(&from, &left);
//!                 (to, amount)
//!             }
//!         };
//!         let balance = state.load(&to).unwrap_or(0) + amount;
//!         state.store(&to, &balance);
//!         Ok(balance)
//!     }
//!
//!     fn query(&self, view: &View<'_>, account: String) -> u64 {
//!         view.load(&account).unwrap_or(0)
//!     }
//! }
//! # #[cfg(feature = "server")] {
//! // Without a cluster, for tests of the machine:
//! let mut bank = kvd::machine::Alone::new(Bank);
//! let deposit = Command::Deposit { to: "ann".into(), amount: 10 };
//! assert_eq!(bank.submit(&deposit), Ok(10));
//! let transfer = Command::Transfer { from: "ann".into(), to: "bob".into(), amount: 11 };
//! assert_eq!(bank.submit(&transfer), Err(Overdrawn { balance: 10 }));
//! assert_eq!(bank.ask("ann".into()), 10);
//! # }
//! ```
//!
//! # Running one
//!
//! Every node of the cluster is started with it: `Node::start_with(config, Bank)`. Then `node.client(timeout).machine::<Bank>()`
//! on any node, or [`Client::machine`](crate::client::Client::machine) over the network, gives a [`Handle`] with
//! [`submit`](Handle::submit) and [`ask`](Handle::ask).
//!
//! # What a machine must keep to
//!
//! - **Deterministic.** [`StateMachine::apply`] may depend on its arguments only: no clock ([`State::log_time_ms`] is there
//!   for that), no random numbers, no files, no state of its own that changes, no order of a `HashMap`.
//! - **Commands are read for ever.** Old entries of the log are read by newer programs, and state of an older machine too:
//!   append variants to enums, never change or remove one; the encoding is [postcard](https://docs.rs/postcard).
//! - **A change of behaviour is a new [`VERSION`](StateMachine::VERSION).** A replica that has a lower version than a
//!   command, or does not have the machine at all, stops before it applies it, instead of making another history than the
//!   others. [`State::version`] is the version of the command: what `apply` does with a command of an older version must stay as
//!   it was. Upgrade all nodes first, then submit commands of the new version.
//! - **A panic stops the node,** each one that comes to apply the command, with a message and exit code 70: half a command is
//!   never part of the state, and the cluster ends without a quorum. The way on is a program that does not panic there. So
//!   reject commands instead.

mod codec;
mod handle;
mod state;

#[cfg(feature = "server")]
mod alone;
#[cfg(feature = "server")]
mod erased;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "server")]
pub use alone::Alone;
#[cfg(feature = "server")]
pub use erased::Machines;
pub use handle::{AskError, Handle, Replied, SubmitError};
pub use state::{State, View};

#[cfg(feature = "server")]
pub(crate) use erased::{Broken, Erased, Outcome};
#[cfg(feature = "server")]
pub(crate) use state::{Context, Items, Read, Write};

/// Longest name of a machine, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A replicated state machine. See the [module](self) for an example and for what it must keep to.
pub trait StateMachine: Send + Sync + 'static {
    /// Its name: part of each command, and of the state in snapshots. Never changes. At most [`NAME_BYTES_MAX`] bytes.
    const NAME: &'static str;

    /// Version of its behaviour and of its commands; grows with each change of either.
    const VERSION: u32 = 1;

    /// What changes the state.
    type Command: Serialize + DeserializeOwned;
    /// What a command that took effect answers.
    type Answer: Serialize + DeserializeOwned;
    /// Why a command had no effect. [`Never`], if all commands take effect.
    type Rejection: Serialize + DeserializeOwned;
    /// What can be asked without changing anything.
    type Question: Serialize + DeserializeOwned;
    /// The reply to a question.
    type Reply: Serialize + DeserializeOwned;

    /// Carries out one command, in every replica alike. All of its writes take effect in one step; after an `Err` none does.
    ///
    /// # Errors
    /// The machine rejects the command; the error reaches whoever submitted it.
    fn apply(
        &self,
        state: &mut State<'_>,
        command: Self::Command,
    ) -> Result<Self::Answer, Self::Rejection>;

    /// Answers a question from the state as it is now. Runs between two commands, so it should be quick.
    fn query(&self, view: &View<'_>, question: Self::Question) -> Self::Reply;

    /// The version that brought this command. With it a newer program can go on submitting commands that older replicas know;
    /// without, all its commands are of the newest version.
    fn version_of(command: &Self::Command) -> u32 {
        let _ = command;
        Self::VERSION
    }
}

/// The rejection of a machine that rejects nothing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
pub enum Never {}

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}
