use proptest::prelude::*;

use super::*;
use crate::format::{Prefix, bind};
use crate::record::{RecordHeader, encode_header, payload_checksum};

const CLUSTER: u32 = 77;
const NONCE: u64 = 0xfeed;
const BYTES: usize = 16 << 10;

fn header() -> SegmentHeader {
    SegmentHeader {
        number: 4,
        nonce: NONCE,
        base: 11,
        previous_term: 2,
        generation: 5,
        segment_bytes: BYTES as u64,
        recycled: false,
        repairs: false,
        follows: 3,
    }
}

/// The last segment of a log that never shrank, with nothing known of what was synced.
fn rules() -> Rules<'static> {
    Rules {
        cluster: CLUSTER,
        generation: 5,
        cut: Cut {
            segment: 4,
            offset: 0,
        },
        watermark: Mark {
            segment: 4,
            offset: SEGMENT_HEADER_BYTES,
            index: 10,
            term: 2,
        },
        next: None,
        unreadable: &[],
    }
}

struct Builder {
    bytes: Vec<u8>,
    end: usize,
    offsets: Vec<u32>,
}

impl Builder {
    fn new() -> Builder {
        Builder {
            bytes: vec![0; BYTES],
            end: SEGMENT_HEADER_BYTES as usize,
            offsets: Vec::new(),
        }
    }

    fn put(&mut self, index: u64, term: u64, generation: u64, synced_to: u32) -> &mut Builder {
        let payload = [index as u8; 20];
        let payload_crc = payload_checksum(CLUSTER, &payload);
        let header = RecordHeader {
            index,
            term,
            kind: 2,
            payload_bytes: 20,
            payload_crc,
        };
        let header = encode_header(CLUSTER, &header);
        let crc = u32::from_le_bytes([header[28], header[29], header[30], header[31]]);
        let offset = u32::try_from(self.end).unwrap();
        let bind = bind(NONCE, offset, synced_to, generation, crc, payload_crc);
        let prefix = Prefix {
            synced_to,
            bind,
            generation,
        }
        .encode();
        for part in [&prefix[..], &header, &payload] {
            self.bytes[self.end..self.end + part.len()].copy_from_slice(part);
            self.end += part.len();
        }
        self.end = self.end.next_multiple_of(8);
        self.offsets.push(offset);
        self
    }

    /// Records 11.. of term 2, each written after a sync of the ones before it.
    fn synced_one_by_one(count: u64) -> Builder {
        let mut builder = Builder::new();
        for index in 11..11 + count {
            let synced_to = u32::try_from(builder.end).unwrap();
            builder.put(index, 2, 5, synced_to);
        }
        builder
    }

    /// Records 11.. of term 2 in one group.
    fn one_group(count: u64) -> Builder {
        let mut builder = Builder::new();
        for index in 11..11 + count {
            builder.put(index, 2, 5, SEGMENT_HEADER_BYTES as u32);
        }
        builder
    }

    fn damage(&mut self, record: usize) -> u64 {
        let offset = self.offsets[record] as usize;
        self.bytes[offset + 60] ^= 4;
        offset as u64
    }
}

/// The segment that follows begins with `base`.
fn next(base: u64) -> Option<Next> {
    Some(Next {
        base,
        previous_term: 2,
    })
}

/// Index, term and check of each damaged entry.
fn damages(found: &Scan) -> Vec<(u64, Option<u64>, Check)> {
    let name = |damage: &Damage| (damage.index, damage.term, damage.fault.check);
    found.faulty.iter().map(name).collect()
}

#[test]
fn all_records_are_found_and_the_end_is_clean() {
    let built = Builder::one_group(9);
    let found = scan(&rules(), &header(), &built.bytes).unwrap();
    assert_eq!(found.offsets, built.offsets);
    assert_eq!(
        (found.end, found.last_term, found.torn_bytes),
        (built.end as u64, 2, 0)
    );
}

