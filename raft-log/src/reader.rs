//! Reading synced entries, from any thread.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::error::{Corruption, IoFault, ReadError};
use crate::format::{BadRecord, Check, Fault, PREFIX_BYTES, Stored, decode_stored};
use crate::fs::{Fs, Map};
use crate::record::HEADER_BYTES;
use crate::view::{Part, Shared};

/// An entry as it was stored; the checksum is the one it came with and was verified on this read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Position in the log.
    pub index: u64,
    /// Term in which a leader made it.
    pub term: u64,
    /// Kind; the caller's.
    pub kind: u8,
    /// Payload.
    pub payload: Bytes,
    /// Checksum of the payload, as [`payload_checksum`](crate::record::payload_checksum) makes it.
    pub payload_crc: u32,
}

/// Reads synced entries while the writer goes on.
///
/// Cheap to clone. A reader and the writer share one mutex, which either holds for a look-up or for
/// noting what was synced, never while a file is read or written.
#[derive(Debug)]
pub struct Reader<F: Fs> {
    pub(crate) shared: Arc<Shared<F>>,
}

impl<F: Fs> Clone for Reader<F> {
    fn clone(&self) -> Reader<F> {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Records found for a reader but not yet read; as long as it lives their bytes do not change.
#[derive(Debug)]
pub struct Held<F: Fs> {
    parts: Vec<Part<F>>,
    cluster: u32,
}

impl<F: Fs> Reader<F> {
    /// Entries of a prefix of `range`: as many as have at most `max_bytes` stored bytes, at least one, and none from a
    /// damaged one on.
    ///
    /// Every checksum is verified on the copy that is returned.
    ///
    /// # Errors
    /// [`ReadError::Compacted`], [`ReadError::Unavailable`], or the first entry is damaged.
    pub fn entries(
        &self,
        range: Range<u64>,
        max_bytes: u64,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        self.hold(range, max_bytes)?.read()
    }

    /// Finds entries now and reads them later. Until it is dropped the writer does not write over them,
    /// whatever is truncated or purged meanwhile.
    ///
    /// # Errors
    /// As for [`entries`](Reader::entries), without reading anything.
    pub fn hold(&self, range: Range<u64>, max_bytes: u64) -> Result<Held<F>, ReadError> {
        let mut parts: Vec<Part<F>> = Vec::new();
        let (mut next, mut budget, mut cuts) = (range.start, max_bytes, None);
        while next < range.end {
            let force = parts.is_empty();
            let (found, cuts_now) = {
                let view = self.shared.view();
                (view.find(next..range.end, budget, force), view.cuts)
            };
            // What comes behind a truncation is another log than what was found before it.
            if *cuts.get_or_insert(cuts_now) != cuts_now {
                break;
            }
            let span = match found {
                Ok(Some(span)) => span,
                Err(error) if force => return Err(error),
                Ok(None) | Err(_) => break, // A prefix is enough.
            };
            let Some(part) = span.fit(budget, force)? else {
                break;
            };
            budget = budget.saturating_sub(part.bytes.end - part.bytes.start);
            next = part.indexes.end;
            parts.push(part);
        }
        Ok(Held {
            parts,
            cluster: self.shared.cluster,
        })
    }

    /// Term of an entry, or of the one before the first; `None` outside of the log.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        self.shared.view().term(index)
    }

    /// First entry that can be read.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.shared.view().first_index()
    }

    /// Last entry that can be read: the last synced one.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.shared.view().last_index
    }
}

impl<F: Fs> Held<F> {
    pub(crate) fn parts(&self) -> &[Part<F>] {
        &self.parts
    }

    /// Reads and verifies the entries, up to the first that rotted.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if the first of them rotted.
    pub fn read(&self) -> Result<Vec<StoredEntry>, ReadError> {
        let count = self
            .parts
            .iter()
            .map(|part| (part.indexes.end - part.indexes.start) as usize)
            .sum();
        let mut entries = Vec::with_capacity(count);
        for part in &self.parts {
            match read_part(part, self.cluster, &mut entries) {
                // Told when it is the first one asked for.
                Err(ReadError::Corrupt(_)) if !entries.is_empty() => break,
                result => result?,
            }
        }
        Ok(entries)
    }
}

