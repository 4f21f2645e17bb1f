//! The log worker: order, one sync, no space, failure.

use kvd::exit::ExitCode;
use kvd::log_worker::{LogJob, LogReport, LogWorker};
use raft_core::{LogIndex, PersistId};
use raft_log::fs::SimFs;

use crate::support::{entries, entry, fresh, hard_state, id, meta, persist, start};

fn worker(fs: &SimFs) -> LogWorker<SimFs> {
    LogWorker::new(start(fs).expect("a healthy disk").wal)
}

fn work(worker: &mut LogWorker<SimFs>) -> LogReport {
    worker.work().expect("a healthy disk")
}

/// (first, last, term and vote) of what a restart finds.
fn found(fs: &SimFs) -> (u64, u64, (u64, Option<u64>)) {
    let wal = start(fs).expect("a healthy log").wal;
    (wal.first_index(), wal.last_index(), wal.hard_state())
}

#[test]
fn parts_that_wait_together_share_one_sync() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=2, 1),
    )));
    work(&mut worker);
    let before = fs.syncs();
    for part in 2..=6 {
        worker.push(LogJob::Persist(persist(
            part,
            None,
            entries(part + 1..=part + 1, 1),
        )));
    }
    let report = work(&mut worker);
    assert_eq!(report.persisted, Some(PersistId(6)));
    assert_eq!(fs.syncs() - before, 1);
    assert_eq!(work(&mut worker).persisted, None, "nothing new");
    drop(worker);
    fs.crash_process();
    assert_eq!(found(&fs), (1, 7, (1, None)));
}

#[test]
fn of_several_votes_only_the_newest_is_written() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    let before = fs.syncs();
    for (part, state) in [
        (1, hard_state(1, None)),
        (2, hard_state(1, Some(2))),
        (3, hard_state(4, None)),
        (4, hard_state(4, Some(3))),
    ] {
        worker.push(LogJob::Persist(persist(part, state, Vec::new())));
    }
    assert_eq!(work(&mut worker).persisted, Some(PersistId(4)));
    assert_eq!(fs.syncs() - before, 2, "one for each copy");
    drop(worker);
    fs.crash_process();
    assert_eq!(found(&fs).2, (4, Some(3)));
}

/// Entries of a later term overwrite a suffix. Whenever the machine stops: if anything of the new term is there, or anything
/// of the old one is gone, then the new term is stored too.
#[test]
fn term_is_durable_before_anything_that_depends_on_it() {
    let base = fresh(1);
    let mut first = worker(&base);
    first.push(LogJob::Persist(persist(
        1,
        hard_state(1, Some(1)),
        entries(1..=8, 1),
    )));
    work(&mut first);
    drop(first);
    base.crash_process();
    for call in 1.. {
        let fs = base.fork();
        let mut worker = worker(&fs);
        fs.stop_at_call(fs.calls() + call);
        worker.push(LogJob::Persist(persist(2, None, entries(9..=9, 1))));
        worker.push(LogJob::Persist(persist(
            3,
            hard_state(2, Some(3)),
            entries(5..=6, 2),
        )));
        let done = worker.work();
        drop(worker);
        for seed in 0..8 {
            let fs = fs.fork();
            if seed == 0 {
                fs.crash_process();
            } else {
                fs.power_cut(&mut crate::crash::rng(call * 100 + seed));
            }
            let wal = start(&fs).expect("a crash damages nothing").wal;
            let (last, term) = (wal.last_index(), wal.hard_state().0);
            assert!(
                wal.last_term() <= term,
                "call {call}: log of term {}, node of term {term}",
                wal.last_term()
            );
            assert!(
                last >= 8 || term == 2,
                "call {call}: entries up to 8 were acknowledged, {last} are left in term {term}"
            );
            if done.is_ok() {
                assert_eq!((last, wal.last_term(), term), (6, 2, 2));
            }
        }
        if done.is_ok() {
            return;
        }
    }
}

