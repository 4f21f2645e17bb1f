//! The life of a segment: temporary -> spare -> tail -> sealed -> spare again, or removed.
//!
//! ```text
//! spare-N.tmp   allocated, zeroed, synced      a crash before the rename: removed by the next open
//! spare-N       ready, no header yet, or an    kept by the next open
//!               old one that nobody reads
//! segment-N     header synced, name synced     part of the log, takes records until it is full
//! repair-N      the same                       copies of entries that were damaged elsewhere
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};

use crate::dir;
use crate::error::{IoContext, IoFault, WalError};
use crate::format::{
    Footer, SEAL_FOOTER_BYTES, SEAL_LINE_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_USED,
    SealLine, SegmentHeader, footer_offset, records_end,
};
use crate::fs::{File, Fs, Map, is_no_space};
use crate::options::{Binding, Options};
use crate::seal::seal_next;
use crate::view::Shared;

/// Zeros go out in large writes: small ones make the kernel track small pieces from then on.
const ZERO_BYTES: usize = 1 << 20;
/// Synced after so much, so that the appends of the log thread never wait behind a whole segment.
const ZERO_SYNC_BYTES: u64 = 8 << 20;

/// A segment in use.
#[derive(Debug)]
pub(crate) struct Segment<F: Fs> {
    pub(crate) number: u64,
    pub(crate) nonce: u64,
    /// Index of its first entry.
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) file: F::File,
    pub(crate) map: <F::File as File>::Map,
}

impl<F: Fs> Segment<F> {
    pub(crate) fn new(
        path: PathBuf,
        file: F::File,
        header: &SegmentHeader,
    ) -> Result<Segment<F>, IoFault> {
        let map = file.map(header.segment_bytes).during("map", &path)?;
        let SegmentHeader {
            number,
            nonce,
            base,
            segment_bytes,
            ..
        } = *header;
        Ok(Segment {
            number,
            nonce,
            base,
            bytes: segment_bytes,
            header: *header,
            path,
            file,
            map,
        })
    }

    pub(crate) fn header(&self) -> SegmentHeader {
        self.header
    }

    /// A line of the index, which has so many `lines`.
    pub(crate) fn line(&self, at: u64, lines: u64) -> std::io::Result<SealLine> {
        let mut bytes = [0; SEAL_LINE_BYTES as usize];
        let begin = records_end(self.bytes, lines);
        self.map.read(begin + at * SEAL_LINE_BYTES, &mut bytes)?;
        Ok(SealLine::decode(&bytes))
    }
}

/// The segment that takes the next records.
#[derive(Debug)]
pub(crate) struct TailSegment<F: Fs> {
    pub(crate) segment: Arc<Segment<F>>,
    /// Offset behind the last synced record.
    pub(crate) end: u64,
    pub(crate) count: u64,
    /// Cut while a reader held it: published bytes must not change, so it takes no more records.
    pub(crate) full: bool,
}

/// A segment prepared ahead: allocated, written through and synced, but not part of the log.
#[derive(Debug)]
pub(crate) struct Spare<F: Fs> {
    pub(crate) path: PathBuf,
    pub(crate) file: F::File,
    pub(crate) bytes: u64,
    /// It was a segment before, and is full of old records.
    pub(crate) recycled: bool,
}

/// Spares that are ready, and numbers for new ones.
#[derive(Debug)]
pub(crate) struct Pool<F: Fs> {
    pub(crate) ready: Vec<Spare<F>>,
    pub(crate) preparing: usize,
    pub(crate) next_number: u64,
}

/// Does what need not hold up the writer: prepares segments ahead of need, so that an append never waits
/// for allocation, and gives full ones their index.
///
/// Cheap to clone; [`work`](Preparer::work) is called on a helper thread after each sync, or whenever
/// [`prepared_bytes`](crate::Wal::prepared_bytes) runs low.
#[derive(Clone, Debug)]
pub struct Preparer<F: Fs> {
    pub(crate) fs: F,
    pub(crate) dir: PathBuf,
    pub(crate) binding: Binding,
    pub(crate) options: Options,
    pub(crate) shared: Arc<Shared<F>>,
    /// The directory's lock, as long as the log is open.
    pub(crate) lock: Weak<F::Lock>,
}

