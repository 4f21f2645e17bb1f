//! The end of a segment: a second copy of what its header says, and, once the segment takes no more
//! records, an index of them.

use super::{
    BlockError, Check, Fault, SEGMENT_HEADER_BYTES, SegmentHeader, check_numbers, check_preamble,
    put_preamble, put_u32, put_u64, u32_at, u64_at,
};
use crate::options::Binding;

/// The index lies in pages of its own, so that one bad page never takes both a record and its name.
pub(crate) const SEAL_PAGE_BYTES: u64 = 4096;
/// Bytes of the footer, the last ones of a segment.
pub(crate) const SEAL_FOOTER_BYTES: u64 = 64;
/// Bytes of a record's line in the index.
pub(crate) const SEAL_LINE_BYTES: u64 = 16;

const SEAL_MAGIC: [u8; 8] = *b"RLOGSEAL";
const SEAL_VERSION: u32 = 1;
const FOOTER_CRC_AT: usize = SEAL_FOOTER_BYTES as usize - 4;

/// End of the room for records in a segment that is to hold `count` of them: behind it lies the index,
/// which grows with each record.
#[must_use]
pub(crate) fn records_end(segment_bytes: u64, count: u64) -> u64 {
    let seal = count
        .saturating_mul(SEAL_LINE_BYTES)
        .saturating_add(SEAL_FOOTER_BYTES);
    segment_bytes.saturating_sub(seal) / SEAL_PAGE_BYTES * SEAL_PAGE_BYTES
}

/// Where the footer lies.
#[must_use]
pub(crate) fn footer_offset(segment_bytes: u64) -> u64 {
    segment_bytes - SEAL_FOOTER_BYTES
}

/// A record's line in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealLine {
    pub(crate) term: u64,
    /// Where the record begins, with its prefix.
    pub(crate) offset: u32,
    pub(crate) payload_crc: u32,
}

/// The last bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) nonce: u64,
    pub(crate) base: u64,
    /// The last 32 bits of the generation.
    pub(crate) generation: u32,
    /// As in the header. A segment that has lost its header must still tell that the one before it is gone: what was cut
    /// off the one before that would look like its entries.
    pub(crate) follows: u32,
    pub(crate) previous_term: u64,
    /// Lines of the index, one for each record; 0 as long as the segment takes records.
    pub(crate) count: u32,
    /// Offset behind the last record.
    pub(crate) end: u32,
    /// Checksum of the lines.
    pub(crate) lines_crc: u32,
}

impl SealLine {
    pub(crate) fn encode(&self) -> [u8; SEAL_LINE_BYTES as usize] {
        let mut bytes = [0; SEAL_LINE_BYTES as usize];
        put_u64(&mut bytes, 0, self.term);
        put_u32(&mut bytes, 8, self.offset);
        put_u32(&mut bytes, 12, self.payload_crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEAL_LINE_BYTES as usize]) -> SealLine {
        SealLine {
            term: u64_at(bytes, 0),
            offset: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
        }
    }
}

impl Footer {
    /// That of a segment which takes records.
    pub(crate) fn open(header: &SegmentHeader) -> Footer {
        Footer {
            nonce: header.nonce,
            base: header.base,
            generation: header.generation as u32,
            follows: header.follows,
            previous_term: header.previous_term,
            count: 0,
            end: SEGMENT_HEADER_BYTES as u32,
            lines_crc: 0,
        }
    }

    /// Whether it is that of the segment with this header.
    pub(crate) fn belongs_to(&self, header: &SegmentHeader) -> bool {
        let open = Footer::open(header);
        let own = Footer {
            count: open.count,
            end: open.end,
            lines_crc: open.lines_crc,
            // Not known in footers of early logs.
            follows: if self.follows == 0 {
                open.follows
            } else {
                self.follows
            },
            ..*self
        };
        own == open
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.count > 0
    }

    /// The header of a segment whose own copy is damaged. Number and length are those of the file; no generation is newer
    /// than that of the log.
    pub(crate) fn header(&self, number: u64, segment_bytes: u64, newest: u64) -> SegmentHeader {
        SegmentHeader {
            number,
            nonce: self.nonce,
            base: self.base,
            previous_term: self.previous_term,
            generation: widen(self.generation, newest),
            segment_bytes,
            // Not known here; the careful answer.
            recycled: true,
            repairs: false,
            follows: self.follows,
        }
    }

    pub(crate) fn encode(&self, binding: Binding) -> [u8; SEAL_FOOTER_BYTES as usize] {
        let mut bytes = [0; SEAL_FOOTER_BYTES as usize];
        put_preamble(&mut bytes, SEAL_MAGIC, SEAL_VERSION);
        put_u64(&mut bytes, 16, self.nonce);
        put_u64(&mut bytes, 24, self.base);
        put_u32(&mut bytes, 32, self.generation);
        put_u32(&mut bytes, 36, self.follows);
        put_u64(&mut bytes, 40, self.previous_term);
        put_u32(&mut bytes, 48, self.count);
        put_u32(&mut bytes, 52, self.end);
        put_u32(&mut bytes, 56, self.lines_crc);
        let crc = checksum(&bytes, binding);
        put_u32(&mut bytes, FOOTER_CRC_AT, crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], binding: Binding) -> Result<Footer, BlockError> {
        check_preamble(bytes, SEAL_MAGIC, SEAL_VERSION)?;
        let Some(bytes) = bytes.first_chunk::<{ SEAL_FOOTER_BYTES as usize }>() else {
            return Err(Fault::new(Check::Length, SEAL_FOOTER_BYTES, bytes.len() as u64).into());
        };
        let (expected, found) = (checksum(bytes, binding), u32_at(bytes, FOOTER_CRC_AT));
        if expected != found {
            return Err(Fault::new(Check::BlockChecksum, expected, found).into());
        }
        check_numbers(bytes, [24, 40])?;
        Ok(Footer {
            nonce: u64_at(bytes, 16),
            base: u64_at(bytes, 24),
            generation: u32_at(bytes, 32),
            follows: u32_at(bytes, 36),
            previous_term: u64_at(bytes, 40),
            count: u32_at(bytes, 48),
            end: u32_at(bytes, 52),
            lines_crc: u32_at(bytes, 56),
        })
    }
}

/// The newest generation up to `newest` that ends in these bits; if there is none, a higher one, which is refused later.
fn widen(generation: u32, newest: u64) -> u64 {
    const STEP: u64 = 1 << 32;
    let near = newest / STEP * STEP + u64::from(generation);
    match near.checked_sub(STEP) {
        Some(before) if near > newest => before,
        Some(_) | None => near,
    }
}

/// There is no room for the binding itself, so that of another node does not check.
fn checksum(bytes: &[u8; SEAL_FOOTER_BYTES as usize], binding: Binding) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(binding.cluster);
    hasher.update(&binding.node.to_le_bytes());
    hasher.update(&bytes[..FOOTER_CRC_AT]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::widen;

    #[test]
    fn generation_is_found_from_its_last_bits() {
        assert_eq!(widen(5, 7), 5);
        assert_eq!(widen(9, 7), 9, "newer than the log");
        let far = 3 << 32;
        assert_eq!(widen(5, far + 7), far + 5);
        assert_eq!(widen(9, far + 7), (2 << 32) + 9);
    }
}
