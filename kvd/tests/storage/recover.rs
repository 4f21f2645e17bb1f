//! Recovery: a log and a snapshot that must fit together.

use kvd::exit::{ExitCode, Failure};
use kvd::identity::snapshot_dir;
use kvd::log_worker::{LogJob, LogWorker};
use kvd::recover::{RecoverError, Recovered, recover};
use raft_core::{
    Config, Configuration, Entry, EntryKind, LogIndex, Node, NodeId, Persist, Storage, StorageError,
};
use raft_log::fs::{OsFs, SimFs};

use crate::support::{
    apply, cached, create, data, entries, entry, entry_of, founding, fresh, hard_state, id, meta,
    open_snapshots, options, persist, receive, snapshot_bytes, start, store_at,
};

pub fn in_term_one(_: u64) -> u64 {
    1
}

/// Runs a node's log through some parts and ends as `kill -9` would.
pub fn run(fs: &SimFs, parts: Vec<Persist>, commit: u64) {
    let mut worker = LogWorker::new(start(fs).expect("a healthy disk").wal);
    for part in parts {
        worker.push(LogJob::Persist(part));
    }
    worker.push(LogJob::NoteCommit(LogIndex(commit)));
    worker.work().expect("a healthy disk");
    worker.idle().expect("a healthy disk");
    drop(worker);
    fs.crash_process();
}

pub fn write_snapshot(fs: &SimFs, index: u64) {
    let view = store_at(index, in_term_one);
    open_snapshots(fs)
        .write(&view, &meta(index, 1))
        .expect("a healthy disk");
}

pub fn receive_snapshot(fs: &SimFs, index: u64, term: u64) {
    let meta = meta(index, term);
    let bytes = snapshot_bytes(&store_at(index, |_| term), &meta);
    receive(&open_snapshots(fs), &bytes, &meta).expect("a healthy disk");
}

/// (first, last) of the log and the index of the store.
fn shape(recovered: &Recovered<SimFs>) -> (u64, u64, u64) {
    let cache = &recovered.cache;
    assert_eq!(cache.first_index().0, recovered.wal.first_index());
    assert_eq!(cache.last_index().0, recovered.wal.last_index());
    for index in recovered.wal.floor().0..=recovered.wal.last_index() {
        let expected = recovered.wal.term(index);
        assert_eq!(
            cache.term(LogIndex(index)).ok().map(|term| term.0),
            expected
        );
    }
    (
        recovered.wal.first_index(),
        recovered.wal.last_index(),
        recovered.store.applied_index(),
    )
}

#[test]
fn new_node_begins_empty_with_the_founding_configuration() {
    let fs = fresh(1);
    let recovered = start(&fs).unwrap();
    assert_eq!(shape(&recovered), (1, 0, 0));
    let initial = recovered.cache.initial_state();
    assert_eq!(initial.configuration, founding());
    assert_eq!(initial.commit, LogIndex(0));
    assert_eq!(recovered.cache.snapshot(), None);
    let text = recovered.opened.to_string();
    assert_eq!(text, "entries 1..=0, term 0, no snapshot");
    Node::new(Config::new(NodeId(1), 1), recovered.cache).expect("the core accepts it");
}

#[test]
fn committed_entries_after_the_snapshot_are_applied_again() {
    let fs = fresh(1);
    run(
        &fs,
        vec![persist(1, hard_state(1, Some(1)), entries(1..=30, 1))],
        25,
    );
    write_snapshot(&fs, 20);
    let recovered = start(&fs).unwrap();
    assert_eq!(shape(&recovered), (1, 30, 20));
    let initial = recovered.cache.initial_state();
    assert_eq!(
        (initial.applied, initial.commit),
        (LogIndex(20), LogIndex(25))
    );
    assert_eq!(recovered.cache.snapshot(), Some(meta(20, 1)));
    let stored = recovered.wal.reader().entries(21..26, u64::MAX).unwrap();
    let mut store = recovered.store.clone();
    for entry in kvd::recover::core_entries(stored).unwrap() {
        apply(&mut store, &entry);
    }
    assert_eq!(store.hash(), store_at(25, in_term_one).hash());

    let mut node = Node::new(Config::new(NodeId(1), 1), recovered.cache).unwrap();
    let ready = node.ready();
    let committed: Vec<u64> = ready.committed.iter().map(|entry| entry.index.0).collect();
    let fetched = ready.fetches.first().map(|fetch| fetch.range.clone());
    assert!(
        committed.first() == Some(&21) || fetched == Some(LogIndex(21)..LogIndex(26)),
        "{committed:?} {fetched:?}"
    );
}

