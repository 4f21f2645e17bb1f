//! Limits of a log, each with its unit in the name.

use crate::format::{SEAL_FOOTER_BYTES, SEAL_PAGE_BYTES, SEGMENT_HEADER_BYTES};

/// Smallest segment: one page of header, one reserved for the seal index, two for records.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Largest segment: offsets inside a segment are stored as 32-bit numbers.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// To which node of which cluster files belong. Foreign files are refused by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Cluster id; it also seeds every record checksum.
    pub cluster: u32,
    /// Node id.
    pub node: u64,
}

/// Limits of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of each new segment, a multiple of 4096 between [`SEGMENT_BYTES_MIN`] and
    /// [`SEGMENT_BYTES_MAX`]. Segments of another size that exist stay as they are.
    pub segment_bytes: u64,
    /// Bytes that segments and spares may take together. Beyond it no spare is prepared and an append is
    /// refused with [`WalError::NoSpace`](crate::WalError::NoSpace) until something was purged. Only copies of
    /// damaged entries go beyond it, by a segment at a time.
    pub max_bytes: u64,
    /// Bytes of the file system that are left free: an allocation that would leave less is refused.
    pub reserve_bytes: u64,
    /// Spare segments that [`Preparer`](crate::Preparer) keeps ready. One is enough unless a segment
    /// fills faster than the next one can be zeroed.
    pub spare_segments: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            max_bytes: 1 << 30,
            reserve_bytes: 64 << 20,
            spare_segments: 1,
        }
    }
}

/// Options that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The segment size is out of bounds or no multiple of 4096.
    #[error(
        "segment size {bytes}: must be a multiple of 4096 between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}"
    )]
    SegmentBytes {
        /// The size asked for.
        bytes: u64,
    },
    /// Two segments, one in use and one spare, do not fit.
    #[error("log size limit {max_bytes}: must be at least two segments of {segment_bytes} bytes")]
    MaxBytes {
        /// The limit asked for.
        max_bytes: u64,
        /// The segment size asked for.
        segment_bytes: u64,
    },
}

impl Options {
    /// Checks that these options can work.
    ///
    /// # Errors
    /// [`OptionsError`] names the option that cannot.
    pub fn check(&self) -> Result<(), OptionsError> {
        let bytes = self.segment_bytes;
        let in_bounds = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes);
        if !in_bounds || !bytes.is_multiple_of(SEAL_PAGE_BYTES) {
            return Err(OptionsError::SegmentBytes { bytes });
        }
        if self.max_bytes < 2 * bytes {
            return Err(OptionsError::MaxBytes {
                max_bytes: self.max_bytes,
                segment_bytes: bytes,
            });
        }
        Ok(())
    }

    /// Largest payload that fits into a segment of this size.
    #[must_use]
    pub fn payload_bytes_max(&self) -> u64 {
        let room =
            crate::format::records_end(self.segment_bytes, 1).saturating_sub(SEGMENT_HEADER_BYTES);
        room.saturating_sub(crate::format::stored_bytes(0))
            .min(crate::record::PAYLOAD_BYTES_MAX as u64)
    }
}

const _: () =
    assert!(SEGMENT_BYTES_MIN >= SEGMENT_HEADER_BYTES + SEAL_PAGE_BYTES + SEAL_FOOTER_BYTES);
const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_impossible_sizes_are_refused() {
        assert_eq!(Options::default().check(), Ok(()));
        for bytes in [0, 4096, SEGMENT_BYTES_MIN + 1, SEGMENT_BYTES_MAX * 2] {
            let options = Options {
                segment_bytes: bytes,
                ..Options::default()
            };
            assert_eq!(options.check(), Err(OptionsError::SegmentBytes { bytes }));
        }
        let options = Options {
            max_bytes: 100 << 20,
            ..Options::default()
        };
        assert!(matches!(
            options.check(),
            Err(OptionsError::MaxBytes { .. })
        ));
    }
}
