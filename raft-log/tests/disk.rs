//! The log on the real file system.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use raft_log::{Binding, Fs, OpenError, Options, OsFs, ReadError, Tail, Wal};
use support::{BINDING, Model, append, payload};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        max_bytes: 8 << 20,
        reserve_bytes: 0,
        spare_segments: 2,
    }
}

fn create_and_open(dir: &Path, options: &Options) -> Wal<OsFs> {
    Wal::create(&OsFs, dir, BINDING, options).unwrap();
    Wal::open(&OsFs, dir, BINDING, options.clone()).unwrap().0
}

/// Small numbers that look drawn.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Case 16: 10,000 records of 0 bytes up to the limit in random batches, opened again after each batch.
#[test]
fn ten_thousand_records_come_back_after_every_batch() {
    let temporary = temporary();
    let (dir, options) = (temporary.path().join("log"), options());
    let mut wal = create_and_open(&dir, &options);
    let mut random = Random(16);
    let limit = options.payload_bytes_max();
    let mut next = 1;
    let mut expected = std::collections::BTreeMap::new();
    while next <= 10_000 {
        let count = 1 + random.below(400);
        let batch: Vec<_> = (next..next + count)
            .map(|index| {
                // Mostly small, now and then as large as it may be.
                let bytes = if index % 500 == 0 {
                    limit
                } else {
                    random.below(200)
                };
                (
                    index,
                    index / 1000 + 1,
                    payload(index, 1, 16, bytes as usize),
                )
            })
            .collect();
        append(&mut wal, &batch).unwrap();
        wal.sync().unwrap();
        next += count;
        expected.extend(
            batch
                .into_iter()
                .map(|(index, term, payload)| (index, (term, payload))),
        );
        wal.close().unwrap();
        let (opened, found) = Wal::open(&OsFs, &dir, BINDING, options.clone()).unwrap();
        assert_eq!(
            (found.first_index, found.last_index, found.tail),
            (1, next - 1, Tail::Clean)
        );
        wal = opened;
        assert!(Model::of(&wal).entries == expected, "up to {next}");
    }
}

#[test]
fn only_the_owner_may_read_and_everything_is_allocated() {
    let temporary = temporary();
    let dir = temporary.path().join("data").join("log");
    let mut wal = create_and_open(&dir, &options());
    append(&mut wal, &[(1, 1, payload(1, 1, 0, 100))]).unwrap();
    wal.sync().unwrap();
    assert!(wal.preparer().prepare_spare().unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(dir.parent().unwrap()), 0o700);
    let names = OsFs.list(&dir).unwrap();
    assert_eq!(names.len(), 5, "{names:?}");
    for name in names {
        let path = dir.join(&name);
        assert_eq!(mode(&path), 0o600, "{name}");
        let metadata = std::fs::metadata(&path).unwrap();
        if name.starts_with("segment-") || name.starts_with("spare-") {
            assert_eq!(metadata.len(), 64 << 10);
            assert!(
                metadata.blocks() * 512 >= metadata.len(),
                "{name} is sparse"
            );
        }
    }
}

#[test]
fn second_owner_is_refused_until_the_first_has_gone() {
    let temporary = temporary();
    let dir = temporary.path().join("log");
    let wal = create_and_open(&dir, &options());
    let second = Wal::open(&OsFs, &dir, BINDING, options());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    assert!(Wal::create(&OsFs, &dir, BINDING, &options()).is_err());
    let preparer = wal.preparer();
    wal.close().unwrap();
    let (wal, _) = Wal::open(&OsFs, &dir, BINDING, options()).unwrap();
    assert!(
        !preparer.prepare_spare().unwrap(),
        "the log it prepared for is closed"
    );
    assert_eq!(wal.size_bytes(), 0);
}

