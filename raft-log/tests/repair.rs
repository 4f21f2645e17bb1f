//! Damaged entries are put back, one by one and in any order, and stay.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::PathBuf;

use raft_log::fs::{Fs, SimFs, UnitFate};
use raft_log::record::payload_checksum;
use raft_log::{EntryRef, Options, ReadError, Wal, WalError};
use support::{BINDING, Model, Step, Subject, dir, open, recovered, segments, small};

/// Bytes in front of a payload: local prefix and header.
const BEFORE_PAYLOAD: usize = 48;

/// A closed log of fifty entries in two segments, the first of which has its index.
fn fifty() -> (SimFs, Model) {
    let mut subject = Subject::new(SimFs::new(31), small());
    subject.run(&[
        Step::HardState(3, Some(2)),
        Step::Append(vec![(1, 256); 20]),
        Step::Append(vec![(2, 256); 30]),
    ]);
    subject.wal.take().unwrap().close().unwrap();
    assert_eq!(segments(&subject.fs).len(), 2);
    (subject.fs, subject.acknowledged)
}

/// Segment and offset of an entry's record.
fn place(fs: &SimFs, model: &Model, index: u64) -> (PathBuf, usize) {
    let payload = &model.entries[&index].1;
    let find = |path: PathBuf| {
        let bytes = fs.bytes(&path);
        let at = bytes.windows(payload.len()).position(|it| it == payload);
        at.map(|at| (path, at - BEFORE_PAYLOAD))
    };
    segments(fs).into_iter().find_map(find).unwrap()
}

/// Damages an entry: in its header, so that not even its term is known, or in its payload.
fn damage(fs: &SimFs, model: &Model, index: u64, in_header: bool) {
    let (path, offset) = place(fs, model, index);
    let byte = offset + if in_header { 30 } else { BEFORE_PAYLOAD + 3 };
    fs.flip_bit(&path, byte as u64 * 8);
}

fn repair(wal: &mut Wal<SimFs>, model: &Model, index: u64) -> Result<(), WalError> {
    let (term, payload) = &model.entries[&index];
    wal.repair(&[EntryRef {
        index,
        term: *term,
        kind: 2,
        payload,
        payload_crc: payload_checksum(BINDING.cluster, payload),
    }])
}

/// What is damaged, by reading every entry.
fn damaged(wal: &Wal<SimFs>) -> Vec<u64> {
    let (_, damaged) = Model::of_damaged(wal);
    damaged.into_iter().map(|(index, _)| index).collect()
}

/// The log is whole, and stays whole whatever was not synced is lost.
fn assert_whole(fs: &SimFs, wal: Wal<SimFs>, model: &Model, what: &str) {
    assert!(Model::of(&wal) == *model, "{what}");
    drop(wal);
    fs.crash_process();
    for fate in [UnitFate::New, UnitFate::Old] {
        fs.power_cut_with(&mut |_| fate == UnitFate::New, &mut |_| fate);
        let (wal, opened) = open(fs, &small()).unwrap();
        assert_eq!(opened.faulty, [], "{what}");
        assert!(Model::of(&wal) == *model, "{what}: after a power cut");
    }
}

fn repair_files(fs: &SimFs) -> usize {
    let names = fs.list(&dir()).unwrap();
    names
        .iter()
        .filter(|name| name.starts_with("repair-"))
        .count()
}

#[test]
fn every_entry_can_be_put_back() {
    let (fs, model) = fifty();
    for index in 1..=50 {
        for in_header in [false, true] {
            let what = format!("entry {index}, header {in_header}");
            let fs = fs.fork();
            damage(&fs, &model, index, in_header);
            let (mut wal, opened) = open(&fs, &small()).unwrap();
            assert_eq!(damaged(&wal), [index], "{what}");
            let told: Vec<u64> = opened.faulty.iter().map(|it| it.index).collect();
            assert!(told.is_empty() || told == [index], "{what}: {told:?}");
            repair(&mut wal, &model, index).unwrap();
            assert_whole(&fs, wal, &model, &what);
        }
    }
}

