//! A log with damaged entries: what recovery tells the core of it, and how the copies come back.

use kvd::exit::{ExitCode, Failure};
use kvd::log_worker::{LogJob, LogWorker};
use kvd::recover::{RecoverError, Recovered, recover};
use raft_core::{
    Config, Configuration, Entry, EntryKind, FaultyEntry, LogIndex, Node, NodeId, Persist,
    PersistId, Storage, StorageError, Term,
};
use raft_log::ReadError;
use raft_log::fs::SimFs;

use crate::recover::{receive_snapshot, run, write_snapshot};
use crate::support::{
    Part, cached, damage, data, entries, entry, entry_of, fresh, hard_state, id, make_unreadable,
    meta, options, persist, start,
};

/// 1..=19 of term 1, 20 of term 2, 21..=30 of term 3.
fn log() -> Vec<Entry> {
    [entries(1..=19, 1), entries(20..=20, 2), entries(21..=30, 3)].concat()
}

fn lost(index: u64, term: Option<u64>, kind: Option<EntryKind>) -> FaultyEntry {
    FaultyEntry {
        index: LogIndex(index),
        term: term.map(Term),
        kind,
    }
}

/// A node with that log, of which some entries are damaged, committed up to `commit`.
fn damaged(commit: u64, damages: &[(u64, Part)]) -> SimFs {
    let fs = fresh(1);
    let parts = vec![persist(1, hard_state(3, Some(1)), log())];
    run(&fs, parts, commit);
    // Records are found one after the other, so the last ones first.
    for (index, part) in damages.iter().rev() {
        damage(&fs, *index, *part);
    }
    fs
}

fn faulty(recovered: &Recovered<SimFs>) -> Vec<FaultyEntry> {
    recovered.cache.initial_state().faulty
}

fn repaired(part: u64, indexes: &[u64]) -> Persist {
    let mut persist = persist(part, None, Vec::new());
    let log = log();
    let copies = indexes.iter().map(|index| log[*index as usize - 1].clone());
    persist.repaired = copies.collect();
    persist
}

fn work(worker: &mut LogWorker<SimFs>, part: Persist) {
    let id = part.id;
    worker.push(LogJob::Persist(part));
    let report = worker.work().expect("a healthy disk");
    assert_eq!(report.persisted, Some(id));
}

/// Reads the whole log from `first` on.
fn read(fs: &SimFs, first: u64) -> Vec<Entry> {
    let recovered = start(fs).expect("a healthy log");
    assert_eq!(faulty(&recovered), []);
    let range = first..recovered.wal.last_index() + 1;
    let stored = recovered.wal.reader().entries(range, u64::MAX).unwrap();
    kvd::recover::core_entries(stored).unwrap()
}

#[test]
fn damaged_entries_are_told_to_the_core_with_what_is_still_known_of_them() {
    let fs = damaged(15, &[(12, Part::Payload), (20, Part::Header)]);
    let recovered = start(&fs).unwrap();
    let expected = [
        lost(12, Some(1), Some(EntryKind::Command)),
        lost(20, None, None),
    ];
    assert_eq!(faulty(&recovered), expected);
    let indexes: Vec<_> = recovered.opened.faulty.iter().map(|it| it.index).collect();
    assert_eq!(indexes, [Some(12), Some(20)]);
    let text = recovered.opened.to_string();
    assert!(text.contains("2 damaged entries to be repaired"), "{text}");
    let cache = &recovered.cache;
    assert_eq!(cache.last_index(), LogIndex(30));
    let term = |index| cache.term(LogIndex(index));
    assert_eq!(term(12), Ok(Term(1)));
    assert_eq!(term(19), Ok(Term(1)));
    assert_eq!(term(20), Err(StorageError::Faulty));
    assert_eq!(term(21), Ok(Term(3)));
    assert!(cache.recent_from() > LogIndex(20), "no gap in memory");
    let core = Node::new(Config::new(NodeId(1), 1), recovered.cache).unwrap();
    assert_eq!(core.status().repair.unwrap().count, 2);
}

