//! Snapshot files: written, received, sent, pruned, rotten.

use kvd::exit::{ExitCode, Failure};
use kvd::identity::snapshot_dir;
use kvd::kv::snapshot::SnapshotError;
use kvd::snapshots::{Damage, SnapshotDir, SnapshotDirError, SnapshotOptions};
use raft_core::{Configuration, NodeId};
use raft_log::fs::{Fs, OsFs, SimFs};

use crate::crash::rng;
use crate::support::{
    at_each_call, data, done, files, founding, id, meta, open_snapshots, receive, snapshot_bytes,
    snapshot_options, store_at,
};

fn in_term_one(_: u64) -> u64 {
    1
}

fn write(dir: &SnapshotDir<SimFs>, index: u64) {
    dir.write(&store_at(index, in_term_one), &meta(index, 1))
        .expect("a healthy disk");
}

fn read_out<F: Fs>(dir: &SnapshotDir<F>, index: u64) -> Result<Vec<u8>, SnapshotDirError> {
    let mut bytes = Vec::new();
    for chunk in dir.open_send(index)? {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

fn indexes(dir: &SnapshotDir<SimFs>) -> Vec<u64> {
    let list = dir.list().expect("a healthy disk");
    list.iter().map(|info| info.id.index.0).collect()
}

/// Index and hash of the newest good snapshot of a directory that is opened anew.
fn newest(fs: &SimFs) -> Option<(u64, u64)> {
    let loaded = open_snapshots(fs).load_newest().expect("a healthy disk");
    loaded
        .newest
        .map(|(header, store)| (header.index, store.hash()))
}

fn state(index: u64) -> Option<(u64, u64)> {
    Some((index, store_at(index, in_term_one).hash()))
}

#[test]
fn snapshot_is_written_listed_sent_received_and_loaded_on_a_real_disk() {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let open = |name: &str| {
        SnapshotDir::open(&OsFs, &temporary.path().join(name), snapshot_options()).unwrap()
    };
    let (sender, receiver) = (open("sender"), open("receiver"));
    let view = store_at(50, in_term_one);
    let info = sender.write(&view, &meta(50, 1)).unwrap();
    assert_eq!(sender.list().unwrap(), std::slice::from_ref(&info));
    assert_eq!(std::fs::metadata(&info.file).unwrap().len(), info.bytes);

    let bytes = read_out(&sender, 50).unwrap();
    assert_eq!(bytes, snapshot_bytes(&view, &meta(50, 1)));
    let mut incoming = receiver.begin_receive(&meta(50, 1)).unwrap();
    for chunk in bytes.chunks(1000) {
        incoming.write(chunk).unwrap();
    }
    let (_, store) = incoming.finish().unwrap();
    assert_eq!(store.hash(), view.hash());
    let loaded = open("receiver").load_newest().unwrap();
    assert_eq!(loaded.newest.unwrap().1.hash(), view.hash());
}

fn with_two() -> SimFs {
    let fs = SimFs::new(7);
    let dir = open_snapshots(&fs);
    write(&dir, 20);
    write(&dir, 40);
    fs
}

/// Case 33: a crash while a snapshot is written leaves the one before or the new one, never a part.
#[test]
fn crash_while_writing_leaves_no_part_of_a_snapshot() {
    let view = store_at(60, in_term_one);
    at_each_call(
        &with_two(),
        |dir| done(dir.write(&view, &meta(60, 1))),
        |fs| {
            let found = newest(fs);
            assert!(found == state(40) || found == state(60), "{found:?}");
            let damaged = open_snapshots(fs).load_newest().unwrap().damaged;
            assert!(damaged.is_empty(), "{damaged:?}");
        },
    );
}

/// Case 35: so does a crash while one is received.
#[test]
fn crash_while_receiving_leaves_no_part_of_a_snapshot() {
    let bytes = snapshot_bytes(&store_at(60, in_term_one), &meta(60, 1));
    at_each_call(
        &with_two(),
        |dir| done(receive(dir, &bytes, &meta(60, 1))),
        |fs| {
            let found = newest(fs);
            assert!(found == state(40) || found == state(60), "{found:?}");
            let damaged = open_snapshots(fs).load_newest().unwrap().damaged;
            assert!(damaged.is_empty(), "{damaged:?}");
        },
    );
}

/// Case 33: whenever pruning is interrupted, the newest snapshot is there.
#[test]
fn crash_while_pruning_keeps_the_newest() {
    let base = with_two();
    let dir = open_snapshots(&base);
    write(&dir, 60);
    write(&dir, 80);
    drop(dir);
    at_each_call(
        &base,
        |dir| done(dir.prune()),
        |fs| assert_eq!(newest(fs), state(80)),
    );
}

/// Case 35: the transfer ends after any chunk; nothing of it is to be seen, then or after a restart.
#[test]
fn transfer_that_ends_early_leaves_nothing() {
    let fs = with_two();
    let before = files(&fs);
    let dir = open_snapshots(&fs);
    let bytes = snapshot_bytes(&store_at(60, in_term_one), &meta(60, 1));
    for end in (0..bytes.len()).step_by(97) {
        let mut incoming = dir.begin_receive(&meta(60, 1)).unwrap();
        incoming.write(&bytes[..end]).unwrap();
        match incoming.finish() {
            Err(SnapshotDirError::Refused {
                damage: Damage::Format(SnapshotError::Truncated { offset }),
            }) => assert_eq!(offset, end as u64),
            other => panic!("{end} bytes of {}: {other:?}", bytes.len()),
        }
        assert_eq!(files(&fs), before);
        assert_eq!(newest(&fs), state(40));
    }
    receive(&dir, &bytes, &meta(60, 1)).expect("the next transfer is not disturbed");
    assert_eq!(newest(&fs), state(60));
}

/// Case 36: a flipped bit anywhere in a stored snapshot is found: the older one is used, the rotten one is never sent, and
/// nothing older is removed because of it.
#[test]
fn rotten_snapshot_is_not_loaded_not_sent_and_not_relied_on() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    write(&dir, 60);
    let file = dir.list().unwrap().pop().unwrap().file;
    let good = fs.bytes(&file);
    for byte in 0..good.len() as u64 {
        fs.flip_bit(&file, 8 * byte + byte % 8);
        let fresh = open_snapshots(&fs);
        let loaded = fresh.load_newest();
        // Magic, version and the checksum of both tell a newer version from rot.
        let loaded = loaded.unwrap_or_else(|error| panic!("byte {byte}: {error}"));
        assert_eq!(loaded.newest.unwrap().0.index, 40, "byte {byte}");
        assert_eq!(loaded.damaged.len(), 1);
        assert_eq!(loaded.damaged[0].id, id(60, 1));
        for dir in [&dir, &fresh] {
            match read_out(dir, 60) {
                Err(SnapshotDirError::Damaged { file: found, .. }) => assert_eq!(found, file),
                other => panic!("byte {byte}: {other:?}"),
            }
        }
        assert_eq!(fresh.prune().unwrap(), id(20, 1), "40 and 20 are kept");
        assert_eq!(indexes(&fresh), [20, 40], "the rotten one is gone");
        // Back to the beginning.
        write(&dir, 60);
        assert_eq!(fs.bytes(&file), good);
    }
}

#[test]
fn snapshot_that_rots_after_it_was_loaded_stops_pruning() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    write(&dir, 60);
    let file = dir.list().unwrap().pop().unwrap().file;
    fs.flip_bit(&file, 12_345);
    assert!(matches!(dir.prune(), Err(SnapshotDirError::Damaged { .. })));
    assert_eq!(indexes(&dir), [20, 40, 60]);
    // It is known by now.
    assert_eq!(dir.prune().unwrap(), id(20, 1));
    assert_eq!(indexes(&dir), [20, 40]);
}

