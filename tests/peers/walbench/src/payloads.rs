//! What is appended.

use crate::PAYLOAD_BYTES;

/// Payloads that no compression makes shorter; a new batch differs from the one before.
pub struct Payloads {
    state: u64,
    batch: Vec<Vec<u8>>,
}

impl Payloads {
    pub fn new(seed: u64) -> Payloads {
        Payloads {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            batch: Vec::new(),
        }
    }

    pub fn batch(&mut self, count: usize) -> &[Vec<u8>] {
        while self.batch.len() < count {
            let words = (0..PAYLOAD_BYTES / 8).flat_map(|_| self.next().to_le_bytes());
            let payload = words.collect();
            self.batch.push(payload);
        }
        for at in 0..count {
            let word = self.next().to_le_bytes();
            self.batch[at][..8].copy_from_slice(&word);
        }
        &self.batch[..count]
    }

    /// The next pseudo-random word (xorshift64*).
    pub fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