/// Case 52: without space the parts that fit are durable and reported, the others wait, and go on when space returns.
#[test]
fn full_disk_is_reported_and_resumed() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=3, 1),
    )));
    work(&mut worker);
    fs.set_capacity(Some(0));
    // Some of these fit into the tail, the last do not.
    for part in 2..=40 {
        let at = 3 * part - 2;
        worker.push(LogJob::Persist(persist(
            part,
            None,
            entries(at..=at + 2, 1),
        )));
    }
    let report = work(&mut worker);
    assert!(report.full);
    let fitted = report.persisted.expect("the tail has room");
    assert!(fitted > PersistId(2) && fitted < PersistId(40), "{fitted}");
    let again = work(&mut worker);
    assert!(again.full);
    assert_eq!(again.persisted, None);
    assert_eq!(
        worker.reader().last_index(),
        3 * fitted.0,
        "what is there is readable"
    );
    fs.set_capacity(None);
    let report = work(&mut worker);
    assert!(!report.full);
    assert_eq!(report.persisted, Some(PersistId(40)));
    worker.close().expect("a healthy disk");
    assert_eq!(found(&fs), (1, 120, (1, None)));
}

/// Case 52: what a restart finds after a full disk is what was reported.
#[test]
fn full_disk_then_crash_keeps_what_was_reported() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=3, 1),
    )));
    work(&mut worker);
    fs.set_capacity(Some(0));
    worker.push(LogJob::Persist(persist(
        2,
        hard_state(2, Some(1)),
        entries(3..=4, 2),
    )));
    worker.push(LogJob::Persist(persist(
        3,
        hard_state(3, None),
        entries(5..=200, 3),
    )));
    let report = work(&mut worker);
    assert!(report.full);
    assert_eq!(report.persisted, Some(PersistId(2)));
    drop(worker);
    fs.set_capacity(None);
    fs.crash_process();
    assert_eq!(found(&fs), (1, 4, (3, None)));
}

/// Case 52: a purge gives space back although it was asked for after what waits.
#[test]
fn purge_overtakes_entries_that_wait_for_space() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=200, 1),
    )));
    let before = work(&mut worker).size_bytes;
    fs.set_capacity(Some(before));
    let mut next = 201;
    let mut part = 1;
    let full = loop {
        part += 1;
        worker.push(LogJob::Persist(persist(
            part,
            None,
            entries(next..=next + 9, 1),
        )));
        next += 10;
        let report = work(&mut worker);
        if report.full {
            break report;
        }
    };
    assert_eq!(full.persisted, None);
    worker.push(LogJob::Purge {
        through: id(150, 1),
    });
    worker.push(LogJob::Persist(persist(
        part + 1,
        None,
        vec![entry(next, 1)],
    )));
    let report = work(&mut worker);
    assert!(!report.full);
    assert_eq!(report.persisted, Some(PersistId(part + 1)));
    assert_eq!(report.floor, id(150, 1));
}

/// A worker whose log holds entries 1 to 200 and whose disk takes nothing more; part 2, with entries up to 280, waits.
fn full_worker() -> LogWorker<SimFs> {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    let all = entries(1..=200, 1);
    worker.push(LogJob::Persist(persist(1, hard_state(1, None), all)));
    let before = work(&mut worker).size_bytes;
    fs.set_capacity(Some(before));
    worker.push(LogJob::Persist(persist(2, None, entries(201..=280, 1))));
    assert!(work(&mut worker).full);
    worker
}

/// A snapshot of what is applied may lie ahead of a full log: what there is of the log goes, and the rest follows.
#[test]
fn purge_beyond_the_end_of_a_full_log_makes_room_for_the_rest() {
    let mut worker = full_worker();
    worker.push(LogJob::Purge {
        through: id(250, 1),
    });
    let report = work(&mut worker);
    assert_eq!(report.persisted, Some(PersistId(2)));
    assert_eq!(report.floor, id(200, 1));
    assert_eq!(work(&mut worker).floor, id(250, 1));
}

/// A snapshot that is to be installed is durable already: what it makes needless goes before the part that finds no space.
#[test]
fn snapshot_behind_a_part_without_space_makes_room_for_it() {
    for keeps_log in [true, false] {
        let mut worker = full_worker();
        let mut install = persist(3, None, Vec::new());
        install.snapshot = Some(Box::new(meta(if keeps_log { 200 } else { 300 }, 1)));
        install.snapshot_keeps_log = keeps_log;
        worker.push(LogJob::Persist(install));
        let report = work(&mut worker);
        assert_eq!(report.persisted, Some(PersistId(3)), "{keeps_log}");
        assert_eq!(report.floor, id(if keeps_log { 200 } else { 300 }, 1));
    }
}