/// Case 50: a bad record above the watermark, with none behind it written after a sync, is torn.
#[test]
fn bad_record_of_the_last_group_is_torn_with_what_follows() {
    let mut built = Builder::one_group(9);
    let offset = built.damage(4);
    let found = scan(&rules(), &header(), &built.bytes).unwrap();
    assert_eq!((found.offsets.len(), found.end), (4, offset));
    assert_eq!(found.torn_bytes, found.torn_bytes.max(5 * 64));
}

/// The power fails before the watermark reaches the disk, then a synced record rots: the record behind it
/// proves that it had been synced.
#[test]
fn bad_record_behind_which_a_later_one_was_written_after_a_sync_is_corrupt() {
    let mut built = Builder::synced_one_by_one(9);
    let offset = built.damage(4);
    let found = scan(&rules(), &header(), &built.bytes).unwrap();
    assert_eq!(damages(&found), [(15, Some(2), Check::PayloadChecksum)]);
    assert_eq!(found.faulty[0].offset, offset);
    assert_eq!(found.offsets, built.offsets, "the log goes on behind it");
    assert_eq!(found.end, built.end as u64);
}

/// Nothing tells how many records lay in a hole but the indexes around it.
#[test]
fn entries_between_two_intact_ones_are_damaged_and_the_rest_stays() {
    let mut built = Builder::synced_one_by_one(9);
    let (from, to) = (built.offsets[2] as usize, built.offsets[6] as usize);
    built.bytes[from + 5..to - 3].fill(0xaa);
    let found = scan(&rules(), &header(), &built.bytes).unwrap();
    let lost: Vec<u64> = found.faulty.iter().map(|damage| damage.index).collect();
    assert_eq!(lost, [13, 14, 15, 16]);
    assert!(found.faulty.iter().all(|damage| damage.term.is_none()));
    assert_eq!(found.offsets[5] as usize, from);
    assert_eq!(found.offsets[6..], built.offsets[6..]);
    assert_eq!(found.end, built.end as u64);
}

/// Of the last entry below the watermark the control file knows the term.
#[test]
fn damaged_end_below_the_watermark_keeps_its_term_and_what_follows() {
    let mut built = Builder::one_group(4);
    let mark = built.end;
    built.put(15, 3, 5, u32::try_from(mark).unwrap());
    let from = built.offsets[2] as usize;
    built.bytes[from..mark].fill(0);
    let rules = Rules {
        watermark: Mark {
            segment: 4,
            offset: mark as u64,
            index: 14,
            term: 2,
        },
        ..rules()
    };
    let found = scan(&rules, &header(), &built.bytes).unwrap();
    let blank = Check::Blank;
    assert_eq!(damages(&found), [(13, None, blank), (14, Some(2), blank)]);
    assert_eq!((found.offsets.len(), found.last_term), (5, 3));
    // The unsynced record behind the watermark is torn; the damage below is not.
    built.damage(4);
    let found = scan(&rules, &header(), &built.bytes).unwrap();
    assert_eq!(damages(&found).len(), 2);
    assert_eq!((found.offsets.len(), found.end), (4, mark as u64));
    assert!(found.torn_bytes > 0);
}

/// n1 lost 13 to 15 and cut the log at 15, so that 15 of a new term lies where the hole began.
#[test]
fn cut_inside_of_a_hole_keeps_the_entries_before_it_damaged() {
    let mut built = Builder::synced_one_by_one(5);
    let hole = built.offsets[2] as usize;
    built.bytes[hole..].fill(0);
    built.end = hole;
    built.put(15, 4, 6, u32::try_from(hole).unwrap());
    let cut = hole as u64;
    let rules = Rules {
        generation: 6,
        cut: Cut {
            segment: 4,
            offset: cut,
        },
        watermark: Mark {
            segment: 4,
            offset: cut,
            index: 14,
            term: 2,
        },
        ..rules()
    };
    let found = scan(&rules, &header(), &built.bytes).unwrap();
    let lost: Vec<_> = found.faulty.iter().map(|it| (it.index, it.term)).collect();
    assert_eq!(lost, [(13, None), (14, Some(2))]);
    assert_eq!((found.offsets.len(), found.last_term), (5, 4));
}

