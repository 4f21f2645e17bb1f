//! What a segment says of itself at its front and at its end.

use std::path::Path;

use crate::error::{Corruption, IoContext, IoFault};
use crate::format::{
    BlockError, Check, Fault, Footer, SEAL_LINE_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_USED,
    SealLine, SegmentHeader, records_end, stored_bytes,
};
use crate::fs::File;
use crate::recovery::Next;
use crate::terms::Terms;
use crate::twin::EIO;

/// Enough for either of the two.
pub(super) const BLOCK_BYTES: usize = SEGMENT_HEADER_USED;

/// Which of the two copies are intact.
pub(super) enum Copies {
    Both(SegmentHeader, Footer),
    /// With what is wrong at the end.
    Front(SegmentHeader, Fault),
    /// With what is wrong at the front.
    End(Footer, Fault),
    Neither(BlockError),
}

impl Copies {
    pub(super) fn choose(
        front: Result<SegmentHeader, BlockError>,
        end: Result<Footer, BlockError>,
    ) -> Copies {
        match (front, end) {
            // A newer program was here, or another node: this one must not write.
            (Err(error @ (BlockError::Newer { .. } | BlockError::Foreign { .. })), _)
            | (_, Err(error @ BlockError::Newer { .. }))
            | (
                Err(error @ BlockError::Fault(_)),
                Err(BlockError::Fault(_) | BlockError::Foreign { .. }),
            ) => Copies::Neither(error),
            (Err(BlockError::Fault(fault)), Ok(footer)) => Copies::End(footer, fault),
            (Ok(header), Ok(footer)) if footer.belongs_to(&header) => Copies::Both(header, footer),
            (Ok(header), Ok(footer)) => Copies::Front(
                header,
                Fault::new(Check::Copies, header.nonce, footer.nonce),
            ),
            (Ok(header), Err(BlockError::Fault(fault))) => Copies::Front(header, fault),
            (Ok(_), Err(error @ BlockError::Foreign { .. })) => Copies::Neither(error),
        }
    }
}

/// Reads a block; what the medium does not give back, or the file does not have, is a damaged block.
pub(super) fn read_block<T: File>(
    file: &T,
    path: &Path,
    offset: u64,
    bytes: &mut [u8; BLOCK_BYTES],
) -> Result<Result<(), BlockError>, IoFault> {
    bytes.fill(0);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.raw_os_error() == Some(EIO) => {
                let fault = Fault::new(Check::Unreadable, 0u32, EIO.unsigned_abs());
                return Ok(Err(fault.into()));
            }
            Err(error) => return Err(IoFault::new(path, "read", error)),
        }
    }
    Ok(Ok(()))
}

/// What the index of a segment says of its live records.
pub(super) struct Index {
    pub(super) terms: Terms,
    /// Offset behind the last of them.
    pub(super) end: u64,
}

/// Reads the index of a segment that ends where `next` begins, and checks that it can be that of these
/// records; if not it says why. The records themselves are checked when they are read.
pub(super) fn read_index<T: File>(
    file: &T,
    path: &Path,
    header: &SegmentHeader,
    footer: &Footer,
    next: Next,
) -> Result<Result<Index, Corruption>, IoFault> {
    if next.base == header.base {
        // All its entries were cut off. Nobody asks for a line of this index, and none is written anew.
        return Ok(Ok(Index {
            terms: Terms::default(),
            end: SEGMENT_HEADER_BYTES,
        }));
    }
    let lines = u64::from(footer.count);
    let begin = records_end(header.segment_bytes, lines);
    let corrupt = |fault| Ok(Err(Corruption::of_block(path, begin, fault)));
    let mut bytes = vec![0; (lines * SEAL_LINE_BYTES) as usize];
    match file.read_exact_at(&mut bytes, begin) {
        Err(error) if error.raw_os_error() == Some(EIO) => {
            return corrupt(Fault::new(Check::Unreadable, 0u32, EIO.unsigned_abs()));
        }
        result => result.during("read", path)?,
    }
    let found = crc32fast::hash(&bytes);
    if found != footer.lines_crc {
        return corrupt(Fault::new(Check::BlockChecksum, footer.lines_crc, found));
    }
    let live = next.base.saturating_sub(header.base);
    if next.base < header.base || live > lines {
        return corrupt(Fault::new(Check::Index, next.base, header.base + lines));
    }
    Ok(check_lines(&bytes, header, footer, next)
        .map_err(|fault| Corruption::of_block(path, begin, fault)))
}

/// Lines that check can still be of no use to this reader, if the program that wrote them was wrong.
fn check_lines(
    bytes: &[u8],
    header: &SegmentHeader,
    footer: &Footer,
    next: Next,
) -> Result<Index, Fault> {
    let live = (next.base - header.base) as usize;
    let (lines, _) = bytes.as_chunks::<{ SEAL_LINE_BYTES as usize }>();
    let mut terms = Terms::default();
    let (mut least, mut last_term) = (SEGMENT_HEADER_BYTES, header.previous_term);
    for (line, index) in lines
        .iter()
        .map(SealLine::decode)
        .zip(header.base..next.base)
    {
        let offset = u64::from(line.offset);
        if offset < least || offset >= u64::from(footer.end) {
            return Err(Fault::new(Check::Length, least, offset));
        }
        if line.term < last_term {
            return Err(Fault::new(Check::Term, last_term, line.term));
        }
        terms.push(index, line.term);
        least = offset + stored_bytes(0);
        last_term = line.term;
    }
    if last_term != next.previous_term {
        return Err(Fault::new(Check::Term, next.previous_term, last_term));
    }
    let behind = lines.get(live).map(SealLine::decode);
    let end = behind.map_or(footer.end, |line| line.offset);
    Ok(Index {
        terms,
        end: u64::from(end),
    })
}