/// Case 31 (a): the log ends before a received snapshot, so a crash has interrupted its installation: it is finished.
#[test]
fn received_snapshot_ahead_of_the_log_replaces_it() {
    let fs = fresh(1);
    run(
        &fs,
        vec![persist(1, hard_state(1, Some(1)), entries(1..=30, 1))],
        20,
    );
    receive_snapshot(&fs, 50, 3);
    let recovered = start(&fs).unwrap();
    assert!(recovered.opened.finished_install);
    assert_eq!(shape(&recovered), (51, 50, 50));
    assert_eq!(recovered.store.hash(), store_at(50, |_| 3).hash());
    assert_eq!(
        recovered.wal.hard_state(),
        (3, None),
        "no log is of a later term than its node"
    );
    // The next append succeeds.
    let mut worker = LogWorker::new(recovered.wal);
    worker.push(LogJob::Persist(persist(1, None, entries(51..=52, 3))));
    worker.work().unwrap();
    drop(worker);
    fs.crash_process();
    let again = start(&fs).unwrap();
    assert!(!again.opened.finished_install);
    assert_eq!(shape(&again), (51, 52, 50));
}

/// Case 31 (b): the log is longer and holds the snapshot's last entry: what follows is kept.
#[test]
fn received_snapshot_that_agrees_with_the_log_keeps_the_suffix() {
    let fs = fresh(1);
    run(
        &fs,
        vec![persist(1, hard_state(1, Some(1)), entries(1..=30, 1))],
        10,
    );
    receive_snapshot(&fs, 20, 1);
    let recovered = start(&fs).unwrap();
    assert!(!recovered.opened.finished_install);
    assert_eq!(shape(&recovered), (1, 30, 20));
    assert_eq!(recovered.cache.initial_state().commit, LogIndex(20));
}

/// Case 31 (c): the log is longer and has another entry in that place: all of it goes.
#[test]
fn received_snapshot_that_conflicts_with_the_log_replaces_it() {
    let fs = fresh(1);
    run(
        &fs,
        vec![persist(1, hard_state(4, Some(1)), entries(1..=30, 1))],
        10,
    );
    receive_snapshot(&fs, 20, 3);
    let recovered = start(&fs).unwrap();
    assert!(recovered.opened.finished_install);
    assert_eq!(shape(&recovered), (21, 20, 20));
    assert_eq!(
        recovered.wal.hard_state(),
        (4, Some(1)),
        "a vote is not forgotten"
    );
}

/// Case 31 (d): a snapshot older than the commit index changes nothing but where the state machine starts from.
#[test]
fn snapshot_older_than_the_commit_index_keeps_the_log() {
    let fs = fresh(1);
    run(
        &fs,
        vec![persist(1, hard_state(1, Some(1)), entries(1..=30, 1))],
        30,
    );
    receive_snapshot(&fs, 20, 1);
    let recovered = start(&fs).unwrap();
    assert_eq!(shape(&recovered), (1, 30, 20));
    assert_eq!(recovered.cache.initial_state().commit, LogIndex(30));
}

#[test]
fn snapshot_that_contradicts_a_committed_entry_is_refused() {
    let fs = fresh(1);
    run(
        &fs,
        vec![persist(1, hard_state(4, Some(1)), entries(1..=30, 1))],
        25,
    );
    receive_snapshot(&fs, 20, 3);
    let error = start(&fs).expect_err("two histories");
    assert!(matches!(error, RecoverError::Diverged { .. }), "{error}");
    let failure = Failure::from(error);
    assert_eq!(
        (failure.code, failure.index),
        (ExitCode::DataDamaged, Some(20))
    );
}

fn purged(fs: &SimFs) {
    run(
        fs,
        vec![persist(1, hard_state(1, Some(1)), entries(1..=30, 1))],
        30,
    );
    write_snapshot(fs, 10);
    write_snapshot(fs, 20);
    let mut worker = LogWorker::new(start(fs).unwrap().wal);
    worker.push(LogJob::Purge { through: id(10, 1) });
    worker.work().unwrap();
    drop(worker);
    fs.crash_process();
}

/// Case 36: the newest snapshot has rotted; the one before it and the log behind that one give the same state.
#[test]
fn rotten_snapshot_falls_back_to_the_older_one_and_the_log() {
    let fs = fresh(1);
    purged(&fs);
    let file = open_snapshots(&fs).list().unwrap().pop().unwrap().file;
    fs.flip_bit(&file, 5000);
    let recovered = start(&fs).unwrap();
    assert_eq!(shape(&recovered), (11, 30, 10));
    assert_eq!(recovered.opened.damaged[0].id, id(20, 1));
    let text = recovered.opened.to_string();
    assert!(text.contains(&file.display().to_string()), "{text}");
    let stored = recovered.wal.reader().entries(11..31, u64::MAX).unwrap();
    let mut store = recovered.store;
    for entry in kvd::recover::core_entries(stored).unwrap() {
        apply(&mut store, &entry);
    }
    assert_eq!(store.hash(), store_at(30, in_term_one).hash());
}

