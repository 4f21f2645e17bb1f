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

pub(crate) mod bounded;
pub(crate) mod codec;

pub use codec::DecodeError;
