//! The replicated key-value store.
//!
//! Everything here is pure and deterministic: two replicas that apply the same log entries hold the same data, the same
//! sessions and the same hash, whatever their hardware, their clocks or the moment they do it.
//!
//! The way of one write: a client encodes a [`command::Command`], the leader puts it into an [`envelope::Envelope`], which
//! is the payload of one log entry, and every replica hands that payload to its store.

pub mod auth;
pub mod command;
pub mod envelope;
pub mod limits;
#[cfg(feature = "server")]
pub mod map;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod snapshot;
#[cfg(feature = "server")]
pub mod store;

pub(crate) mod bounded;
pub(crate) mod codec;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(feature = "server")]
mod hash;
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
