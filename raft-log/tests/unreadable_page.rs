//! A mapped segment that somebody shortens: the process says which file, and ends with exit code 74.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use raft_log::{Binding, EntryRef, Options, OsFs, Wal, record};

/// Set in the process that is to die.
const VICTIM: &str = "RAFT_LOG_TEST_VICTIM_DIR";

#[test]
fn a_shortened_segment_ends_the_process_with_its_name_and_exit_code_74() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        return read_a_shortened_segment(dir.as_ref());
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_shortened_segment_ends_the_process_with_its_name_and_exit_code_74",
        ])
        .env(VICTIM, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(
        said.contains(&format!("file={}", dir.path().display())),
        "{said}"
    );
}

fn read_a_shortened_segment(dir: &std::path::Path) {
    raft_log::exit_on_unreadable_pages().unwrap();
    let binding = Binding {
        cluster: 7,
        node: 1,
    };
    let options = Options {
        segment_bytes: 64 << 10,
        max_bytes: 1 << 20,
        reserve_bytes: 0,
        ..Options::default()
    };
    let log = dir.join("log");
    Wal::create(&OsFs, &log, binding, &options).unwrap();
    let (mut wal, _) = Wal::open(&OsFs, &log, binding, options).unwrap();
    let payload = vec![1; 20 << 10];
    let payload_crc = record::payload_checksum(7, &payload);
    wal.append(&[EntryRef {
        index: 1,
        term: 1,
        kind: 2,
        payload: &payload,
        payload_crc,
    }])
    .unwrap();
    wal.sync().unwrap();
    for entry in std::fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        if path.metadata().unwrap().len() == 64 << 10 {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(4096)
                .unwrap();
        }
    }
    let read = wal.reader().entries(1..2, u64::MAX);
    panic!("read a page that is not there: {read:?}");
}
