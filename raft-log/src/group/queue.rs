//! What waits for the next group, copied: its writers sleep meanwhile.

use std::sync::Arc;

use crate::error::WalError;
use crate::fs::Fs;
use crate::group::turn::Outcomes;
use crate::wal::{EntryRef, Wal};

/// Appends of several writers, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// All payloads, one behind the other.
    payloads: Vec<u8>,
    entries: Vec<Queued>,
    /// Entries of each writer.
    counts: Vec<usize>,
    bytes: usize,
}

/// An entry without an index: it gets one when its group is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) kind: u8,
    pub(super) payload_bytes: usize,
    pub(super) payload_crc: u32,
}

/// What an entry takes besides its payload.
const ENTRY_BYTES: usize = size_of::<Queued>();

/// Bytes that these entries take in the queue.
pub(super) fn queued_bytes(entries: &[Queued]) -> usize {
    let payloads: usize = entries.iter().map(|entry| entry.payload_bytes).sum();
    payloads + entries.len() * ENTRY_BYTES
}

impl Queue {
    /// Whether so many more stay below `bytes_max`; one append always fits.
    pub(super) fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.counts.is_empty() || self.bytes + bytes <= bytes_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn writers(&self) -> usize {
        self.counts.len()
    }

    /// Takes the entries of one writer, who is known by the returned number from now on.
    pub(super) fn push(&mut self, entries: &[Queued], payloads: &[&[u8]]) -> usize {
        self.entries.extend_from_slice(entries);
        for payload in payloads {
            self.payloads.extend_from_slice(payload);
        }
        self.counts.push(entries.len());
        self.bytes += queued_bytes(entries);
        self.counts.len() - 1
    }

    /// What all are told if the log was lost before anything of it was taken.
    pub(super) fn refuse(&self) -> Outcomes {
        let refused = || Err(Arc::new(WalError::Poisoned));
        Outcomes::new(self.counts.iter().map(|_| refused()).collect(), Ok(()))
    }

    /// What all are told if the log was lost while it was being written.
    pub(super) fn unknown(&self) -> Outcomes {
        let taken = self.counts.iter().map(|_| Ok(0..0)).collect();
        Outcomes::new(taken, Err(Arc::new(WalError::Poisoned)))
    }

    /// Empties the queue. It keeps its memory, but not what a single huge append needed.
    pub(super) fn clear(&mut self, bytes_max: usize) {
        self.payloads.clear();
        self.payloads.shrink_to(bytes_max);
        self.entries.clear();
        self.entries.shrink_to(bytes_max / ENTRY_BYTES);
        self.counts.clear();
        self.bytes = 0;
    }

    /// Appends everything and syncs once. A writer whose entries are refused takes nobody else along.
    pub(super) fn write<F: Fs>(&self, wal: &mut Wal<F>, term: u64) -> Outcomes {
        let mut taken = Vec::with_capacity(self.counts.len());
        let (mut entries, mut payloads) = (self.entries.iter(), &self.payloads[..]);
        let mut batch = Vec::new();
        for count in &self.counts {
            let first = wal.last_index() + 1;
            batch.clear();
            for (index, queued) in (first..).zip(entries.by_ref().take(*count)) {
                let (payload, rest) = payloads.split_at(queued.payload_bytes);
                payloads = rest;
                batch.push(queued.at(index, term, payload));
            }
            let indexes = first..first + *count as u64;
            taken.push(wal.append(&batch).map(|()| indexes).map_err(Arc::new));
        }
        Outcomes::new(taken, wal.sync().map_err(Arc::new))
    }
}

impl Queued {
    fn at<'a>(&self, index: u64, term: u64, payload: &'a [u8]) -> EntryRef<'a> {
        EntryRef {
            index,
            term,
            kind: self.kind,
            payload,
            payload_crc: self.payload_crc,
        }
    }
}