/// A full segment has its index and is not read when the log is opened.
#[test]
fn damage_in_a_segment_that_was_closed_is_found_by_reading_it() {
    let fs = fresh(1);
    let mut worker = LogWorker::new(start(&fs).unwrap().wal);
    let all = persist(1, hard_state(1, Some(1)), entries(1..=200, 1));
    work(&mut worker, all);
    worker.close().unwrap();
    damage(&fs, 5, Part::Header);
    let recovered = start(&fs).unwrap();
    assert_eq!(recovered.opened.log.faulty, [], "open does not look");
    assert_eq!(faulty(&recovered), [lost(5, Some(1), None)]);
    let mut worker = LogWorker::new(recovered.wal);
    let mut part = persist(1, None, Vec::new());
    part.repaired = vec![entry(5, 1)];
    work(&mut worker, part);
    drop(worker);
    fs.crash_process();
    assert_eq!(read(&fs, 1), entries(1..=200, 1));
}

/// The log is at its limit, and new entries wait for room, which only what the lost ones lead to can make: their copies
/// do not wait, be they in the same part or behind it.
#[test]
fn copies_do_not_wait_behind_entries_without_room() {
    for in_the_same_part in [true, false] {
        let fs = fresh(1);
        let mut worker = LogWorker::new(start(&fs).unwrap().wal);
        let all = persist(1, hard_state(1, Some(1)), entries(1..=200, 1));
        work(&mut worker, all);
        worker.close().unwrap();
        damage(&fs, 5, Part::Header);
        let mut small = options();
        small.wal.max_bytes = 64 << 10;
        let recovered = recover(&fs, &data(), &small).unwrap();
        assert_eq!(faulty(&recovered), [lost(5, Some(1), None)]);
        let mut worker = LogWorker::new(recovered.wal);
        let mut parts = [
            persist(1, hard_state(2, None), entries(201..=600, 2)),
            persist(2, None, entries(590..=600, 3)),
        ];
        parts[usize::from(!in_the_same_part)].repaired = vec![entry(5, 1)];
        for part in parts {
            worker.push(LogJob::Persist(part));
        }
        let report = worker.work().expect("a healthy disk");
        assert_eq!((report.full, report.persisted), (true, None));
        assert_eq!(report.repaired, Some(PersistId(2)));
        drop(worker);
        fs.crash_process();
        assert_eq!(read(&fs, 1), entries(1..=200, 1));
    }
}

/// A page of a full segment that the medium does not give back is damage of the entries in it, and no signal.
#[test]
fn unreadable_page_of_a_segment_that_was_closed_is_damage() {
    let fs = fresh(1);
    let mut worker = LogWorker::new(start(&fs).unwrap().wal);
    let all = persist(1, hard_state(1, Some(1)), entries(1..=200, 1));
    work(&mut worker, all);
    worker.close().unwrap();
    make_unreadable(&fs, 5);
    let lost = faulty(&start(&fs).unwrap());
    assert!(
        lost.iter().any(|lost| lost.index == LogIndex(5)),
        "{lost:?}"
    );
    // A unit holds parts of a few records.
    assert!(lost.len() <= 5, "{lost:?}");
}

/// What the snapshot covers needs no peer: also a node that is alone starts.
#[test]
fn damage_at_or_below_the_newest_good_snapshot_is_purged() {
    for last in [20, 25] {
        let fs = damaged(30, &[(12, Part::Payload), (20, Part::Header)]);
        let term = if last == 20 { 2 } else { 3 };
        let mut alone = options();
        alone.founding = Configuration::new([NodeId(1)]);
        write_snapshot_of(&fs, last, term);
        let recovered = recover(&fs, &data(), &alone).unwrap();
        assert_eq!(recovered.opened.covered, 2);
        assert_eq!(recovered.opened.damage().count(), 2, "all of it is told");
        assert_eq!(faulty(&recovered), []);
        assert_eq!(recovered.wal.floor(), (last, term));
        assert_eq!(recovered.cache.first_index(), LogIndex(last + 1));
        assert_eq!(recovered.store.applied_index(), last);
        Node::new(Config::new(NodeId(1), 1), recovered.cache).unwrap();
        fs.crash_process();
        assert_eq!(read(&fs, last + 1), log()[last as usize..]);
    }
}

fn write_snapshot_of(fs: &SimFs, index: u64, term: u64) {
    let view = crate::support::store_at(index, |at| log()[at as usize - 1].term.0);
    let dir = crate::support::open_snapshots(fs);
    dir.write(&view, &meta(index, term)).unwrap();
}

