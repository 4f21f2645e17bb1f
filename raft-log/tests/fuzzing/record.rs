//! The entry record: decoding is total and takes no memory, and encoding is its inverse.

use raft_log::record::{
    HEADER_BYTES, RecordError, RecordHeader, decode, decode_header, encode_header, payload_checksum,
};

use super::input::{Input, Random};
use super::mend::mend_record;
use crate::support::BINDING;

/// Takes the input as a record, as a record whose checksums are right, and as the fields of one.
pub fn run(bytes: &[u8]) {
    check_decode(bytes);
    let mut mended = bytes.to_vec();
    if mended.len() >= HEADER_BYTES {
        mend_record(&mut mended);
        check_decode(&mended);
    }
    check_encode(bytes);
}

fn check_decode(bytes: &[u8]) {
    let mut decoded = None;
    let taken = allocation_counter::measure(|| decoded = Some(decode(BINDING.cluster, bytes)));
    assert_eq!(taken.bytes_total, 0, "decoding takes memory");
    let header = decode_header(BINDING.cluster, bytes);
    match decoded.expect("it was run") {
        Ok((found, payload, used)) => {
            assert_eq!(header, Ok(found));
            let again = [&encode_header(BINDING.cluster, &found)[..], payload].concat();
            assert_eq!(again, bytes[..used], "two records with one meaning");
            assert!(found.index > 0 && found.term > 0 && found.kind > 0);
        }
        Err(RecordError::PayloadChecksum {
            index,
            term,
            expected,
            found,
        }) => {
            let header = header.expect("what names the entry");
            assert_eq!((header.index, header.term), (index, term));
            assert_eq!(header.payload_crc, expected);
            assert_ne!(expected, found);
        }
        Err(RecordError::Truncated { needed, found }) => {
            assert_eq!(found, bytes.len() as u64);
            assert!(needed > found, "{needed} bytes needed, {found} there");
        }
        Err(error) => assert_eq!(header, Err(error)),
    }
}

fn check_encode(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    // Numbers that a log can reach.
    let (index, term) = ((input.long() >> 1).max(1), (input.long() >> 1).max(1));
    let (kind, spoiled) = (input.byte().max(1), usize::from(input.short()));
    let payload = input.rest();
    let header = RecordHeader {
        index,
        term,
        kind,
        payload_bytes: payload.len() as u32,
        payload_crc: payload_checksum(BINDING.cluster, payload),
    };
    let mut record = encode_header(BINDING.cluster, &header).to_vec();
    record.extend(payload);
    let end = record.len();
    assert_eq!(decode(BINDING.cluster, &record), Ok((header, payload, end)));
    check_spoiled(&mut record, spoiled);
}

/// With one bit changed or with its end missing it is no record.
fn check_spoiled(record: &mut [u8], place: usize) {
    let end = place % record.len();
    assert!(matches!(
        decode(BINDING.cluster, &record[..end]),
        Err(RecordError::Truncated { .. })
    ));
    record[end] ^= 1 << (place % 8);
    let decoded = decode(BINDING.cluster, record);
    assert!(
        decoded.is_err(),
        "bit {} of byte {end}: {decoded:?}",
        place % 8
    );
}

pub fn random(random: &mut Random) -> Vec<u8> {
    let count = random.index(200);
    let payload = random.bytes(count);
    let header = RecordHeader {
        index: random.long() >> random.index(64),
        term: random.long() >> random.index(64),
        kind: random.long() as u8,
        payload_bytes: count as u32,
        payload_crc: payload_checksum(BINDING.cluster, &payload),
    };
    let mut record = encode_header(BINDING.cluster, &header).to_vec();
    record.extend(payload);
    random.edit(&mut record);
    record
}
