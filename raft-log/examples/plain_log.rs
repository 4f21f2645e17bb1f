//! A log of payloads without Raft: append, read back, cut off the end, drop the beginning.
//!
//! `cargo run -p raft-log --example plain_log [DIR]`

use std::error::Error;
use std::path::{Path, PathBuf};

use raft_log::record::payload_checksum;
use raft_log::{Binding, EntryRef, Options, OsFs, Wal, WalError};

/// Whose log it is; a log of another application is refused by it.
const BINDING: Binding = Binding {
    cluster: 0x0f1e_2d3c,
    node: 1,
};
/// One term and one kind are enough where no leaders follow each other.
const TERM: u64 = 1;
const KIND: u8 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(dir) => run(&PathBuf::from(dir)),
        None => {
            let dir = std::env::temp_dir().join(format!("plain_log-{}", std::process::id()));
            run(&dir)?;
            Ok(std::fs::remove_dir_all(dir)?)
        }
    }
}

/// Makes a log in a directory that does not exist yet.
pub(crate) fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let options = Options {
        segment_bytes: 1 << 20,
        max_bytes: 16 << 20,
        ..Options::default()
    };
    Wal::create(&OsFs, dir, BINDING, &options)?;
    let (mut wal, _) = Wal::open(&OsFs, dir, BINDING, options.clone())?;

    for line in ["first", "second", "third", "fourth", "fifth"] {
        append(&mut wal, line.as_bytes())?;
    }
    wal.sync()?; // All five, with one sync.

    wal.truncate_suffix(5)?; // The fifth is gone for good.
    wal.purge_prefix(1, TERM)?; // The first is not needed any more.
    let last = append(&mut wal, b"another fifth")?;
    wal.close()?;

    let (wal, opened) = Wal::open(&OsFs, dir, BINDING, options)?;
    assert_eq!((opened.first_index, opened.last_index), (2, last));
    for entry in wal.reader().entries(2..last + 1, u64::MAX)? {
        println!(
            "{}: {}",
            entry.index,
            String::from_utf8_lossy(&entry.payload)
        );
    }
    Ok(())
}

/// Appends a payload and returns its number. It is durable after the next `sync`.
fn append(wal: &mut Wal<OsFs>, payload: &[u8]) -> Result<u64, WalError> {
    let index = wal.last_index() + 1;
    wal.append(&[EntryRef {
        index,
        term: TERM,
        kind: KIND,
        payload,
        payload_crc: payload_checksum(BINDING.cluster, payload),
    }])?;
    Ok(index)
}