/// Case 36: it is written anew under the same name, and what was received counts as the node's own once it would write that
/// itself.
#[test]
fn snapshot_is_written_again_only_if_it_has_rotted() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    let view = store_at(60, in_term_one);
    let bytes = snapshot_bytes(&view, &meta(60, 1));
    receive(&dir, &bytes, &meta(60, 1)).unwrap();
    assert_eq!(dir.prune_to(1).unwrap(), id(40, 1), "not reached here");
    let syncs = fs.syncs();
    dir.write_unless_good(&view, &meta(60, 1)).unwrap();
    assert_eq!(fs.syncs(), syncs, "it is good");
    let file = dir.list().unwrap().pop().unwrap().file;
    fs.flip_bit(&file, 12_345);
    dir.write_unless_good(&view, &meta(60, 1)).unwrap();
    assert!(fs.syncs() > syncs);
    assert_eq!(dir.prune_to(1).unwrap(), id(60, 1));
    assert_eq!(indexes(&dir), [60]);
    assert_eq!(newest(&fs), state(60));
}

/// Case 36: rot that begins while the file is being sent is found before the end goes out.
#[test]
fn snapshot_that_rots_while_it_is_sent_never_arrives_whole() {
    let fs = SimFs::new(1);
    let dir = open_snapshots(&fs);
    write(&dir, 40);
    let file = dir.list().unwrap().pop().unwrap().file;
    let mut chunks = dir.open_send(40).unwrap();
    fs.flip_bit(&file, 12_345);
    let last = chunks.by_ref().last();
    assert!(matches!(last, Some(Err(SnapshotDirError::Damaged { .. }))));
    assert!(chunks.next().is_none());
}