/// Case 36: both have rotted, and the log alone does not reach back: refused, with the place and what is missing.
#[test]
fn gap_between_snapshot_and_log_is_refused() {
    let fs = fresh(1);
    purged(&fs);
    let files = open_snapshots(&fs).list().unwrap();
    for info in &files {
        fs.flip_bit(&info.file, 5000);
    }
    let error = start(&fs).expect_err("entries are missing");
    assert!(matches!(error, RecoverError::Gap { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("entries 1 to 10 are missing: there is no good snapshot"),
        "{text}"
    );
    assert!(
        text.contains(&files[1].file.display().to_string()),
        "{text}"
    );
    let failure = Failure::from(error);
    assert_eq!(failure.code, ExitCode::DataDamaged);
    assert_eq!(failure.file, Some(snapshot_dir(&data())));
    assert_eq!(failure.index, Some(1));
}

#[test]
fn recent_entries_are_in_memory_and_the_rest_is_answered_later() {
    let fs = fresh(1);
    run(
        &fs,
        vec![
            persist(1, hard_state(1, None), entries(1..=40, 1)),
            persist(2, hard_state(5, None), entries(41..=60, 5)),
        ],
        60,
    );
    write_snapshot(&fs, 20);
    let cache = start(&fs).unwrap().cache;
    let from = cache.recent_from();
    let limit_bytes = options().cache_bytes;
    assert!(cache.recent_bytes() <= limit_bytes);
    assert!(cache.recent_bytes() + entry(60, 5).bytes() > limit_bytes);
    assert!(from > LogIndex(41), "{from}");
    let range = from..LogIndex(61);
    let expected: Vec<Entry> = (from.0..=60).map(|index| entry(index, 5)).collect();
    assert_eq!(cached(&cache, range, u64::MAX), Ok(expected));
    let later = cached(&cache, from.prev()..LogIndex(61), u64::MAX);
    assert_eq!(later, Err(StorageError::Later));
}

#[test]
fn configurations_of_the_stored_log_are_gathered() {
    let fs = fresh(1);
    let changed = |voters: &[u64]| Configuration::new(voters.iter().copied().map(NodeId));
    let configuration = |index: u64, configuration: &Configuration| {
        let payload = configuration.encode().into();
        entry_of(index, 1, EntryKind::Configuration, payload)
    };
    let (first, second) = (changed(&[1, 2, 3, 4]), changed(&[1, 2, 4]));
    let mut log = entries(1..=30, 1);
    log[14] = configuration(15, &first);
    log[24] = configuration(25, &second);
    log[27] = entry_of(28, 1, EntryKind::Noop, bytes::Bytes::new());
    run(&fs, vec![persist(1, hard_state(1, None), log.clone())], 30);
    let found = start(&fs).unwrap().cache.initial_state().configurations;
    assert_eq!(
        found,
        [
            (LogIndex(15), first.clone()),
            (LogIndex(25), second.clone())
        ]
    );
    fs.crash_process();

    // A snapshot brings the one in force at its end.
    let mut view = store_at(0, in_term_one);
    log[..20].iter().for_each(|entry| apply(&mut view, entry));
    let mut meta = meta(20, 1);
    meta.configuration = first.clone();
    meta.configuration_index = LogIndex(15);
    open_snapshots(&fs).write(&view, &meta).unwrap();
    let initial = start(&fs).unwrap().cache.initial_state();
    assert_eq!(initial.configuration, first);
    assert_eq!(initial.configuration_index, LogIndex(15));
    assert_eq!(initial.configurations, [(LogIndex(25), second)]);
}

#[test]
fn entry_of_an_unknown_kind_is_named_as_newer() {
    let fs = fresh(1);
    let mut wal = start(&fs).unwrap().wal;
    wal.append(&[raft_log::EntryRef {
        index: 1,
        term: 1,
        kind: 77,
        payload: b"",
        payload_crc: 0,
    }])
    .unwrap();
    wal.sync().unwrap();
    drop(wal);
    fs.crash_process();
    let failure = Failure::from(start(&fs).expect_err("an unknown kind"));
    assert_eq!(failure.code, ExitCode::FormatNewer);
    assert!(failure.what.contains("77"), "{failure}");
}

#[test]
fn directory_in_use_is_refused_before_anything_is_touched() {
    let fs = fresh(1);
    let running = start(&fs).unwrap();
    let incoming = running.snapshots.begin_receive(&meta(5, 1)).unwrap();
    let failure = Failure::from(start(&fs).expect_err("it is locked"));
    assert_eq!(failure.code, ExitCode::DirectoryInUse);
    let left = crate::support::files(&fs);
    assert_eq!(left, ["1.tmp"], "the transfer under way is not disturbed");
    drop(incoming);
}

#[test]
fn node_recovers_from_a_real_disk() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    create(&OsFs, temporary.path());
    let first = recover(&OsFs, temporary.path(), &options()).unwrap();
    let mut worker = LogWorker::new(first.wal);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(2, Some(1)),
        entries(1..=300, 1),
    )));
    worker.work().unwrap();
    let view = store_at(250, in_term_one);
    first.snapshots.write(&view, &meta(250, 1)).unwrap();
    let through = first.snapshots.prune().unwrap();
    worker.push(LogJob::Purge { through });
    let report = worker.work().unwrap();
    assert_eq!(report.floor, id(250, 1));
    drop(worker);

    let again = recover(&OsFs, temporary.path(), &options()).unwrap();
    assert_eq!(again.store.hash(), view.hash());
    assert_eq!(again.wal.hard_state(), (2, Some(1)));
    assert_eq!(
        (again.wal.first_index(), again.wal.last_index()),
        (251, 300)
    );
}
