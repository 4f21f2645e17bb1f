//! The driver as a pure state machine: one to three of them, with the network, the disks and the clock in the test's hand.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    unreachable_pub,
    reason = "the modules of one test share their helpers"
)]

mod applying;
mod disk;
mod door;
mod durability;
mod ends;
mod hashes;
mod lives;
mod machines;
mod make;
mod member_refusals;
mod members;
mod outcomes;
mod reads;
mod repair;
mod requests;
mod sessions;
mod slow_disk;
mod snapshots;
mod space;
mod world;
