//! Any bytes at all as a log directory: refused, or a log that works.

use super::directory::Directory;
use super::input::{Input, Random};
use super::mend::mend;
use super::{oracle, script};

const MEND: u8 = 1;

/// The input: a byte that says whether checksums are made right, then the [directory](Directory).
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let mut directory = Directory::read(&mut input);
    let is_forged = choice & MEND != 0;
    if is_forged {
        mend(&mut directory);
    }
    if runs_into_unmended_bug(&directory) {
        return;
    }
    let fs = directory.lay(u64::from(choice));
    let Ok((wal, opened)) = oracle::open(&fs) else {
        return;
    };
    if is_forged {
        // What never was written by a log need not make sense. It is answered all the same.
        oracle::check_answers(&fs, wal);
    } else {
        let found = oracle::read_back(&wal, &opened);
        oracle::check_goes_on(&fs, wal, found);
    }
}

/// WHAT WAITS TO BE MENDED in raft-log: inputs that run into it are left out, and each line goes away with its
/// bug. The inputs that show them are in `tests/regressions/open`.
///
/// Opening and writing count on from numbers in the files and in their names, and the sum overflows: a panic with
/// overflow checks, and without them a number that begins at 0 again. For the name of a spare no checksum has
/// to be right.
fn runs_into_unmended_bug(directory: &Directory) -> bool {
    let is_huge = |bytes: &[u8], at: &usize| bytes.get(at + 7).is_some_and(|byte| byte >> 7 == 1);
    directory.files.iter().any(|(name, bytes)| {
        let counters: &[usize] = match name.split('-').next() {
            // Sequence, segment of the watermark, generation, segment of the cut, floor.
            Some("control") => &[16, 40, 104, 112, 128, 4112, 4136, 4200, 4208, 4224],
            // Number, first index, generation.
            Some("segment") => &[16, 32, 48],
            // Sequence.
            Some("hard") => &[16, 8208],
            _ => &[],
        };
        name.ends_with("ffffffffffffffff") || counters.iter().any(|at| is_huge(bytes, at))
    })
}

/// A log made by the real code, with a few bytes changed.
pub fn random(random: &mut Random) -> Vec<u8> {
    let mut input = valid(random);
    random.edit(&mut input);
    input
}

/// A log made by the real code.
pub fn valid(random: &mut Random) -> Vec<u8> {
    let script = script::random(random);
    let closed = script::run(&mut Input::new(&script));
    let choice = random.long() as u8;
    [&[choice][..], &Directory::of(&closed.fs).encode()].concat()
}
