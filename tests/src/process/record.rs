//! Where records lie in the files of a stopped node's log, found with the public record format.

use std::path::{Path, PathBuf};

use raft_log::record::{self, HEADER_BYTES};

/// Records begin here; the segment's header lies before.
const SEGMENT_HEADER_BYTES: usize = 4096;
/// Local prefix in front of each record.
const PREFIX_BYTES: usize = 16;
/// Records begin at multiples of this.
const ALIGN: usize = 8;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The segment.
    pub file: PathBuf,
    /// Offset of its local prefix.
    pub start: u64,
    /// Offset behind its payload, before padding.
    pub end: u64,
    /// Its log index.
    pub index: u64,
}

/// All records in all segments, in the order of the log.
///
/// # Panics
/// The directory cannot be read.
#[must_use]
pub fn find_records(log_dir: &Path, cluster: u32) -> Vec<RecordPlace> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(log_dir)
        .expect("the log of a node can be read")
        .map(|entry| entry.expect("the log of a node can be read").path())
        .collect();
    files.sort();
    let mut found: Vec<RecordPlace> = files
        .iter()
        .flat_map(|file| records_of(file, cluster))
        .collect();
    found.sort_by_key(|place| place.index);
    found
}

/// Files that are no segments hold no record at the place where one must begin.
fn records_of(file: &Path, cluster: u32) -> Vec<RecordPlace> {
    let bytes = std::fs::read(file).expect("the log of a node can be read");
    let mut found = Vec::new();
    let mut start = SEGMENT_HEADER_BYTES;
    while let Some(rest) = bytes.get(start + PREFIX_BYTES..) {
        let Ok((header, _, used)) = record::decode(cluster, rest) else {
            break;
        };
        let end = start + PREFIX_BYTES + used;
        assert!(used >= HEADER_BYTES, "a record has a header");
        found.push(RecordPlace {
            file: file.to_owned(),
            start: start as u64,
            end: end as u64,
            index: header.index,
        });
        start = end.next_multiple_of(ALIGN);
    }
    found
}
