//! The entry record: the bytes of one entry, as they travel and as they are stored.
//!
//! A record is made once, by the leader, and depends on nothing local: not on a segment, a place or a
//! node. Both checksums are seeded with the cluster id, so that a record of another cluster never checks.
//! Everything here is pure.
//!
//! ```text
//!  0        4      5         6      8       16       24            28           32
//!  | length | kind | version | zero |  term |  index | payload crc | header crc | payload ...
//! ```

use crate::crc::WordCrc;
use crate::format::NUMBER_MAX;
use thiserror::Error;

/// Bytes of a record in front of its payload.
pub const HEADER_BYTES: usize = 32;

/// Version of the record format that this code writes.
pub const RECORD_VERSION: u8 = 1;

/// Largest payload that a record can name.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const HEADER_CRC_AT: usize = HEADER_BYTES - 4;
const _: () = assert!(HEADER_BYTES.is_multiple_of(8));

/// What a record says about its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Position in the log; never 0.
    pub index: u64,
    /// Term in which a leader made the entry; never 0.
    pub term: u64,
    /// Kind of the entry; its meaning belongs to the caller, but 0 is never one.
    pub kind: u8,
    /// Length of the payload.
    pub payload_bytes: u32,
    /// Checksum of the payload, as [`payload_checksum`] makes it.
    pub payload_crc: u32,
}

/// Why bytes are not a record of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes end inside the record.
    #[error("record cut short: {found} of {needed} bytes")]
    Truncated {
        /// Bytes the record needs.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The header is all zeros: nothing was ever written here.
    #[error("no record: the header is all zeros")]
    Blank,
    /// The header does not match its checksum.
    #[error("header checksum {found:08x}, expected {expected:08x}")]
    HeaderChecksum {
        /// Computed over the header as it is.
        expected: u32,
        /// Read from the header.
        found: u32,
    },
    /// The payload does not match its checksum.
    #[error(
        "payload checksum of entry {index} in term {term}: expected {expected:08x}, found {found:08x}"
    )]
    PayloadChecksum {
        /// Index in the (intact) header.
        index: u64,
        /// Term in the (intact) header.
        term: u64,
        /// Named by the header.
        expected: u32,
        /// Computed over the payload as it is.
        found: u32,
    },
    /// A later version of the format.
    #[error("record version {found}, this program knows {RECORD_VERSION}")]
    NewerVersion {
        /// Version that the record names.
        found: u8,
    },
    /// The checksum holds, but the fields say something that no entry says.
    #[error("record with index {index}, term {term}, kind {kind}, {payload_bytes} bytes")]
    Nonsense {
        /// Index in the header.
        index: u64,
        /// Term in the header.
        term: u64,
        /// Kind in the header.
        kind: u8,
        /// Length in the header.
        payload_bytes: u32,
    },
}

/// Checksum of a payload, seeded with the cluster id; 0 for an empty payload.
///
/// The empty payload is an exception so that a consensus core can make empty entries without knowing
/// checksums.
#[must_use]
pub fn payload_checksum(cluster: u32, payload: &[u8]) -> u32 {
    if payload.is_empty() {
        0
    } else {
        seeded(cluster, payload)
    }
}

/// The checksum of a payload that comes in pieces.
pub(crate) struct PayloadChecksum {
    hasher: crc32fast::Hasher,
    is_empty: bool,
}

impl PayloadChecksum {
    pub(crate) fn new(cluster: u32) -> PayloadChecksum {
        PayloadChecksum {
            hasher: crc32fast::Hasher::new_with_initial(cluster),
            is_empty: true,
        }
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.is_empty &= piece.is_empty();
    }

    /// As [`payload_checksum`] of all pieces.
    pub(crate) fn finish(self) -> u32 {
        if self.is_empty {
            0
        } else {
            self.hasher.finalize()
        }
    }
}

/// Encodes the header of a record; the payload follows it unchanged.
#[must_use]
pub fn encode_header(cluster: u32, header: &RecordHeader) -> [u8; HEADER_BYTES] {
    let RecordHeader {
        index,
        term,
        kind,
        payload_bytes,
        payload_crc,
    } = *header;
    // Length, kind, version, and two bytes of zero.
    let front = u64::from(payload_bytes) | u64::from(kind) << 32 | u64::from(RECORD_VERSION) << 40;
    let crc = header_checksum(cluster, front, term, index, payload_crc);
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&front.to_le_bytes());
    bytes[8..16].copy_from_slice(&term.to_le_bytes());
    bytes[16..24].copy_from_slice(&index.to_le_bytes());
    bytes[24..28].copy_from_slice(&payload_crc.to_le_bytes());
    bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checksum over the bytes of a header, given as the numbers that they are; `front` is the first eight bytes.
fn header_checksum(cluster: u32, front: u64, term: u64, index: u64, payload_crc: u32) -> u32 {
    let crc = WordCrc::new(cluster).u64(front).u64(term).u64(index);
    crc.u32(payload_crc).finish()
}