/// Here nothing can be purged early, since a waiting part cuts off nearly all; but the snapshot takes the place of that, too.
#[test]
fn parts_that_a_waiting_snapshot_replaces_need_no_space() {
    let mut worker = full_worker();
    let cut = persist(3, hard_state(2, None), entries(2..=3, 2));
    worker.push(LogJob::Persist(cut));
    let mut install = persist(4, None, Vec::new());
    install.snapshot = Some(Box::new(meta(300, 2)));
    worker.push(LogJob::Persist(install));
    let report = work(&mut worker);
    assert_eq!(report.persisted, Some(PersistId(4)));
    assert_eq!(report.floor, id(300, 2));
}

/// What a waiting part cuts off stays until then: the cut must not lie below the floor.
#[test]
fn purge_of_a_full_log_leaves_what_is_yet_to_be_cut() {
    let mut worker = full_worker();
    worker.push(LogJob::Persist(persist(
        3,
        hard_state(2, None),
        entries(190..=195, 2),
    )));
    assert!(work(&mut worker).full);
    worker.push(LogJob::Purge {
        through: id(250, 2),
    });
    let report = work(&mut worker);
    assert_eq!(report.floor, id(189, 1));
    assert_eq!(report.persisted, Some(PersistId(3)));
}

/// Case 51: the first failed sync is final, and nothing after it is reported.
#[test]
fn failed_sync_ends_the_worker() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=3, 1),
    )));
    work(&mut worker);
    fs.fail_sync(fs.syncs() + 1, 5);
    worker.push(LogJob::Persist(persist(2, None, entries(4..=5, 1))));
    let failure = worker.work().expect_err("the sync failed");
    assert_eq!(failure.0.code, ExitCode::StorageIo);
    assert!(failure.0.file.is_some(), "{failure}");
    worker.push(LogJob::Persist(persist(3, None, entries(6..=6, 1))));
    assert!(worker.work().is_err());
    assert!(worker.idle().is_err());
    drop(worker);
    fs.crash_process();
    let (_, last, _) = found(&fs);
    assert!((3..=5).contains(&last), "{last}");
}

#[test]
fn snapshot_takes_the_place_of_the_log_and_entries_follow_it() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=30, 1),
    )));
    // All in one turn: the entries before the snapshot are never written.
    let mut part = persist(2, hard_state(3, None), entries(51..=53, 3));
    part.snapshot = Some(meta(50, 3).into());
    worker.push(LogJob::Persist(part));
    worker.push(LogJob::Persist(persist(3, None, entries(54..=54, 3))));
    // Asked for before the snapshot came.
    worker.push(LogJob::Purge { through: id(20, 1) });
    let report = work(&mut worker);
    assert_eq!(report.persisted, Some(PersistId(3)));
    assert_eq!(report.floor, id(50, 3));
    let reader = worker.reader();
    assert_eq!((reader.first_index(), reader.last_index()), (51, 54));
}

#[test]
fn snapshot_part_that_finds_no_space_is_resumed_behind_the_snapshot() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=30, 1),
    )));
    work(&mut worker);
    fs.set_capacity(Some(0));
    // More than the segment that the snapshot sets free.
    let mut part = persist(2, hard_state(3, None), entries(51..=500, 3));
    part.snapshot = Some(meta(50, 3).into());
    worker.push(LogJob::Persist(part));
    let report = work(&mut worker);
    assert!(report.full);
    assert_eq!((report.persisted, report.floor), (None, id(50, 3)));
    let before = fs.syncs();
    assert!(work(&mut worker).full);
    assert_eq!(fs.syncs(), before, "what is done is not done again");
    fs.set_capacity(None);
    let report = work(&mut worker);
    assert_eq!(report.persisted, Some(PersistId(2)));
    assert_eq!(worker.reader().last_index(), 500);
}

#[test]
fn commit_hint_survives_a_power_cut_after_the_idle_sync() {
    let fs = fresh(1);
    let mut worker = worker(&fs);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(1, None),
        entries(1..=5, 1),
    )));
    worker.push(LogJob::NoteCommit(LogIndex(9)));
    work(&mut worker);
    worker.idle().expect("a healthy disk");
    drop(worker);
    fs.power_cut(&mut crate::crash::rng(1));
    let commit = start(&fs).expect("a healthy log").opened.log.commit;
    assert_eq!(commit, 5, "never above what is synced");
}
