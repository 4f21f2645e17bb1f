//! The replicated key-value store.
//!
//! Everything here is pure and deterministic: two replicas that apply the same log entries hold the same data, the same
//! sessions and the same hash, whatever their hardware, their clocks or the moment they do it.
//!
//! The way of one write: a client encodes a [`command::Command`], the leader puts it into an [`envelope::Envelope`], which
//! is the payload of one log entry, and every replica hands that payload to its store.
//!
//! ```
//! # #[cfg(feature = "server")] {
//! use kvd::kv::auth::{Principal, Role};
//! use kvd::kv::command::{Command, Op, RangeQuery, command_crc};
//! use kvd::kv::envelope::{Envelope, SessionRef};
//! use kvd::kv::limits::StoreLimits;
//! use kvd::kv::{Applied, Store};
//!
//! let command = Command::from(Op::Increment { key: "visits".into(), by: 1 }).encode();
//! let client = Principal::new(Role::Client, "app");
//! let payload = Envelope {
//!     principal: client.borrowed(),
//!     session: SessionRef::Named(0x5eed),
//!     sequence: 1,
//!     done_below: 1,
//!     log_time_ms: 0,
//!     command_crc: command_crc(&command),
//!     command: &command,
//! }
//! .encode();
//!
//! let mut store = Store::new(StoreLimits::default());
//! let first = store.apply(1, &payload);
//! assert!(matches!(first, Applied::Done { session: 1, .. }));
//! // The client lost the answer and sent the write again: it is executed once, and answered alike.
//! assert_eq!(store.apply(2, &payload), first);
//! assert_eq!(store.query(&RangeQuery::key("visits")).items[0].value, "1");
//! # }
//! ```

pub mod auth;
pub mod command;
pub mod envelope;
pub mod limits;
#[cfg(feature = "server")]
pub mod map;
pub mod members;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod snapshot;
#[cfg(feature = "server")]
pub mod state_hash;
#[cfg(feature = "server")]
pub mod store;

pub(crate) mod bounded;
pub(crate) mod codec;
#[cfg(feature = "server")]
pub(crate) mod custom;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(feature = "server")]
mod hash;
#[cfg(feature = "server")]
mod key;
#[cfg(feature = "server")]
mod transaction;

pub use codec::DecodeError;
#[cfg(feature = "server")]
pub use hash::HASH_ALGORITHM;
#[cfg(feature = "server")]
pub use snapshot::{
    SnapshotContext, SnapshotError, SnapshotHeader, SnapshotReader, SnapshotWriter,
};
#[cfg(feature = "server")]
pub use store::{Applied, ApplyRefusal, Store};
