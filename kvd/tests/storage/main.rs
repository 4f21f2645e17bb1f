//! The storage side of a node: what survives crashes, power cuts, rot and full disks.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    unreachable_pub,
    reason = "the modules of one test share their helpers"
)]

mod cache;
mod crash;
mod recover;
mod repair;
mod snapshots;
mod support;
mod suspect;
mod twice;
mod worker;