/// Case 53: nobody else could have a copy.
#[test]
fn node_without_peers_is_refused_and_names_the_place() {
    let fs = damaged(30, &[(12, Part::Payload)]);
    let mut alone = options();
    alone.founding = Configuration::new([NodeId(1)]);
    let error = recover(&fs, &data(), &alone).expect_err("it has no peers");
    assert!(matches!(error, RecoverError::Alone(_)), "{error}");
    let failure = Failure::from(error);
    assert_eq!(failure.code, ExitCode::DataDamaged);
    assert_eq!(failure.index, Some(12));
    assert!(failure.offset.is_some() && failure.file.is_some());
}

/// The only voter took another member in: that one may have a copy, so it is asked.
#[test]
fn member_that_joined_later_counts_as_a_peer() {
    let fs = fresh(1);
    let changed = Configuration::new([NodeId(1), NodeId(2)]).encode().into();
    let mut log = log();
    log[7] = entry_of(8, 1, EntryKind::Configuration, changed);
    run(&fs, vec![persist(1, hard_state(3, Some(1)), log)], 30);
    damage(&fs, 12, Part::Payload);
    let mut alone = options();
    alone.founding = Configuration::new([NodeId(1)]);
    let recovered = recover(&fs, &data(), &alone).unwrap();
    assert_eq!(faulty(&recovered).len(), 1);
}

/// Its kind says that members changed, but not how.
#[test]
fn damaged_change_of_members_is_told_as_one() {
    let fs = fresh(1);
    let changed = Configuration::new([NodeId(1), NodeId(2)]).encode().into();
    let mut log = log();
    log[7] = entry_of(8, 1, EntryKind::Configuration, changed);
    run(&fs, vec![persist(1, hard_state(3, Some(1)), log)], 30);
    damage(&fs, 8, Part::Payload);
    let recovered = start(&fs).unwrap();
    let configuration = Some(EntryKind::Configuration);
    assert_eq!(faulty(&recovered), [lost(8, Some(1), configuration)]);
    assert_eq!(recovered.cache.initial_state().configurations, []);
}

/// The log cannot tell whether its 20 is the last entry of a received snapshot: neither may give way.
#[test]
fn snapshot_that_ends_at_a_damaged_entry_is_used_only_if_it_is_certain_to_be_that_entry() {
    // (term of the snapshot's 20, commit index, what becomes of it)
    let cases = [
        (2, 10, (1, 30, 0)),
        (2, 25, (21, 30, 20)),
        (3, 10, (21, 30, 20)),
        (4, 10, (21, 20, 20)),
    ];
    for (term, commit, expected) in cases {
        let fs = damaged(commit, &[(20, Part::Header)]);
        receive_snapshot(&fs, 20, term);
        let recovered = start(&fs).unwrap();
        let found = (
            recovered.wal.first_index(),
            recovered.wal.last_index(),
            recovered.store.applied_index(),
        );
        assert_eq!(found, expected, "20@{term}, committed up to {commit}");
        let undecided = &recovered.opened.undecided;
        assert_eq!(undecided.is_empty(), expected.2 == 20, "{undecided:?}");
        Node::new(Config::new(NodeId(1), 1), recovered.cache).unwrap();
    }
}

#[test]
fn repaired_entries_are_read_by_the_log_and_known_to_the_cache() {
    let fs = damaged(15, &[(12, Part::Payload), (20, Part::Header)]);
    let recovered = start(&fs).unwrap();
    let (mut cache, reader) = (recovered.cache, recovered.wal.reader());
    let read_12 = reader.entries(12..13, u64::MAX);
    assert!(matches!(read_12, Err(ReadError::Corrupt(_))));
    let mut worker = LogWorker::new(recovered.wal);
    let part = repaired(1, &[12, 20]);
    cache.persist(&part);
    work(&mut worker, part);
    assert_eq!(cache.term(LogIndex(20)), Ok(Term(2)));
    assert_eq!(cache.term(LogIndex(19)), Ok(Term(1)));
    assert_eq!(cache.term(LogIndex(21)), Ok(Term(3)));
    let later = cached(&cache, LogIndex(12)..LogIndex(13), u64::MAX);
    assert_eq!(later, Err(StorageError::Later), "the log has it");
    assert_eq!(reader.entries(12..13, u64::MAX).unwrap()[0].index, 12);
    drop(worker);
    fs.crash_process();
    assert_eq!(read(&fs, 1), log());
}

