//! State machines of users on real nodes in this process: over the network, real files, and nodes that die.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::duplicate_mod,
    reason = "each example brings the bank along, as it does when it is built alone"
)]

mod examples;
mod nodes;
mod stops;
mod support;
