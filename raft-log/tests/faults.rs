//! I/O errors and full disks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use raft_log::fs::{Fs, SimFs, UnitFate};
use raft_log::{OpenError, Options, ReadError, WalError};
use support::{Model, Step, Subject, append, dir, open, payload, recovered, small};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn script() -> Vec<Step> {
    let entries = |term, count| Step::Append(vec![(term, 1500); count]);
    vec![
        Step::HardState(1, Some(3)),
        entries(1, 3),
        entries(2, 4),
        Step::HardState(2, None),
        Step::Truncate(6),
        entries(3, 3),
        Step::Flush,
        Step::Truncate(4),
        entries(4, 9),
        Step::Purge(6),
        Step::Prepare,
        Step::Reset(40, 7),
        entries(7, 3),
    ]
}

/// Runs the script until something fails; says what failed.
fn run_with(fault: impl FnOnce(&SimFs)) -> (Subject, Option<(Step, WalError)>) {
    let mut subject = Subject::new(SimFs::new(21), small());
    subject.run(&[Step::Flush]);
    fault(&subject.fs);
    let failed = subject.run_until_error(&script());
    (subject, failed)
}

fn check_reopened(fs: &SimFs, possible: &[Model], what: &str) {
    let (wal, model) = recovered(fs, &small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(possible.contains(&model), "{what}");
    drop(wal);
    // Nothing was answered from memory that the disk does not hold.
    fs.power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
    let (_, again) =
        recovered(fs, &small()).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert!(again == model, "{what}: the first answer was not durable");
}

/// Case 51: the n-th sync fails once. Nothing after it is acknowledged or retried, the log is unusable for
/// good, and opening again verifies from storage: with the cache as it is, without it, and after a power
/// cut.
#[test]
fn first_failed_sync_is_final_and_the_next_open_trusts_only_the_disk() {
    let (subject, failed) = run_with(|_| {});
    assert!(failed.is_none());
    let syncs = subject.fs.syncs();
    for sync in 1..=syncs {
        let (mut subject, failed) = run_with(|fs| fs.fail_sync(sync, EIO));
        let Some((step, error)) = failed else {
            continue;
        };
        assert!(matches!(error, WalError::Io(_)), "sync {sync}: {error}");
        let wal = subject.wal.as_mut().unwrap();
        let syncs = subject.fs.syncs();
        assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
        assert!(matches!(
            wal.set_hard_state(99, None),
            Err(WalError::Poisoned)
        ));
        assert!(matches!(append(wal, &[]), Err(WalError::Poisoned)));
        assert!(matches!(wal.truncate_suffix(99), Err(WalError::Poisoned)));
        assert!(matches!(wal.purge_prefix(99, 1), Err(WalError::Poisoned)));
        assert!(matches!(wal.reset(99, 9), Err(WalError::Poisoned)));
        assert!(matches!(wal.flush_control(), Err(WalError::Poisoned)));
        assert!(matches!(
            wal.preparer().prepare_spare(),
            Err(WalError::Poisoned)
        ));
        assert!(matches!(
            subject.wal.take().unwrap().close(),
            Err(WalError::Poisoned)
        ));
        assert_eq!(
            subject.fs.syncs(),
            syncs,
            "a failed sync is not tried again"
        );
        let possible = subject.outcomes(&step);
        let what = format!("sync {sync} of {step:?}");
        let fork = subject.fs.fork();
        fork.crash_process();
        check_reopened(&fork, &possible, &format!("{what}, cache kept"));
        let fork = subject.fs.fork();
        fork.crash_process();
        fork.drop_caches();
        check_reopened(&fork, &possible, &format!("{what}, cache dropped"));
        let fork = subject.fs.fork();
        fork.power_cut_with(&mut |_| true, &mut |_| UnitFate::New);
        check_reopened(&fork, &possible, &format!("{what}, power cut"));
    }
}

/// Every single call fails once, with an I/O error or a full disk: the step fails with it or succeeds
/// without it, and the next open finds what was acknowledged.
#[test]
fn any_failing_call_ends_in_an_error_and_a_log_that_opens() {
    let (subject, _) = run_with(|_| {});
    let calls = subject.fs.calls();
    let first = Subject::new(SimFs::new(21), small()).fs.calls();
    for call in first + 1..=calls {
        for errno in [EIO, ENOSPC] {
            let (mut subject, failed) = run_with(|fs| fs.fail_call(call, errno));
            let possible = match &failed {
                Some((step, _)) => subject.outcomes(step),
                None => vec![subject.acknowledged.clone()],
            };
            subject.wal = None;
            subject.fs.crash_process();
            check_reopened(
                &subject.fs,
                &possible,
                &format!("call {call}, error {errno}: {failed:?}"),
            );
        }
    }
}

/// Case 52: no room for the next segment is a definite refusal, nothing of the call is taken, everything
/// else works, and after room has come back the same call succeeds.
#[test]
fn full_disk_refuses_the_append_and_room_that_comes_back_is_used() {
    let mut subject = Subject::new(SimFs::new(22), small());
    subject.run(&[Step::Append(vec![(1, 1500); 4])]);
    let used = 8192 + 16384 + 16384;
    for capacity in [used, used + 16383] {
        subject.fs.set_capacity(Some(capacity));
        let wal = subject.wal.as_mut().unwrap();
        let batch: Vec<_> = (5..=9)
            .map(|index| (index, 1, payload(index, 1, 7, 1500)))
            .collect();
        for _ in 0..3 {
            assert!(matches!(append(wal, &batch), Err(WalError::NoSpace { .. })));
            assert_eq!(wal.last_index(), 4, "nothing of the batch was taken");
        }
        assert!(matches!(
            wal.preparer().prepare_spare(),
            Err(WalError::NoSpace { .. })
        ));
        assert_eq!(Model::of(wal).entries.len(), 4, "what is there can be read");
        wal.set_hard_state(1, Some(1)).unwrap();
        wal.flush_control().unwrap();
    }
    let wal = subject.wal.as_mut().unwrap();
    // One more fits into the tail without any allocation.
    append(wal, &[(5, 1, payload(5, 1, 7, 1500))]).unwrap();
    wal.sync().unwrap();
    subject.fs.set_capacity(None);
    let batch: Vec<_> = (6..=9)
        .map(|index| (index, 1, payload(index, 1, 7, 1500)))
        .collect();
    append(wal, &batch).unwrap();
    wal.sync().unwrap();
    let model = Model::of(wal);
    assert_eq!(model.entries.len(), 9);
    subject.wal = None;
    subject
        .fs
        .power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
    let (_, found) = recovered(&subject.fs, &small()).unwrap();
    assert!(found == model);
}

/// Case 52: a full disk that refuses in the middle of preparing leaves nothing behind.
#[test]
fn full_disk_in_the_middle_of_preparing_leaves_no_file() {
    let (subject, _) = run_with(|_| {});
    let fs = &subject.fs;
    let before = fs.list(&dir()).unwrap();
    let preparer = subject.wal.as_ref().unwrap().preparer();
    for call in 1..20 {
        fs.fail_call(fs.calls() + call, ENOSPC);
        match preparer.prepare_spare() {
            Err(WalError::NoSpace { .. }) => {
                assert_eq!(fs.list(&dir()).unwrap(), before, "call {call}")
            }
            // Failing syncs and renames are no matter of space.
            Err(WalError::Io(_)) | Ok(_) => break,
            Err(error) => panic!("call {call}: {error}"),
        }
    }
}

/// A reserve stays free, so that a full disk is a refusal here and no surprise elsewhere.
#[test]
fn reserve_stays_free() {
    let options = Options {
        reserve_bytes: 50_000,
        ..small()
    };
    let mut subject = Subject::new(SimFs::new(23), options);
    subject.run(&[Step::Append(vec![(1, 1500); 5])]);
    subject.fs.set_capacity(Some(8192 + 16384 + 16384 + 60_000));
    let wal = subject.wal.as_mut().unwrap();
    assert!(matches!(
        append(wal, &[(6, 1, payload(6, 1, 0, 1500))]),
        Err(WalError::NoSpace { needed: 66_384, .. })
    ));
}

/// The size limit holds for spares and for appends; a purge makes room, by turning a segment into a spare.
#[test]
fn directory_never_exceeds_the_size_limit() {
    let options = Options {
        max_bytes: 48 << 10,
        ..small()
    };
    let mut subject = Subject::new(SimFs::new(24), options);
    subject.run(&[Step::Append(vec![(1, 1500); 1])]);
    let wal = subject.wal.as_mut().unwrap();
    let preparer = wal.preparer();
    assert!(preparer.prepare_spare().unwrap());
    assert!(!preparer.prepare_spare().unwrap(), "one spare is ready");
    assert_eq!(wal.prepared_bytes(), (8192 - 1552) + 8192);
    subject.run(&[Step::Append(vec![(1, 1500); 5])]);
    assert!(preparer.prepare_spare().unwrap());
    subject.run(&[Step::Append(vec![(1, 1500); 5])]);
    assert!(
        !preparer.prepare_spare().unwrap(),
        "three segments are the limit"
    );
    let refused = subject.run_until_error(&[Step::Append(vec![(1, 1500); 5])]);
    let Some((_, WalError::NoSpace { needed, available })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((needed, available), (16 << 10, 0));
    subject.run(&[Step::Purge(9)]);
    let spares = |fs: &SimFs| {
        let names = fs.list(&dir()).unwrap();
        names
            .iter()
            .filter(|name| name.starts_with("spare-"))
            .count()
    };
    assert_eq!(spares(&subject.fs), 1, "the first segment was recycled");
    subject.run(&[Step::Append(vec![(1, 1500); 5])]);
    let wal = subject.wal.as_ref().unwrap();
    assert_eq!(wal.size_bytes(), 3 * 16384);
    assert_eq!(
        support::segments(&subject.fs).len() + spares(&subject.fs),
        3
    );
}

/// Published bytes never change under a reader: a cut starts a new segment while one is held, and goes on
/// in the same segment when none is.
#[test]
fn cut_under_a_reader_leaves_its_bytes_and_starts_a_new_segment() {
    let mut subject = Subject::new(SimFs::new(25), small());
    subject.run(&[Step::Append(vec![(1, 300); 6])]);
    let before = subject.acknowledged.clone();
    let reader = subject.wal.as_ref().unwrap().reader();
    let held = reader.hold(2..7, u64::MAX).unwrap();
    subject.run(&[Step::Truncate(3), Step::Append(vec![(2, 300); 6])]);
    assert_eq!(support::segments(&subject.fs).len(), 2);
    for entry in held.read().unwrap() {
        assert_eq!(
            before.entries[&entry.index],
            (entry.term, entry.payload.to_vec())
        );
    }
    drop(held);
    subject.run(&[Step::Truncate(5), Step::Append(vec![(3, 300); 2])]);
    assert_eq!(support::segments(&subject.fs).len(), 2, "nobody held it");
    // To the very front of the held segment, so that it ends up empty between two others.
    let held = reader.hold(3..7, u64::MAX).unwrap();
    subject.run(&[Step::Truncate(3), Step::Append(vec![(4, 300); 2])]);
    assert_eq!(support::segments(&subject.fs).len(), 3);
    assert_eq!(held.read().unwrap().len(), 4);
    assert!(Model::of(subject.wal.as_ref().unwrap()) == subject.acknowledged);
    subject.run(&[Step::Kill]);
    assert!(Model::of(subject.wal.as_ref().unwrap()) == subject.acknowledged);
    subject.run(&[
        Step::Append(vec![(4, 300); 2]),
        Step::Purge(4),
        Step::Reopen,
    ]);
    assert_eq!(
        support::segments(&subject.fs).len(),
        1,
        "empty and purged segments are gone"
    );
    assert!(Model::of(subject.wal.as_ref().unwrap()) == subject.acknowledged);
}

#[test]
fn purged_bytes_stay_readable_for_who_holds_them() {
    let mut subject = Subject::new(SimFs::new(26), small());
    subject.run(&[Step::Append(vec![(1, 1500); 12])]);
    let reader = subject.wal.as_ref().unwrap().reader();
    let held = reader.hold(1..13, u64::MAX).unwrap();
    subject.run(&[Step::Purge(11)]);
    assert_eq!(held.read().unwrap().len(), 12);
    assert!(matches!(
        reader.entries(11..13, 1),
        Err(ReadError::Compacted { first_index: 12 })
    ));
    assert!(matches!(
        reader.entries(12..14, 1),
        Err(ReadError::Unavailable { last_index: 12 })
    ));
    assert_eq!(reader.term(11), Some(1));
    assert_eq!(reader.term(10), None);
    assert_eq!(reader.term(13), None);
}

/// Readers see an entry only after its sync.
#[test]
fn unsynced_entries_are_not_visible() {
    let mut subject = Subject::new(SimFs::new(27), small());
    subject.run(&[Step::Append(vec![(1, 10); 2])]);
    let wal = subject.wal.as_mut().unwrap();
    let reader = wal.reader();
    append(wal, &[(3, 1, payload(3, 1, 0, 10))]).unwrap();
    assert_eq!((wal.last_index(), reader.last_index()), (3, 2));
    assert_eq!(wal.term(3), Some(1));
    assert!(matches!(
        reader.entries(1..4, u64::MAX),
        Err(ReadError::Unavailable { last_index: 2 })
    ));
    wal.sync().unwrap();
    assert_eq!(reader.entries(1..4, u64::MAX).unwrap().len(), 3);
}

#[test]
fn entries_are_limited_by_bytes_but_never_to_none() {
    let mut subject = Subject::new(SimFs::new(28), small());
    subject.run(&[Step::Append(vec![(1, 1500); 12])]);
    let reader = subject.wal.as_ref().unwrap().reader();
    for (limit, count) in [
        (0, 1),
        (1, 1),
        (1552, 1),
        (2 * 1552, 2),
        (6 * 1552, 6),
        (u64::MAX, 12),
    ] {
        let entries = reader.entries(1..13, limit).unwrap();
        assert_eq!(entries.len(), count, "limit {limit}");
        assert!(
            entries
                .iter()
                .zip(1..)
                .all(|(entry, index)| entry.index == index)
        );
    }
    assert_eq!(reader.entries(4..4, 100).unwrap(), []);
    assert_eq!(reader.entries(12..13, 100).unwrap().len(), 1);
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let mut subject = Subject::new(SimFs::new(29), small());
    subject.run(&[
        Step::HardState(5, Some(1)),
        Step::Append(vec![(5, 10); 4]),
        Step::Purge(1),
    ]);
    let model = subject.acknowledged.clone();
    let wal = subject.wal.as_mut().unwrap();
    let entry = |index, term| [(index, term, payload(index, term, 0, 10))];
    for (index, term) in [(4, 5), (6, 5), (5, 4), (0, 5)] {
        assert!(
            matches!(
                append(wal, &entry(index, term)),
                Err(WalError::OutOfOrder { .. })
            ),
            "{index}@{term}"
        );
    }
    let batch = [(5, 6, payload(5, 6, 0, 10)), (7, 6, payload(7, 6, 0, 10))];
    assert!(matches!(
        append(wal, &batch),
        Err(WalError::OutOfOrder { .. })
    ));
    let large = [(5, 5, payload(5, 5, 0, 9000))];
    assert!(matches!(
        append(wal, &large),
        Err(WalError::TooLarge { .. })
    ));
    assert!(matches!(
        wal.truncate_suffix(1),
        Err(WalError::OutOfRange { .. })
    ));
    assert!(matches!(
        wal.purge_prefix(5, 5),
        Err(WalError::OutOfRange { .. })
    ));
    assert!(matches!(
        wal.purge_prefix(3, 4),
        Err(WalError::OutOfRange { .. })
    ));
    assert!(matches!(wal.reset(0, 0), Err(WalError::OutOfRange { .. })));
    assert!(matches!(wal.reset(1, 6), Err(WalError::OutOfRange { .. })));
    assert!(matches!(
        wal.set_hard_state(4, None),
        Err(WalError::VoteChanged { .. })
    ));
    assert!(matches!(
        wal.set_hard_state(5, Some(2)),
        Err(WalError::VoteChanged { .. })
    ));
    assert!(matches!(
        wal.set_hard_state(5, None),
        Err(WalError::VoteChanged { .. })
    ));
    wal.purge_prefix(1, 5).unwrap();
    wal.truncate_suffix(5).unwrap();
    assert!(Model::of(wal) == model);
}

/// The largest payload that the options allow fits, alone in its segment; one byte more does not.
#[test]
fn largest_payload_fits() {
    let limit = small().payload_bytes_max() as usize;
    let mut subject = Subject::new(SimFs::new(30), small());
    subject.run(&[
        Step::Append(vec![(1, limit), (1, 0), (1, limit)]),
        Step::Reopen,
    ]);
    let wal = subject.wal.as_mut().unwrap();
    assert!(Model::of(wal) == subject.acknowledged);
    let more = [(4, 1, payload(4, 1, 0, limit + 1))];
    assert!(matches!(append(wal, &more), Err(WalError::TooLarge { .. })));
}

/// The commit hint never promises more than what is synced.
#[test]
fn commit_hint_comes_back_but_never_above_the_log() {
    let mut subject = Subject::new(SimFs::new(31), small());
    subject.run(&[Step::Append(vec![(1, 10); 4])]);
    let wal = subject.wal.as_mut().unwrap();
    wal.note_commit(3);
    wal.flush_control().unwrap();
    subject.run(&[Step::Kill]);
    subject.wal = None;
    let (mut wal, opened) = open(&subject.fs, &small()).unwrap();
    assert_eq!(opened.commit, 3);
    wal.note_commit(99);
    wal.flush_control().unwrap();
    drop(wal);
    assert_eq!(open(&subject.fs, &small()).unwrap().1.commit, 4);
}

/// A snapshot that ends behind the log, in it, and at the floor.
#[test]
fn reset_empties_the_log_and_the_next_entry_follows_the_snapshot() {
    let mut subject = Subject::new(SimFs::new(32), small());
    subject.run(&[Step::Append(vec![(1, 1500); 8]), Step::Reset(100, 4)]);
    let wal = subject.wal.as_ref().unwrap();
    assert_eq!(
        (wal.first_index(), wal.last_index(), wal.last_term()),
        (101, 100, 4)
    );
    assert_eq!(
        (wal.term(100), wal.term(99), wal.floor()),
        (Some(4), None, (100, 4))
    );
    assert_eq!(support::segments(&subject.fs).len(), 0);
    subject.run(&[
        Step::Kill,
        Step::Append(vec![(4, 10); 3]),
        Step::Reset(101, 4),
        Step::Reopen,
        Step::Append(vec![(5, 10); 2]),
    ]);
    assert!(Model::of(subject.wal.as_ref().unwrap()) == subject.acknowledged);
}

/// A reset while a group waits: the group goes with the rest, its spare segment does not.
#[test]
fn reset_drops_what_was_not_yet_synced() {
    let mut subject = Subject::new(SimFs::new(33), small());
    subject.run(&[Step::Append(vec![(1, 1500); 4])]);
    let wal = subject.wal.as_mut().unwrap();
    let batch: Vec<_> = (5..=9)
        .map(|index| (index, 1, payload(index, 1, 7, 1500)))
        .collect();
    append(wal, &batch).unwrap();
    wal.reset(50, 3).unwrap();
    wal.sync().unwrap();
    assert_eq!((wal.last_index(), wal.size_bytes()), (50, 16384));
    append(wal, &[(51, 3, payload(51, 3, 0, 10))]).unwrap();
    wal.sync().unwrap();
    drop(subject.wal.take());
    let (wal, _) = open(&subject.fs, &small()).unwrap();
    assert_eq!(wal.last_index(), 51);
}

#[test]
fn opening_with_options_that_cannot_work_is_refused() {
    let fs = SimFs::new(34);
    support::create(&fs, &small());
    let options = Options {
        segment_bytes: 1000,
        ..small()
    };
    assert!(matches!(open(&fs, &options), Err(OpenError::Options(_))));
}

/// Segments of another size stay usable; spares of another size go.
#[test]
fn segment_size_may_change_between_starts() {
    let mut subject = Subject::new(SimFs::new(35), small());
    subject.run(&[
        Step::Append(vec![(1, 1500); 7]),
        Step::Prepare,
        Step::Reopen,
    ]);
    subject.wal = None;
    subject.options = Options {
        segment_bytes: 32 << 10,
        ..small()
    };
    subject.run(&[
        Step::Append(vec![(1, 1500); 30]),
        Step::Reopen,
        Step::Truncate(6),
        Step::Append(vec![(2, 10); 3]),
        Step::Kill,
    ]);
    assert!(Model::of(subject.wal.as_ref().unwrap()) == subject.acknowledged);
}

/// Purging, truncating and resetting make room that a power cut does not take away again.
#[test]
fn removed_segments_stay_removed_after_a_power_cut() {
    for step in [Step::Purge(11), Step::Truncate(2), Step::Reset(50, 3)] {
        let mut subject = Subject::new(SimFs::new(36), small());
        subject.run(&[Step::Append(vec![(1, 1500); 14]), step.clone()]);
        let left = support::segments(&subject.fs);
        assert!(left.len() < 3, "{step:?}");
        subject
            .fs
            .power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
        assert_eq!(support::segments(&subject.fs), left, "{step:?}");
    }
}
