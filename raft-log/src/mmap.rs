//! The only `unsafe` code of the workspace: copying out of a read-only mapping.
//!
//! No `&[u8]` over mapped memory is ever made, because the writer changes other bytes of the same file
//! with `pwrite` while readers look: a shared slice promises that nothing in it changes. A raw pointer and
//! a copy of exactly the published bytes promise nothing about the rest.
#![allow(
    unsafe_code,
    reason = "copying from mapped memory has no safe form; everything else in the crate is safe"
)]

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use crate::fs::Map;

/// A read-only mapping of the front of a file.
#[derive(Debug)]
pub struct ReadMap {
    map: MmapRaw,
}

impl ReadMap {
    /// Maps the first `bytes` bytes of `file`.
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<ReadMap> {
        // A mapping beyond the end of the file would be a SIGBUS at the first touch instead of an error.
        if file.metadata()?.len() < bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len =
            usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(ReadMap { map })
    }
}

impl Map for ReadMap {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| eof())?;
        let end = start.checked_add(bytes.len()).ok_or_else(eof)?;
        if end > self.map.len() {
            return Err(eof());
        }
        // SAFETY: `start <= end <= map.len()` was checked above, so the result stays inside the mapping,
        // which lives as long as `self`.
        let source = unsafe { self.map.as_ptr().add(start) };
        // SAFETY: `source` is readable for `bytes.len()` bytes: the range was checked above, and the pages
        // exist because `ReadMap::new` refused a shorter file and a log never shortens a segment (purging
        // unlinks whole files, truncation keeps the length; the directory lock keeps other processes of
        // ours out). `bytes` is an exclusive borrow of other memory, so the two do not overlap. Nobody
        // writes these bytes meanwhile: `Reader` asks only for published bytes, which it learned under a
        // mutex, and `Wal` does not write over published bytes of a segment that a reader holds.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}
