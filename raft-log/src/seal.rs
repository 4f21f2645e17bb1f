//! Giving a segment that takes no more records its index.
//!
//! ```text
//! |header| record | record | ... | record |   zeros   | term offset crc | term offset crc | ... | footer |
//!                                                      ^ in pages of its own, synced before the footer
//! ```
//!
//! With it the segment is opened without reading its records, a reader finds an entry without a list in
//! memory, and if a record rots the log can still say which entry is lost.

use std::path::Path;
use std::sync::Arc;

use crate::error::{IoContext, IoFault, WalError};
use crate::format::{
    Footer, SEAL_LINE_BYTES, SEGMENT_HEADER_BYTES, SealLine, footer_offset, records_end,
};
use crate::fs::{File, Fs};
use crate::options::Binding;
use crate::pieces::{PIECE_BYTES, Pieces};
use crate::segment::Segment;
use crate::twin::EIO;
use crate::view::{Places, Shared};

/// Bytes of the index that are written at once.
const LINES_BYTES: usize = 4096 * SEAL_LINE_BYTES as usize;

/// A segment that is full.
struct Full<F: Fs> {
    segment: Arc<Segment<F>>,
    /// Records that are part of the log.
    count: u64,
    /// Offset behind the last one.
    end: u64,
}

/// Seals the oldest segment that is full and has no index. Returns whether there was one. One with damaged
/// entries stays as it is, so that each open tells of the damage.
pub(crate) fn seal_next<F: Fs>(shared: &Shared<F>, binding: Binding) -> Result<bool, WalError> {
    let Some(full) = find_full(shared) else {
        return Ok(false);
    };
    let segment = Arc::clone(&full.segment);
    let footer = write_index(shared, binding, &full)?;
    let mut view = shared.view();
    let listed = view
        .segments
        .iter_mut()
        .find(|listed| Arc::ptr_eq(&listed.segment, &segment));
    // Purged or cut off meanwhile: nobody asks for it any more.
    let Some(listed) = listed else {
        return Ok(true);
    };
    match footer {
        Some(footer) => {
            let lines = u64::from(footer.count);
            listed.places = Places::Indexed { lines };
            listed.is_sealed = true;
        }
        None => listed.cannot_be_sealed = true,
    }
    Ok(true)
}

fn find_full<F: Fs>(shared: &Shared<F>) -> Option<Full<F>> {
    let view = shared.view();
    let but_last = view.segments.len().saturating_sub(1);
    view.segments.iter().take(but_last).find_map(|listed| {
        let has_none = matches!(listed.places, Places::Listed(_));
        let indexes = listed.segment.base..listed.next_index();
        let is_whole = view.faulty.range(indexes.clone()).next().is_none()
            && view.repaired.range(indexes).next().is_none();
        let is_full = listed.count > 0 && has_none && is_whole && !listed.cannot_be_sealed;
        is_full.then(|| Full {
            segment: Arc::clone(&listed.segment),
            count: listed.count,
            end: listed.end,
        })
    })
}

/// Writes lines and footer, each synced; none if a record does not check any more.
///
/// The segment's records are published and do not change meanwhile: whoever cuts the log inside of it finds
/// that somebody holds it, and begins a new one.
fn write_index<F: Fs>(
    shared: &Shared<F>,
    binding: Binding,
    full: &Full<F>,
) -> Result<Option<Footer>, WalError> {
    let segment = &full.segment;
    let path = &segment.path;
    let lines_crc = write_lines(full, shared.cluster).map_err(|fault| shared.fail(fault))?;
    let Some(lines_crc) = lines_crc else {
        return Ok(None);
    };
    let footer = Footer {
        count: u32::try_from(full.count).expect("a segment is shorter than 4 GiB"),
        end: u32::try_from(full.end).expect("a segment is shorter than 4 GiB"),
        lines_crc,
        ..Footer::open(&segment.header())
    };
    let file = &segment.file;
    let sync = |()| file.sync_data().during("sync", path);
    let write = |bytes: &[u8], at| file.write_at(bytes, at).during("write", path);
    sync(())
        .and_then(|()| write(&footer.encode(binding), footer_offset(segment.bytes)))
        .and_then(sync)
        .map_err(|fault| shared.fail(fault))?;
    Ok(Some(footer))
}

/// Writes a line for each record and returns their checksum; none if a record does not check, or is not where it was. Then what
/// was written is nothing, as the footer does not speak of it.
fn write_lines<F: Fs>(full: &Full<F>, cluster: u32) -> Result<Option<u32>, IoFault> {
    let segment = &full.segment;
    let mut records = Pieces::new(&segment.file, full.end, PIECE_BYTES);
    let mut lines = Lines {
        file: &segment.file,
        path: &segment.path,
        at: records_end(segment.bytes, full.count),
        crc: crc32fast::Hasher::new(),
        waiting: Vec::new(),
    };
    let mut offset = SEGMENT_HEADER_BYTES;
    for index in segment.base..segment.base + full.count {
        let record = match records.record(cluster, segment.nonce, offset) {
            // What the medium does not give back is damage like any other.
            Err(error) if error.raw_os_error() == Some(EIO) => return Ok(None),
            result => result.during("read", &segment.path)?,
        };
        let Some(head) = record.filter(|head| head.header.index == index) else {
            return Ok(None);
        };
        lines.push(&SealLine {
            term: head.header.term,
            offset: u32::try_from(offset).expect("a segment is shorter than 4 GiB"),
            payload_crc: head.header.payload_crc,
        })?;
        offset = head.end;
    }
    if offset != full.end {
        return Ok(None);
    }
    lines.finish().map(Some)
}

/// The lines of an index, on their way to the file.
struct Lines<'a, T: File> {
    file: &'a T,
    path: &'a Path,
    /// Where those that wait belong.
    at: u64,
    crc: crc32fast::Hasher,
    waiting: Vec<u8>,
}

impl<T: File> Lines<'_, T> {
    fn push(&mut self, line: &SealLine) -> Result<(), IoFault> {
        self.waiting.extend_from_slice(&line.encode());
        if self.waiting.len() < LINES_BYTES {
            return Ok(());
        }
        self.write()
    }

    /// Writes the last ones, and returns the checksum of all.
    fn finish(mut self) -> Result<u32, IoFault> {
        self.write()?;
        Ok(self.crc.finalize())
    }

    fn write(&mut self) -> Result<(), IoFault> {
        self.crc.update(&self.waiting);
        self.file
            .write_at(&self.waiting, self.at)
            .during("write", self.path)?;
        self.at += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}