/// Case 36: an unreadable place is damage, not a reason to end the process.
#[test]
fn unreadable_snapshot_falls_back_to_the_one_before() {
    let fs = with_two();
    let file = open_snapshots(&fs).list().unwrap().pop().unwrap().file;
    fs.set_unreadable(&file, 1024);
    let loaded = open_snapshots(&fs).load_newest().unwrap();
    assert_eq!(loaded.newest.unwrap().0.index, 20);
    let error = &loaded.damaged[0].error;
    assert_eq!(Failure::from(error).code, ExitCode::DataDamaged);
    assert!(!error.is_fatal());
}

/// Case 36: each byte of a transfer that is flipped makes it fail, and what was there stays.
#[test]
fn received_snapshot_with_any_flipped_byte_is_refused() {
    let fs = with_two();
    let before = files(&fs);
    let dir = open_snapshots(&fs);
    let good = snapshot_bytes(&store_at(60, in_term_one), &meta(60, 1));
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        match receive(&dir, &bytes, &meta(60, 1)) {
            Err(SnapshotDirError::Refused { .. }) => {}
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(files(&fs), before, "byte {at}");
        // Thousands of unsynced changes of names would make the simulated disk slow.
        fs.sync_dir(&snapshot_dir(&data())).unwrap();
    }
    assert_eq!(newest(&fs), state(40));
}

#[test]
fn snapshot_other_than_announced_is_refused() {
    let fs = SimFs::new(1);
    let dir = open_snapshots(&fs);
    let view = store_at(60, in_term_one);
    let bytes = snapshot_bytes(&view, &meta(60, 1));
    let mut other_members = meta(60, 1);
    other_members.configuration = Configuration::new([NodeId(1), NodeId(2), NodeId(9)]);
    for announced in [meta(61, 1), meta(60, 2), other_members] {
        let refused = receive(&dir, &bytes, &announced);
        assert!(
            matches!(refused, Err(SnapshotDirError::Refused { .. })),
            "{refused:?}"
        );
    }
    let foreign = SnapshotOptions {
        cluster: 9,
        ..snapshot_options()
    };
    let elsewhere = SnapshotDir::open(&fs, "/elsewhere".as_ref(), foreign).unwrap();
    let refused = receive(&elsewhere, &bytes, &meta(60, 1));
    assert!(matches!(
        refused,
        Err(SnapshotDirError::Refused {
            damage: Damage::OtherCluster { .. }
        })
    ));
    assert!(files(&fs).is_empty());
}

