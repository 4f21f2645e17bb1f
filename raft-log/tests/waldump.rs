//! The tool that prints a log directory, also that of a running process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use raft_log::record::payload_checksum;
use raft_log::{Depth, EntryRef, Options, OsFs, Wal, inspect};
use support::{BINDING, small};

/// A directory with an open log of entries in three segments; the first two have their index.
fn with_open_log() -> (tempfile::TempDir, PathBuf, Wal<OsFs>) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("log");
    Wal::create(&OsFs, &dir, BINDING, &small()).unwrap();
    let (mut wal, _) = Wal::open(&OsFs, &dir, BINDING, small()).unwrap();
    wal.set_hard_state(4, Some(9)).unwrap();
    for index in 1..=60 {
        let payload = format!("entry number {index}, {}", "x".repeat(260));
        let payload_crc = payload_checksum(BINDING.cluster, payload.as_bytes());
        let entry = EntryRef {
            index,
            term: 4,
            kind: 2,
            payload: payload.as_bytes(),
            payload_crc,
        };
        wal.append(&[entry]).unwrap();
        wal.sync().unwrap();
        wal.preparer().work().unwrap();
    }
    (temporary, dir, wal)
}

fn waldump(args: &[&str], dir: &Path, range: &[&str]) -> (i32, Vec<String>) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_waldump"))
        .args(args)
        .arg(dir)
        .args(range)
        .output()
        .unwrap();
    assert!(status.success() || !stderr.is_empty());
    let lines = String::from_utf8(stdout).unwrap();
    (
        status.code().unwrap(),
        lines.lines().map(str::to_owned).collect(),
    )
}

fn count(lines: &[String], what: &str) -> usize {
    let begin = format!("{{\"what\":\"{what}\"");
    lines.iter().filter(|line| line.starts_with(&begin)).count()
}

#[test]
fn log_of_a_running_process_is_printed_and_verified() {
    let (_temporary, dir, wal) = with_open_log();
    for verb in ["inspect", "verify"] {
        let (code, lines) = waldump(&[verb], &dir, &[]);
        assert_eq!(code, 0, "{lines:?}");
        let head = &lines[0];
        for part in [
            "\"cluster\":\"00c0ffee\",\"node\":3,\"term\":4,\"vote\":9",
            "\"first_index\":1,\"last_index\":60,\"last_term\":4",
            "\"watermark_index\":60",
            "\"closed\":false",
        ] {
            assert!(head.contains(part), "{part}: {head}");
        }
        assert_eq!(count(&lines, "segment"), 3);
        let sealed = lines.iter().filter(|line| line.contains("\"sealed\":true"));
        assert_eq!(sealed.count(), 2);
    }
    let (code, lines) = waldump(&["dump"], &dir, &["59", "70"]);
    assert_eq!((code, count(&lines, "entry"), lines.len()), (0, 2, 2));
    assert!(lines[1].contains("\"index\":60,\"term\":4,\"kind\":2,\"bytes\":"));
    assert!(lines[1].contains("\"text\":\"entry number 60, xxx"));
    // The owner was not disturbed.
    wal.close().unwrap();
    let (code, lines) = waldump(&["inspect"], &dir, &[]);
    assert!(code == 0 && lines[0].contains("\"closed\":true"));
}

/// Damage in a segment that has its index: the log opens without being read, and `verify` finds it.
#[test]
fn verify_finds_what_an_open_does_not_look_at() {
    let (_temporary, dir, wal) = with_open_log();
    let path = support::file_name(&support::segment(1));
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(dir.join(&path))
        .unwrap();
    let place = 4096 + 3 * 336 + 100;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 8], place).unwrap();
    let (code, lines) = waldump(&["inspect"], &dir, &[]);
    assert_eq!((code, count(&lines, "faulty")), (0, 0));
    let (code, lines) = waldump(&["verify"], &dir, &[]);
    assert_eq!((code, count(&lines, "faulty")), (65, 1));
    let line = lines.iter().find(|line| line.contains("faulty")).unwrap();
    for part in [
        &format!("{path}\",\"offset\":"),
        "\"check\":\"PayloadChecksum\"",
        "\"index\":4,\"term\":4,\"kind\":2",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let (code, lines) = waldump(&["dump"], &dir, &[]);
    assert_eq!(
        (code, count(&lines, "entry"), count(&lines, "faulty")),
        (65, 59, 1)
    );
    // Nothing was mended: nothing was written.
    let found = inspect(&OsFs, &dir, Depth::Records).unwrap();
    assert_eq!(found.faulty.len(), 1);
    drop(wal);
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let temporary = tempfile::tempdir().unwrap();
    let (code, lines) = waldump(&["inspect"], temporary.path(), &[]);
    assert_eq!((code, lines.len()), (76, 0));
    let (code, _) = waldump(&["shorten"], temporary.path(), &[]);
    assert_eq!(code, 64);
}

/// Somebody looks again and again while the owner writes, cuts, purges and rotates.
#[test]
fn looking_beside_a_writer_never_sees_damage() {
    let (_temporary, dir, mut wal) = with_open_log();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || looks < 3 {
                let depth = if looks % 2 == 0 {
                    Depth::Headers
                } else {
                    Depth::Records
                };
                match inspect(&OsFs, &dir, depth) {
                    Ok(found) => assert_eq!(found.faulty, [], "look {looks}"),
                    // It changed each time that it was read.
                    Err(error) => assert!(is_change(&error), "look {looks}: {error}"),
                }
                looks += 1;
            }
            looks
        });
        let options = Options::default();
        assert!(options.check().is_ok());
        for round in 0..60u64 {
            let first = wal.last_index() + 1;
            for index in first..first + 9 {
                let payload = [round as u8; 300];
                let payload_crc = payload_checksum(BINDING.cluster, &payload);
                let entry = EntryRef {
                    index,
                    term: 5 + round,
                    kind: 2,
                    payload: &payload,
                    payload_crc,
                };
                wal.append(&[entry]).unwrap();
            }
            wal.sync().unwrap();
            wal.truncate_suffix(first + 5).unwrap();
            let through = first - 20;
            let term = wal.term(through).unwrap();
            wal.purge_prefix(through, term).unwrap();
            wal.preparer().work().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(looker.join().unwrap() >= 3);
    });
}

/// Whether a look that failed met a file that its owner just removed, or a cut that it just made.
fn is_change(error: &raft_log::OpenError) -> bool {
    use raft_log::{Check, OpenError};
    let is_gone = |fault: &raft_log::IoFault| fault.source.kind() == std::io::ErrorKind::NotFound;
    matches!(error, OpenError::Io(fault) if is_gone(fault))
        || matches!(error, OpenError::Corrupt(corruption) if corruption.check == Check::Generation)
        || matches!(error, OpenError::Missing { .. })
}
