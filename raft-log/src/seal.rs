//! Giving a segment that takes no more records its index.
//!
//! ```text
//! |header| record | record | ... | record |   zeros   | term offset crc | term offset crc | ... | footer |
//!                                                      ^ in pages of its own, synced before the footer
//! ```
//!
//! With it the segment is opened without reading its records, a reader finds an entry without a list in
//! memory, and if a record rots the log can still say which entry is lost.

use std::sync::Arc;

use crate::error::{IoContext, IoFault, WalError};
use crate::format::{
    Footer, SEAL_LINE_BYTES, SEGMENT_HEADER_BYTES, SealLine, decode_stored, footer_offset,
    records_end,
};
use crate::fs::{File, Fs};
use crate::options::Binding;
use crate::segment::Segment;
use crate::twin::EIO;
use crate::view::{Places, Shared};

/// A segment that is full, and where its records begin.
struct Full<F: Fs> {
    segment: Arc<Segment<F>>,
    offsets: Vec<u32>,
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
        let Places::Listed(offsets) = &listed.places else {
            return None;
        };
        let indexes = listed.segment.base..listed.next_index();
        let is_whole = view.faulty.range(indexes.clone()).next().is_none()
            && view.repaired.range(indexes).next().is_none();
        (listed.count > 0 && is_whole && !listed.cannot_be_sealed).then(|| Full {
            segment: Arc::clone(&listed.segment),
            offsets: offsets.clone(),
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
    let Full {
        segment,
        offsets,
        end,
    } = full;
    let path = &segment.path;
    let lines = match lines_of(segment, shared.cluster, offsets, *end) {
        Ok(Some(lines)) => lines,
        Ok(None) => return Ok(None),
        // What the medium does not give back is damage like any other.
        Err(error) if error.raw_os_error() == Some(EIO) => return Ok(None),
        Err(error) => return Err(shared.fail(IoFault::new(path, "read", error))),
    };
    let count = u32::try_from(offsets.len()).expect("a segment is shorter than 4 GiB");
    let header = segment.header();
    let footer = Footer {
        count,
        end: u32::try_from(*end).expect("a segment is shorter than 4 GiB"),
        lines_crc: crc32fast::hash(&lines),
        ..Footer::open(&header)
    };
    let file = &segment.file;
    let write = |bytes: &[u8], at| {
        file.write_at(bytes, at).during("write", path)?;
        file.sync_data().during("sync", path)
    };
    write(&lines, records_end(segment.bytes, u64::from(count)))
        .and_then(|()| write(&footer.encode(binding), footer_offset(segment.bytes)))
        .map_err(|fault| shared.fail(fault))?;
    Ok(Some(footer))
}

/// The encoded lines; none if a record does not check, or is not where it was.
fn lines_of<F: Fs>(
    segment: &Segment<F>,
    cluster: u32,
    offsets: &[u32],
    end: u64,
) -> std::io::Result<Option<Vec<u8>>> {
    let begin = SEGMENT_HEADER_BYTES;
    let mut bytes = vec![0; (end - begin) as usize];
    segment.file.read_exact_at(&mut bytes, begin)?;
    let mut lines = Vec::with_capacity(offsets.len() * SEAL_LINE_BYTES as usize);
    for (offset, index) in offsets.iter().zip(segment.base..) {
        let at = (u64::from(*offset) - begin) as usize;
        let record = bytes.get(at..).unwrap_or(&[]);
        let stored = decode_stored(cluster, segment.nonce, u64::from(*offset), record);
        let Some(header) = stored
            .ok()
            .map(|it| it.header)
            .filter(|it| it.index == index)
        else {
            return Ok(None);
        };
        let line = SealLine {
            term: header.term,
            offset: *offset,
            payload_crc: header.payload_crc,
        };
        lines.extend_from_slice(&line.encode());
    }
    Ok(Some(lines))
}
