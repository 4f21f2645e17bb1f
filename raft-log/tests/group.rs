//! Group commit: many threads, one log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use raft_log::fs::{Fs, SimFs};
use raft_log::{Group, GroupError, GroupOptions, Options, PreparerThread, Wal, WalError};
use support::{BINDING, Model, dir, small};

const EIO: i32 = 5;
const KIND: u8 = 7;
const DEADLINE: Duration = Duration::from_secs(60);

/// Prepares nothing, so that the calls to the disk are those of the writers alone.
fn unprepared() -> Options {
    Options {
        spare_segments: 0,
        ..small()
    }
}

fn open(fs: &SimFs, options: &Options) -> Wal<SimFs> {
    match Wal::create(fs, &dir(), BINDING, options) {
        Ok(()) | Err(raft_log::CreateError::Exists { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    Wal::open(fs, &dir(), BINDING, options.clone()).unwrap().0
}

fn share(wal: Wal<SimFs>, options: GroupOptions) -> Group<SimFs> {
    let spares = PreparerThread::start(wal.preparer(), |_| {}).unwrap();
    Group::new(wal, BINDING, spares, options)
}

fn new_group(fs: &SimFs) -> Group<SimFs> {
    share(open(fs, &unprepared()), GroupOptions::default())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::yield_now();
    }
}

/// Runs one writer per payload while the log is lent, so that they end up in one group in this order; `meanwhile` runs
/// when all of them wait. Returns what they were told.
fn append_together(
    group: &Group<SimFs>,
    payloads: &[Vec<u8>],
    meanwhile: impl FnOnce(),
) -> Vec<Result<u64, GroupError>> {
    std::thread::scope(|scope| {
        let writers = group.with_log(|_| {
            let mut writers: Vec<ScopedJoinHandle<'_, _>> = Vec::new();
            for payload in payloads {
                writers.push(scope.spawn(|| group.append(KIND, payload)));
                wait_until("the writer waits", || {
                    group.waiting_writers() == writers.len()
                });
            }
            meanwhile();
            writers
        });
        let writers = writers.unwrap().into_iter();
        writers.map(|writer| writer.join().unwrap()).collect()
    })
}

fn payloads(count: u8, bytes: usize) -> Vec<Vec<u8>> {
    (1..=count).map(|number| vec![number; bytes]).collect()
}

/// Payloads by index.
fn found<F: Fs>(wal: &Wal<F>) -> BTreeMap<u64, Vec<u8>> {
    let entries = Model::of(wal).entries.into_iter();
    entries
        .map(|(index, (_, payload))| (index, payload))
        .collect()
}

#[test]
fn writers_that_wait_together_share_one_sync() {
    let fs = SimFs::new(1);
    let group = new_group(&fs);
    assert_eq!(group.append(KIND, b"first").unwrap(), 1);
    let before = fs.syncs();
    let told = append_together(&group, &payloads(9, 100), || {});
    assert_eq!(fs.syncs(), before + 1);
    let indexes: Vec<u64> = told.into_iter().map(Result::unwrap).collect();
    assert_eq!(indexes, (2..=10).collect::<Vec<u64>>());
    let (wal, spares) = group.close().unwrap();
    spares.stop().unwrap();
    let found = found(&wal);
    assert_eq!(found.len(), 10);
    for (index, payload) in (2..).zip(payloads(9, 100)) {
        assert_eq!(found[&index], payload);
    }
}

#[test]
fn batch_of_one_writer_is_not_torn_apart() {
    let fs = SimFs::new(2);
    let group = new_group(&fs);
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let group = group.clone();
            scope.spawn(move || {
                for _ in 0..25 {
                    let batch = [[writer; 30], [writer; 30], [writer; 30]];
                    let indexes = group.append_all(KIND, &batch).unwrap();
                    assert_eq!(indexes.end - indexes.start, 3);
                    let entries = group.reader().entries(indexes, u64::MAX).unwrap();
                    assert!(
                        entries
                            .iter()
                            .all(|entry| entry.payload[..] == [writer; 30])
                    );
                }
            });
        }
    });
    assert_eq!(group.reader().last_index(), 300);
}

