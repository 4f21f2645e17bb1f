//! A valid log, closed and then damaged: all of it or a refusal, never less of it and a success.

use super::damage::{self, Damage};
use super::input::{Input, Random};
use super::{oracle, script};

const DAMAGES_MAX: usize = 12;

/// The input: a script that makes the log, then what happens to it.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let script::Closed { fs, model } = script::run(&mut input);
    let mut damages = Vec::new();
    while !input.is_empty() && damages.len() < DAMAGES_MAX {
        let Some(damage) = Damage::read(&fs, &mut input) else {
            break;
        };

        damage.apply(&fs);
        damages.push(damage);
    }
    let Ok((wal, opened)) = oracle::open(&fs) else {
        assert!(!damages.is_empty(), "an intact log was refused");
        return;
    };
    let found = oracle::read_back(&wal, &opened);
    oracle::check_complete(&found, &model, &format!("{damages:?}"));
    oracle::check_goes_on(&fs, wal, found);
}

pub fn random(random: &mut Random) -> Vec<u8> {
    let mut input = script::random(random);
    input.extend(damage::random(random));
    input
}
