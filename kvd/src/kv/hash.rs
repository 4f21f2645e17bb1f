//! A 64-bit hash that every release computes alike.
//!
//! It is part of the replicated state, so it is written out here instead of being taken from a library that may change.
//! It finds accidents (a replica that diverges, a sequence number used twice), not attacks.

/// Names this algorithm, so that hashes of another one are never compared with it.
pub const HASH_ALGORITHM: u8 = 1;

/// Odd, without a pattern (fractional part of the golden ratio).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A running hash.
///
/// Each word goes in by steps that can be undone: `xor`, multiplication by an odd number, `xor` with the own upper half.
/// So two inputs that differ in one word only never give the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hasher(u64);

impl Hasher {
    /// Starts from an earlier state.
    pub(crate) fn new(seed: u64) -> Hasher {
        Hasher(seed)
    }

    /// Takes in one word.
    pub(crate) fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(MULTIPLIER);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// Takes in bytes and their number.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// The hash of everything so far.
    pub(crate) fn finish(self) -> u64 {
        let mut last = self;
        last.word(0);
        last.word(0);
        last.0
    }
}

/// Hash of the bytes of one command.
pub(crate) fn content_hash(bytes: &[u8]) -> u64 {
    let mut hasher = Hasher::new(MULTIPLIER);
    hasher.bytes(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn golden_values() {
        assert_eq!(content_hash(b""), 0x5016_5032_70d8_62b6);
        assert_eq!(content_hash(b"a"), 0x65a7_c005_a5cc_c2b9);
        assert_eq!(content_hash(b"twelve bytes"), 0x0b9c_6295_4883_f713);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_gives_another_hash() {
        let bytes = [0_u8; 40];
        let mut seen = BTreeSet::new();
        for len in 0..bytes.len() {
            assert!(seen.insert(content_hash(&bytes[..len])), "length {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(content_hash(&flipped)), "bit {bit}");
        }
    }
}
