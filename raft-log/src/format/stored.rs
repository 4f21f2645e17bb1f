//! A record as it stands in a segment: behind a prefix that binds it to its place.

use super::{Check, Fault, u32_at, u64_at};
use crate::crc::WordCrc;
use crate::record::{self, HEADER_BYTES};

/// Local prefix in front of each stored record: `synced_to`, `bind`, `generation`.
pub(crate) const PREFIX_BYTES: usize = 16;
/// Records start at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Bytes in front of a stored payload.
pub(crate) const HEAD_BYTES: usize = PREFIX_BYTES + HEADER_BYTES;

const _: () = assert!(PREFIX_BYTES.is_multiple_of(8));

/// The local prefix of a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Offset in this segment up to which a sync had returned when this record was written.
    pub(crate) synced_to: u32,
    pub(crate) bind: u32,
    pub(crate) generation: u64,
}

/// Bytes that an entry takes in a segment, with prefix and padding.
#[must_use]
pub(crate) fn stored_bytes(payload_bytes: u64) -> u64 {
    (PREFIX_BYTES as u64 + HEADER_BYTES as u64 + payload_bytes).next_multiple_of(ALIGN)
}

/// Checksum that ties a record to this place in this segment and generation.
#[must_use]
pub(crate) fn bind(
    nonce: u64,
    offset: u32,
    synced_to: u32,
    generation: u64,
    header_crc: u32,
    payload_crc: u32,
) -> u32 {
    WordCrc::new(0)
        .u64(nonce)
        .pair(offset, synced_to)
        .u64(generation)
        .pair(header_crc, payload_crc)
        .finish()
}

impl Prefix {
    pub(crate) fn encode(&self) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[0..4].copy_from_slice(&self.synced_to.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.bind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; PREFIX_BYTES]) -> Prefix {
        Prefix {
            synced_to: u32_at(bytes, 0),
            bind: u32_at(bytes, 4),
            generation: u64_at(bytes, 8),
        }
    }
}

/// A record found valid at its place in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) prefix: Prefix,
    pub(crate) header: record::RecordHeader,
    pub(crate) payload: &'a [u8],
    /// Offset behind the record and its padding.
    pub(crate) end: u64,
}

/// A record that does not check, with what is still known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord {
    pub(crate) fault: Fault,
    /// What the header says, if it is intact.
    pub(crate) names: Option<Names>,
}

impl BadRecord {
    pub(crate) fn unnamed(fault: Fault) -> BadRecord {
        BadRecord { fault, names: None }
    }
}

/// Which entry a record is, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) kind: u8,
}

impl Names {
    pub(crate) fn of(header: &record::RecordHeader) -> Names {
        Names {
            index: header.index,
            term: header.term,
            kind: header.kind,
        }
    }
}

/// What stands in front of a stored payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredHead {
    pub(crate) prefix: Prefix,
    pub(crate) header: record::RecordHeader,
    /// Offset behind the record and its padding.
    pub(crate) end: u64,
}

/// Decodes what stands in front of the payload stored at `offset`; `bytes` begin there. Checks header and bind, and so that the
/// payload's checksum is the one that was written, but not the payload.
pub(crate) fn decode_head(
    cluster: u32,
    nonce: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<StoredHead, BadRecord> {
    let unnamed = BadRecord::unnamed;
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        let fault = Fault::new(Check::Length, HEAD_BYTES as u64, bytes.len() as u64);
        return Err(unnamed(fault));
    };
    let prefix = Prefix::decode(prefix);
    let header = record::decode_header(cluster, rest).map_err(|error| unnamed(fault_of(error)))?;
    let Ok(place) = u32::try_from(offset) else {
        return Err(unnamed(Fault::new(Check::Length, u32::MAX, offset)));
    };
    // The header's own checksum lies in its last four bytes.
    let header_crc = u32_at(rest, HEADER_BYTES - 4);
    let expected = bind(
        nonce,
        place,
        prefix.synced_to,
        prefix.generation,
        header_crc,
        header.payload_crc,
    );
    if prefix.bind != expected {
        let fault = Fault::new(Check::Bind, expected, prefix.bind);
        return Err(BadRecord {
            fault,
            names: Some(Names::of(&header)),
        });
    }
    let end = offset + stored_bytes(u64::from(header.payload_bytes));
    Ok(StoredHead {
        prefix,
        header,
        end,
    })
}

/// Decodes the record stored at `offset`; `bytes` begin there. Checks header, bind and payload.
pub(crate) fn decode_stored(
    cluster: u32,
    nonce: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<Stored<'_>, BadRecord> {
    let StoredHead {
        prefix,
        header,
        end,
    } = decode_head(cluster, nonce, offset, bytes)?;
    let payload =
        record::decode_payload(cluster, &header, &bytes[HEAD_BYTES..]).map_err(|error| {
            BadRecord {
                fault: fault_of(error),
                names: Some(Names::of(&header)),
            }
        })?;
    Ok(Stored {
        prefix,
        header,
        payload,
        end,
    })
}

fn fault_of(error: record::RecordError) -> Fault {
    use record::RecordError;
    match error {
        RecordError::Truncated { needed, found } => Fault::new(Check::Length, needed, found),
        RecordError::Blank => Fault::new(Check::Blank, 1u32, 0u32),
        RecordError::HeaderChecksum { expected, found } => {
            Fault::new(Check::HeaderChecksum, expected, found)
        }
        RecordError::PayloadChecksum {
            expected, found, ..
        } => Fault::new(Check::PayloadChecksum, expected, found),
        RecordError::NewerVersion { found } => {
            Fault::new(Check::RecordVersion, record::RECORD_VERSION, found)
        }
        RecordError::Nonsense { .. } => Fault::new(Check::RecordFields, 1u32, 0u32),
    }
}
