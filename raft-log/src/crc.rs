//! CRC-32 of a few words that are in registers.
//!
//! Long inputs go to `crc32fast`. A header of 28 bytes that was put together field by field a moment ago is another matter: read
//! back in larger pieces than it was written in, it makes the processor wait for each piece until the fields have left its store
//! buffer. Here the words go in as they are, eight table look-ups each, and nothing is written or read back.

/// `TABLES[n][byte]`: what `byte` adds to the checksum when `n` more bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

/// IEEE 802.3, bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut following = 1;
    while following < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[following - 1][byte];
            tables[following][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        following += 1;
    }
    tables
}

/// A checksum in the making; each word counts as its little-endian bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordCrc(u32);

impl WordCrc {
    /// Begins with `seed`, the checksum of what is in front; 0 if that is nothing.
    pub(crate) fn new(seed: u32) -> WordCrc {
        WordCrc(!seed)
    }

    pub(crate) fn u64(self, word: u64) -> WordCrc {
        let bytes = (word ^ u64::from(self.0)).to_le_bytes();
        let parts = (0..8).map(|at| TABLES[7 - at][usize::from(bytes[at])]);
        WordCrc(parts.fold(0, |crc, part| crc ^ part))
    }

    /// Two words of four bytes.
    pub(crate) fn pair(self, first: u32, second: u32) -> WordCrc {
        self.u64(u64::from(first) | u64::from(second) << 32)
    }

    pub(crate) fn u32(self, word: u32) -> WordCrc {
        let bytes = (word ^ self.0).to_le_bytes();
        let parts = (0..4).map(|at| TABLES[3 - at][usize::from(bytes[at])]);
        WordCrc(parts.fold(0, |crc, part| crc ^ part))
    }

    pub(crate) fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_have_the_checksum_of_their_bytes(seed: u32, words in proptest::collection::vec((any::<u64>(), 0..3), 0..9)) {
            let mut crc = WordCrc::new(seed);
            let mut bytes = Vec::new();
            for (word, way) in words {
                if way == 0 {
                    crc = crc.u32(word as u32);
                    bytes.extend_from_slice(&(word as u32).to_le_bytes());
                    continue;
                }
                crc = match way {
                    1 => crc.u64(word),
                    _ => crc.pair(word as u32, (word >> 32) as u32),
                };
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            let mut known = crc32fast::Hasher::new_with_initial(seed);
            known.update(&bytes);
            prop_assert_eq!(crc.finish(), known.finalize());
        }
    }
}
