//! A small valid log, made by the real code from the front of an input.

use raft_log::fs::SimFs;

use super::input::{Input, Random};
use crate::support::{Model, Step, Subject, small};

/// So that a run takes a millisecond.
const STEPS_MAX: usize = 16;
/// Payload bytes of one append; two of the smallest segments and more.
const APPEND_BYTES_MAX: usize = 20 << 10;

/// Codes of steps that truncate without raising the term.
const REPEATS_FROM: u8 = 200;

/// A log that was closed, and what it holds.
pub struct Closed {
    pub fs: SimFs,
    pub model: Model,
}

/// A log that is written.
struct Writing {
    subject: Subject,
    /// Term of the next entry; none before has a higher one.
    term: u64,
}

/// Does what the input says: a seed, the number of steps, the steps.
pub fn run(input: &mut Input<'_>) -> Closed {
    let subject = Subject::new(SimFs::new(u64::from(input.byte())), small());
    let mut writing = Writing { subject, term: 1 };
    writing.subject.run(&[Step::Flush]);
    for _ in 0..usize::from(input.byte()) % (STEPS_MAX + 1) {
        writing.step(input);
    }
    let Subject {
        fs,
        wal,
        acknowledged,
        ..
    } = writing.subject;
    let wal = wal.expect("the machine never stopped");
    wal.close().expect("a healthy disk");
    Closed {
        fs,
        model: acknowledged,
    }
}

/// The front of an input: a random script.
pub fn random(random: &mut Random) -> Vec<u8> {
    let steps = random.index(STEPS_MAX + 1);
    let mut input = vec![random.long() as u8, steps as u8];
    let bytes = random.bytes(steps * 4);
    input.extend(bytes);
    input
}

impl Writing {
    fn step(&mut self, input: &mut Input<'_>) {
        let model = &self.subject.acknowledged;
        let (first, last) = (model.floor.0 + 1, model.last_index());
        let is_empty = last < first;
        let code = input.byte();
        let step = match code % 20 {
            0 => Step::HardState(model.hard_state.0 + 1 + input.below(3), None),
            1 => Step::HardState(model.hard_state.0 + 1, Some(input.below(9))),
            2 => Step::Flush,
            3 => Step::Prepare,
            4 => Step::Reopen,
            5 => Step::Kill,
            6..=8 if !is_empty => {
                let from = first + input.below(last + 1 - first);
                if code < REPEATS_FROM {
                    // As in Raft, what is truncated makes room for a higher term. No consensus protocol uses an index
                    // and a term twice; the log takes that all the same.
                    self.term += 1;
                }
                return self.truncate(from, code % 20 == 8);
            }
            9 | 10 if !is_empty => Step::Purge(first + input.below(last + 1 - first)),
            11 => Step::Reset(last + 1 + input.below(9), self.term),
            _ => self.entries(input),
        };
        self.subject.run(&[step]);
    }

    fn truncate(&mut self, from: u64, under_a_reader: bool) {
        let wal = self.subject.wal.as_ref().expect("opened before");
        // Then the next entry begins a segment, and its predecessor stays half full.
        let held = under_a_reader.then(|| wal.reader().hold(from..from + 1, 0));
        self.subject.run(&[Step::Truncate(from)]);
        drop(held.transpose().expect("the entry was there"));
    }

    /// Often entries of the same size, so that leftovers lie exactly where a record would.
    fn entries(&mut self, input: &mut Input<'_>) -> Step {
        let [count, size] = [input.byte(), input.byte()];
        self.term += u64::from(count >> 6 == 0);
        let bytes = match size % 8 {
            0 => 0,
            1 => usize::from(size),
            2 => 1500,
            3 => 3000,
            4 => small().payload_bytes_max() as usize - usize::from(size >> 3),
            _ => 100,
        };
        let count = 1 + usize::from(count % 8).min(APPEND_BYTES_MAX / bytes.max(1));
        Step::Append(vec![(self.term, bytes); count])
    }
}