/// The group whose sync failed may be on the disk or not, and its writers are told so; who comes later was not taken.
#[test]
fn failed_sync_is_unknown_to_its_group_and_a_refusal_to_later_ones() {
    let fs = SimFs::new(3);
    let group = new_group(&fs);
    group.append(KIND, b"durable").unwrap();
    let told = append_together(&group, &payloads(5, 100), || {
        fs.fail_sync(fs.syncs() + 1, EIO);
    });
    for told in told {
        let Err(GroupError::Unknown(error)) = told else {
            panic!("{told:?}");
        };
        assert!(matches!(*error, WalError::Io(_)), "{error}");
    }
    let calls = fs.calls();
    let Err(GroupError::Refused(error)) = group.append(KIND, b"later") else {
        panic!("a poisoned log took an append");
    };
    assert!(matches!(*error, WalError::Poisoned));
    assert_eq!(fs.calls(), calls, "a failed sync is not tried again");
    let (mut wal, _spares) = group.close().unwrap();
    assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
    drop(wal);
    fs.crash_process();
    fs.drop_caches();
    assert_eq!(found(&open(&fs, &unprepared()))[&1], b"durable");
}

/// Case 52, with many writers: the one that does not fit is refused, the others are not held up, and nothing of the refused
/// one is there after the next start.
#[test]
fn full_disk_refuses_only_what_does_not_fit() {
    let fs = SimFs::new(4);
    let group = new_group(&fs);
    group.append(KIND, &[1; 6000]).unwrap();
    fs.set_capacity(Some(8192 + 16384));
    let batch = [vec![2; 1000], vec![3; 6000], vec![4; 100]];
    let told = append_together(&group, &batch, || {});
    assert_eq!(*told[0].as_ref().unwrap(), 2);
    let Err(GroupError::Refused(error)) = &told[1] else {
        panic!("{told:?}");
    };
    assert!(matches!(**error, WalError::NoSpace { .. }), "{error}");
    assert_eq!(*told[2].as_ref().unwrap(), 3);
    fs.set_capacity(None);
    assert_eq!(group.append(KIND, &[5; 6000]).unwrap(), 4);
    drop(group);
    fs.crash_process();
    let sizes: Vec<usize> = found(&open(&fs, &unprepared()))
        .values()
        .map(Vec::len)
        .collect();
    assert_eq!(sizes, [6000, 1000, 100, 6000]);
}

#[test]
fn entry_that_fits_into_no_segment_is_refused_alone() {
    let fs = SimFs::new(5);
    let group = new_group(&fs);
    let told = append_together(&group, &[vec![1; 10], vec![2; 20_000], vec![3; 10]], || {});
    let Err(GroupError::Refused(error)) = &told[1] else {
        panic!("{told:?}");
    };
    assert!(matches!(**error, WalError::TooLarge { .. }), "{error}");
    assert_eq!(
        (*told[0].as_ref().unwrap(), *told[2].as_ref().unwrap()),
        (1, 2)
    );
}

#[test]
fn queue_is_bounded_and_who_finds_it_full_waits() {
    let fs = SimFs::new(6);
    let options = GroupOptions {
        queue_bytes_max: 1000,
        ..GroupOptions::default()
    };
    let group = share(open(&fs, &unprepared()), options);
    std::thread::scope(|scope| {
        group
            .with_log(|_| {
                for number in 0..20 {
                    let group = &group;
                    scope.spawn(move || group.append(KIND, &[number; 400]).unwrap());
                }
                wait_until("two fit", || group.waiting_writers() == 2);
            })
            .unwrap();
        // An append that is larger than the queue may be gets through as well.
        group.append(KIND, &[99; 3000]).unwrap();
    });
    assert_eq!(group.reader().last_index(), 21);
    assert!(group.waiting_writers() <= 2);
}

