//! How many bytes reach the device for each byte that is appended, for groups of several sizes.
//!
//! `cargo run --release -p raft-log --example device_bytes DIR`; DIR must not exist, and should lie on a disk that nobody else
//! writes to: what the whole device was given is counted.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use raft_log::record::payload_checksum;
use raft_log::{Binding, EntryRef, Options, OsFs, Wal};

const BINDING: Binding = Binding {
    cluster: 0x0f1e_2d3c,
    node: 1,
};
const PAYLOAD_BYTES: usize = 976; // With prefix and header 1 KiB.
const SECTOR_BYTES: u64 = 512;
const TOTAL_BYTES: usize = 48 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("which directory?")?);
    for group_bytes in [4 << 10, 64 << 10, 1 << 20] {
        let ratio = measure(&dir, group_bytes)?;
        println!("groups of {group_bytes} bytes: {ratio:.3} device bytes for each byte");
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn measure(dir: &Path, group_bytes: usize) -> Result<f64, Box<dyn Error>> {
    let options = Options {
        spare_segments: 2,
        ..Options::default()
    };
    Wal::create(&OsFs, dir, BINDING, &options)?;
    let (mut wal, _) = Wal::open(&OsFs, dir, BINDING, options)?;
    while wal.preparer().prepare_spare()? {}
    let payload = vec![0x5a; PAYLOAD_BYTES];
    let payload_crc = payload_checksum(BINDING.cluster, &payload);
    let before = device_bytes(dir)?;
    for _ in 0..TOTAL_BYTES / group_bytes {
        for _ in 0..group_bytes >> 10 {
            let index = wal.last_index() + 1;
            wal.append(&[EntryRef {
                index,
                term: 1,
                kind: 1,
                payload: &payload,
                payload_crc,
            }])?;
        }
        wal.sync()?;
    }
    wal.flush_control()?;
    let written = device_bytes(dir)? - before;
    Ok(written as f64 / TOTAL_BYTES as f64)
}

/// Bytes that were written to the device below `dir` since the machine was started.
fn device_bytes(dir: &Path) -> Result<u64, Box<dyn Error>> {
    let device = std::fs::metadata(dir)?.dev();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff);
    let stats = std::fs::read_to_string("/proc/diskstats")?;
    let fields = stats
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_ours = |it: &Vec<&str>| it[0] == major.to_string() && it[1] == minor.to_string();
    let ours = fields.into_iter().find(is_ours).ok_or("no such device")?;
    Ok(ours[9].parse::<u64>()? * SECTOR_BYTES)
}
