//! Records that rot, and what a log is taken for that has lost some.

use std::path::{Path, PathBuf};

use raft_core::{Entry, LogIndex};
use raft_log::ReadError;
use raft_log::fs::Fs as _;
use rand::RngExt;

use super::World;
use crate::sim::node::{self, CLUSTER, DATA, Life};
use crate::sim::{Place, Us};
use crate::watch::{Log, Violation};

/// Bytes of a segment in front of its first record.
const SEGMENT_HEADER_BYTES: usize = 4096;
/// Bytes in front of each record that bind it to its place.
const PREFIX_BYTES: usize = 16;

/// Where a record lies.
struct Record {
    file: PathBuf,
    bytes: std::ops::Range<usize>,
    index: u64,
}

impl World {
    /// Stops a process and flips a bit in some records of its log that no other node loses.
    pub(super) fn rot(&mut self, place: Place, records: u64, down_us: Us) -> Result<(), Violation> {
        let machines = self.nodes.len() as u64;
        if !self.nodes[place].is_live() || !self.has_copies {
            return Ok(());
        }
        self.kill(place, down_us)?;
        // A last group that rots before the watermark behind it is durable looks like a torn one, if the power goes as
        // well: the one residual risk of the format.
        let settled = self.nodes[place].settled_index;
        let mut own = self.records(place);
        own.retain(|record| record.index <= settled);
        own.retain(|record| record.index % machines == place as u64);
        for _ in 0..records.min(own.len() as u64) {
            let record = &own[self.rng.random_range(0..own.len())];
            let byte = self.rng.random_range(record.bytes.clone()) as u64;
            let bit = byte * 8 + self.rng.random_range(0..8);
            if self.is_in_front_of_an_own_tail(place, LogIndex(record.index)) {
                continue;
            }
            self.nodes[place].disk.flip_bit(&record.file, bit);
            self.counts.rotted += 1;
            let text = format!("record {} rots", record.index);
            self.timeline.note(self.now, place, &text);
        }
        Ok(())
    }

    /// Whether others hold an entry at `index`, and nobody else what follows it here. If its term is lost, this node can neither
    /// compare its entry with theirs nor give it up, and may wait for ever if no leader can be elected without it: another limit
    /// that docs/design/004 states.
    fn is_in_front_of_an_own_tail(&self, place: Place, index: LogIndex) -> bool {
        let logs = self.watchers.logs();
        let next = LogIndex(index.0 + 1);
        let own = logs.durable(node::id(place));
        let Some(follows) = own.and_then(|log| log.entry(next)) else {
            return false;
        };
        let others = (0..self.nodes.len()).filter(|other| *other != place);
        let others: Vec<&Log> = others
            .filter_map(|other| logs.durable(node::id(other)))
            .collect();
        let reaches = |log: &&Log| log.last() >= index;
        let goes_on = |log: &&Log| log.holds(follows.id());
        others.iter().any(reaches) && !others.iter().any(goes_on)
    }

    /// Whether another machine may have lost something and not have it back. Two that each lost entries before tails of their own
    /// may wait for each other for ever: a limit that docs/design/004 states, so a schedule does not go there.
    pub(super) fn another_is_damaged(&self, place: Place) -> bool {
        let mut others = (0..self.nodes.len()).filter(|other| *other != place);
        others.any(|other| {
            let status = self.status(other);
            self.nodes[other].in_use && status.is_none_or(|status| status.repair.is_some())
        })
    }

    /// All records that lie in the segments of a node, dead ones included.
    fn records(&self, place: Place) -> Vec<Record> {
        let disk = &self.nodes[place].disk;
        let dir = kvd::identity::log_dir(Path::new(DATA));
        let names = disk.list(&dir).unwrap_or_default();
        let segments = names.iter().filter(|name| name.starts_with("segment-"));
        let mut found = Vec::new();
        for file in segments.map(|name| dir.join(name)) {
            let bytes = disk.bytes(&file);
            let mut at = SEGMENT_HEADER_BYTES;
            while let Some(record) = bytes.get(at + PREFIX_BYTES..)
                && let Ok((header, _, used)) = raft_log::record::decode(CLUSTER, record)
            {
                let end = at + PREFIX_BYTES + used;
                found.push(Record {
                    file: file.clone(),
                    bytes: at..end,
                    index: header.index,
                });
                at = end.next_multiple_of(8);
            }
        }
        found
    }

    /// The entries of a log that was just opened. What has rotted is taken from what the node had: it still answers for it.
    pub(super) fn entries_of(&self, place: Place, life: &Life) -> Vec<Entry> {
        let (mut next, last) = (life.reader.first_index(), life.reader.last_index());
        let mut entries = Vec::new();
        while next <= last {
            match life.reader.entries(next..last + 1, u64::MAX) {
                Ok(stored) => {
                    next += stored.len() as u64;
                    let read = kvd::recover::core_entries(stored);
                    entries.extend(read.expect("written by this program"));
                }
                Err(ReadError::Corrupt(_)) => {
                    entries.push(self.lost_entry(place, LogIndex(next)));
                    next += 1;
                }
                Err(error) => panic!("a log that was just recovered: {error}"),
            }
        }
        entries
    }

    fn lost_entry(&self, place: Place, index: LogIndex) -> Entry {
        let logs = self.watchers.logs();
        let own = logs
            .durable(node::id(place))
            .and_then(|log| log.entry(index));
        let known = own.or_else(|| logs.committed_entry(index));
        known.expect("what rots was there before").clone()
    }
}