impl<F: Fs> Preparer<F> {
    /// Prepares one spare segment and seals one full one, as far as there is need. Returns whether there was.
    ///
    /// # Errors
    /// As for [`prepare_spare`](Preparer::prepare_spare).
    pub fn work(&self) -> Result<bool, WalError> {
        match self.prepare_spare() {
            // An index needs no space.
            Err(full @ WalError::NoSpace { .. }) => self.seal().and(Err(full)),
            result => Ok(result? | self.seal()?),
        }
    }

    /// Writes the index of the oldest full segment that has none, so that it is opened without being read, and
    /// takes no memory for each entry. Returns whether there was one.
    ///
    /// # Errors
    /// After [`WalError::Io`] the log is poisoned.
    pub fn seal(&self) -> Result<bool, WalError> {
        if self.shared.is_poisoned() {
            return Err(WalError::Poisoned);
        }
        let Some(_lock) = self.lock.upgrade() else {
            return Ok(false);
        };
        seal_next(&self.shared, self.binding)
    }

    /// Allocates, zeroes and syncs one spare segment, unless enough are ready, the log has reached its size
    /// limit or was closed. Returns whether one was prepared.
    ///
    /// The directory stays locked until this returns, so that the next owner never meets a file in the
    /// making.
    ///
    /// # Errors
    /// [`WalError::NoSpace`] is harmless: try again later. After [`WalError::Io`] the log is poisoned: a
    /// disk that loses one write cannot be trusted with the next.
    pub fn prepare_spare(&self) -> Result<bool, WalError> {
        if self.shared.is_poisoned() {
            return Err(WalError::Poisoned);
        }
        let Some(_lock) = self.lock.upgrade() else {
            return Ok(false);
        };
        let Some(number) = self.reserve_number() else {
            return Ok(false);
        };
        let result = allocate(&self.fs, &self.dir, &self.options, number);
        let mut pool = self.shared.pool();
        pool.preparing -= 1;
        match result {
            Ok(spare) => {
                self.shared.bytes.fetch_add(spare.bytes, Ordering::Relaxed);
                pool.ready.push(spare);
                Ok(true)
            }
            Err(error) => {
                drop(pool);
                Err(self.shared.fail_unless_full(error))
            }
        }
    }

    fn reserve_number(&self) -> Option<u64> {
        let mut pool = self.shared.pool();
        let ahead = pool.ready.len() + pool.preparing;
        let bytes = pool.bytes(&self.shared, &self.options);
        let wanted = ahead < self.options.spare_segments
            && bytes + self.options.segment_bytes <= self.options.max_bytes;
        wanted.then(|| pool.reserve())
    }
}

impl<F: Fs> Pool<F> {
    /// That of a log that nothing is written to.
    pub(crate) fn empty() -> Pool<F> {
        Pool {
            ready: Vec::new(),
            preparing: 0,
            next_number: 1,
        }
    }

    /// Bytes of all segments and spares, those in the making included.
    pub(crate) fn bytes(&self, shared: &Shared<F>, options: &Options) -> u64 {
        shared.bytes.load(Ordering::Relaxed) + self.preparing as u64 * options.segment_bytes
    }

    pub(crate) fn reserve(&mut self) -> u64 {
        self.preparing += 1;
        self.take_number()
    }

