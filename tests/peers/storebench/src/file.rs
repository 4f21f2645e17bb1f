//! A snapshot file for the engines that have none: keys and values one after the other, synced.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use bytes::Bytes;

use crate::engine::{KEY_BYTES, Key, VALUE_BYTES};

pub const NAME: &str = "snapshot";

pub fn write<'a>(dir: &Path, entries: impl Iterator<Item = (&'a Key, &'a [u8])>) {
    write_blocks(dir, entries.flat_map(|(key, value)| [&key[..], value]));
}

pub fn write_blocks<B: AsRef<[u8]>>(dir: &Path, blocks: impl Iterator<Item = B>) {
    let file = File::create(dir.join(NAME)).expect("our directory");
    let mut file = BufWriter::with_capacity(1 << 20, file);
    for block in blocks {
        file.write_all(block.as_ref()).expect("room on the disk");
    }
    let file = file.into_inner().expect("room on the disk");
    file.sync_all().expect("a disk that syncs");
}

/// Gives every entry of the file, if there is one.
pub fn read(dir: &Path, mut take: impl FnMut(Key, Bytes)) {
    let Ok(bytes) = std::fs::read(dir.join(NAME)) else {
        return;
    };
    for entry in bytes.chunks_exact(KEY_BYTES + VALUE_BYTES) {
        let (key, value) = entry.split_at(KEY_BYTES);
        let key = key.try_into().expect("so many bytes");
        take(key, Bytes::copy_from_slice(value));
    }
}
