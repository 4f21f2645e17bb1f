//! What a segment says at its end: the copy of its header, and its index.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use raft_log::fs::{Fs, OsFs, SimFs, UnitFate};
use raft_log::{OpenError, Options, Report, Wal};
use support::{BINDING, Model, Step, Subject, open, segment, segments, small};

/// A closed log of fifty entries in two segments, the first of which has its index.
fn fifty() -> (SimFs, Model) {
    let mut subject = Subject::new(SimFs::new(31), small());
    subject.run(&[
        Step::Append(vec![(1, 256); 20]),
        Step::Append(vec![(2, 256); 30]),
        Step::Reopen,
    ]);
    assert_eq!(segments(&subject.fs).len(), 2);
    drop(subject.wal);
    (subject.fs, subject.acknowledged)
}

/// A segment says at its front and at its end what it is.
#[test]
fn header_of_a_segment_survives_in_its_copy() {
    let (fs, model) = fifty();
    for number in [1, 2] {
        let path = segment(number);
        let end = fs.bytes(&path).len() as u64 - 40;
        let damages: [&[u64]; 2] = [&[30], &[end]];
        for places in damages {
            let fs = fs.fork();
            places.iter().for_each(|byte| fs.flip_bit(&path, byte * 8));
            let (wal, opened) = open(&fs, &small()).unwrap();
            let [Report::CopyRewritten(corruption)] = &opened.reports[..] else {
                panic!("{:?}", opened.reports)
            };
            assert_eq!(corruption.file, path);
            assert!(Model::of(&wal) == model);
            drop(wal);
            let (_, opened) = open(&fs, &small()).unwrap();
            assert_eq!(opened.reports, [], "written anew");
        }
        let fs = fs.fork();
        [30, end]
            .iter()
            .for_each(|byte| fs.flip_bit(&path, byte * 8));
        assert!(matches!(open(&fs, &small()), Err(OpenError::Corrupt(_))));
    }
}

/// An index that rotted is not believed: the records are read, and it is written anew.
#[test]
fn damaged_index_is_replaced() {
    let (fs, model) = fifty();
    let line = 12288 + 5 * 16 + 9;
    fs.flip_bit(&segment(1), line * 8);
    let (wal, opened) = open(&fs, &small()).unwrap();
    assert!(matches!(&opened.reports[..], [Report::IndexDamaged(it)] if it.offset == 12288));
    assert!(Model::of(&wal) == model);
    assert!(wal.preparer().seal().unwrap());
    assert!(!wal.preparer().seal().unwrap());
    drop(wal);
    let (_, opened) = open(&fs, &small()).unwrap();
    assert_eq!(opened.reports, []);
}

/// Records behind the cut would be written over an index that still speaks of those before it.
#[test]
fn log_that_is_cut_inside_of_a_sealed_segment_goes_on_in_a_new_one() {
    for again in [Step::Flush, Step::Kill, Step::Reopen] {
        let mut subject = Subject::new(SimFs::new(32), small());
        subject.run(&[
            Step::Append(vec![(1, 256); 20]),
            Step::Append(vec![(2, 256); 30]),
            Step::Prepare,
            Step::Truncate(9),
            again.clone(),
            Step::Append(vec![(3, 120); 2]),
        ]);
        assert_eq!(segments(&subject.fs).len(), 2, "{again:?}");
        subject.run(&[Step::Append(vec![(3, 120); 60]), Step::Kill]);
        let wal = subject.wal.take().unwrap();
        assert!(Model::of(&wal) == subject.acknowledged, "{again:?}");
    }
}

/// A segment that rotted before it was sealed stays without an index, and each open tells of the damage.
#[test]
fn damaged_segment_is_not_sealed() {
    let mut subject = Subject::new(SimFs::new(33), small());
    subject.run(&[
        Step::Append(vec![(1, 256); 20]),
        Step::Append(vec![(2, 256); 30]),
    ]);
    subject.fs.flip_bit(&segment(1), (4096 + 5 * 304 + 100) * 8);
    subject.run(&[Step::Prepare, Step::Prepare]);
    let wal = subject.wal.take().unwrap();
    wal.close().unwrap();
    for _ in 0..2 {
        let (_, opened) = open(&subject.fs, &small()).unwrap();
        let told: Vec<u64> = opened.faulty.iter().map(|it| it.index).collect();
        assert_eq!(told, [6]);
    }
}

