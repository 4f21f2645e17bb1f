//! Makes the checksums of a directory right, whatever its fields say, so that a fuzzer gets behind them.
//!
//! Follows `docs/log-format.md`. Where the format has moved on, checksums stay wrong, and the target tests
//! less but nothing wrong.

use raft_log::record::{HEADER_BYTES, payload_checksum};

use super::directory::Directory;
use crate::support::BINDING;

const CONTROL_SLOTS: [usize; 2] = [0, 4096];
const CONTROL_CRC_AT: usize = 172;
const TWIN_COPIES: [usize; 2] = [0, 8192];
const TWIN_HEADER_BYTES: usize = 48;
const SEGMENT_CRC_AT: usize = 84;
const SEGMENT_NONCE_AT: usize = 24;
const RECORDS_AT: usize = 4096;
const PREFIX_BYTES: usize = 16;

pub fn mend(directory: &mut Directory) {
    for (name, bytes) in &mut directory.files {
        if name.starts_with("control") {
            for slot in CONTROL_SLOTS {
                mend_block(bytes, slot, CONTROL_CRC_AT);
            }
        } else if *name == "hard-state" {
            for copy in TWIN_COPIES {
                mend_twin(bytes, copy);
            }
        } else if name.starts_with("segment") {
            mend_block(bytes, 0, SEGMENT_CRC_AT);
            mend_records(bytes);
        }
    }
}

/// A block with a preamble whose last field is the checksum of what is before it.
fn mend_block(bytes: &mut [u8], at: usize, crc_at: usize) {
    let Some(block) = bytes.get_mut(at..at + crc_at + 4) else {
        return;
    };
    mend_preamble(block);
    let crc = crc32fast::hash(&block[..crc_at]);
    put(block, crc_at, crc);
}

fn mend_preamble(block: &mut [u8]) {
    let crc = crc32fast::hash(&block[..12]);
    put(block, 12, crc);
}

fn mend_twin(bytes: &mut [u8], at: usize) {
    let Some(copy) = bytes
        .get_mut(at..)
        .filter(|copy| copy.len() >= TWIN_HEADER_BYTES)
    else {
        return;
    };
    mend_preamble(copy);
    let end = TWIN_HEADER_BYTES.saturating_add(word(copy, 36) as usize);
    let Some(covered) = copy.get(..end) else {
        return;
    };
    let crc = crc32fast::hash(&[&covered[..40], &covered[44..]].concat());
    put(copy, 40, crc);
}

/// All records that follow each other from the first place on.
fn mend_records(bytes: &mut [u8]) {
    let Some(nonce) = bytes
        .get(SEGMENT_NONCE_AT..SEGMENT_NONCE_AT + 8)
        .map(<[u8]>::to_vec)
    else {
        return;
    };
    let mut at = RECORDS_AT;
    while let Some(behind) = bytes
        .get_mut(at..)
        .filter(|behind| behind.len() >= PREFIX_BYTES + HEADER_BYTES)
    {
        let (prefix, record) = behind.split_at_mut(PREFIX_BYTES);
        let end = HEADER_BYTES.saturating_add(word(record, 0) as usize);
        let is_blank = record[..HEADER_BYTES].iter().all(|byte| *byte == 0);
        if is_blank || end > record.len() {
            return;
        }
        let (payload_crc, header_crc) = mend_record(&mut record[..end]);
        let mut bound = nonce.clone();
        bound.extend((at as u32).to_le_bytes());
        bound.extend(&prefix[0..4]);
        bound.extend(&prefix[8..16]);
        bound.extend(header_crc.to_le_bytes());
        bound.extend(payload_crc.to_le_bytes());
        put(prefix, 4, crc32fast::hash(&bound));
        at = (at + PREFIX_BYTES + end).next_multiple_of(8);
    }
}

/// Both checksums of an entry record; returns that of the payload and that of the header.
pub fn mend_record(record: &mut [u8]) -> (u32, u32) {
    let payload_crc = payload_checksum(BINDING.cluster, &record[HEADER_BYTES..]);
    put(record, HEADER_BYTES - 8, payload_crc);
    // A header is never empty, so its checksum is made the same way.
    let header_crc = payload_checksum(BINDING.cluster, &record[..HEADER_BYTES - 4]);
    put(record, HEADER_BYTES - 4, header_crc);
    (payload_crc, header_crc)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
