//! The walk that finds rot before somebody needs the entry.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use raft_log::fs::SimFs;
use raft_log::{Check, Corruption, Reader};
use support::{Step, Subject, segment, small};

/// Fifty entries in two segments, open, the first one sealed.
fn fifty() -> Subject {
    let mut subject = Subject::new(SimFs::new(41), small());
    subject.run(&[
        Step::Append(vec![(1, 256); 20]),
        Step::Append(vec![(2, 256); 30]),
        Step::Prepare,
    ]);
    subject
}

/// One round over the log in steps of a few entries: the damage, and how many entries were verified.
fn round(reader: &Reader<SimFs>) -> (Vec<Corruption>, u64) {
    round_in_steps(reader, 1000)
}

fn round_in_steps(reader: &Reader<SimFs>, bytes: u64) -> (Vec<Corruption>, u64) {
    let (mut scrub, mut damaged, mut verified) = (reader.scrub(), Vec::new(), 0);
    loop {
        let step = scrub.step(bytes).unwrap();
        damaged.extend(step.damaged);
        verified += step.indexes.end - step.indexes.start;
        if step.is_round_done {
            return (damaged, verified);
        }
    }
}

#[test]
fn every_entry_is_looked_at_once_in_a_round() {
    let subject = fifty();
    let reader = subject.wal.as_ref().unwrap().reader();
    assert_eq!(round(&reader), (Vec::new(), 50));
    assert_eq!(round(&reader), (Vec::new(), 50));
}

#[test]
fn first_round_begins_where_it_is_told_to() {
    let subject = fifty();
    let mut scrub = subject.wal.as_ref().unwrap().reader().scrub_from(48);
    let step = scrub.step(u64::MAX).unwrap();
    assert_eq!((step.indexes, step.is_round_done), (48..51, true));
    assert_eq!(scrub.step(0).unwrap().indexes, 1..2);
}

#[test]
fn rot_is_found_in_each_segment_and_the_walk_goes_on() {
    let subject = fifty();
    let reader = subject.wal.as_ref().unwrap().reader();
    // In the payload of 4, in the header of 5, and in 30.
    for (number, byte) in [(1, 3 * 304 + 100), (1, 4 * 304 + 20), (2, 3 * 304 + 60)] {
        subject.fs.flip_bit(&segment(number), (4096 + byte) * 8);
    }
    let (damaged, verified) = round(&reader);
    let indexes: Vec<_> = damaged.iter().map(|it| it.index.unwrap()).collect();
    assert_eq!((indexes, verified), (vec![4, 5, 30], 50));
}

/// The medium does not give a unit back: that is damage of the entries in it, and no signal.
#[test]
fn unreadable_units_are_damage() {
    let subject = fifty();
    let reader = subject.wal.as_ref().unwrap().reader();
    subject.fs.set_unreadable(&segment(1), 4096 + 8 * 304);
    let (damaged, verified) = round(&reader);
    assert!(
        damaged.iter().all(|it| it.check == Check::Unreadable),
        "{damaged:?}"
    );
    let indexes: Vec<_> = damaged.iter().map(|it| it.index.unwrap()).collect();
    assert!(indexes.contains(&9) && indexes.len() <= 3, "{indexes:?}");
    assert_eq!(verified, 50);
}

/// A line of an index that rots leads to a wrong place, and what lies there is not taken for the entry.
#[test]
fn rotten_line_of_an_index_is_damage_of_its_entry() {
    let subject = fifty();
    let reader = subject.wal.as_ref().unwrap().reader();
    for bit in 64..96 {
        let line = 12288 + 6 * 16;
        subject.fs.flip_bit(&segment(1), line * 8 + bit);
        // Entry by entry, so that each place is looked up.
        let (damaged, verified) = round_in_steps(&reader, 0);
        let indexes: Vec<_> = damaged.iter().map(|it| it.index.unwrap()).collect();
        assert!(
            indexes == [7] || indexes == [6, 7],
            "bit {bit}: {damaged:?}"
        );
        assert_eq!(verified, 50);
        subject.fs.flip_bit(&segment(1), line * 8 + bit);
    }
}
