//! What the fuzz targets do with an input. `fuzz/` runs it under libFuzzer, `tests/fuzz.rs` on the committed
//! inputs and for a few seconds on random ones.
//!
//! - [`open`]: a directory made of the input's bytes is refused, or opens and works from then on.
//! - [`mutate`]: a valid log that was closed and then damaged opens with all of its entries, or is refused.
//! - [`record`]: decoding an entry record is total, and encoding is its inverse.
//!
//! A broken promise is a panic. Only the public interface is used, and of the format on disk only what
//! [`mend`] says.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the fuzz targets and the test each use another part"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub mod bounds;
pub mod damage;
pub mod directory;
pub mod input;
pub mod mend;
pub mod mutate;
pub mod open;
pub mod oracle;
pub mod record;
pub mod script;

use input::Random;

/// One thing to fuzz.
pub struct Target {
    /// Name of the fuzz target and of the directories with its inputs.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// An input worth trying.
    pub random: fn(&mut Random) -> Vec<u8>,
}

pub const OPEN: Target = Target {
    name: "open",
    run: open::run,
    random: open::random,
};

pub const MUTATE: Target = Target {
    name: "mutate",
    run: mutate::run,
    random: mutate::random,
};

pub const RECORD: Target = Target {
    name: "record",
    run: record::run,
    random: record::random,
};