/// What lies between two intact records is known by number only. It comes back in any order.
#[test]
fn holes_are_filled_in_any_order() {
    let (fs, model) = fifty();
    for (first, last) in [(28, 30), (27, 35), (40, 50), (27, 50), (30, 30)] {
        let fs = fs.fork();
        let (path, from) = place(&fs, &model, first);
        let (_, to) = place(&fs, &model, last);
        let mut bytes = fs.bytes(&path);
        bytes[from..to + 304].fill(0x5a);
        fs.set_bytes(&path, &bytes);
        let (mut wal, opened) = open(&fs, &small()).unwrap();
        let told: Vec<u64> = opened.faulty.iter().map(|it| it.index).collect();
        assert_eq!(told, (first..=last).collect::<Vec<_>>());
        let is_end = |index: u64| index == 50;
        let known = |it: &raft_log::FaultyEntry| it.term.is_some() == is_end(it.index);
        assert!(opened.faulty.iter().all(known), "only the end's is known");
        let inwards = (0..=last - first).map(|step| match step % 2 {
            0 => first + step / 2,
            _ => last - step / 2,
        });
        for index in inwards {
            assert!(damaged(&wal).contains(&index));
            repair(&mut wal, &model, index).unwrap();
        }
        assert_whole(&fs, wal, &model, &format!("{first}..={last}"));
    }
}

/// The power fails at each call while three entries are put back: those that were acknowledged are there, and of
/// the others nothing wrong is.
#[test]
fn crash_at_each_call_of_a_repair_keeps_what_was_acknowledged() {
    let (fs, model) = fifty();
    let lost = [29, 33, 34];
    lost.iter()
        .for_each(|index| damage(&fs, &model, *index, true));
    for stop in 1.. {
        let fs = fs.fork();
        let (mut wal, opened) = open(&fs, &small()).unwrap();
        assert_eq!(opened.faulty.len(), 3);
        fs.stop_at_call(fs.calls() + stop);
        let done = lost
            .iter()
            .take_while(|index| repair(&mut wal, &model, **index).is_ok());
        let done = done.count();
        drop(wal);
        for fate in UnitFate::ALL {
            let fs = fs.fork();
            fs.power_cut_with(&mut |_| fate != UnitFate::Old, &mut |_| fate);
            let what = format!("call {stop}, {done} done");
            let (mut wal, _) = open(&fs, &small()).unwrap();
            let still = damaged(&wal);
            assert!(
                lost[..done].iter().all(|it| !still.contains(it)),
                "{what}: {still:?}"
            );
            for index in still {
                repair(&mut wal, &model, index).unwrap();
            }
            assert_whole(&fs, wal, &model, &what);
        }
        if done == lost.len() {
            return;
        }
    }
}

/// n1 puts 33 back, and is then told by a new leader to overwrite it. The new 33 rots: the old copy is not it, also if
/// the power fails anywhere in between.
#[test]
fn copy_of_an_entry_that_was_cut_off_never_returns() {
    let (fs, model) = fifty();
    damage(&fs, &model, 30, true);
    damage(&fs, &model, 33, true);
    for stop in 0.. {
        let fs = fs.fork();
        let (mut wal, _) = open(&fs, &small()).unwrap();
        repair(&mut wal, &model, 30).unwrap();
        repair(&mut wal, &model, 33).unwrap();
        if stop > 0 {
            fs.stop_at_call(fs.calls() + stop);
        }
        let is_cut = wal.truncate_suffix(32).is_ok();
        drop(wal);
        fs.power_cut_with(&mut |_| true, &mut |_| UnitFate::New);
        let (mut wal, opened) = open(&fs, &small()).unwrap();
        assert_eq!(opened.faulty, [], "call {stop}");
        wal.truncate_suffix(32).unwrap();
        let mut after = model.clone();
        after.entries.retain(|index, _| *index < 32);
        for index in 32..=36 {
            let payload = support::payload(index, 5, stop, 256);
            support::append(&mut wal, &[(index, 5, payload.clone())]).unwrap();
            after.entries.insert(index, (5, payload));
        }
        wal.sync().unwrap();
        assert!(Model::of(&wal) == after);
        drop(wal);
        damage(&fs, &after, 33, true);
        let (mut wal, opened) = open(&fs, &small()).unwrap();
        let told: Vec<u64> = opened.faulty.iter().map(|it| it.index).collect();
        assert_eq!(told, [33], "call {stop}");
        repair(&mut wal, &after, 33).unwrap();
        assert_whole(&fs, wal, &after, &format!("call {stop}"));
        if stop > 0 && is_cut {
            return;
        }
    }
}