#[test]
fn close_finishes_who_waits_and_gives_the_log_back() {
    let fs = SimFs::new(7);
    let group = new_group(&fs);
    let (lent, is_lent) = channel();
    let (finish, finished) = channel::<()>();
    let (told, closed) = std::thread::scope(|scope| {
        let lender = group.clone();
        scope.spawn(move || {
            lender.with_log(|_| {
                lent.send(()).unwrap();
                finished.recv().unwrap();
            })
        });
        is_lent.recv().unwrap();
        let writer = scope.spawn(|| group.append(KIND, b"waits"));
        wait_until("the writer waits", || group.waiting_writers() == 1);
        let closer = group.clone();
        let closer = scope.spawn(move || closer.close());
        wait_until("the group closes", || {
            matches!(group.with_log(|_| ()), Err(GroupError::Closed))
        });
        finish.send(()).unwrap();
        (writer.join().unwrap(), closer.join().unwrap())
    });
    assert_eq!(told.unwrap(), 1);
    assert!(matches!(
        group.append(KIND, b"late"),
        Err(GroupError::Closed)
    ));
    assert!(matches!(group.with_log(|_| ()), Err(GroupError::Closed)));
    assert!(matches!(group.close(), Err(GroupError::Closed)));
    let (wal, spares) = closed.unwrap();
    spares.stop().unwrap();
    assert_eq!(found(&wal).len(), 1);
    wal.close().unwrap();
}

/// Who waits for a thread that panics with the log is told, and was not taken.
#[test]
fn panic_of_who_has_the_log_reaches_everybody() {
    let fs = SimFs::new(8);
    let group = new_group(&fs);
    group.append(KIND, b"durable").unwrap();
    std::thread::scope(|scope| {
        let lender = group.clone();
        let (lent, is_lent) = channel();
        let (fall, falls) = channel::<()>();
        let lender = scope.spawn(move || {
            lender.with_log(|_| {
                lent.send(()).unwrap();
                falls.recv().unwrap();
                panic!("on purpose");
            })
        });
        is_lent.recv().unwrap();
        let writer = scope.spawn(|| group.append(KIND, b"waits"));
        wait_until("the writer waits", || group.waiting_writers() == 1);
        fall.send(()).unwrap();
        assert!(lender.join().is_err());
        assert!(matches!(
            writer.join().unwrap(),
            Err(GroupError::Refused(_))
        ));
    });
    assert!(matches!(
        group.append(KIND, b"x"),
        Err(GroupError::Refused(_))
    ));
    assert!(matches!(group.close(), Err(GroupError::Refused(_))));
}

#[test]
fn log_is_lent_between_two_groups() {
    let fs = SimFs::new(9);
    let group = new_group(&fs);
    for number in 0..40 {
        group.append(KIND, &[number; 1000]).unwrap();
    }
    group
        .with_log(|wal| wal.purge_prefix(30, 1))
        .unwrap()
        .unwrap();
    assert_eq!(group.reader().first_index(), 31);
    assert_eq!(group.append(KIND, b"next").unwrap(), 41);
}

/// The machine stops at some call while four threads append: what was acknowledged is there after the power cut, with the
/// index that was told, and what was refused is not.
#[test]
fn power_cut_under_many_writers_loses_nothing_acknowledged() {
    for seed in 0..60 {
        let fs = SimFs::new(seed);
        let group = share(open(&fs, &small()), GroupOptions::default());
        fs.power_cut_at_call(fs.calls() + 3 * seed + 1);
        let told: Vec<(Vec<u8>, Result<u64, GroupError>)> = std::thread::scope(|scope| {
            // No zeros: the simulated disk takes zeros for bytes that were never written.
            let writers: Vec<_> = (1..=4_u8)
                .map(|writer| {
                    let group = &group;
                    scope.spawn(move || append_until_it_fails(group, writer))
                })
                .collect();
            let writers = writers.into_iter();
            writers.flat_map(|writer| writer.join().unwrap()).collect()
        });
        drop(group);
        fs.restart();
        let found = found(&open(&fs, &small()));
        for (payload, told) in told {
            match told {
                Ok(index) => assert_eq!(found.get(&index), Some(&payload), "seed {seed}"),
                Err(GroupError::Refused(_)) => {
                    assert!(!found.values().any(|it| *it == payload), "seed {seed}");
                }
                Err(error) => assert!(matches!(error, GroupError::Unknown(_)), "seed {seed}"),
            }
        }
    }
}

fn append_until_it_fails(
    group: &Group<SimFs>,
    writer: u8,
) -> Vec<(Vec<u8>, Result<u64, GroupError>)> {
    let mut told = Vec::new();
    for number in 1..=200_u8 {
        let mut payload = vec![writer; 200 + 5 * usize::from(number)];
        payload[0] = number;
        let outcome = group.append(KIND, &payload);
        let failed = outcome.is_err();
        told.push((payload, outcome));
        if failed {
            break;
        }
    }
    told
}