/// Decodes and checks the header alone. The payload may not have arrived yet.
///
/// # Errors
/// [`RecordError`], but never `PayloadChecksum`.
pub fn decode_header(cluster: u32, bytes: &[u8]) -> Result<RecordHeader, RecordError> {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(RecordError::Truncated {
            needed: HEADER_BYTES as u64,
            found: bytes.len() as u64,
        });
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(RecordError::Blank);
    }
    let found = u32_at(bytes, HEADER_CRC_AT);
    let (front, term, index) = (u64_at(bytes, 0), u64_at(bytes, 8), u64_at(bytes, 16));
    let payload_crc = u32_at(bytes, 24);
    let expected = header_checksum(cluster, front, term, index, payload_crc);
    if found != expected {
        return Err(RecordError::HeaderChecksum { expected, found });
    }
    if bytes[5] != RECORD_VERSION {
        return Err(RecordError::NewerVersion { found: bytes[5] });
    }
    let header = RecordHeader {
        index,
        term,
        kind: bytes[4],
        payload_bytes: u32_at(bytes, 0),
        payload_crc,
    };
    let reserved = bytes[6] | bytes[7];
    let numbers = 1..=NUMBER_MAX;
    let possible =
        numbers.contains(&header.index) && numbers.contains(&header.term) && header.kind != 0;
    if !possible || reserved != 0 || header.payload_bytes as usize > PAYLOAD_BYTES_MAX {
        let RecordHeader {
            index,
            term,
            kind,
            payload_bytes,
            ..
        } = header;
        return Err(RecordError::Nonsense {
            index,
            term,
            kind,
            payload_bytes,
        });
    }
    Ok(header)
}

/// Decodes one record from the front of `bytes` and checks both checksums.
///
/// Returns the header, the payload (a part of `bytes`) and the number of bytes the record takes. Nothing
/// is allocated, whatever length the bytes claim.
///
/// # Errors
/// [`RecordError`] says what does not check.
pub fn decode(cluster: u32, bytes: &[u8]) -> Result<(RecordHeader, &[u8], usize), RecordError> {
    let header = decode_header(cluster, bytes)?;
    let payload = decode_payload(cluster, &header, &bytes[HEADER_BYTES..])?;
    Ok((header, payload, HEADER_BYTES + payload.len()))
}

/// The payload that stands at the front of `bytes`, behind its header, checked.
///
/// # Errors
/// `Truncated` or `PayloadChecksum`.
pub(crate) fn decode_payload<'a>(
    cluster: u32,
    header: &RecordHeader,
    bytes: &'a [u8],
) -> Result<&'a [u8], RecordError> {
    let Some(payload) = bytes.get(..header.payload_bytes as usize) else {
        return Err(RecordError::Truncated {
            needed: HEADER_BYTES as u64 + u64::from(header.payload_bytes),
            found: (HEADER_BYTES + bytes.len()) as u64,
        });
    };
    let found = payload_checksum(cluster, payload);
    if found != header.payload_crc {
        let RecordHeader {
            index,
            term,
            payload_crc,
            ..
        } = *header;
        return Err(RecordError::PayloadChecksum {
            index,
            term,
            expected: payload_crc,
            found,
        });
    }
    Ok(payload)
}

fn seeded(cluster: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(cluster);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTER: u32 = 0x00c0_ffee;

    fn record(cluster: u32, index: u64, term: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
        let header = RecordHeader {
            index,
            term,
            kind,
            payload_bytes: u32::try_from(payload.len()).unwrap(),
            payload_crc: payload_checksum(cluster, payload),
        };
        let mut bytes = encode_header(cluster, &header).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn golden_bytes_of_a_record() {
        let bytes = record(CLUSTER, 7, 3, 2, b"hello");
        assert_eq!(
            hex(&bytes),
            "0500000002010000\
             0300000000000000\
             0700000000000000\
             894f5eee98c51b47\
             68656c6c6f"
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn empty_payload_has_checksum_zero() {
        assert_eq!(payload_checksum(CLUSTER, b""), 0);
        let bytes = record(CLUSTER, 1, 1, 1, b"");
        assert!(decode(CLUSTER, &bytes).is_ok());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let bytes = record(CLUSTER, 900, 12, 2, b"a payload of some bytes");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(CLUSTER, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn record_of_another_cluster_does_not_check() {
        let bytes = record(CLUSTER, 900, 12, 2, b"payload");
        assert!(matches!(
            decode(CLUSTER + 1, &bytes),
            Err(RecordError::HeaderChecksum { .. })
        ));
    }

    #[test]
    fn newer_version_is_refused_by_its_own_error() {
        let mut bytes = record(CLUSTER, 900, 12, 2, b"payload");
        bytes[5] = 9;
        let crc = seeded(CLUSTER, &bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            decode(CLUSTER, &bytes),
            Err(RecordError::NewerVersion { found: 9 })
        );
    }

    #[test]
    fn zeros_are_blank_for_every_cluster() {
        assert_eq!(decode(0, &[0; 64]), Err(RecordError::Blank));
        assert_eq!(decode(CLUSTER, &[0; 64]), Err(RecordError::Blank));
    }

    proptest! {
        #[test]
        fn record_round_trips(
            cluster: u32, index in 1..=NUMBER_MAX, term in 1..=NUMBER_MAX, kind in 1u8..,
            payload in proptest::collection::vec(any::<u8>(), 0..300), behind in 0usize..20,
        ) {
            let mut bytes = record(cluster, index, term, kind, &payload);
            let len = bytes.len();
            bytes.resize(len + behind, 0xee);
            let (header, found, used) = decode(cluster, &bytes).unwrap();
            prop_assert_eq!((header.index, header.term, header.kind), (index, term, kind));
            prop_assert_eq!(found, &payload[..]);
            prop_assert_eq!(used, len);
            for cut in 0..len {
                prop_assert!(decode(cluster, &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_an_error_and_no_panic(
            cluster: u32, bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            // A random hit of a 32-bit checksum does not happen in a few hundred cases.
            prop_assert!(decode(cluster, &bytes).is_err());
        }
    }
}
