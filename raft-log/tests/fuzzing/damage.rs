//! Damage to the files of a closed log: what a medium, a file system or an operator does to them.
//!
//! Nothing here can write four bytes of the input's choice in one place: a fuzzer that watches comparisons
//! would soon put right checksums there, and a forged log is not what this is about.

use std::ops::Range;
use std::path::{Path, PathBuf};

use raft_log::fs::{Fs, SimFs};

use super::input::{Input, Random};
use crate::support::{dir, file_name};

/// One thing that happened to the files.
#[derive(Clone, Debug)]
pub enum Damage {
    Flip {
        file: PathBuf,
        bit: u64,
    },
    Zero {
        file: PathBuf,
        bytes: Range<usize>,
    },
    /// Overwritten with bytes that come from a seed.
    Overwrite {
        file: PathBuf,
        bytes: Range<usize>,
        seed: u8,
    },
    Cut {
        file: PathBuf,
        length: usize,
    },
    /// What follows moves to the front; the length stays.
    TakeOut {
        file: PathBuf,
        bytes: Range<usize>,
    },
    /// What follows moves to the back; the length stays.
    PutInTwice {
        file: PathBuf,
        bytes: Range<usize>,
    },
    /// Bytes of one file over those of another, or of the same.
    Copy {
        from: PathBuf,
        bytes: Range<usize>,
        to: PathBuf,
        at: usize,
    },
    Swap {
        one: PathBuf,
        other: PathBuf,
    },
    Duplicate {
        from: PathBuf,
        name: &'static str,
    },
    Remove {
        file: PathBuf,
    },
    Unreadable {
        file: PathBuf,
        at: u64,
    },
}

/// Names that a duplicate can get; no log made here is long enough to have them.
const NEW_NAMES: [&str; 4] = [
    "segment-0000000000000063",
    "spare-0000000000000063",
    "spare-0000000000000063.tmp",
    "control.tmp",
];

/// Lengths of pieces that media and file systems deal in; any other comes from the input.
const PIECES: [usize; 6] = [1, 8, 64, 512, 4096, 8192];

impl Damage {
    /// The next damage that the input says; `None` if there is nothing left to damage.
    pub fn read(fs: &SimFs, input: &mut Input<'_>) -> Option<Damage> {
        let (kind, file) = (input.byte(), file(fs, input)?);
        let length = fs.bytes(&file).len();
        let damage = match kind % 16 {
            0..=3 if length > 0 => Damage::Flip {
                bit: input.below(length as u64) * 8 + u64::from(kind >> 5),
                file,
            },
            4 => Damage::Zero {
                bytes: piece(length, input),
                file,
            },
            5 | 6 => Damage::Overwrite {
                bytes: piece(length, input),
                seed: input.byte(),
                file,
            },
            7 => Damage::Cut {
                length: input.below(length as u64) as usize,
                file,
            },
            8 => Damage::TakeOut {
                bytes: piece(length, input),
                file,
            },
            9 => Damage::PutInTwice {
                bytes: piece(length, input),
                file,
            },
            10 | 11 => Damage::Copy {
                bytes: piece(length, input),
                from: file,
                to: self::file(fs, input)?,
                at: input.short().into(),
            },
            12 => Damage::Swap {
                one: file,
                other: self::file(fs, input)?,
            },
            13 => Damage::Duplicate {
                from: file,
                name: NEW_NAMES[input.below(4) as usize],
            },
            14 => Damage::Remove { file },
            // The simulated medium gives such a place never back, even if it was written anew; so not in a file that
            // is yet to be written.
            15 if is_spare(&file) => Damage::Remove { file },
            _ => Damage::Unreadable {
                at: input.below(length as u64),
                file,
            },
        };
        Some(damage)
    }

    pub fn apply(&self, fs: &SimFs) {
        match self {
            Damage::Flip { file, bit } => fs.flip_bit(file, *bit),
            Damage::Zero { file, bytes } => {
                edit(fs, file, |content| content[bytes.clone()].fill(0))
            }
            Damage::Overwrite { file, bytes, seed } => {
                let new = Random(u64::from(*seed)).bytes(bytes.len());
                edit(fs, file, |content| {
                    content[bytes.clone()].copy_from_slice(&new)
                });
            }
            Damage::Cut { file, length } => edit(fs, file, |content| content.truncate(*length)),
            Damage::TakeOut { file, bytes } => edit(fs, file, |content| {
                content.drain(bytes.clone());
                content.extend(vec![0; bytes.len()]);
            }),
            Damage::PutInTwice { file, bytes } => edit(fs, file, |content| {
                let (length, twice) = (content.len(), content[bytes.clone()].to_vec());
                content.splice(bytes.end..bytes.end, twice);
                content.truncate(length);
            }),
            Damage::Copy {
                from,
                bytes,
                to,
                at,
            } => {
                let source = fs.bytes(from)[bytes.clone()].to_vec();
                edit(fs, to, |content| {
                    let room = content.get_mut(*at..).unwrap_or_default();
                    let count = room.len().min(source.len());
                    room[..count].copy_from_slice(&source[..count]);
                });
            }
            Damage::Swap { one, other } => {
                let (first, second) = (fs.bytes(one), fs.bytes(other));
                fs.set_bytes(one, &second);
                fs.set_bytes(other, &first);
            }
            Damage::Duplicate { from, name } => {
                let path = dir().join(name);
                // If it is there already, it gets the new content.
                let _ = fs.create_new(&path);
                fs.set_bytes(&path, &fs.bytes(from));
            }
            Damage::Remove { file } => fs.remove(file).expect("it is there"),
            Damage::Unreadable { file, at } => fs.set_unreadable(file, *at),
        }
    }
}

/// Random damage, as the input that says it.
pub fn random(random: &mut Random) -> Vec<u8> {
    // Most often a single one: behind several there is hardly a log left.
    let count = 1 + random.index(4) * random.index(2);
    random.bytes(count * 10)
}

fn file(fs: &SimFs, input: &mut Input<'_>) -> Option<PathBuf> {
    let mut names = fs.list(&dir()).expect("a healthy disk");
    names.retain(|name| name != "lock");
    let number = usize::from(input.byte()) % names.len().max(1);
    names.get(number).map(|name| dir().join(name))
}

fn is_spare(file: &Path) -> bool {
    file_name(file).starts_with("spare")
}

/// A piece of a file, aligned to its own length as often as not.
fn piece(length: usize, input: &mut Input<'_>) -> Range<usize> {
    let (start, size) = (
        input.below(length as u64) as usize,
        usize::from(input.byte()),
    );
    let count = PIECES.get(size % 8).copied().unwrap_or(size);
    let start = if size & 8 == 0 {
        start / count.max(1) * count
    } else {
        start
    };
    start..(start + count).min(length)
}

fn edit(fs: &SimFs, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs.bytes(file);
    change(&mut content);
    fs.set_bytes(file, &content);
}
