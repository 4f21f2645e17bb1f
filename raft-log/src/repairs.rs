//! Copies of entries that were damaged in their segments.
//!
//! A copy is not written over the damaged place. Nobody knows how long the lost record was if its header is
//! gone, the place may be one that the medium does not take any more, and a reader may be looking at it. So
//! copies lie beside the log, in files that are made like segments, in the order in which they came; readers
//! are led there. They go when the entries are purged, or cut off.
//!
//! A copy counts if it is the entry that the log lost: the one with that index and, if that is known, that
//! term. Copies of entries that are cut off go before anything is appended in their place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{IoContext, IoFault};
use crate::format::{
    SEGMENT_HEADER_BYTES, SegmentHeader, decode_stored, records_end, stored_bytes,
};
use crate::fs::{File, Fs};
use crate::options::Binding;
use crate::pending::{Binds, encode_stored};
use crate::record::RecordHeader;
use crate::segment::{Segment, Spare, activate};
use crate::view::Part;
use crate::wal::EntryRef;

/// One file of copies.
#[derive(Debug)]
struct RepairFile<F: Fs> {
    segment: Arc<Segment<F>>,
    /// Offset behind the last copy.
    end: u64,
    /// Highest index in it.
    last: u64,
}

/// All copies, and where new ones go.
#[derive(Debug)]
pub(crate) struct Repairs<F: Fs> {
    files: Vec<RepairFile<F>>,
    next_number: u64,
}

/// Copies that were written again.
#[derive(Debug)]
pub(crate) struct Rewritten<F: Fs> {
    /// Where they lie now.
    pub(crate) parts: Vec<Part<F>>,
    /// The old files, to be removed.
    pub(crate) old: Vec<Arc<Segment<F>>>,
}

/// A copy that was read back.
#[derive(Clone, Debug)]
pub(crate) struct Copied<F: Fs> {
    pub(crate) term: u64,
    pub(crate) part: Part<F>,
}

impl<F: Fs> Repairs<F> {
    pub(crate) fn none() -> Repairs<F> {
        Repairs {
            files: Vec::new(),
            next_number: 1,
        }
    }

    /// Takes over a file with the copies in it. With `rewrites` they are written and synced once more: they may
    /// be in memory only. The newest copy of an entry is the one that stays in `copies`.
    pub(crate) fn load(
        &mut self,
        segment: Arc<Segment<F>>,
        cluster: u32,
        rewrites: bool,
        copies: &mut BTreeMap<u64, Copied<F>>,
    ) -> Result<(), IoFault> {
        let path = &segment.path;
        let mut bytes = vec![0; segment.bytes as usize];
        segment
            .file
            .read_exact_at(&mut bytes, 0)
            .during("read", path)?;
        let (mut end, mut last) = (SEGMENT_HEADER_BYTES, 0);
        while let Some(record) = bytes.get(end as usize..)
            && let Ok(stored) = decode_stored(cluster, segment.nonce, end, record)
        {
            let index = stored.header.index;
            let part = Part {
                segment: Arc::clone(&segment),
                indexes: index..index + 1,
                bytes: end..stored.end,
            };
            copies.insert(
                index,
                Copied {
                    term: stored.header.term,
                    part,
                },
            );
            last = last.max(index);
            end = stored.end;
        }
        if rewrites {
            let written = &bytes[SEGMENT_HEADER_BYTES as usize..end as usize];
            segment
                .file
                .write_at(written, SEGMENT_HEADER_BYTES)
                .during("write", path)?;
            segment.file.sync_data().during("sync", path)?;
        }
        self.next_number = self.next_number.max(segment.number + 1);
        self.files.push(RepairFile { segment, end, last });
        Ok(())
    }