fn read_part<F: Fs>(
    part: &Part<F>,
    cluster: u32,
    entries: &mut Vec<StoredEntry>,
) -> Result<(), ReadError> {
    check_place(part)?;
    let segment = &part.segment;
    // One copy out of the mapping for the whole run; the payloads are slices of it.
    let mut bytes = vec![0; (part.bytes.end - part.bytes.start) as usize];
    segment
        .map
        .read(part.bytes.start, &mut bytes)
        .map_err(|source| IoFault::new(&segment.path, "read", source))?;
    let bytes = Bytes::from(bytes);
    let is_one = part.indexes.end - part.indexes.start == 1;
    let good = for_each_record(part, cluster, &bytes, |at, stored| {
        let payload_at = at + PREFIX_BYTES + HEADER_BYTES;
        let payload = payload_at..payload_at + stored.payload.len();
        entries.push(StoredEntry {
            index: stored.header.index,
            term: stored.header.term,
            kind: stored.header.kind,
            payload: if is_one {
                Bytes::new()
            } else {
                bytes.slice(payload)
            },
            payload_crc: stored.header.payload_crc,
        });
    });
    if let Some(entry) = entries.last_mut().filter(|_| is_one && good.is_ok()) {
        entry.payload = only_payload(bytes);
    }
    Ok(good?)
}

/// The payload of the one record that `bytes` are: they are handed on, which is cheaper than to share them.
fn only_payload(mut bytes: Bytes) -> Bytes {
    let length = bytes[PREFIX_BYTES..].first_chunk::<4>();
    let length = u32::from_le_bytes(*length.expect("it was decoded")) as usize;
    bytes.advance(PREFIX_BYTES + HEADER_BYTES);
    bytes.truncate(length);
    bytes
}

/// Verifies the records of a part, whose bytes were read elsewhere; the first that does not check is told.
pub(crate) fn check_part<F: Fs>(
    part: &Part<F>,
    cluster: u32,
    bytes: &[u8],
) -> Result<(), Corruption> {
    for_each_record(part, cluster, bytes, |_, _| ())
}

/// Places come from the segment's index, which may have rotted since it was checked.
pub(crate) fn check_place<F: Fs>(part: &Part<F>) -> Result<(), Corruption> {
    if part.bytes.is_empty() || part.bytes.end > part.segment.bytes {
        let fault = Fault::new(Check::Length, part.segment.bytes, part.bytes.end);
        let (offset, index) = (part.bytes.start, part.indexes.start);
        return Err(corruption(part, offset, index, BadRecord::unnamed(fault)));
    }
    Ok(())
}

/// Calls `visit` with each record and its place in `bytes`, which are those of the part.
fn for_each_record<'a, F: Fs>(
    part: &Part<F>,
    cluster: u32,
    bytes: &'a [u8],
    mut visit: impl FnMut(usize, Stored<'a>),
) -> Result<(), Corruption> {
    let mut offset = part.bytes.start;
    for index in part.indexes.clone() {
        let at = (offset - part.bytes.start) as usize;
        let corrupt = |bad: BadRecord| corruption(part, offset, index, bad);
        let record = bytes.get(at..).unwrap_or(&[]);
        let stored = decode_stored(cluster, part.segment.nonce, offset, record).map_err(corrupt)?;
        if stored.header.index != index {
            let fault = Fault::new(Check::Index, index, stored.header.index);
            return Err(corrupt(BadRecord::unnamed(fault)));
        }
        offset = stored.end;
        visit(at, stored);
    }
    Ok(())
}

fn corruption<F: Fs>(part: &Part<F>, offset: u64, index: u64, bad: BadRecord) -> Corruption {
    let term = bad
        .names
        .filter(|names| names.index == index)
        .map(|names| names.term);
    let block = Corruption::of_block(&part.segment.path, offset, bad.fault);
    Corruption {
        index: Some(index),
        term,
        ..block
    }
}
