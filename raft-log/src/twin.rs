//! A small file stored twice, so that nothing ever answered from it is lost with one copy.
//!
//! A write goes to copy A, which is synced, and then to copy B, which is synced; only then is anything
//! answered. So whatever was answered is in both copies, and if one is damaged the other is complete.
//! Both copies valid: the higher sequence counts (the crash came between the two). Both damaged: refused,
//! never guessed.

use std::path::{Path, PathBuf};

use crate::error::{Corruption, IoContext, IoFault, OpenError, TwinError};
use crate::format::{
    BlockError, Check, Fault, TWIN_CONTENT_BYTES_MAX, TWIN_FILE_BYTES, TWIN_STRIDE, TwinCopy,
    decode_twin, encode_twin,
};
use crate::fs::{File, Fs};
use crate::options::Binding;

/// Something found and mended while opening; the caller tells its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// One of two copies was damaged; the other was complete and both are written anew.
    CopyRewritten(Corruption),
    /// The index of a segment was damaged. Its records were read instead, and it is written anew.
    IndexDamaged(Corruption),
    /// A file with copies of repaired entries was damaged: they have to be repaired again.
    CopiesLost(Corruption),
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Report::CopyRewritten(corruption) => {
                write!(f, "one of two copies was damaged: {corruption}")
            }
            Report::IndexDamaged(corruption) => {
                write!(f, "the index of a segment was damaged: {corruption}")
            }
            Report::CopiesLost(corruption) => {
                write!(f, "copies of repaired entries are lost again: {corruption}")
            }
        }
    }
}

/// A small file stored twice.
#[derive(Debug)]
pub struct TwinFile<F: Fs> {
    file: F::File,
    path: PathBuf,
    magic: [u8; 8],
    binding: Binding,
    sequence: u64,
    poisoned: bool,
}

impl<F: Fs> TwinFile<F> {
    /// Creates the file with its first content, durable on return. A crash leaves either no file of this
    /// name or the complete one; a temporary file of an earlier attempt is replaced.
    ///
    /// # Errors
    /// [`TwinError::Exists`], [`TwinError::TooLarge`] or [`TwinError::Io`].
    pub fn create(
        fs: &F,
        path: &Path,
        magic: [u8; 8],
        binding: Binding,
        content: &[u8],
    ) -> Result<Self, TwinError> {
        check_length(content)?;
        if fs.exists(path).during("look for", path)? {
            return Err(TwinError::Exists {
                file: path.to_path_buf(),
            });
        }
        let file = write_new(fs, path, |bytes_of| {
            let copy = encode_twin(magic, binding, 1, content);
            bytes_of[..copy.len()].copy_from_slice(&copy);
            let second = TWIN_STRIDE as usize;
            bytes_of[second..second + copy.len()].copy_from_slice(&copy);
        })?;
        Ok(TwinFile {
            file,
            path: path.to_path_buf(),
            magic,
            binding,
            sequence: 1,
            poisoned: false,
        })
    }

    /// Opens the file and returns its content. Both copies are written anew and synced before this
    /// returns, because what can be read may be in memory only. A damaged copy is reported.
    ///
    /// # Errors
    /// [`OpenError::Missing`], [`OpenError::NewerFormat`], [`OpenError::WrongBinding`],
    /// [`OpenError::Corrupt`] if no copy is intact, or [`OpenError::Io`].
    pub fn open(
        fs: &F,
        path: &Path,
        magic: [u8; 8],
        binding: Binding,
    ) -> Result<(Self, Vec<u8>, Option<Report>), OpenError> {
        let file = open_existing(fs, path)?;
        let length = file.len().during("measure", path)?;
        let copies = [0, 1].map(|copy| read_copy(&file, path, magic, copy));
        let [first, second] = copies;
        let (newest, report) = choose(path, binding, first?, second?)?;
        if newest.copy.binding != binding {
            let (expected, found) = (binding, newest.copy.binding);
            return Err(OpenError::WrongBinding {
                file: path.to_path_buf(),
                expected,
                found,
            });
        }
        if length != TWIN_FILE_BYTES {
            file.set_len(TWIN_FILE_BYTES)
                .during("set length of", path)?;
        }
        let TwinCopy {
            sequence, content, ..
        } = newest.copy;
        let mut twin = TwinFile {
            file,
            path: path.to_path_buf(),
            magic,
            binding,
            sequence,
            poisoned: false,
        };
        // The other copy first: until it is durable, the one that was read is the only good one.
        let copy = encode_twin(magic, binding, sequence, &content);
        twin.put(1 - newest.place, &copy)?;
        twin.put(newest.place, &copy)?;
        Ok((twin, content, report))
    }

    /// To whom the file says it belongs, without opening it for use.
    ///
    /// # Errors
    /// As for [`open`](TwinFile::open).
    pub fn binding_of(fs: &F, path: &Path, magic: [u8; 8]) -> Result<Binding, OpenError> {
        TwinFile::look(fs, path, magic).map(|(binding, ..)| binding)
    }