/// Case 61: a transfer beyond the limit ends there, whatever it says.
#[test]
fn received_snapshot_beyond_the_limit_is_refused() {
    let fs = SimFs::new(1);
    let options = SnapshotOptions {
        received_bytes_max: 2000,
        ..snapshot_options()
    };
    let dir = SnapshotDir::open(&fs, &snapshot_dir(&data()), options).unwrap();
    let bytes = snapshot_bytes(&store_at(60, in_term_one), &meta(60, 1));
    let refused = receive(&dir, &bytes, &meta(60, 1));
    assert!(matches!(
        refused,
        Err(SnapshotDirError::TooLarge { limit: 2000 })
    ));
    assert!(files(&fs).is_empty());
}

/// Case 52: a full disk is a definite refusal that leaves nothing behind, and space that returns is used.
#[test]
fn full_disk_refuses_a_snapshot_and_leaves_nothing() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    let before = files(&fs);
    let view = store_at(60, in_term_one);
    fs.set_capacity(Some(0));
    let refused = dir.write(&view, &meta(60, 1)).expect_err("no room");
    assert!(matches!(refused, SnapshotDirError::NoSpace { .. }));
    assert!(!refused.is_fatal());
    assert_eq!(files(&fs), before);
    fs.set_capacity(None);
    dir.write(&view, &meta(60, 1)).unwrap();
    assert_eq!(newest(&fs), state(60));
}

/// Case 51: after a failed sync nothing is written or removed any more.
#[test]
fn failed_sync_ends_the_use_of_the_directory() {
    let base = with_two();
    let view = store_at(60, in_term_one);
    for sync in 1.. {
        let fs = base.fork();
        let dir = open_snapshots(&fs);
        dir.load_newest().unwrap();
        fs.fail_sync(fs.syncs() + sync, 5);
        let Err(error) = dir.write(&view, &meta(60, 1)) else {
            assert!(sync > 2, "the file and its name are synced");
            return;
        };
        assert!(error.is_fatal(), "{error}");
        assert_eq!(Failure::from(&error).code, ExitCode::StorageIo);
        assert!(matches!(dir.prune(), Err(SnapshotDirError::Poisoned)));
        assert!(matches!(
            dir.write(&view, &meta(60, 1)),
            Err(SnapshotDirError::Poisoned)
        ));
        fs.power_cut(&mut rng(sync));
        let found = newest(&fs);
        assert!(found == state(40) || found == state(60), "{found:?}");
    }
}

/// Any single storage call of a write fails: the directory holds what it held or the whole new snapshot, and a file that
/// cannot be read back never gets its name.
#[test]
fn snapshot_that_cannot_be_written_or_read_back_gets_no_name() {
    let base = with_two();
    let view = store_at(60, in_term_one);
    let mut unreadable = 0;
    for call in 1.. {
        let fs = base.fork();
        let dir = open_snapshots(&fs);
        let calls = fs.calls();
        fs.fail_call(calls + call, 5);
        match dir.write(&view, &meta(60, 1)) {
            Ok(_) if calls + call <= fs.calls() => panic!("call {call} was not needed"),
            Ok(_) => break,
            Err(SnapshotDirError::Damaged { damage, .. }) => {
                assert_eq!(damage, Damage::Unreadable);
                assert_eq!(files(&fs), files(&base), "call {call}");
                unreadable += 1;
            }
            // Looking at the free space changes nothing.
            Err(SnapshotDirError::Read(fault)) => assert_eq!(fault.operation, "measure"),
            Err(error) => assert!(error.is_fatal(), "call {call}: {error}"),
        }
        fs.power_cut(&mut rng(call));
        let found = newest(&fs);
        assert!(found == state(40) || found == state(60), "{found:?}");
    }
    assert!(unreadable >= 2, "the file is opened and read again");
}