    pub(crate) fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

impl<F: Fs> Shared<F> {
    pub(crate) fn pool(&self) -> std::sync::MutexGuard<'_, Pool<F>> {
        // A panic elsewhere leaves the pool whole: each change of it is a single step.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one spare; on an error nothing of it is left.
pub(crate) fn allocate<F: Fs>(
    fs: &F,
    dir: &Path,
    options: &Options,
    number: u64,
) -> Result<Spare<F>, WalError> {
    check_space(fs, dir, options)?;
    let path = dir::spare_path(dir, number);
    let temporary = dir::temporary_path(&path);
    let file = fs
        .create_new(&temporary)
        .during("create", &temporary)
        .map_err(|fault| no_space(fault, options))?;
    let bytes = options.segment_bytes;
    let result = zero(&file, &temporary, bytes)
        .and_then(|()| fs.rename(&temporary, &path).during("rename", &temporary))
        .and_then(|()| fs.sync_dir(dir).during("sync", dir));
    match result {
        Ok(()) => Ok(Spare {
            path,
            file,
            bytes,
            recycled: false,
        }),
        Err(fault) => {
            // If this fails too, the first error is the one to tell, and the next open removes the file.
            let _ = fs.remove(&temporary);
            Err(no_space(fault, options))
        }
    }
}

fn check_space<F: Fs>(fs: &F, dir: &Path, options: &Options) -> Result<(), WalError> {
    let available = fs.available_bytes(dir).during("measure", dir)?;
    let needed = options.segment_bytes + options.reserve_bytes;
    if available < needed {
        return Err(WalError::NoSpace { needed, available });
    }
    Ok(())
}

fn no_space(fault: IoFault, options: &Options) -> WalError {
    if is_no_space(&fault.source) {
        WalError::NoSpace {
            needed: options.segment_bytes,
            available: 0,
        }
    } else {
        WalError::Io(fault)
    }
}

/// Allocates for real: blocks that were reserved but never written cost a metadata write at each sync.
fn zero<T: File>(file: &T, path: &Path, bytes: u64) -> Result<(), IoFault> {
    file.allocate(bytes).during("allocate", path)?;
    let zeros = vec![0; ZERO_BYTES.min(bytes as usize)];
    let mut offset = 0;
    while offset < bytes {
        let piece = (bytes - offset).min(zeros.len() as u64);
        file.write_at(&zeros[..piece as usize], offset)
            .during("write", path)?;
        offset += piece;
        if offset.is_multiple_of(ZERO_SYNC_BYTES) {
            file.sync_data().during("sync", path)?;
        }
    }
    file.sync_all().during("sync", path)
}

/// Turns a spare into the segment `header` describes: header synced, in both copies, then the name, then the
/// directory.
pub(crate) fn activate<F: Fs>(
    fs: &F,
    dir: &Path,
    binding: Binding,
    spare: Spare<F>,
    header: &SegmentHeader,
) -> Result<Arc<Segment<F>>, IoFault> {
    let Spare {
        path: spare_path,
        file,
        ..
    } = spare;
    write_headers(&file, &spare_path, binding, header)?;
    let path = if header.repairs {
        dir::repair_path(dir, header.number)
    } else {
        dir::segment_path(dir, header.number)
    };
    fs.rename(&spare_path, &path)
        .during("rename", &spare_path)?;
    fs.sync_dir(dir).during("sync", dir)?;
    Segment::new(path, file, header).map(Arc::new)
}

/// Writes what is known of a segment to its front and to its end, synced: one bad page leaves the other.
pub(crate) fn write_headers<T: File>(
    file: &T,
    path: &Path,
    binding: Binding,
    header: &SegmentHeader,
) -> Result<(), IoFault> {
    let footer = Footer::open(header).encode(binding);
    file.write_at(&header.encode(binding), 0)
        .and_then(|()| file.write_at(&footer, footer_offset(header.segment_bytes)))
        .during("write", path)?;
    file.sync_data().during("sync", path)
}

/// Takes away what a recycled file says it was, so that it is not taken for that, whatever name it is given.
pub(crate) fn wipe_headers<T: File>(file: &T, path: &Path, bytes: u64) -> Result<(), IoFault> {
    let zeros = [0; SEAL_FOOTER_BYTES as usize];
    file.write_at(&[0; SEGMENT_HEADER_USED], 0)
        .and_then(|()| file.write_at(&zeros, footer_offset(bytes)))
        .during("write", path)?;
    file.sync_data().during("sync", path)
}

/// A segment that takes records from its front on.
pub(crate) fn fresh_tail<F: Fs>(segment: Arc<Segment<F>>) -> TailSegment<F> {
    TailSegment {
        segment,
        end: SEGMENT_HEADER_BYTES,
        count: 0,
        full: false,
    }
}
