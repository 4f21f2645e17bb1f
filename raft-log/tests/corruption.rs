//! Damage to what was synced: every bit, holes, shifts, leftovers; and what is only torn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use raft_log::fs::{SimFs, UnitFate};
use raft_log::{Check, Corruption, FaultyEntry, OpenError, Tail};
use support::{
    Model, Step, Subject, append, budget, dir, file_name, open, payload, recovered, segment, small,
};

/// A closed log whose entries lie in two segments, with a vote.
fn closed(entries_of: &[Step]) -> (SimFs, Model) {
    let mut subject = Subject::new(SimFs::new(11), small());
    subject.run(&[Step::HardState(3, Some(2))]);
    subject.run(entries_of);
    subject.wal.take().unwrap().close().unwrap();
    (subject.fs, subject.acknowledged)
}

/// Ten small entries; the second segment comes from a cut under a reader, so that the log stays small.
fn ten_in_two_segments() -> (SimFs, Model) {
    let mut subject = Subject::new(SimFs::new(12), small());
    subject.run(&[Step::HardState(3, Some(2)), Step::Append(vec![(1, 24); 7])]);
    let held = subject
        .wal
        .as_ref()
        .unwrap()
        .reader()
        .hold(6..8, 1000)
        .unwrap();
    subject.run(&[Step::Truncate(6), Step::Append(vec![(2, 24); 5])]);
    drop(held);
    subject.wal.take().unwrap().close().unwrap();
    assert_eq!(support::segments(&subject.fs).len(), 2);
    (subject.fs, subject.acknowledged)
}

/// Fifty entries that fill one segment and half of the next.
fn fifty_in_two_segments() -> (SimFs, Model) {
    let (fs, model) = closed(&[
        Step::Append(vec![(1, 256); 20]),
        Step::Append(vec![(2, 256); 30]),
    ]);
    assert_eq!(support::segments(&fs).len(), 2);
    (fs, model)
}

fn files() -> Vec<PathBuf> {
    vec![
        segment(1),
        segment(2),
        dir().join("control"),
        dir().join("hard-state"),
    ]
}

