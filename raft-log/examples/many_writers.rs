//! Many threads append to one log and share its syncs.
//!
//! `cargo run --release -p raft-log --example many_writers [WRITERS [DIR]]`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use raft_log::{
    Binding, CreateError, Group, GroupError, GroupOptions, Options, OsFs, PreparerThread, Wal,
    WalError,
};

const BINDING: Binding = Binding {
    cluster: 0x00c0_ffee,
    node: 1,
};
const KIND: u8 = 2;
const APPENDS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let writers: u64 = args.next().map_or(Ok(8), |writers| writers.parse())?;
    let dir = match args.next() {
        Some(dir) => PathBuf::from(dir),
        None => std::env::temp_dir().join(format!("many_writers-{}", std::process::id())),
    };
    let options = Options {
        segment_bytes: 4 << 20,
        max_bytes: 256 << 20,
        ..Options::default()
    };
    match Wal::create(&OsFs, &dir, BINDING, &options) {
        Ok(()) | Err(CreateError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (wal, opened) = Wal::open(&OsFs, &dir, BINDING, options)?;
    let spares = PreparerThread::start(wal.preparer(), complain)?;
    let group = Group::new(wal, BINDING, spares, GroupOptions::default());

    let begin = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let group = group.clone();
                scope.spawn(move || append(&group, writer))
            })
            .collect();
        let mut threads = threads.into_iter();
        threads.try_for_each(|thread| thread.join().expect("a writer does not panic"))
    })?;
    let count = group.reader().last_index() - opened.last_index;
    println!(
        "{count} durable appends of {writers} threads in {:?}",
        begin.elapsed()
    );

    let (wal, spares) = group.close()?;
    spares.stop()?;
    wal.close()?;
    Ok(())
}

/// Each append is durable when it returns.
fn append(group: &Group<OsFs>, writer: u64) -> Result<(), GroupError> {
    for number in 0..APPENDS {
        let payload = format!("append {number} of writer {writer}");
        let index = group.append(KIND, payload.as_bytes())?;
        assert!(index <= group.reader().last_index());
    }
    Ok(())
}

fn complain(prepared: &Result<bool, WalError>) {
    if let Err(error) = prepared {
        eprintln!("no segment prepared ahead: {error}");
    }
}