/// A power cut while the index is written leaves the segment with it or without it, but with none that is damaged.
#[test]
fn power_cut_while_sealing_is_no_damage() {
    let mut subject = Subject::new(SimFs::new(34), small());
    subject.run(&[
        Step::Append(vec![(1, 256); 20]),
        Step::Append(vec![(2, 256); 30]),
        Step::Flush,
    ]);
    drop(subject.wal);
    for stop in 1.. {
        let fs = subject.fs.fork();
        let (wal, _) = open(&fs, &small()).unwrap();
        fs.stop_at_call(fs.calls() + stop);
        let is_sealed = wal.preparer().seal().is_ok();
        drop(wal);
        for mix in 0..64u64 {
            let fs = fs.fork();
            let mut bits = mix;
            fs.power_cut_with(&mut |_| true, &mut |_| {
                bits = bits.rotate_right(1);
                [UnitFate::Old, UnitFate::New][(bits >> 63) as usize]
            });
            let (wal, opened) = open(&fs, &small()).unwrap();
            let is_damage = |report: &Report| matches!(report, Report::IndexDamaged(_));
            assert!(
                !opened.reports.iter().any(is_damage),
                "call {stop}, mix {mix:b}"
            );
            assert!(Model::of(&wal) == subject.acknowledged);
        }
        if is_sealed {
            return;
        }
    }
}

/// A footer that checks, but is that of another segment, is as good as none.
#[test]
fn index_of_another_segment_is_not_believed() {
    let mut subject = Subject::new(SimFs::new(35), small());
    subject.run(&[
        Step::Append(vec![(1, 256); 26]),
        Step::Append(vec![(1, 200); 32]),
        Step::Append(vec![(1, 100); 9]),
        Step::Reopen,
    ]);
    drop(subject.wal);
    let mut mixed = subject.fs.bytes(&segment(2));
    mixed[12288..].copy_from_slice(&subject.fs.bytes(&segment(1))[12288..]);
    subject.fs.set_bytes(&segment(2), &mixed);
    let (wal, opened) = open(&subject.fs, &small()).unwrap();
    assert!(matches!(&opened.reports[..], [Report::CopyRewritten(_)]));
    assert!(Model::of(&wal) == subject.acknowledged);
}

/// After a reset numbers begin anew, and a spare was a segment with the number of one that is there now. Whoever exchanges the two
/// files must not get back what is gone.
#[test]
fn recycled_file_is_not_taken_for_what_it_was() {
    let options = Options {
        spare_segments: 2,
        ..small()
    };
    let mut subject = Subject::new(SimFs::new(36), options.clone());
    let fill = || Step::Append(vec![(1, 1500); 7]);
    subject.run(&[fill(), Step::Reset(20, 1), Step::Reopen]);
    subject.run(&[
        Step::Append(vec![(1, 100)]),
        Step::Prepare,
        fill(),
        Step::Reopen,
    ]);
    drop(subject.wal);
    let names = subject.fs.list(&support::dir()).unwrap();
    for spare in names.iter().filter(|name| name.starts_with("spare-")) {
        let fs = subject.fs.fork();
        let path = support::dir().join(spare);
        let (one, other) = (fs.bytes(&path), fs.bytes(&segment(2)));
        fs.set_bytes(&path, &other);
        fs.set_bytes(&segment(2), &one);
        assert!(
            matches!(open(&fs, &options), Err(OpenError::Corrupt(_))),
            "{spare}"
        );
    }
}

/// Whatever the segment and its records take, and however many these are.
#[test]
fn sealing_takes_little_memory() {
    const SEGMENT_BYTES: u64 = 4 << 20;
    const LARGE: usize = 2 << 20;
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        max_bytes: 4 * SEGMENT_BYTES,
        ..small()
    };
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("log");
    Wal::create(&OsFs, &dir, BINDING, &options).unwrap();
    let (mut wal, _) = Wal::open(&OsFs, &dir, BINDING, options.clone()).unwrap();
    let sizes = std::iter::once(LARGE).chain(std::iter::repeat_n(0, 20_000));
    for (index, bytes) in (1..).zip(sizes.chain([LARGE])) {
        let entry = (index, 1, support::payload(index, 1, 0, bytes));
        support::append(&mut wal, &[entry]).unwrap();
    }
    wal.sync().unwrap();
    let preparer = wal.preparer();
    let taken = allocation_counter::measure(|| assert!(preparer.seal().unwrap()));
    assert!(taken.bytes_max < 512 << 10, "{} bytes", taken.bytes_max);
    let model = Model::of(&wal);
    wal.close().unwrap();
    let (wal, opened) = Wal::open(&OsFs, &dir, BINDING, options).unwrap();
    assert_eq!(opened.reports, []);
    assert!(Model::of(&wal) == model);
}