/// After damage to `file`: everything is there; or what is not is told entry by entry, each time it is asked for,
/// and the rest is there; or the damage is told with its file and a place. Returns whether it was harmless.
fn check_damage(fs: &SimFs, model: &Model, file: &Path, what: &str) -> bool {
    match open(fs, &small()) {
        Ok((wal, opened)) => {
            let told: Vec<u64> = opened.faulty.iter().map(|faulty| faulty.index).collect();
            let (found, damaged) = Model::of_damaged(&wal);
            for (index, corruption) in &damaged {
                check_place(corruption, file, what);
                assert_eq!(corruption.index, Some(*index), "{what}: {corruption}");
            }
            let lost: Vec<u64> = damaged.iter().map(|(index, _)| *index).collect();
            assert!(told.iter().all(|index| lost.contains(index)), "{what}");
            let mut intact = model.clone();
            intact.entries.retain(|index, _| !lost.contains(index));
            assert!(found == intact, "{what}: success with other content");
            assert_eq!(wal.last_index(), model.last_index(), "{what}");
            lost.is_empty()
        }
        Err(OpenError::Corrupt(corruption)) => {
            check_place(&corruption, file, what);
            false
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

fn check_place(corruption: &Corruption, file: &Path, what: &str) {
    assert_eq!(
        file_name(&corruption.file),
        file_name(file),
        "{what}: {corruption}"
    );
    assert!(
        corruption.expected != corruption.found,
        "{what}: {corruption}"
    );
}

/// The only damaged entry of a log that opens.
fn only_fault(fs: &SimFs) -> FaultyEntry {
    let (_, opened) = open(fs, &small()).unwrap();
    let [faulty] = &opened.faulty[..] else {
        panic!("{:?}", opened.faulty)
    };
    faulty.clone()
}

/// Case 48: each bit of a small log that was closed cleanly: either all entries or an explicit corruption
/// that names file and offset, never fewer entries with success.
#[test]
fn every_flipped_bit_is_harmless_or_reported() {
    let (fs, model) = ten_in_two_segments();
    let (mut harmless, mut reported) = (0, 0);
    for file in files() {
        let bytes = fs.bytes(&file);
        for byte in (0..bytes.len()).filter(|byte| matters(&bytes, *byte)) {
            for bit in 0..8 {
                let fs = fs.fork();
                fs.flip_bit(&file, byte as u64 * 8 + bit);
                let what = format!("{} byte {byte} bit {bit}", file_name(&file));
                if check_damage(&fs, &model, &file, &what) {
                    harmless += 1
                } else {
                    reported += 1
                }
            }
        }
    }
    println!("{harmless} harmless, {reported} reported");
    assert!(reported > 5000, "records are most of it");
    assert!(
        harmless > 2000,
        "one of two slots or copies is always enough"
    );
}

/// Written bytes, and of the empty rest every 61st.
fn matters(bytes: &[u8], byte: usize) -> bool {
    let near = byte.saturating_sub(4)..(byte + 4).min(bytes.len());
    bytes[near].iter().any(|byte| *byte != 0) || byte.is_multiple_of(61)
}

/// Case 48: random bits of fifty entries in two segments, for as long as `RAFT_LOG_CRASH_SECONDS` allows.
#[test]
fn flipped_bits_of_fifty_entries_are_harmless_or_reported() {
    let (fs, model) = fifty_in_two_segments();
    let (begin, mut mixed, mut visited) = (Instant::now(), 1u64, 0);
    while begin.elapsed() < budget() / 2 || visited < 200 {
        mixed = mixed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let file = &files()[(mixed >> 60) as usize % 4];
        let bits = fs.bytes(file).len() as u64 * 8;
        let bit = (mixed >> 16) % bits;
        let fs = fs.fork();
        fs.flip_bit(file, bit);
        check_damage(&fs, &model, file, &format!("{} bit {bit}", file_name(file)));
        visited += 1;
    }
}

/// Case 49: zeroed pieces of 8 bytes, 512 bytes and 4 KiB at each aligned place.
#[test]
fn zeroed_pieces_are_harmless_or_reported() {
    let (fs, model) = ten_in_two_segments();
    for file in files() {
        let bytes = fs.bytes(&file);
        for size in [8, 512, 4096] {
            for at in (0..bytes.len()).step_by(size) {
                let piece = at..(at + size).min(bytes.len());
                if bytes[piece.clone()].iter().all(|byte| *byte == 0) {
                    continue;
                }
                let fs = fs.fork();
                let mut zeroed = bytes.clone();
                zeroed[piece].fill(0);
                fs.set_bytes(&file, &zeroed);
                check_damage(
                    &fs,
                    &model,
                    &file,
                    &format!("{} zeroed {size} at {at}", file_name(&file)),
                );
            }
        }
    }
}

/// Case 49: bytes removed or put in twice.
#[test]
fn shifted_bytes_are_harmless_or_reported() {
    let (fs, model) = ten_in_two_segments();
    for file in files() {
        let bytes = fs.bytes(&file);
        for size in [1, 7, 8, 64, 512, 1000, 4096] {
            for at in (0..bytes.len() - size).step_by(701) {
                let what = format!("{} shifted by {size} at {at}", file_name(&file));
                let removed = [&bytes[..at], &bytes[at + size..]].concat();
                let doubled = [&bytes[..at + size], &bytes[at..]].concat();
                // A file system that keeps the length: the end is cut off or filled up.
                let mut cut = doubled.clone();
                cut.truncate(bytes.len());
                let mut filled = removed.clone();
                filled.resize(bytes.len(), 0);
                for shifted in [removed, doubled, cut, filled] {
                    let fs = fs.fork();
                    fs.set_bytes(&file, &shifted);
                    check_damage(&fs, &model, &file, &what);
                }
            }
        }
    }
}

/// Where the last page of a small segment begins, which holds no records.
const RECORDS_END: usize = 12 << 10;

fn end_of_records(segment: &[u8]) -> usize {
    let last = segment[..RECORDS_END].iter().rposition(|byte| *byte != 0);
    (last.unwrap() + 1).next_multiple_of(8)
}

/// Case 20: valid records of another segment behind the tail, at the very places they had, are ignored.
#[test]
fn records_of_another_segment_behind_the_tail_are_ignored() {
    let (fs, model) = fifty_in_two_segments();
    let (first, second) = (fs.bytes(&segment(1)), fs.bytes(&segment(2)));
    let end = end_of_records(&second);
    for from in (end..RECORDS_END).step_by(8) {
        let fs = fs.fork();
        let mut mixed = second.clone();
        let records = from..RECORDS_END;
        mixed[records.clone()].copy_from_slice(&first[records]);
        fs.set_bytes(&segment(2), &mixed);
        let (_, found) = recovered(&fs, &small()).unwrap();
        assert!(found == model, "leftover from {from} on");
    }
}

/// Case 20: the tail's own records, moved behind its end, are ignored too.
#[test]
fn records_of_the_tail_moved_behind_its_end_are_ignored() {
    let (fs, model) = fifty_in_two_segments();
    let mut bytes = fs.bytes(&segment(2));
    let end = end_of_records(&bytes);
    bytes.copy_within(4096..4096 + 3 * 304, end);
    fs.set_bytes(&segment(2), &bytes);
    let (_, found) = recovered(&fs, &small()).unwrap();
    assert!(found == model);
}

/// Case 19: what was truncated stays away, although it still lies behind the end and checks.
#[test]
fn truncated_suffix_never_returns() {
    let mut subject = Subject::new(SimFs::new(13), small());
    let same = |term, count| Step::Append(vec![(term, 100); count]);
    subject.run(&[
        same(1, 12),
        Step::Truncate(5),
        same(2, 1),
        Step::Kill,
        same(2, 2),
        Step::Truncate(6),
        Step::Kill,
    ]);
    assert_eq!(subject.acknowledged.last_index(), 5);
    subject
        .fs
        .power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
    drop(subject.wal);
    let (_, found) = recovered(&subject.fs, &small()).unwrap();
    assert!(found == subject.acknowledged);
}

/// Case 50: only the last, unsynced batch is garbled: accepted, the log ends with the last synced batch.
#[test]
fn genuine_torn_tail_is_dropped_and_said() {
    let mut subject = Subject::new(SimFs::new(14), small());
    subject.run(&[Step::Append(vec![(1, 300); 4])]);
    let synced = subject.acknowledged.clone();
    // The call after the write is the sync.
    subject.fs.stop_at_call(subject.fs.calls() + 2);
    subject.run(&[Step::Append(vec![(1, 300); 6])]);
    for fates in 0..200u64 {
        let fs = subject.fs.fork();
        let mut bits = fates;
        fs.power_cut_with(&mut |_| true, &mut |_| {
            bits = bits.wrapping_mul(25_214_903_917).wrapping_add(11);
            // The first unit is lost in any case.
            if bits >> 20 & 1 == 1 {
                UnitFate::New
            } else {
                UnitFate::Garbage
            }
        });
        let path = segment(1);
        let mut bytes = fs.bytes(&path);
        let at = 4096 + 4 * 352 + 60 + (fates as usize % 200);
        bytes[at] ^= 1;
        fs.set_bytes(&path, &bytes);
        let (wal, opened) = open(&fs, &small()).unwrap();
        assert!(Model::of(&wal) == synced, "fates {fates}");
        let Tail::TornDropped {
            segment,
            offset,
            bytes,
        } = opened.tail
        else {
            panic!("fates {fates}: {:?}", opened.tail)
        };
        assert_eq!((segment, offset), (path, 4096 + 4 * 352));
        assert!(bytes > 0);
    }
}

/// The lazy watermark is lost with the power, and then a synced record rots: the record behind it was
/// written after a sync beyond it, so this is no torn tail.
#[test]
fn rot_below_a_lost_watermark_is_told_from_a_torn_tail() {
    let mut subject = Subject::new(SimFs::new(15), small());
    subject.run(&[
        Step::Append(vec![(1, 300); 2]),
        Step::Append(vec![(1, 300); 2]),
        Step::Append(vec![(1, 300); 2]),
    ]);
    subject
        .fs
        .power_cut_with(&mut |_| true, &mut |_| UnitFate::Old);
    drop(subject.wal);
    for record in 0..4usize {
        let fs = subject.fs.fork();
        fs.flip_bit(&segment(1), (4096 + record as u64 * 352 + 100) * 8);
        let faulty = only_fault(&fs);
        assert_eq!((faulty.index, faulty.term), (record as u64 + 1, Some(1)));
        assert_eq!(faulty.kind, Some(2));
        let corruption = faulty.corruption;
        assert_eq!(corruption.offset, 4096 + record as u64 * 352);
        assert_eq!(corruption.check, Check::PayloadChecksum);
    }
    // The named residual risk: nothing proves that the very last group was synced.
    let fs = subject.fs.fork();
    fs.flip_bit(&segment(1), (4096 + 4 * 352 + 100) * 8);
    let (_, opened) = open(&fs, &small()).unwrap();
    assert_eq!(opened.last_index, 4);
    // After 50 ms without an append the caller flushes the control file, and the risk is gone.
    let mut flushed = Subject::new(SimFs::new(15), small());
    flushed.run(&[Step::Append(vec![(1, 300); 2]), Step::Flush]);
    flushed
        .fs
        .power_cut_with(&mut |_| true, &mut |_| UnitFate::Old);
    flushed.fs.flip_bit(&segment(1), (4096 + 100) * 8);
    drop(flushed.wal);
    assert_eq!(only_fault(&flushed.fs).index, 1);
}

/// After `kill -9` the lazily written watermark is there, so that rot of the last group is noticed.
#[test]
fn rot_of_the_last_group_after_process_death_is_reported() {
    let mut subject = Subject::new(SimFs::new(16), small());
    subject.run(&[Step::Append(vec![(1, 300); 3])]);
    subject.fs.crash_process();
    subject.fs.flip_bit(&segment(1), (4096 + 2 * 352 + 100) * 8);
    drop(subject.wal);
    assert_eq!(only_fault(&subject.fs).index, 3);
}

/// Case 21: one damaged copy of term and vote is reported and mended; both damaged are refused.
#[test]
fn one_bad_vote_copy_is_mended_and_two_are_refused() {
    let (fs, model) = ten_in_two_segments();
    let file = dir().join("hard-state");
    for copy in [0, 8192u64] {
        let fs = fs.fork();
        fs.flip_bit(&file, (copy + 50) * 8);
        let (wal, opened) = open(&fs, &small()).unwrap();
        assert_eq!((opened.term, opened.vote), (3, Some(2)));
        assert_eq!(opened.reports.len(), 1, "{:?}", opened.reports);
        assert!(Model::of(&wal) == model);
        drop(wal);
        let (_, opened) = open(&fs, &small()).unwrap();
        assert_eq!(opened.reports, [], "the damaged copy was written anew");
    }
    fs.flip_bit(&file, 50 * 8);
    fs.flip_bit(&file, (8192 + 50) * 8);
    let Err(OpenError::Corrupt(corruption)) = open(&fs, &small()) else {
        panic!("accepted")
    };
    assert_eq!(corruption.file, file);
}

#[test]
fn two_bad_control_slots_are_refused_and_one_is_mended() {
    let (fs, model) = ten_in_two_segments();
    let file = dir().join("control");
    for slot in [0, 4096u64] {
        let fs = fs.fork();
        fs.flip_bit(&file, (slot + 50) * 8);
        let (wal, opened) = open(&fs, &small()).unwrap();
        assert_eq!(opened.reports.len(), 1);
        assert!(Model::of(&wal) == model);
    }
    fs.flip_bit(&file, 50 * 8);
    fs.flip_bit(&file, (4096 + 50) * 8);
    assert!(matches!(open(&fs, &small()), Err(OpenError::Corrupt(_))));
}

/// A slot that rots must not bring back what was cut: both slots know each cut.
#[test]
fn either_control_slot_alone_knows_the_last_cut() {
    for slot in [0, 4096u64] {
        let mut subject = Subject::new(SimFs::new(17), small());
        subject.run(&[Step::Append(vec![(1, 100); 8]), Step::Truncate(4)]);
        subject.fs.crash_process();
        subject.fs.flip_bit(&dir().join("control"), (slot + 50) * 8);
        drop(subject.wal);
        let (_, found) = recovered(&subject.fs, &small()).unwrap();
        assert!(found == subject.acknowledged, "slot at {slot}");
    }
}

#[test]
fn missing_files_are_refused_by_name() {
    use raft_log::fs::Fs;
    let (fs, _) = fifty_in_two_segments();
    for file in files() {
        let fs = fs.fork();
        fs.remove(&file).unwrap();
        let Err(OpenError::Missing { .. }) = open(&fs, &small()) else {
            panic!("opened without {}", file_name(&file))
        };
    }
    // All segments of a log whose entries are all purged: still a log that lost its segments.
    let (fs, _) = closed(&[Step::Append(vec![(1, 256); 3]), Step::Purge(3)]);
    fs.remove(&segment(1)).unwrap();
    assert!(matches!(
        open(&fs, &small()),
        Err(OpenError::Missing { .. })
    ));
}

/// A segment in the middle is gone. Entries that were cut off still lie in the one before it, and end just where the lost
/// ones did.
#[test]
fn missing_segment_between_two_is_not_replaced_by_what_was_cut_off() {
    use raft_log::fs::Fs;
    let mut subject = Subject::new(SimFs::new(22), small());
    subject.run(&[Step::Append(vec![(1, 24); 10])]);
    let reader = subject.wal.as_ref().unwrap().reader();
    let held = reader.hold(6..8, 1000).unwrap();
    subject.run(&[Step::Truncate(6), Step::Append(vec![(1, 30); 5])]);
    drop(held);
    subject.run(&[Step::Append(vec![(1, 8000); 1]), Step::Reopen, Step::Reopen]);
    assert_eq!(support::segments(&subject.fs).len(), 3);
    drop(subject.wal);
    subject.fs.remove(&segment(2)).unwrap();
    let Err(OpenError::Missing { file, .. }) = open(&subject.fs, &small()) else {
        panic!("opened without the segment in the middle")
    };
    assert_eq!(file, segment(2));
}

/// Case 48: an unreadable unit is a damaged entry, with its index, and no signal.
#[test]
fn unreadable_unit_names_the_entry() {
    let (fs, _) = fifty_in_two_segments();
    fs.set_unreadable(&segment(2), 4096 + 3 * 304 + 200);
    let (_, opened) = open(&fs, &small()).unwrap();
    assert!((1..=3).contains(&opened.faulty.len()), "{opened:?}");
    for FaultyEntry {
        index, corruption, ..
    } in opened.faulty
    {
        assert_eq!(corruption.check, Check::Unreadable);
        assert_eq!(file_name(&corruption.file), file_name(&segment(2)));
        assert!((29..=32).contains(&index), "{corruption}");
    }
}

/// Rot that comes after the start is noticed by every read.
#[test]
fn reader_refuses_an_entry_that_rotted_since() {
    let mut subject = Subject::new(SimFs::new(18), small());
    subject.run(&[Step::Append(vec![(1, 300); 3])]);
    let reader = subject.wal.as_ref().unwrap().reader();
    assert_eq!(reader.entries(1..4, u64::MAX).unwrap().len(), 3);
    subject.fs.flip_bit(&segment(1), (4096 + 352 + 100) * 8);
    let Err(raft_log::ReadError::Corrupt(corruption)) = reader.entries(2..4, u64::MAX) else {
        panic!("accepted")
    };
    assert_eq!((corruption.index, corruption.offset), (Some(2), 4096 + 352));
    assert_eq!(reader.entries(1..4, u64::MAX).unwrap().len(), 1, "up to it");
    assert_eq!(reader.entries(3..4, u64::MAX).unwrap().len(), 1);
}

/// Bytes damaged in memory on the way to the log are refused, not stored for a later reader to stumble on.
#[test]
fn append_refuses_a_payload_that_does_not_match_its_checksum() {
    let mut subject = Subject::new(SimFs::new(19), small());
    subject.run(&[Step::Flush]);
    let wal = subject.wal.as_mut().unwrap();
    let payload = payload(1, 1, 0, 50);
    let entry = raft_log::EntryRef {
        index: 1,
        term: 1,
        kind: 2,
        payload: &payload,
        payload_crc: 1,
    };
    assert!(matches!(
        wal.append(&[entry]),
        Err(raft_log::WalError::PayloadChecksum { index: 1, .. })
    ));
    append(wal, &[(1, 1, payload)]).unwrap();
    wal.sync().unwrap();
}

/// A later program was here: refused by its own error, whatever the rest looks like.
#[test]
fn newer_format_is_refused_by_name_and_not_as_corruption() {
    let (fs, _) = ten_in_two_segments();
    for file in files() {
        for stride in [0, 4096, 8192] {
            let mut bytes = fs.bytes(&file);
            let Some(block) = bytes
                .get_mut(stride..)
                .filter(|block| block.starts_with(b"RLOG"))
            else {
                continue;
            };
            block[8] = 7;
            let crc = crc32fast::hash(&block[..12]);
            block[12..16].copy_from_slice(&crc.to_le_bytes());
            block[16..60].fill(0x5a);
            let fs = fs.fork();
            fs.set_bytes(&file, &bytes);
            let Err(OpenError::NewerFormat {
                file: named,
                found,
                known,
            }) = open(&fs, &small())
            else {
                panic!("{} at {stride}", file_name(&file))
            };
            assert_eq!((file_name(&named), found, known), (file_name(&file), 7, 1));
        }
    }
}

/// The watermark is synced at each rotation: although the power failed right after it and the new segment
/// was lost as well, rot of the last record before it is no torn tail.
#[test]
fn watermark_is_durable_before_the_next_segment_is_taken_into_use() {
    use raft_log::fs::Fs;
    let mut subject = Subject::new(SimFs::new(20), small());
    subject.run(&[
        Step::Append(vec![(1, 1500); 5]),
        Step::Append(vec![(1, 1500); 1]),
    ]);
    subject
        .fs
        .power_cut_with(&mut |_| true, &mut |_| UnitFate::Old);
    drop(subject.wal);
    subject.fs.remove(&segment(2)).unwrap();
    subject
        .fs
        .flip_bit(&segment(1), (4096 + 4 * 1552 + 100) * 8);
    assert_eq!(only_fault(&subject.fs).index, 5);
}