#[test]
fn blanked_record_behind_which_a_later_one_was_written_after_a_sync_is_corrupt() {
    let mut built = Builder::synced_one_by_one(9);
    let offset = built.offsets[4] as usize;
    built.bytes[offset..offset + 72].fill(0);
    let found = scan(&rules(), &header(), &built.bytes).unwrap();
    assert_eq!(damages(&found), [(15, None, Check::Blank)]);
}

#[test]
fn bad_record_below_the_watermark_is_corrupt() {
    let mut built = Builder::one_group(9);
    let mut rules = rules();
    rules.watermark = Mark {
        segment: 4,
        offset: built.end as u64,
        index: 19,
        term: 2,
    };
    for record in 0..9 {
        let offset = built.damage(record);
        let found = scan(&rules, &header(), &built.bytes).unwrap();
        let lost: Vec<_> = found
            .faulty
            .iter()
            .map(|it| (it.offset, it.index))
            .collect();
        assert_eq!(lost, [(offset, 11 + record as u64)]);
        assert_eq!(found.offsets, built.offsets);
        built.damage(record);
    }
}

/// Everything in a segment was synced before the next one got its name.
#[test]
fn bad_record_in_a_segment_that_is_not_the_last_is_corrupt() {
    let mut built = Builder::one_group(9);
    let rules = Rules {
        next: next(20),
        ..rules()
    };
    assert_eq!(
        scan(&rules, &header(), &built.bytes).unwrap().offsets.len(),
        9
    );
    built.damage(8);
    let found = scan(&rules, &header(), &built.bytes).unwrap();
    assert_eq!(damages(&found), [(19, Some(2), Check::PayloadChecksum)]);
}

#[test]
fn records_behind_the_next_segments_base_are_not_part_of_the_log() {
    let built = Builder::one_group(9);
    let rules = Rules {
        next: next(14),
        ..rules()
    };
    assert_eq!(
        scan(&rules, &header(), &built.bytes).unwrap().offsets.len(),
        3
    );
}

/// n1 truncates to 13 and appends (14, t3), (15, t3), which end exactly where the old (16, t2) begins:
/// without the generation it would be the log's end.
#[test]
fn leftovers_behind_a_cut_are_dead_although_they_check() {
    let mut built = Builder::synced_one_by_one(9);
    let cut = u64::from(built.offsets[3]);
    let end = built.end;
    built.end = cut as usize;
    built
        .put(14, 3, 6, u32::try_from(cut).unwrap())
        .put(15, 3, 6, u32::try_from(cut).unwrap());
    assert!(built.end < end);
    let rules = Rules {
        generation: 6,
        cut: Cut {
            segment: 4,
            offset: cut,
        },
        ..rules()
    };
    let found = scan(&rules, &header(), &built.bytes).unwrap();
    assert_eq!(
        (found.offsets.len(), found.last_term, found.torn_bytes),
        (5, 3, 0)
    );
}

#[test]
fn leftovers_behind_a_cut_are_no_evidence_of_a_sync() {
    let mut built = Builder::synced_one_by_one(9);
    let cut = u64::from(built.offsets[3]);
    let rules = Rules {
        generation: 6,
        cut: Cut {
            segment: 4,
            offset: cut,
        },
        ..rules()
    };
    // The first record of the new generation is torn; old ones behind it carry high `synced_to`.
    built.end = cut as usize;
    built.put(14, 3, 6, u32::try_from(cut).unwrap());
    built.bytes[cut as usize + 60] ^= 1;
    let found = scan(&rules, &header(), &built.bytes).unwrap();
    assert_eq!((found.offsets.len(), found.end), (3, cut));
}

