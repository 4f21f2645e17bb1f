//! The bytes of every file of a log directory. Pure: slices in, values or typed errors out.
//!
//! All files begin their blocks with the same sixteen bytes, the *preamble*: eight bytes of magic, a
//! version and a checksum over these twelve. They never change in any later version, so that a flipped
//! bit is told from a newer format before anything else is believed. Order of checks everywhere:
//! preamble, version, length bounds, checksum, binding, fields. `docs/log-format.md` has the tables.

use crate::options::Binding;

mod seal;
mod stored;
mod twin;

pub(crate) use self::seal::{
    Footer, SEAL_FOOTER_BYTES, SEAL_LINE_BYTES, SEAL_PAGE_BYTES, SealLine, footer_offset,
    records_end,
};
pub(crate) use self::stored::{
    ALIGN, BadRecord, HEAD_BYTES, Names, PREFIX_BYTES, Prefix, Stored, StoredHead, bind,
    decode_head, decode_stored, stored_bytes,
};
pub(crate) use self::twin::{
    TWIN_CONTENT_BYTES_MAX, TWIN_FILE_BYTES, TWIN_STRIDE, TwinCopy, decode_twin, encode_twin,
};

/// Bytes at the front of a segment that hold its header; records begin here.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Version of the segment format.
pub(crate) const SEGMENT_VERSION: u32 = 1;
/// Version of the control file format.
pub(crate) const CONTROL_VERSION: u32 = 1;
/// Version of the format of files that are stored twice.
pub(crate) const TWIN_VERSION: u32 = 1;

/// Largest index, term, generation, sequence or number of a file. No log reaches it by counting, and whatever is
/// read can be counted on from.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 2;

pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"RLOGSEGM";
pub(crate) const CONTROL_MAGIC: [u8; 8] = *b"RLOGCTRL";
pub(crate) const HARD_STATE_MAGIC: [u8; 8] = *b"RLOGVOTE";

const PREAMBLE_BYTES: usize = 16;

const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(SEAL_PAGE_BYTES));

/// What did not check in a block or record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Checksum over magic and version.
    Preamble,
    /// The eight bytes that name the kind of a file.
    Magic,
    /// Checksum of a segment header, a control slot or one copy of a file stored twice.
    BlockChecksum,
    /// Length of a file.
    FileLength,
    /// Number of a segment, in its name and in its header.
    Number,
    /// A number that no log reaches (`expected` is the largest possible one).
    OutOfRange,
    /// Whether a segment holds the log or copies of damaged entries, in its name and in its header.
    Purpose,
    /// A length field is out of bounds.
    Length,
    /// The header of a record is all zeros where a record must be.
    Blank,
    /// Checksum of a record's header.
    HeaderChecksum,
    /// Checksum of a record's payload.
    PayloadChecksum,
    /// Checksum that binds a record to its segment, place and generation.
    Bind,
    /// Version of a record.
    RecordVersion,
    /// Fields of a record that no entry has.
    RecordFields,
    /// Index of a record, of a segment's first entry, or of the last entry.
    Index,
    /// Term of a record, or the term before a segment's first entry.
    Term,
    /// Generation of a record or segment.
    Generation,
    /// The medium cannot be read there (`found` is the error number).
    Unreadable,
    /// Both copies claim to be the newest and differ (`expected` and `found` are their checksums).
    Copies,
}

/// One failed check, with both values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) check: Check,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl Fault {
    pub(crate) fn new(check: Check, expected: impl Into<u64>, found: impl Into<u64>) -> Fault {
        Fault {
            check,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// Why a block is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockError {
    Newer { found: u32, known: u32 },
    Foreign { found: Binding },
    Fault(Fault),
}

impl From<Fault> for BlockError {
    fn from(fault: Fault) -> BlockError {
        BlockError::Fault(fault)
    }
}

/// A position in the log: everything before `offset` of `segment` counts, up to and with entry `index`.
/// Segment 0 stands for "before the first segment".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// Where a generation begins: records at or after it with a lower generation are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// One slot of the control file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ControlSlot {
    pub(crate) sequence: u64,
    /// False while the directory is being created.
    pub(crate) complete: bool,
    /// True if the log was closed with everything synced and nothing was written since.
    pub(crate) closed: bool,
    /// Everything up to here was covered by a completed sync. Written lazily.
    pub(crate) watermark: Mark,
    /// The watermark of the last slot whose own sync had completed when this one was written.
    pub(crate) synced_watermark: Mark,
    pub(crate) generation: u64,
    pub(crate) cut: Cut,
    /// Everything at or below is purged or in a snapshot.
    pub(crate) floor: (u64, u64),
    /// Commit index, a hint; never above the watermark.
    pub(crate) commit: u64,
}

