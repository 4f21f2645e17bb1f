use proptest::prelude::*;

use super::*;
use crate::record;

const BINDING: Binding = Binding {
    cluster: 0x00c0_ffee,
    node: 3,
};
const NONCE: u64 = 0x1122_3344_5566_7788;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        number: 2,
        nonce: NONCE,
        base: 41,
        previous_term: 7,
        generation: 9,
        segment_bytes: 16384,
        recycled: true,
        repairs: false,
        follows: 1,
    }
}

fn control_slot() -> ControlSlot {
    ControlSlot {
        sequence: 12,
        complete: true,
        closed: false,
        watermark: Mark {
            segment: 2,
            offset: 5000,
            index: 44,
            term: 8,
        },
        synced_watermark: Mark {
            segment: 2,
            offset: 4096,
            index: 40,
            term: 7,
        },
        generation: 9,
        cut: Cut {
            segment: 2,
            offset: 4096,
        },
        floor: (40, 7),
        commit: 43,
    }
}

fn stored(nonce: u64, offset: u32, synced_to: u32, generation: u64, payload: &[u8]) -> Vec<u8> {
    let payload_crc = record::payload_checksum(BINDING.cluster, payload);
    let payload_bytes = u32::try_from(payload.len()).unwrap();
    let header = record::RecordHeader {
        index: 7,
        term: 3,
        kind: 2,
        payload_bytes,
        payload_crc,
    };
    let header = record::encode_header(BINDING.cluster, &header);
    let bind = bind(
        nonce,
        offset,
        synced_to,
        generation,
        u32_at(&header, 28),
        payload_crc,
    );
    let mut bytes = Prefix {
        synced_to,
        bind,
        generation,
    }
    .encode()
    .to_vec();
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[test]
fn golden_bytes_of_a_stored_record() {
    let bytes = stored(NONCE, 4096, 4096, 9, b"hello");
    let golden = "00100000c190b5910900000000000000\
                  05000000020100000300000000000000\
                  0700000000000000894f5eee98c51b47\
                  68656c6c6f000000";
    assert_eq!(hex(&bytes), golden);
    let found = decode_stored(BINDING.cluster, NONCE, 4096, &bytes).unwrap();
    assert_eq!(found.end, 4096 + bytes.len() as u64);
    assert_eq!(found.payload, b"hello");
}

#[test]
fn golden_bytes_of_a_segment_header() {
    let golden = "524c4f475345474d0100000085d49d65\
                  02000000000000008877665544332211\
                  29000000000000000700000000000000\
                  09000000000000000040000000000000\
                  0300000000000000eeffc00001000000\
                  01000000359520a7";
    let bytes = segment_header().encode(BINDING);
    assert_eq!(hex(&bytes), golden);
    assert_eq!(SegmentHeader::decode(&bytes, BINDING), Ok(segment_header()));
}

#[test]
fn golden_bytes_of_a_control_slot() {
    let golden = "524c4f474354524c010000004cc8f4b6\
                  0c000000000000000300000000000000\
                  eeffc000010000000200000000000000\
                  88130000000000002c00000000000000\
                  08000000000000000200000000000000\
                  00100000000000002800000000000000\
                  07000000000000000900000000000000\
                  02000000000000000010000000000000\
                  28000000000000000700000000000000\
                  2b000000000000000000000000000000\
                  00000000000000000000000\
                  0d57b94eb";
    let bytes = control_slot().encode(BINDING);
    assert_eq!(hex(&bytes), golden);
    assert_eq!(ControlSlot::decode(&bytes, BINDING), Ok(control_slot()));
}

#[test]
fn golden_bytes_of_a_vote_copy() {
    let golden = "524c4f47564f5445010000005bbe3f3c\
                  06000000000000000300000000000000\
                  eeffc00011000000119bd2f600000000\
                  0500000000000000010200000000000000";
    let content = [5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0];
    let bytes = encode_twin(HARD_STATE_MAGIC, BINDING, 6, &content);
    assert_eq!(hex(&bytes), golden);
    let copy = decode_twin(&bytes, HARD_STATE_MAGIC).unwrap();
    assert_eq!((copy.sequence, &copy.content[..]), (6, &content[..]));
}

#[test]
fn newer_version_is_told_from_damage_before_any_checksum_of_the_content() {
    let mut header = segment_header().encode(BINDING);
    let mut slot = control_slot().encode(BINDING);
    let mut copy = encode_twin(HARD_STATE_MAGIC, BINDING, 6, b"x");
    for bytes in [&mut header[..], &mut slot, &mut copy] {
        put_u32(bytes, 8, 2);
        let crc = crc32fast::hash(&bytes[..12]);
        put_u32(bytes, 12, crc);
        // Whatever a later version has behind the preamble.
        bytes[20..].fill(0xaa);
    }
    let newer = BlockError::Newer { found: 2, known: 1 };
    assert_eq!(SegmentHeader::decode(&header, BINDING), Err(newer));
    assert_eq!(ControlSlot::decode(&slot, BINDING), Err(newer));
    assert_eq!(decode_twin(&copy, HARD_STATE_MAGIC), Err(newer));
}

#[test]
fn foreign_blocks_are_refused_as_foreign() {
    let found = Binding {
        cluster: 1,
        node: 9,
    };
    let foreign = BlockError::Foreign { found };
    assert_eq!(
        SegmentHeader::decode(&segment_header().encode(found), BINDING),
        Err(foreign)
    );
    assert_eq!(
        ControlSlot::decode(&control_slot().encode(found), BINDING),
        Err(foreign)
    );
}

#[test]
fn every_flipped_bit_of_a_block_is_noticed() {
    let header = segment_header().encode(BINDING);
    let slot = control_slot().encode(BINDING);
    let copy = encode_twin(HARD_STATE_MAGIC, BINDING, 6, b"content");
    let flip = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..header.len() * 8 {
        let found = SegmentHeader::decode(&flip(&header, bit), BINDING);
        assert!(
            matches!(found, Err(BlockError::Fault(_))),
            "bit {bit}: {found:?}"
        );
    }
    for bit in 0..slot.len() * 8 {
        let found = ControlSlot::decode(&flip(&slot, bit), BINDING);
        assert!(
            matches!(found, Err(BlockError::Fault(_))),
            "bit {bit}: {found:?}"
        );
    }
    for bit in 0..copy.len() * 8 {
        let found = decode_twin(&flip(&copy, bit), HARD_STATE_MAGIC);
        assert!(
            matches!(found, Err(BlockError::Fault(_))),
            "bit {bit}: {found:?}"
        );
    }
}

#[test]
fn stored_record_is_bound_to_segment_place_and_generation() {
    let bytes = stored(NONCE, 4096, 4096, 9, b"hello");
    let decode =
        |nonce, offset, bytes: &[u8]| decode_stored(BINDING.cluster, nonce, offset, bytes).is_ok();
    assert!(decode(NONCE, 4096, &bytes));
    assert!(!decode(NONCE + 1, 4096, &bytes), "another segment");
    assert!(!decode(NONCE, 4104, &bytes), "another place");
    let mut other = bytes.clone();
    other[8] = 10;
    assert!(!decode(NONCE, 4096, &other), "another generation");
    other = bytes;
    other[0] = 1;
    assert!(!decode(NONCE, 4096, &other), "another synced_to");
}

/// What was read is counted on from, so it leaves room for that.
#[test]
fn numbers_that_no_log_reaches_are_refused() {
    let refused = |result: Result<(), BlockError>| {
        let is_range = |fault: &Fault| fault.check == Check::OutOfRange;
        matches!(&result, Err(BlockError::Fault(fault)) if is_range(fault))
    };
    let most = NUMBER_MAX + 1;
    let changes: [fn(&mut SegmentHeader, u64); 4] = [
        |it, most| it.number = most,
        |it, most| it.base = most,
        |it, most| it.generation = most,
        |it, most| it.previous_term = most,
    ];
    for change in changes {
        let mut header = segment_header();
        change(&mut header, most);
        let bytes = header.encode(BINDING);
        assert!(refused(SegmentHeader::decode(&bytes, BINDING).map(|_| ())));
    }
    let changes: [fn(&mut ControlSlot, u64); 5] = [
        |it, most| it.sequence = most,
        |it, most| it.generation = most,
        |it, most| it.watermark.index = most,
        |it, most| it.cut.segment = most,
        |it, most| it.floor.0 = most,
    ];
    for change in changes {
        let mut slot = control_slot();
        change(&mut slot, most);
        let bytes = slot.encode(BINDING);
        assert!(refused(ControlSlot::decode(&bytes, BINDING).map(|_| ())));
    }
    let copy = encode_twin(*b"anything", BINDING, most, b"x");
    assert!(refused(decode_twin(&copy, *b"anything").map(|_| ())));
}

#[test]
fn seal_index_of_every_record_fits_behind_the_records() {
    for count in [0, 1, 5, 100, 500] {
        let end = records_end(16 << 10, count);
        let seal = (16 << 10) - end;
        assert!(
            seal >= SEAL_FOOTER_BYTES + count * SEAL_LINE_BYTES,
            "{count} records"
        );
    }
    assert_eq!(records_end(16 << 10, u64::MAX), 0);
}

proptest! {
    #[test]
    fn blocks_round_trip(numbers in proptest::array::uniform16(0..=NUMBER_MAX), complete: bool, closed: bool) {
        let n = numbers;
        let header = SegmentHeader {
            number: n[0], nonce: n[1], base: n[2], previous_term: n[3], generation: n[4], segment_bytes: n[5],
            recycled: complete, repairs: closed, follows: n[6] as u32,
        };
        prop_assert_eq!(SegmentHeader::decode(&header.encode(BINDING), BINDING), Ok(header));
        let slot = ControlSlot {
            sequence: n[0],
            complete,
            closed,
            watermark: Mark { segment: n[1], offset: n[2], index: n[3], term: n[4] },
            synced_watermark: Mark { segment: n[5], offset: n[6], index: n[7], term: n[8] },
            generation: n[9],
            cut: Cut { segment: n[10], offset: n[11] },
            floor: (n[12], n[13]),
            commit: n[14],
        };
        prop_assert_eq!(ControlSlot::decode(&slot.encode(BINDING), BINDING), Ok(slot));
        let footer = Footer {
            nonce: n[0], base: n[1], generation: n[2] as u32, follows: n[7] as u32, previous_term: n[3],
            count: n[4] as u32, end: n[5] as u32, lines_crc: n[6] as u32,
        };
        prop_assert_eq!(Footer::decode(&footer.encode(BINDING), BINDING), Ok(footer));
        let line = SealLine { term: n[0], offset: n[1] as u32, payload_crc: n[2] as u32 };
        prop_assert_eq!(SealLine::decode(&line.encode()), line);
    }

    #[test]
    fn copies_round_trip(sequence in 0..=NUMBER_MAX, content in proptest::collection::vec(any::<u8>(), 0..200), behind in 0usize..50) {
        let mut bytes = encode_twin(*b"anything", BINDING, sequence, &content);
        bytes.resize(bytes.len() + behind, 0x55);
        let copy = decode_twin(&bytes, *b"anything").unwrap();
        prop_assert_eq!(copy.content, content);
        prop_assert_eq!((copy.sequence, copy.binding), (sequence, BINDING));
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SegmentHeader::decode(&bytes, BINDING).is_err());
        prop_assert!(ControlSlot::decode(&bytes, BINDING).is_err());
        prop_assert!(decode_twin(&bytes, HARD_STATE_MAGIC).is_err());
        prop_assert!(Footer::decode(&bytes, BINDING).is_err());
        prop_assert!(decode_stored(BINDING.cluster, NONCE, 4096, &bytes).is_err());
    }

    #[test]
    fn claimed_lengths_allocate_nothing(length: u32, bytes in proptest::collection::vec(any::<u8>(), 48..100)) {
        // A valid preamble in front of nonsense: the length is checked against what is there.
        let mut bytes = bytes;
        put_preamble(&mut bytes, HARD_STATE_MAGIC, TWIN_VERSION);
        put_u32(&mut bytes, 36, length);
        prop_assert!(decode_twin(&bytes, HARD_STATE_MAGIC).is_err());
    }
}
