//! What an engine must be able to do, and the load that all of them get.

use std::path::Path;

use bytes::Bytes;

pub const KEY_BYTES: usize = 16;
pub const VALUE_BYTES: usize = 256;

pub type Key = [u8; KEY_BYTES];
pub type Batch = Vec<(Key, Bytes)>;

/// A state machine: one writer, many readers.
pub trait Engine: Send + Sync + Sized {
    const NAME: &'static str;

    /// A batch as the engine is given it, made before the clock starts.
    type Prepared: Send;

    /// A new one, or the one that was kept in `dir`.
    fn open(dir: &Path) -> Self;

    fn prepare(batch: Batch) -> Self::Prepared;

    /// All of a batch, then readers see it. Only one thread writes.
    fn apply(&self, batch: Self::Prepared);

    /// The number in a value.
    fn get(&self, key: &Key) -> Option<u64>;

    /// A consistent look at everything while writes go on: entries, and all their numbers added up.
    fn scan(&self) -> (usize, u64);

    /// Takes a frozen view, holds it while `during` runs, and lets it go.
    fn hold_view(&self, during: impl FnOnce());

    /// Makes everything durable and closes it.
    fn close(self);
}

/// A good hash of a number (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The key of a number; neighbours in number are not neighbours in order.
pub fn key(number: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A value that does not compress, and begins with a number.
pub fn value(number: u64) -> Bytes {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    value.extend_from_slice(&number.to_le_bytes());
    let mut state = mix(number);
    while value.len() < VALUE_BYTES {
        state = mix(state);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.into()
}

/// The number in a value.
pub fn number(value: &[u8]) -> u64 {
    let first = value.first_chunk().expect("a value begins with a number");
    u64::from_le_bytes(*first)
}