/// Bytes of a control slot, within one 512-byte unit so that it is written whole or not at all.
pub(crate) const CONTROL_SLOT_BYTES: usize = 176;
/// Distance of the two control slots; each has a page of its own.
pub(crate) const CONTROL_SLOT_STRIDE: u64 = 4096;
/// Length of the control file.
pub(crate) const CONTROL_FILE_BYTES: u64 = 2 * CONTROL_SLOT_STRIDE;

const _: () = assert!(CONTROL_SLOT_BYTES <= 512);

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) nonce: u64,
    /// Index of the first entry in it.
    pub(crate) base: u64,
    /// Term of the entry before the first one.
    pub(crate) previous_term: u64,
    /// Generation in which the segment was taken into use.
    pub(crate) generation: u64,
    pub(crate) segment_bytes: u64,
    /// The file was a segment before: what lies behind its records is old and no sign of a torn write.
    pub(crate) recycled: bool,
    /// Holds copies of entries that were damaged elsewhere, in any order.
    pub(crate) repairs: bool,
    /// Number of the segment before, its last 32 bits; 0 if there was none, or it is not known.
    pub(crate) follows: u32,
}

/// Bytes of a segment header.
pub(crate) const SEGMENT_HEADER_USED: usize = 88;

const _: () = assert!(SEGMENT_HEADER_USED <= 512);

impl SegmentHeader {
    pub(crate) fn encode(&self, binding: Binding) -> [u8; SEGMENT_HEADER_USED] {
        let mut bytes = [0; SEGMENT_HEADER_USED];
        put_preamble(&mut bytes, SEGMENT_MAGIC, SEGMENT_VERSION);
        put_u64(&mut bytes, 16, self.number);
        put_u64(&mut bytes, 24, self.nonce);
        put_u64(&mut bytes, 32, self.base);
        put_u64(&mut bytes, 40, self.previous_term);
        put_u64(&mut bytes, 48, self.generation);
        put_u64(&mut bytes, 56, self.segment_bytes);
        put_u64(&mut bytes, 64, binding.node);
        put_u32(&mut bytes, 72, binding.cluster);
        let flags = u32::from(self.recycled) | u32::from(self.repairs) << 1;
        put_u32(&mut bytes, 76, flags);
        put_u32(&mut bytes, 80, self.follows);
        let crc = crc32fast::hash(&bytes[..84]);
        put_u32(&mut bytes, 84, crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], binding: Binding) -> Result<SegmentHeader, BlockError> {
        check_preamble(bytes, SEGMENT_MAGIC, SEGMENT_VERSION)?;
        let bytes = checked(bytes, SEGMENT_HEADER_USED, 84)?;
        let found = Binding {
            cluster: u32_at(bytes, 72),
            node: u64_at(bytes, 64),
        };
        check_binding(found, binding)?;
        check_numbers(bytes, [16, 32, 40, 48])?;
        Ok(SegmentHeader {
            number: u64_at(bytes, 16),
            nonce: u64_at(bytes, 24),
            base: u64_at(bytes, 32),
            previous_term: u64_at(bytes, 40),
            generation: u64_at(bytes, 48),
            segment_bytes: u64_at(bytes, 56),
            recycled: u32_at(bytes, 76) & 1 != 0,
            repairs: u32_at(bytes, 76) & 2 != 0,
            follows: u32_at(bytes, 80),
        })
    }
}

