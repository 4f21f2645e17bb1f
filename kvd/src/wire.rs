//! What travels, as bytes: requests of clients and messages between nodes.
//!
//! Pure: a frame in, a value or a typed error out. Frames themselves (length prefix, limits) belong to the network crate.

pub mod client;
#[cfg(feature = "server")]
pub mod peer;
pub mod status;

pub use crate::kv::DecodeError;