/// Whatever the part under way has done when the machine stops, everything else of the log is there.
#[test]
fn crash_while_entries_are_repaired_loses_no_other_entry() {
    let base = damaged(15, &[(12, Part::Payload), (20, Part::Header)]);
    for call in 1.. {
        let fs = base.fork();
        let mut worker = LogWorker::new(start(&fs).unwrap().wal);
        fs.stop_at_call(fs.calls() + call);
        let mut part = repaired(1, &[12, 20]);
        part.entries = entries(31..=32, 3);
        worker.push(LogJob::Persist(part));
        let done = worker.work().is_ok();
        drop(worker);
        for seed in 0..4 {
            let fs = fs.fork();
            fs.power_cut(&mut crate::crash::rng(call * 100 + seed));
            let recovered = start(&fs).expect("a crash damages nothing more");
            assert!(recovered.wal.last_index() >= 30, "call {call}");
            let left: Vec<u64> = faulty(&recovered).iter().map(|it| it.index.0).collect();
            assert!(
                left.iter().all(|index| [12, 20].contains(index)),
                "{left:?}"
            );
            if done {
                assert_eq!((left.len(), recovered.wal.last_index()), (0, 32));
            }
        }
        if done {
            return;
        }
    }
}

/// A snapshot over damaged entries: what follows it may be acknowledged, and must not be gone for a moment.
#[test]
fn snapshot_in_front_of_a_log_keeps_what_follows_it_through_any_crash() {
    let base = damaged(15, &[(12, Part::Payload), (20, Part::Header)]);
    receive_snapshot(&base, 25, 3);
    for call in 1.. {
        let fs = base.fork();
        // The node runs since before the snapshot came, so the log was not purged when it started.
        let (wal, _) = raft_log::Wal::open(
            &fs,
            &kvd::identity::log_dir(&data()),
            options().binding,
            options().wal,
        )
        .unwrap();
        let mut worker = LogWorker::new(wal);
        fs.stop_at_call(fs.calls() + call);
        // Accepted but not synced when the snapshot is taken over.
        worker.push(LogJob::Persist(persist(1, None, entries(31..=31, 3))));
        let mut part = persist(2, None, entries(32..=32, 3));
        part.snapshot = Some(meta(25, 3).into());
        part.snapshot_keeps_log = true;
        worker.push(LogJob::Persist(part));
        let done = worker.work();
        drop(worker);
        let fs = fs.fork();
        fs.power_cut(&mut crate::crash::rng(call));
        let recovered = start(&fs).expect("a crash damages nothing");
        assert!(recovered.wal.last_index() >= 30, "call {call}");
        assert_eq!(faulty(&recovered), [], "the snapshot covers them");
        assert_eq!(recovered.wal.floor(), (25, 3));
        if let Ok(report) = done {
            assert_eq!(report.persisted, Some(PersistId(2)));
            assert_eq!(report.floor, id(25, 3));
            assert_eq!(recovered.wal.last_index(), 32);
            return;
        }
    }
}

/// A copy that was on its way while the log was purged.
#[test]
fn repaired_entry_that_was_purged_meanwhile_is_skipped() {
    let fs = damaged(30, &[(12, Part::Payload)]);
    let recovered = start(&fs).unwrap();
    let mut cache = recovered.cache;
    let mut worker = LogWorker::new(recovered.wal);
    write_snapshot(&fs, 19);
    cache.purge(id(19, 1));
    worker.push(LogJob::Purge { through: id(19, 1) });
    worker.work().unwrap();
    let part = repaired(1, &[12]);
    cache.persist(&part);
    work(&mut worker, part);
    drop(worker);
    fs.crash_process();
    assert_eq!(read(&fs, 20), log()[19..]);
}

#[test]
fn repaired_entries_without_space_wait_and_come_back_later() {
    let fs = damaged(30, &[(12, Part::Payload)]);
    let mut worker = LogWorker::new(start(&fs).unwrap().wal);
    fs.set_capacity(Some(0));
    worker.push(LogJob::Persist(repaired(1, &[12])));
    let report = worker.work().unwrap();
    assert_eq!((report.full, report.persisted), (true, None));
    fs.set_capacity(None);
    let report = worker.work().unwrap();
    assert_eq!((report.full, report.persisted), (false, Some(PersistId(1))));
    drop(worker);
    fs.crash_process();
    assert_eq!(read(&fs, 1), log());
}