#[test]
fn pruning_keeps_as_many_as_configured_and_names_the_oldest() {
    let fs = SimFs::new(1);
    let dir = open_snapshots(&fs);
    assert!(matches!(
        dir.prune(),
        Err(SnapshotDirError::NotFound { .. })
    ));
    write(&dir, 10);
    assert_eq!(dir.prune().unwrap(), id(10, 1));
    write(&dir, 20);
    assert_eq!(dir.prune().unwrap(), id(10, 1));
    write(&dir, 30);
    assert_eq!(dir.prune().unwrap(), id(20, 1));
    assert_eq!(indexes(&dir), [20, 30]);
}

/// A received snapshot that the core has not installed stands for entries that the log does not have. If it counted, the log
/// would be told to purge what is not there.
#[test]
fn received_snapshot_does_not_shorten_the_log_before_it_is_reached() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    let bytes = snapshot_bytes(&store_at(90, in_term_one), &meta(90, 1));
    receive(&dir, &bytes, &meta(90, 1)).unwrap();
    assert_eq!(dir.prune().unwrap(), id(20, 1));
    write(&dir, 60);
    assert_eq!(dir.prune().unwrap(), id(40, 1));
    assert_eq!(indexes(&dir), [40, 60, 90]);
    // Once the node has come as far by itself, it counts like any other.
    write(&dir, 100);
    assert_eq!(dir.prune().unwrap(), id(90, 1));
    assert_eq!(indexes(&dir), [90, 100]);
}

#[test]
fn received_snapshots_do_not_pile_up() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    for index in [60, 70, 80, 90] {
        let bytes = snapshot_bytes(&store_at(index, in_term_one), &meta(index, 1));
        receive(&dir, &bytes, &meta(index, 1)).unwrap();
    }
    assert_eq!(indexes(&dir), [20, 40, 80, 90]);
}

#[test]
fn snapshot_stays_readable_for_a_sender_while_it_is_removed() {
    let fs = with_two();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    let sending = dir.open_send(20).unwrap();
    write(&dir, 60);
    dir.prune().unwrap();
    assert_eq!(indexes(&dir), [40, 60]);
    let mut bytes = Vec::new();
    for chunk in sending {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(
        bytes,
        snapshot_bytes(&store_at(20, in_term_one), &meta(20, 1))
    );
    assert!(matches!(
        dir.open_send(20),
        Err(SnapshotDirError::NotFound { .. })
    ));
}

#[test]
fn newer_format_is_refused_by_name_and_nothing_older_is_used() {
    let fs = with_two();
    let file = open_snapshots(&fs).list().unwrap().pop().unwrap().file;
    let mut bytes = fs.bytes(&file);
    bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs.set_bytes(&file, &bytes);
    let error = open_snapshots(&fs)
        .load_newest()
        .expect_err("a newer version");
    assert!(matches!(error, SnapshotDirError::NewerFormat { .. }));
    assert_eq!(Failure::from(&error).code, ExitCode::FormatNewer);
}

#[test]
fn files_of_others_are_left_alone() {
    let fs = with_two();
    let dir = snapshot_dir(&data());
    for name in ["notes.txt", "snapshot-1-1", "snapshot-00000000000000000099"] {
        fs.create_new(&dir.join(name)).unwrap();
    }
    fs.sync_dir(&dir).unwrap();
    fs.create_new(&dir.join("7.tmp")).unwrap();
    assert_eq!(newest(&fs), state(40));
    assert_eq!(files(&fs).len(), 5, "only the unfinished one is gone");
    assert_eq!(meta(1, 1).configuration, founding());
}
