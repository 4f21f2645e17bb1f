//! The simulated disk does what its model says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use raft_log::fs::{File, Fs, SimFs, UnitFate, is_stopped};

const EIO: i32 = 5;

fn dir() -> PathBuf {
    PathBuf::from("/data")
}

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

/// A disk with one file, whose first 512 bytes are `old` and durable.
fn disk() -> SimFs {
    let fs = SimFs::new(1);
    fs.create_dir_all(&dir()).unwrap();
    let file = fs.create_new(&path("file")).unwrap();
    file.write_at(&[b'o'; 512], 0).unwrap();
    file.sync_all().unwrap();
    fs.sync_dir(&dir()).unwrap();
    fs
}

fn read(fs: &SimFs, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let file = fs.open(&path("file")).unwrap();
    let read = file.read_at(&mut bytes, offset).unwrap();
    bytes.truncate(read);
    bytes
}

#[test]
fn process_death_keeps_what_was_written_and_a_power_cut_may_not() {
    let fs = disk();
    let file = fs.open(&path("file")).unwrap();
    file.write_at(&[b'n'; 512], 0).unwrap();
    fs.crash_process();
    assert_eq!(read(&fs, 0, 512), [b'n'; 512]);
    let error = file.write_at(b"x", 0).unwrap_err();
    assert!(is_stopped(&error), "a file of the dead process: {error}");
    fs.power_cut_with(&mut |_| true, &mut |_| UnitFate::Old);
    assert_eq!(read(&fs, 0, 512), [b'o'; 512]);
}

#[test]
fn unit_that_holds_synced_bytes_ends_old_or_new_and_another_in_any_way() {
    let fs = disk();
    let file = fs.open(&path("file")).unwrap();
    file.write_at(&[b'n'; 1024], 0).unwrap();
    let units = fs.unsynced_units();
    assert_eq!(
        units.iter().map(|unit| unit.protected).collect::<Vec<_>>(),
        [true, false]
    );
    for fate in UnitFate::ALL {
        let fs = fs.fork();
        fs.power_cut_with(&mut |_| true, &mut |_| fate);
        let first = read(&fs, 0, 512);
        assert!(first == [b'o'; 512] || first == [b'n'; 512], "{fate:?}");
    }
    // The new length is one more thing that may be lost.
    let lengths: Vec<usize> = (0..20)
        .map(|_| {
            let seed = fs.random_u64();
            let fork = fs.fork();
            let mut bits = seed;
            fork.power_cut_with(&mut |_| true, &mut |_| {
                bits = bits.rotate_left(7);
                if bits & 1 == 0 {
                    UnitFate::Garbage
                } else {
                    UnitFate::New
                }
            });
            read(&fork, 0, 2000).len()
        })
        .collect();
    assert!(lengths.contains(&512));
    assert!(lengths.contains(&1024));
}

/// A record may end with zeros, and with them begin a unit.
#[test]
fn unit_that_holds_synced_zeros_of_a_write_is_no_unwritten_one() {
    let fs = disk();
    let file = fs.open(&path("file")).unwrap();
    file.write_at(&[0; 2048], 0).unwrap();
    file.sync_data().unwrap();
    let mut record = [b'r'; 520];
    record[512..].fill(0);
    file.write_at(&record, 512).unwrap();
    file.sync_data().unwrap();
    file.write_at(&[b'n'; 600], 1032).unwrap();
    let units = fs.unsynced_units();
    let protected: Vec<bool> = units.iter().map(|unit| unit.protected).collect();
    assert_eq!(
        protected,
        [true, false],
        "the zeros of the record, and prepared ones"
    );
}

#[test]
fn failed_sync_leaves_new_bytes_in_the_cache_and_old_ones_on_the_disk() {
    let fs = disk();
    let file = fs.open(&path("file")).unwrap();
    file.write_at(&[b'n'; 512], 0).unwrap();
    fs.fail_sync(fs.syncs() + 1, EIO);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(read(&fs, 0, 512), [b'n'; 512]);
    // A second sync finds nothing dirty, succeeds, and proves nothing.
    file.sync_data().unwrap();
    let evicted = fs.fork();
    evicted.drop_caches();
    assert_eq!(read(&evicted, 0, 512), [b'o'; 512]);
    fs.power_cut_with(&mut |_| true, &mut |_| UnitFate::New);
    assert_eq!(read(&fs, 0, 512), [b'o'; 512]);
}