    /// Binding and content, without opening the file for use: nothing is written.
    pub(crate) fn look(
        fs: &F,
        path: &Path,
        magic: [u8; 8],
    ) -> Result<(Binding, Vec<u8>, Option<Report>), OpenError> {
        let file = open_existing(fs, path)?;
        let first = read_copy(&file, path, magic, 0)?;
        let second = read_copy(&file, path, magic, 1)?;
        let anyone = Binding {
            cluster: 0,
            node: 0,
        };
        let (newest, report) = choose(path, anyone, first, second)?;
        Ok((newest.copy.binding, newest.copy.content, report))
    }

    /// Replaces the content; durable in both copies on return.
    ///
    /// # Errors
    /// [`TwinError::TooLarge`] changes nothing. After [`TwinError::Io`] the file is poisoned.
    pub fn write(&mut self, content: &[u8]) -> Result<(), TwinError> {
        if self.poisoned {
            return Err(TwinError::Poisoned {
                file: self.path.clone(),
            });
        }
        check_length(content)?;
        self.sequence += 1;
        let copy = encode_twin(self.magic, self.binding, self.sequence, content);
        for place in [0, 1] {
            if let Err(error) = self.put(place, &copy) {
                self.poisoned = true;
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn put(&mut self, place: u64, copy: &[u8]) -> Result<(), IoFault> {
        self.file
            .write_at(copy, place * TWIN_STRIDE)
            .during("write", &self.path)?;
        self.file.sync_data().during("sync", &self.path)
    }
}

fn open_existing<F: Fs>(fs: &F, path: &Path) -> Result<F::File, OpenError> {
    match fs.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::Missing {
            file: path.to_path_buf(),
            index: 0,
        }),
        result => Ok(result.during("open", path)?),
    }
}

struct Newest {
    copy: TwinCopy,
    place: u64,
}

type CopyResult = Result<TwinCopy, BlockError>;

fn read_copy<T: File>(
    file: &T,
    path: &Path,
    magic: [u8; 8],
    copy: u64,
) -> Result<CopyResult, IoFault> {
    let mut bytes = vec![0; TWIN_STRIDE as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], copy * TWIN_STRIDE + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            // An unreadable copy is a damaged one: the other may be complete.
            Err(error) if error.raw_os_error() == Some(EIO) => {
                return Ok(Err(
                    Fault::new(Check::Unreadable, 0u32, EIO.unsigned_abs()).into()
                ));
            }
            Err(error) => return Err(IoFault::new(path, "read", error)),
        }
    }
    Ok(decode_twin(&bytes[..filled], magic))
}

pub(crate) const EIO: i32 = 5;

/// Picks the copy that counts; reports or refuses damage.
fn choose(
    path: &Path,
    binding: Binding,
    first: CopyResult,
    second: CopyResult,
) -> Result<(Newest, Option<Report>), OpenError> {
    let damaged = |place: u64, fault| {
        let corruption = Corruption::of_block(path, place * TWIN_STRIDE, fault);
        Some(Report::CopyRewritten(corruption))
    };
    match (first, second) {
        (Ok(first), Ok(second)) => both_valid(path, first, second).map(|newest| (newest, None)),
        (Ok(copy), Err(BlockError::Fault(fault))) => {
            Ok((Newest { copy, place: 0 }, damaged(1, fault)))
        }
        (Err(BlockError::Fault(fault)), Ok(copy)) => {
            Ok((Newest { copy, place: 1 }, damaged(0, fault)))
        }
        // A newer version in either copy: a newer program was here, and this one must not write.
        (Err(error @ (BlockError::Newer { .. } | BlockError::Foreign { .. })), _) => {
            Err(OpenError::of_block(path, 0, binding, error))
        }
        (_, Err(error @ (BlockError::Newer { .. } | BlockError::Foreign { .. }))) => {
            Err(OpenError::of_block(path, TWIN_STRIDE, binding, error))
        }
        (Err(error @ BlockError::Fault(_)), Err(BlockError::Fault(_))) => {
            Err(OpenError::of_block(path, 0, binding, error))
        }
    }
}

fn both_valid(path: &Path, first: TwinCopy, second: TwinCopy) -> Result<Newest, OpenError> {
    if first.sequence == second.sequence && first.content != second.content {
        let fault = Fault::new(Check::Copies, first.checksum, second.checksum);
        return Err(Corruption::of_block(path, 0, fault).into());
    }
    if first.binding != second.binding {
        let (expected, found) = (first.binding, second.binding);
        return Err(OpenError::WrongBinding {
            file: path.to_path_buf(),
            expected,
            found,
        });
    }
    // On a tie the first: both are the same.
    let newest = if second.sequence > first.sequence {
        Newest {
            copy: second,
            place: 1,
        }
    } else {
        Newest {
            copy: first,
            place: 0,
        }
    };
    Ok(newest)
}

/// Writes a whole new twin-sized file under a temporary name, syncs it and gives it its name.
fn write_new<F: Fs>(fs: &F, path: &Path, fill: impl FnOnce(&mut [u8])) -> Result<F::File, IoFault> {
    let mut bytes = vec![0; TWIN_FILE_BYTES as usize];
    fill(&mut bytes);
    crate::dir::write_file_atomically(fs, path, &bytes)
}

fn check_length(content: &[u8]) -> Result<(), TwinError> {
    if content.len() > TWIN_CONTENT_BYTES_MAX {
        return Err(TwinError::TooLarge {
            bytes: content.len(),
        });
    }
    Ok(())
}