#[test]
fn foreign_and_empty_directories_are_refused_by_name() {
    let temporary = temporary();
    let dir = temporary.path().join("log");
    let open = |dir: &PathBuf, binding| Wal::open(&OsFs, dir, binding, options());
    assert!(matches!(
        open(&dir, BINDING),
        Err(OpenError::NotCreated { .. })
    ));
    std::fs::create_dir(&dir).unwrap();
    assert!(matches!(
        open(&dir, BINDING),
        Err(OpenError::NotCreated { .. })
    ));
    assert_eq!(
        OsFs.list(&dir).unwrap(),
        Vec::<String>::new(),
        "a refusal leaves nothing"
    );
    create_and_open(&dir, &options()).close().unwrap();
    let other_node = Binding { node: 4, ..BINDING };
    let Err(OpenError::WrongBinding { found, .. }) = open(&dir, other_node) else {
        panic!("opened")
    };
    assert_eq!(found, BINDING);
    let other_cluster = Binding {
        cluster: 1,
        ..BINDING
    };
    assert!(matches!(
        open(&dir, other_cluster),
        Err(OpenError::WrongBinding { .. })
    ));
    open(&dir, BINDING).unwrap();
}

/// Readers on other threads go on through appends, truncations and purges, and see only entries that the
/// log held at some time.
#[test]
fn readers_on_other_threads_see_only_whole_entries() {
    let temporary = temporary();
    let mut wal = create_and_open(&temporary.path().join("log"), &options());
    let done = AtomicBool::new(false);
    let reader = wal.reader();
    let preparer = wal.preparer();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                preparer.prepare_spare().unwrap();
                std::thread::yield_now();
            }
        });
        for seed in 0..2 {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || read_until(&reader, done, seed));
        }
        write_and_shrink(&mut wal);
        done.store(true, Ordering::Relaxed);
    });
    wal.close().unwrap();
}

fn write_and_shrink(wal: &mut Wal<OsFs>) {
    let mut random = Random(99);
    for round in 1..=150 {
        let next = wal.last_index() + 1;
        let term = round;
        let batch: Vec<_> = (next..next + 1 + random.below(60))
            .map(|index| {
                (
                    index,
                    term,
                    payload(index, term, 5, random.below(400) as usize),
                )
            })
            .collect();
        append(wal, &batch).unwrap();
        wal.sync().unwrap();
        let (first, last) = (wal.first_index(), wal.last_index());
        if round % 3 == 0 {
            wal.truncate_suffix(last - random.below(20).min(last - first))
                .unwrap();
        }
        if round % 20 == 0 {
            let through = first + random.below(wal.last_index() + 1 - first);
            let term = wal.term(through).unwrap();
            wal.purge_prefix(through, term).unwrap();
        }
    }
}

fn read_until(reader: &raft_log::Reader<OsFs>, done: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    let mut seen = 0;
    while !done.load(Ordering::Relaxed) || seen == 0 {
        let (first, last) = (reader.first_index(), reader.last_index());
        if first > last {
            continue;
        }
        let start = first + random.below(last + 1 - first);
        match reader.entries(start..last + 1, 50_000) {
            Ok(entries) => {
                for entry in &entries {
                    let made = payload(entry.index, entry.term, 5, entry.payload.len());
                    assert_eq!(
                        entry.payload, made,
                        "entry {} of term {}",
                        entry.index, entry.term
                    );
                    seen += 1;
                }
                assert!(
                    entries.windows(2).all(|pair| pair[0].term <= pair[1].term),
                    "terms fall"
                );
            }
            // Truncated or purged between the two looks.
            Err(ReadError::Unavailable { .. } | ReadError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A log of several segments is opened again after its process went away without closing it.
#[test]
fn log_dropped_without_closing_holds_everything_synced() {
    let temporary = temporary();
    let dir = temporary.path().join("log");
    let mut wal = create_and_open(&dir, &options());
    let batch: Vec<_> = (1..=500)
        .map(|index| (index, 1, payload(index, 1, 0, 500)))
        .collect();
    append(&mut wal, &batch).unwrap();
    wal.set_hard_state(4, Some(2)).unwrap();
    wal.sync().unwrap();
    // Accepted but never synced: not promised.
    append(&mut wal, &[(501, 1, payload(501, 1, 0, 500))]).unwrap();
    drop(wal);
    let (wal, opened) = Wal::open(&OsFs, &dir, BINDING, options()).unwrap();
    assert_eq!(
        (opened.term, opened.vote, opened.last_index),
        (4, Some(2), 500)
    );
    assert_eq!(Model::of(&wal).entries.len(), 500);
}
