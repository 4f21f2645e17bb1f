//! Appends to a log, dies without closing it, and shows what the next start finds.
//!
//! `cargo run -p raft-log --example append_recover [DIR]`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use raft_log::record::payload_checksum;
use raft_log::{Binding, CreateError, EntryRef, Options, OsFs, Wal};

const BINDING: Binding = Binding {
    cluster: 0x00c0_ffee,
    node: 1,
};
const BATCH: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = match std::env::args().nth(1) {
        Some(dir) => PathBuf::from(dir),
        None => std::env::temp_dir().join(format!("append_recover-{}", std::process::id())),
    };
    let options = Options {
        segment_bytes: 4 << 20,
        max_bytes: 64 << 20,
        ..Options::default()
    };
    match Wal::create(&OsFs, &dir, BINDING, &options) {
        Ok(()) => println!("created {}", dir.display()),
        Err(CreateError::Exists { .. }) => println!("using {}", dir.display()),
        Err(error) => return Err(error.into()),
    }

    let (mut wal, opened) = Wal::open(&OsFs, &dir, BINDING, options.clone())?;
    println!(
        "found entries {}..={}, {:?}",
        opened.first_index, opened.last_index, opened.tail
    );
    let preparer = wal.preparer();
    let helper = std::thread::spawn(move || preparer.prepare_spare());

    let begin = Instant::now();
    for _ in 0..100 {
        append_batch(&mut wal)?;
        wal.sync()?;
    }
    println!(
        "100 synced batches of {BATCH} entries in {:?}",
        begin.elapsed()
    );

    // One more batch that is never synced, and then this "process" is gone.
    append_batch(&mut wal)?;
    let acknowledged = wal.reader().last_index();
    helper.join().map_err(|_| "the helper thread panicked")??;
    drop(wal);

    let (wal, opened) = Wal::open(&OsFs, &dir, BINDING, options)?;
    println!(
        "found entries {}..={}, {:?}",
        opened.first_index, opened.last_index, opened.tail
    );
    assert_eq!(
        opened.last_index, acknowledged,
        "everything acknowledged, nothing more"
    );
    wal.close()?;
    Ok(())
}

fn append_batch(wal: &mut Wal<OsFs>) -> Result<(), raft_log::WalError> {
    let first = wal.last_index() + 1;
    let payloads: Vec<Vec<u8>> = (first..first + BATCH)
        .map(|index| vec![index as u8; 256])
        .collect();
    let entries: Vec<EntryRef<'_>> = (first..)
        .zip(&payloads)
        .map(|(index, payload)| EntryRef {
            index,
            term: 1,
            kind: 2,
            payload,
            payload_crc: payload_checksum(BINDING.cluster, payload),
        })
        .collect();
    wal.append(&entries)
}