#[test]
fn record_of_a_lower_generation_than_the_one_before_is_dead() {
    let mut built = Builder::new();
    built
        .put(11, 2, 4, 4096)
        .put(12, 2, 5, 4096)
        .put(13, 2, 4, 4096);
    // The cut has moved into a later segment meanwhile, so only the order tells.
    let rules = Rules {
        cut: Cut {
            segment: 5,
            offset: 0,
        },
        next: next(13),
        ..rules()
    };
    assert_eq!(
        scan(&rules, &header(), &built.bytes).unwrap().offsets.len(),
        2
    );
    let longer = Rules {
        next: next(14),
        ..rules
    };
    let found = scan(&longer, &header(), &built.bytes).unwrap();
    assert_eq!(damages(&found), [(13, Some(2), Check::Generation)]);
}

#[test]
fn record_of_a_later_generation_than_the_control_file_knows_is_corrupt() {
    let mut built = Builder::one_group(3);
    built.put(14, 2, 9, 4096);
    let damage = scan(&rules(), &header(), &built.bytes).unwrap_err();
    assert_eq!((damage.index, damage.fault.check), (14, Check::Generation));
}

#[test]
fn unreadable_place_names_the_entry_that_lies_there() {
    let built = Builder::one_group(9);
    let unit = u64::from(built.offsets[6]) + 10..u64::from(built.offsets[7]);
    let mut bytes = built.bytes.clone();
    bytes[unit.start as usize..unit.end as usize].fill(0);
    let unreadable = [unit];
    let rules = Rules {
        next: next(20),
        unreadable: &unreadable,
        ..rules()
    };
    let found = scan(&rules, &header(), &bytes).unwrap();
    assert_eq!(damages(&found), [(17, None, Check::Unreadable)]);
}

/// What cannot be read behind the end could be the record that proves that the end is none.
#[test]
fn end_in_front_of_an_unreadable_place_is_none() {
    let mut built = Builder::synced_one_by_one(9);
    built.damage(7);
    let last = u64::from(built.offsets[8])..built.end as u64;
    built.bytes[last.start as usize..last.end as usize].fill(0);
    let unreadable = [last];
    let rules = Rules {
        unreadable: &unreadable,
        ..rules()
    };
    let damage = scan(&rules, &header(), &built.bytes).unwrap_err();
    assert_eq!((damage.index, damage.fault.check), (18, Check::Unreadable));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_make_entries(
        bytes in proptest::collection::vec(any::<u8>(), 0..6000), watermark in 0u64..8000, last: bool,
    ) {
        let mut rules = rules();
        rules.watermark.offset = watermark;
        rules.next = (!last).then(|| next(13)).flatten();
        if let Ok(found) = scan(&rules, &header(), &bytes) {
            prop_assert_eq!(found.offsets.len(), found.faulty.len());
        }
    }

    #[test]
    fn damage_anywhere_leaves_what_is_intact_or_a_prefix(
        count in 1u64..12, places in proptest::collection::vec((4096usize..6000, any::<u8>()), 1..6), one_by_one: bool,
    ) {
        let built = if one_by_one { Builder::synced_one_by_one(count) } else { Builder::one_group(count) };
        let mut bytes = built.bytes.clone();
        for (place, byte) in places {
            bytes[place] = byte;
        }
        let found = scan(&rules(), &header(), &bytes);
        prop_assert!(found.is_ok());
        if let Ok(found) = found {
            let lost: Vec<u64> = found.faulty.iter().map(|damage| damage.index).collect();
            for (at, offset) in found.offsets.iter().enumerate() {
                prop_assert!(lost.contains(&(11 + at as u64)) || built.offsets[at] == *offset);
            }
            // An intact last record proves that all before it had been synced.
            let last = *built.offsets.last().unwrap() as usize..built.end;
            let intact = bytes[last.clone()] == built.bytes[last];
            if one_by_one && intact {
                prop_assert_eq!(found.offsets.len(), built.offsets.len());
            }
        }
    }
}