    /// Highest index of which there is a copy; 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.files.iter().map(|file| file.last).max().unwrap_or(0)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.segment.bytes).sum()
    }

    /// How many of these entries, from the first on, the newest file has room for.
    pub(crate) fn fitting(&self, entries: &[EntryRef<'_>]) -> usize {
        let Some(file) = self.files.last() else {
            return 0;
        };
        let mut room = records_end(file.segment.bytes, 1) - file.end;
        let fits = |entry: &&EntryRef<'_>| {
            let left = room.checked_sub(stored_bytes(entry.payload.len() as u64));
            room = left.unwrap_or(0);
            left.is_some()
        };
        entries.iter().take_while(fits).count()
    }

    /// Takes a spare for the next copies.
    pub(crate) fn begin_file(
        &mut self,
        fs: &F,
        dir: &Path,
        binding: Binding,
        generation: u64,
        spare: Spare<F>,
    ) -> Result<(), IoFault> {
        let header = SegmentHeader {
            number: self.next_number,
            nonce: fs.random_u64(),
            base: 0,
            previous_term: 0,
            generation,
            segment_bytes: spare.bytes,
            recycled: spare.recycled,
            repairs: true,
            follows: 0,
        };
        self.next_number += 1;
        let segment = activate(fs, dir, binding, spare, &header)?;
        self.files.push(RepairFile {
            segment,
            end: SEGMENT_HEADER_BYTES,
            last: 0,
        });
        Ok(())
    }

    /// Writes copies into the newest file, which has room, and syncs them. Returns where they lie.
    pub(crate) fn write(
        &mut self,
        cluster: u32,
        generation: u64,
        entries: &[EntryRef<'_>],
    ) -> Result<Vec<Part<F>>, IoFault> {
        let file = self.files.last_mut().expect("a file was begun before");
        let (mut bytes, mut parts) = (Vec::new(), Vec::with_capacity(entries.len()));
        for entry in entries {
            let begin = file.end + bytes.len() as u64;
            let place = Binds {
                nonce: file.segment.nonce,
                offset: u32::try_from(begin).expect("segments are shorter than 4 GiB"),
                synced_to: SEGMENT_HEADER_BYTES as u32,
                generation,
            };
            encode_stored(&mut bytes, cluster, &place, entry);
            parts.push(Part {
                segment: Arc::clone(&file.segment),
                indexes: entry.index..entry.index + 1,
                bytes: begin..file.end + bytes.len() as u64,
            });
            file.last = file.last.max(entry.index);
        }
        let path = &file.segment.path;
        file.segment
            .file
            .write_at(&bytes, file.end)
            .during("write", path)?;
        file.segment.file.sync_data().during("sync", path)?;
        file.end += bytes.len() as u64;
        Ok(parts)
    }

    /// Writes `parts` into a new file, which takes the place of all others.
    pub(crate) fn rewrite(
        &mut self,
        cluster: u32,
        generation: u64,
        parts: &[Part<F>],
        begin_file: impl FnOnce(&mut Repairs<F>) -> Result<(), IoFault>,
    ) -> Result<Rewritten<F>, IoFault> {
        let entries = read_copies(cluster, parts)?;
        let entries: Vec<EntryRef<'_>> = entries.iter().map(OwnedEntry::as_ref).collect();
        let old = self.files.len();
        let parts = if entries.is_empty() {
            Vec::new()
        } else {
            begin_file(self)?;
            self.write(cluster, generation, &entries)?
        };
        let old = self.files.drain(..old).map(|file| file.segment).collect();
        Ok(Rewritten { parts, old })
    }

    /// Takes out the files of which every copy is at or below `index`.
    pub(crate) fn take_through(&mut self, index: u64) -> Vec<Arc<Segment<F>>> {
        let gone = self.files.extract_if(.., |file| file.last <= index);
        gone.map(|file| file.segment).collect()
    }
}

/// Reads copies back, to be written again elsewhere.
fn read_copies<F: Fs>(cluster: u32, parts: &[Part<F>]) -> Result<Vec<OwnedEntry>, IoFault> {
    let read = |part: &Part<F>| {
        let segment = &part.segment;
        let mut bytes = vec![0; (part.bytes.end - part.bytes.start) as usize];
        segment.file.read_exact_at(&mut bytes, part.bytes.start)?;
        let stored = decode_stored(cluster, segment.nonce, part.bytes.start, &bytes);
        let stored = stored.map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        Ok(OwnedEntry {
            header: stored.header,
            payload: stored.payload.to_vec(),
        })
    };
    let one = |part: &Part<F>| read(part).during("read", &part.segment.path);
    parts.iter().map(one).collect()
}

struct OwnedEntry {
    header: RecordHeader,
    payload: Vec<u8>,
}

impl OwnedEntry {
    fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            index: self.header.index,
            term: self.header.term,
            kind: self.header.kind,
            payload: &self.payload,
            payload_crc: self.header.payload_crc,
        }
    }
}
