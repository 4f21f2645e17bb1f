//! A valid log, closed and then damaged: all of it or a refusal, never less of it and a success.

use super::damage::{self, Damage};
use super::input::{Input, Random};
use super::{oracle, script};
use crate::support::file_name;

const DAMAGES_MAX: usize = 12;

/// The input: a script that makes the log, then what happens to it.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let script::Closed {
        fs,
        model,
        repeats_terms,
    } = script::run(&mut input);
    let mut damages = Vec::new();
    while !input.is_empty() && damages.len() < DAMAGES_MAX {
        let Some(damage) = Damage::read(&fs, &mut input) else {
            break;
        };

        damage.apply(&fs);
        damages.push(damage);
    }
    if repeats_terms && damages.iter().any(runs_into_unmended_bug) {
        return;
    }
    let Ok((wal, opened)) = oracle::open(&fs) else {
        assert!(!damages.is_empty(), "an intact log was refused");
        return;
    };
    let found = oracle::read_back(&wal, &opened);
    oracle::check_complete(&found, &model, &format!("{damages:?}"));
    oracle::check_goes_on(&fs, wal, found);
}

/// WHAT WAITS TO BE MENDED in raft-log, as in `open.rs`.
///
/// A segment in the middle is gone. In the one before it lie entries that were truncated once, up to where the one
/// behind it begins, the last of them with the term that the header there names; the generation was raised again
/// since. They are taken for the lost ones. With terms as Raft has them they would be the lost ones.
fn runs_into_unmended_bug(damage: &Damage) -> bool {
    matches!(damage, Damage::Remove { file } if file_name(file).starts_with("segment"))
}

pub fn random(random: &mut Random) -> Vec<u8> {
    let mut input = script::random(random);
    input.extend(damage::random(random));
    input
}
