//! A log directory as an input: pieces of files, so that a few hundred bytes make segments that are mostly
//! zeros.
//!
//! ```text
//! | file | place  | count  | bytes ... |      place in units of 8 bytes
//! | file | length |                          with the top bit of `file`: cuts or extends it
//! ```

use std::collections::BTreeMap;

use raft_log::fs::{Fs, SimFs};

use super::input::Input;
use crate::support::dir;

/// Names an input can give. Those at the end of the numbers are as legal as the others.
pub const NAMES: [&str; 12] = [
    "control",
    "hard-state",
    "segment-0000000000000001",
    "segment-0000000000000002",
    "segment-0000000000000003",
    "segment-0000000000000004",
    "segment-ffffffffffffffff",
    "spare-0000000000000001",
    "spare-0000000000000002",
    "spare-ffffffffffffffff",
    "spare-0000000000000003.tmp",
    "control.tmp",
];

const UNIT_BYTES: usize = 8;
const FILE_BYTES_MAX: usize = 64 << 10;
const IS_LENGTH: u8 = 0x80;
/// Zeros inside a piece that are cheaper than the header of another piece.
const GAP_BYTES: usize = 2 * UNIT_BYTES;

/// Files by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    pub files: BTreeMap<&'static str, Vec<u8>>,
}

impl Directory {
    /// Reads what is left of an input.
    pub fn read(input: &mut Input<'_>) -> Directory {
        let mut directory = Directory::default();
        while !input.is_empty() {
            let tag = input.byte();
            let name = NAMES[usize::from(tag & !IS_LENGTH) % NAMES.len()];
            let file = directory
                .files
                .entry(name)
                .or_insert_with(|| vec![0; usual_bytes(name)]);
            if tag & IS_LENGTH != 0 {
                file.resize(usize::from(input.short()).min(FILE_BYTES_MAX), 0);
                continue;
            }
            let start = usize::from(input.short()) * UNIT_BYTES % FILE_BYTES_MAX;
            let count = usize::from(input.short()).min(FILE_BYTES_MAX - start);
            let piece = input.piece(count);
            if file.len() < start + piece.len() {
                file.resize(start + piece.len(), 0);
            }
            file[start..start + piece.len()].copy_from_slice(piece);
        }
        directory
    }

    /// What lies on a disk, as far as an input can say it.
    pub fn of(fs: &SimFs) -> Directory {
        let files = NAMES.iter().filter_map(|name| {
            let path = dir().join(name);
            let is_there = fs.exists(&path).expect("a healthy disk");
            is_there.then(|| (*name, fs.bytes(&path)))
        });
        Directory {
            files: files.collect(),
        }
    }

    /// The input that [`read`](Directory::read) makes this directory of.
    pub fn encode(&self) -> Vec<u8> {
        let mut input = Vec::new();
        for (name, bytes) in &self.files {
            let number = NAMES.iter().position(|known| known == name);
            let tag = number.expect("one of them") as u8;
            let start_over =
                bytes.len() != usual_bytes(name) || bytes.iter().all(|byte| *byte == 0);
            if start_over {
                input.push(tag | IS_LENGTH);
                input.extend((bytes.len() as u16).to_le_bytes());
            }
            for (start, piece) in written(bytes) {
                input.push(tag);
                input.extend(((start / UNIT_BYTES) as u16).to_le_bytes());
                input.extend((piece.len() as u16).to_le_bytes());
                input.extend(piece);
            }
        }
        input
    }

    /// A disk with these files on it.
    pub fn lay(&self, seed: u64) -> SimFs {
        let fs = SimFs::new(seed);
        fs.create_dir_all(&dir()).expect("a healthy disk");
        for (name, bytes) in &self.files {
            let path = dir().join(name);
            fs.create_new(&path).expect("a healthy disk");
            fs.set_bytes(&path, bytes);
        }
        fs.sync_dir(&dir()).expect("a healthy disk");
        fs
    }
}

/// Bytes of all files of a directory that lies on a disk.
pub fn bytes_on(fs: &SimFs) -> u64 {
    let names = fs.list(&dir()).unwrap_or_default();
    let bytes = names.iter().map(|name| fs.bytes(&dir().join(name)).len());
    bytes.sum::<usize>() as u64
}

fn usual_bytes(name: &str) -> usize {
    match name {
        "control" | "control.tmp" => 8 << 10,
        _ => 16 << 10,
    }
}

/// The parts of a file that are not zero, with where they begin.
fn written(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (number, unit) in bytes.chunks(UNIT_BYTES).enumerate() {
        if unit.iter().all(|byte| *byte == 0) {
            continue;
        }
        let (start, end) = (number * UNIT_BYTES, number * UNIT_BYTES + unit.len());
        match ranges.last_mut() {
            Some(last) if start - last.1 <= GAP_BYTES => last.1 = end,
            Some(_) | None => ranges.push((start, end)),
        }
    }
    let part = |(start, end)| (start, &bytes[start..end]);
    ranges.into_iter().map(part).collect()
}
