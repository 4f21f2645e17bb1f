//! Opening a file of the log and reading what it says of itself.

use std::path::{Path, PathBuf};

use super::copies::{self, Copies};
use super::recover::{Mode, Opener};
use crate::dir;
use crate::error::{Corruption, IoContext, IoFault, OpenError};
use crate::format::{Check, Fault, Footer, SegmentHeader, footer_offset};
use crate::fs::{File, Fs};
use crate::options::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::segment::Segment;
use crate::twin::Report;

/// A segment file of which the header is known.
pub(super) struct Found<F: Fs> {
    pub(super) header: SegmentHeader,
    /// Only if the segment has its index.
    pub(super) footer: Option<Footer>,
    pub(super) path: PathBuf,
    pub(super) file: F::File,
}

impl<F: Fs> Found<F> {
    pub(super) fn into_segment(self) -> Result<Segment<F>, IoFault> {
        Segment::new(self.path, self.file, &self.header)
    }
}

impl<F: Fs> Opener<'_, F> {
    /// Finds a segment's header; `None` if a cut has made all of the segment dead.
    pub(super) fn find_live(&mut self, number: u64) -> Result<Option<Found<F>>, OpenError> {
        let path = dir::segment_path(self.dir, number);
        let found = self.find(path, number, false)?;
        let header = &found.header;
        if header.generation > self.slot.generation {
            let fault = Fault::new(Check::Generation, self.slot.generation, header.generation);
            return Err(Corruption::of_block(&found.path, 0, fault).into());
        }
        let dead = header.generation < self.slot.generation && number > self.slot.cut.segment;
        Ok((!dead).then_some(found))
    }

    /// Opens a file and reads what it is from its front, or if that is damaged from its end. A damaged copy of the
    /// two is written anew.
    pub(super) fn find(
        &mut self,
        path: PathBuf,
        number: u64,
        repairs: bool,
    ) -> Result<Found<F>, OpenError> {
        let file = self.fs.open(&path).during("open", &path)?;
        let length = file.len().during("measure", &path)?;
        let mut bytes = [0; copies::BLOCK_BYTES];
        let front = copies::read_block(&file, &path, 0, &mut bytes)?
            .and_then(|()| SegmentHeader::decode(&bytes, self.binding));
        let end_at = footer_offset(length.max(SEGMENT_BYTES_MIN));
        let end = copies::read_block(&file, &path, end_at, &mut bytes)?
            .and_then(|()| Footer::decode(&bytes, self.binding));
        let of_header = |header: &SegmentHeader| {
            check_header(header, number, length, repairs)
                .map_err(|fault| OpenError::from(Corruption::of_block(&path, 0, fault)))
        };
        let (header, footer) = match Copies::choose(front, end) {
            Copies::Both(header, footer) => {
                of_header(&header)?;
                (header, Some(footer))
            }
            Copies::Front(header, fault) => {
                of_header(&header)?;
                let bytes = Footer::open(&header).encode(self.binding);
                self.mend(&file, &path, end_at, &bytes, fault)?;
                (header, None)
            }
            Copies::End(footer, fault) => {
                let header = SegmentHeader {
                    repairs,
                    ..footer.header(number, length, self.slot.generation)
                };
                of_header(&header)?;
                self.mend(&file, &path, 0, &header.encode(self.binding), fault)?;
                (header, Some(footer))
            }
            Copies::Neither(error) => {
                return Err(OpenError::of_block(&path, 0, self.binding, error));
            }
        };
        let footer = footer.filter(Footer::is_sealed);
        Ok(Found {
            header,
            footer,
            path,
            file,
        })
    }

    /// Notes that a block is damaged, and writes it anew if the directory is to be used.
    fn mend(
        &mut self,
        file: &F::File,
        path: &Path,
        offset: u64,
        bytes: &[u8],
        fault: Fault,
    ) -> Result<(), OpenError> {
        if self.mode == Mode::Use {
            file.write_at(bytes, offset).during("write", path)?;
            file.sync_data().during("sync", path)?;
        }
        let corruption = Corruption::of_block(path, offset, fault);
        self.reports.push(Report::CopyRewritten(corruption));
        Ok(())
    }
}

fn check_header(
    header: &SegmentHeader,
    number: u64,
    length: u64,
    repairs: bool,
) -> Result<(), Fault> {
    if header.number != number {
        return Err(Fault::new(Check::Number, number, header.number));
    }
    if header.repairs != repairs {
        return Err(Fault::new(Check::Purpose, repairs, header.repairs));
    }
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.segment_bytes) {
        return Err(Fault::new(
            Check::Length,
            SEGMENT_BYTES_MAX,
            header.segment_bytes,
        ));
    }
    if length != header.segment_bytes {
        return Err(Fault::new(Check::FileLength, header.segment_bytes, length));
    }
    Ok(())
}
