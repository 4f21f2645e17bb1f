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