/// Rot that shows while the log is open.
#[test]
fn entry_that_rots_later_is_put_back_without_a_restart() {
    let (fs, model) = fifty();
    let (mut wal, _) = open(&fs, &small()).unwrap();
    let reader = wal.reader();
    for index in [3, 45] {
        damage(&fs, &model, index, false);
        let read = reader.entries(index..index + 1, u64::MAX);
        assert!(matches!(read, Err(ReadError::Corrupt(_))));
        repair(&mut wal, &model, index).unwrap();
    }
    assert_whole(&fs, wal, &model, "rot while open");
}

#[test]
fn only_the_lost_entry_is_taken_for_it() {
    let (fs, model) = fifty();
    damage(&fs, &model, 30, false);
    damage(&fs, &model, 31, true);
    let (mut wal, _) = open(&fs, &small()).unwrap();
    let payload = b"another";
    let crc = payload_checksum(BINDING.cluster, payload);
    let mut offer = |index, term, payload_crc| {
        wal.repair(&[EntryRef {
            index,
            term,
            kind: 2,
            payload,
            payload_crc,
        }])
    };
    assert!(matches!(
        offer(30, 3, crc),
        Err(WalError::OutOfRange { .. })
    ));
    assert!(matches!(
        offer(51, 3, crc),
        Err(WalError::OutOfRange { .. })
    ));
    assert!(matches!(offer(0, 1, crc), Err(WalError::OutOfRange { .. })));
    assert!(matches!(
        offer(31, 2, crc + 1),
        Err(WalError::PayloadChecksum { .. })
    ));
    assert_eq!(damaged(&wal), [30, 31]);
    // A log cannot end with an entry of which it does not know the term.
    assert!(matches!(
        wal.truncate_suffix(32),
        Err(WalError::UnknownEnd { index: 31 })
    ));
    assert_eq!(wal.last_index(), 50);
    assert_eq!(wal.term(31), None);
    repair(&mut wal, &model, 31).unwrap();
    assert_eq!(wal.term(31), Some(2));
    wal.truncate_suffix(32).unwrap();
}

#[test]
fn copies_go_with_their_entries() {
    let (fs, model) = fifty();
    damage(&fs, &model, 30, true);
    let repaired = || {
        let fs = fs.fork();
        let (mut wal, _) = open(&fs, &small()).unwrap();
        repair(&mut wal, &model, 30).unwrap();
        assert_eq!(repair_files(&fs), 1);
        (fs, wal)
    };
    let (fs, mut wal) = repaired();
    wal.purge_prefix(29, 2).unwrap();
    assert_eq!(repair_files(&fs), 1);
    wal.purge_prefix(30, 2).unwrap();
    assert_eq!(repair_files(&fs), 0);
    let (fs, mut wal) = repaired();
    wal.truncate_suffix(30).unwrap();
    assert_eq!(repair_files(&fs), 0);
    let (fs, mut wal) = repaired();
    wal.reset(80, 4).unwrap();
    assert_eq!(repair_files(&fs), 0);
    drop(wal);
    let (_, found) = recovered(&fs, &small()).unwrap();
    assert_eq!(found.floor, (80, 4));
}

#[test]
fn repair_without_space_is_refused_and_works_later() {
    let (fs, model) = fifty();
    damage(&fs, &model, 30, true);
    let (mut wal, _) = open(&fs, &small()).unwrap();
    fs.set_capacity(Some(0));
    assert!(matches!(
        repair(&mut wal, &model, 30),
        Err(WalError::NoSpace { .. })
    ));
    assert_eq!(damaged(&wal), [30]);
    fs.set_capacity(None);
    repair(&mut wal, &model, 30).unwrap();
    assert_whole(&fs, wal, &model, "space came back");
}

/// A node cannot apply, and so cannot purge, before it has its entries back: the limit that only a purge lifts
/// does not hold for them.
#[test]
fn full_log_takes_copies_of_damaged_entries() {
    let (fs, model) = fifty();
    damage(&fs, &model, 30, true);
    let options = Options {
        max_bytes: 2 * small().segment_bytes,
        ..small()
    };
    let (mut wal, _) = open(&fs, &options).unwrap();
    assert_eq!(wal.size_bytes(), options.max_bytes);
    repair(&mut wal, &model, 30).unwrap();
    assert_whole(&fs, wal, &model, "no purge was needed");
}