#[test]
fn names_are_durable_only_after_a_sync_of_their_directory() {
    let fs = disk();
    let file = fs.create_new(&path("second")).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync_all().unwrap();
    fs.rename(&path("file"), &path("renamed")).unwrap();
    assert_eq!(fs.unsynced_names(), 2);
    let kept = |keep: [bool; 2]| {
        let fs = fs.fork();
        fs.power_cut_with(&mut |change| keep[change], &mut |_| UnitFate::Old);
        fs.list(&dir()).unwrap()
    };
    assert_eq!(kept([false, false]), ["file"]);
    assert_eq!(kept([true, false]), ["file", "second"]);
    assert_eq!(kept([false, true]), ["renamed"]);
    assert_eq!(kept([true, true]), ["renamed", "second"]);
    fs.sync_dir(&dir()).unwrap();
    fs.power_cut_with(&mut |_| false, &mut |_| UnitFate::Old);
    assert_eq!(fs.list(&dir()).unwrap(), ["renamed", "second"]);
}

#[test]
fn machine_stops_at_the_planned_call_until_it_is_started_again() {
    let fs = disk();
    let file = fs.open(&path("file")).unwrap();
    fs.power_cut_at_call(fs.calls() + 2);
    file.write_at(b"1", 0).unwrap();
    for _ in 0..3 {
        assert!(is_stopped(&file.sync_data().unwrap_err()));
        assert!(is_stopped(&fs.list(&dir()).unwrap_err()));
    }
    assert!(fs.is_stopped());
    fs.restart();
    assert!(!fs.is_stopped());
    let first = read(&fs, 0, 1)[0];
    assert!(first == b'o' || first == b'1');
}

#[test]
fn planned_call_fails_once_with_its_error() {
    let fs = disk();
    fs.fail_call(fs.calls() + 1, 13);
    assert_eq!(fs.open(&path("file")).unwrap_err().raw_os_error(), Some(13));
    fs.open(&path("file")).unwrap();
}

#[test]
fn capacity_is_shared_by_all_files() {
    let fs = disk();
    fs.set_capacity(Some(2000));
    assert_eq!(fs.available_bytes(Path::new("/")).unwrap(), 1488);
    let file = fs.create_new(&path("second")).unwrap();
    assert!(file.allocate(1489).is_err());
    file.allocate(1000).unwrap();
    assert!(file.write_at(&[1; 2000], 0).is_err());
    file.write_at(&[1; 1000], 0).unwrap();
    fs.remove(&path("file")).unwrap();
    // The room comes back when the removal is durable.
    fs.sync_dir(&dir()).unwrap();
    assert_eq!(fs.available_bytes(Path::new("/")).unwrap(), 1000);
}

#[test]
fn locks_and_permissions_are_kept() {
    let fs = disk();
    let lock = fs.lock(&path("lock")).unwrap();
    assert_eq!(
        fs.lock(&path("lock")).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    drop(lock);
    let _lock = fs.lock(&path("lock")).unwrap();
    fs.crash_process();
    fs.lock(&path("lock")).unwrap();
    assert_eq!(fs.permissions(&path("file")).unwrap(), 0o600);
    assert_eq!(fs.permissions(&dir()).unwrap(), 0o700);
    fs.set_permissions(&path("file"), 0o640).unwrap();
    assert_eq!(fs.permissions(&path("file")).unwrap(), 0o640);
}

#[test]
fn same_seed_gives_the_same_disk() {
    let run = |seed| {
        let fs = SimFs::new(seed);
        fs.create_dir_all(&dir()).unwrap();
        let file = fs.create_new(&path("file")).unwrap();
        file.sync_all().unwrap();
        fs.sync_dir(&dir()).unwrap();
        file.write_at(&[7; 8192], 0).unwrap();
        fs.power_cut_at_call(fs.calls() + 1);
        assert!(file.sync_data().is_err());
        fs.restart();
        fs.bytes(&path("file"))
    };
    assert_eq!(run(5), run(5));
    assert!((0..20).any(|seed| run(seed) != run(5)));
}