impl ControlSlot {
    pub(crate) fn encode(&self, binding: Binding) -> [u8; CONTROL_SLOT_BYTES] {
        let mut bytes = [0; CONTROL_SLOT_BYTES];
        put_preamble(&mut bytes, CONTROL_MAGIC, CONTROL_VERSION);
        put_u64(&mut bytes, 16, self.sequence);
        put_u64(&mut bytes, 24, binding.node);
        put_u32(&mut bytes, 32, binding.cluster);
        put_u32(
            &mut bytes,
            36,
            u32::from(self.complete) | u32::from(self.closed) << 1,
        );
        put_mark(&mut bytes, 40, &self.watermark);
        put_mark(&mut bytes, 72, &self.synced_watermark);
        put_u64(&mut bytes, 104, self.generation);
        put_u64(&mut bytes, 112, self.cut.segment);
        put_u64(&mut bytes, 120, self.cut.offset);
        put_u64(&mut bytes, 128, self.floor.0);
        put_u64(&mut bytes, 136, self.floor.1);
        put_u64(&mut bytes, 144, self.commit);
        // 152..172: zero, kept for later fields.
        let crc = crc32fast::hash(&bytes[..172]);
        put_u32(&mut bytes, 172, crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], binding: Binding) -> Result<ControlSlot, BlockError> {
        check_preamble(bytes, CONTROL_MAGIC, CONTROL_VERSION)?;
        let bytes = checked(bytes, CONTROL_SLOT_BYTES, 172)?;
        let found = Binding {
            cluster: u32_at(bytes, 32),
            node: u64_at(bytes, 24),
        };
        check_binding(found, binding)?;
        check_numbers(
            bytes,
            [
                16, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144,
            ],
        )?;
        Ok(ControlSlot {
            sequence: u64_at(bytes, 16),
            complete: u32_at(bytes, 36) & 1 != 0,
            closed: u32_at(bytes, 36) & 2 != 0,
            watermark: mark_at(bytes, 40),
            synced_watermark: mark_at(bytes, 72),
            generation: u64_at(bytes, 104),
            cut: Cut {
                segment: u64_at(bytes, 112),
                offset: u64_at(bytes, 120),
            },
            floor: (u64_at(bytes, 128), u64_at(bytes, 136)),
            commit: u64_at(bytes, 144),
        })
    }
}

fn put_preamble(bytes: &mut [u8], magic: [u8; 8], version: u32) {
    bytes[0..8].copy_from_slice(&magic);
    put_u32(bytes, 8, version);
    let crc = crc32fast::hash(&bytes[..12]);
    put_u32(bytes, 12, crc);
}

fn check_preamble(bytes: &[u8], magic: [u8; 8], known: u32) -> Result<(), BlockError> {
    if bytes.len() < PREAMBLE_BYTES {
        return Err(Fault::new(Check::Length, PREAMBLE_BYTES as u64, bytes.len() as u64).into());
    }
    let (expected, found) = (crc32fast::hash(&bytes[..12]), u32_at(bytes, 12));
    if expected != found {
        return Err(Fault::new(Check::Preamble, expected, found).into());
    }
    let (expected, found) = (u64_at(&magic, 0), u64_at(bytes, 0));
    if expected != found {
        return Err(Fault::new(Check::Magic, expected, found).into());
    }
    let version = u32_at(bytes, 8);
    if version > known {
        return Err(BlockError::Newer {
            found: version,
            known,
        });
    }
    Ok(())
}

/// The first `len` bytes, whose last field, at `crc_at`, is the checksum of what is before it.
fn checked(bytes: &[u8], len: usize, crc_at: usize) -> Result<&[u8], BlockError> {
    let Some(bytes) = bytes.get(..len) else {
        return Err(Fault::new(Check::Length, len as u64, bytes.len() as u64).into());
    };
    let (expected, found) = (crc32fast::hash(&bytes[..crc_at]), u32_at(bytes, crc_at));
    if expected != found {
        return Err(Fault::new(Check::BlockChecksum, expected, found).into());
    }
    Ok(bytes)
}

/// Checks the numbers at these offsets.
fn check_numbers<const N: usize>(bytes: &[u8], offsets: [usize; N]) -> Result<(), Fault> {
    let numbers = offsets.map(|offset| u64_at(bytes, offset));
    match numbers.into_iter().find(|number| *number > NUMBER_MAX) {
        Some(number) => Err(Fault::new(Check::OutOfRange, NUMBER_MAX, number)),
        None => Ok(()),
    }
}

fn check_binding(found: Binding, expected: Binding) -> Result<(), BlockError> {
    if found == expected {
        Ok(())
    } else {
        Err(BlockError::Foreign { found })
    }
}

fn put_mark(bytes: &mut [u8], at: usize, mark: &Mark) {
    put_u64(bytes, at, mark.segment);
    put_u64(bytes, at + 8, mark.offset);
    put_u64(bytes, at + 16, mark.index);
    put_u64(bytes, at + 24, mark.term);
}

fn mark_at(bytes: &[u8], at: usize) -> Mark {
    Mark {
        segment: u64_at(bytes, at),
        offset: u64_at(bytes, at + 8),
        index: u64_at(bytes, at + 16),
        term: u64_at(bytes, at + 24),
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
