//! The process that writes a log until it dies, and says on its stdout what it begins and what is done.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc;

use raft_log::{OpenError, Options, Preparer, Wal, WalError};

use super::cut_fs::CutFs;
use crate::support::{BINDING, Model, Step, apply};
use crate::{Random, sketch};

/// Above this many entries the log is purged: an image is small, and every check reads all of it.
const ENTRIES_MAX: usize = 150;

/// What a writer is told.
#[derive(Clone, Debug)]
pub struct Orders {
    pub dir: PathBuf,
    /// Of the script.
    pub seed: u64,
    pub segment_bytes: u64,
    /// Whether segments are prepared by another thread.
    pub prepares_ahead: bool,
    /// The sync in whose place it dies, counted from the start.
    pub syncs: u64,
    /// The same, counted from when the log is open.
    pub syncs_once_open: u64,
}

impl Orders {
    pub fn options(&self) -> Options {
        Options {
            segment_bytes: self.segment_bytes,
            max_bytes: 1 << 20,
            reserve_bytes: 0,
            spare_segments: 2,
        }
    }

    pub fn encode(&self) -> String {
        let Orders {
            dir,
            seed,
            segment_bytes,
            prepares_ahead,
            syncs,
            syncs_once_open,
        } = self;
        let dir = dir.display();
        format!("{seed} {segment_bytes} {prepares_ahead} {syncs} {syncs_once_open} {dir}")
    }

    pub fn decode(text: &str) -> Orders {
        let mut words = text.splitn(6, ' ');
        let mut word = || words.next().unwrap();
        Orders {
            seed: word().parse().unwrap(),
            segment_bytes: word().parse().unwrap(),
            prepares_ahead: word().parse().unwrap(),
            syncs: word().parse().unwrap(),
            syncs_once_open: word().parse().unwrap(),
            dir: PathBuf::from(word()),
        }
    }
}

/// Steps in their order, the same for the writer and for who reads what it said.
#[derive(Debug)]
pub struct Script {
    random: Random,
    options: Options,
    seed: u64,
    count: u64,
}

impl Script {
    pub fn new(orders: &Orders) -> Script {
        Script {
            random: Random(orders.seed),
            options: orders.options(),
            seed: orders.seed,
            count: 0,
        }
    }

    /// The next step, one that a log with this content takes, and the salt of its payloads.
    pub fn next(&mut self, model: &Model) -> (u64, Step) {
        self.count += 1;
        let salt = self.seed.wrapping_add(self.count);
        (salt, self.step(model))
    }

    fn step(&mut self, model: &Model) -> Step {
        let random = &mut self.random;
        let (first, last) = (model.floor.0 + 1, model.last_index());
        if model.entries.len() > ENTRIES_MAX {
            return Step::Purge(last - random.below(ENTRIES_MAX as u64 / 2));
        }
        let term = model.last_term().max(1) + u64::from(random.one_in(4));
        match random.below(24) {
            0 | 1 => Step::HardState(
                model.hard_state.0 + 1 + random.below(2),
                random.one_in(2).then_some(7),
            ),
            2 => Step::Flush,
            3 => Step::Prepare,
            4 => Step::Reopen,
            5 => Step::Kill,
            6..=8 if last >= first => Step::Truncate(first + random.below(last + 2 - first)),
            9 | 10 if last >= first => Step::Purge(first + random.below(last + 1 - first)),
            11 if random.one_in(3) => Step::Reset(last + 1 + random.below(10), term),
            _ => Step::Append(self.group(term)),
        }
    }

    /// Mostly small groups of entries of the same size, so that leftovers lie exactly where a record would.
    fn group(&mut self, term: u64) -> Vec<(u64, usize)> {
        let random = &mut self.random;
        let limit = self.options.payload_bytes_max();
        let count_max = if random.one_in(4) { 40 } else { 6 };
        let count = 1 + random.below(count_max);
        let sizes = (0..count).map(|_| match random.below(5) {
            0 if count < 10 => random.below(limit + 1),
            1 => random.below(50),
            _ => 300,
        });
        sizes.map(|bytes| (term, bytes as usize)).collect()
    }
}

/// Writes until it dies.
pub fn write_until_death(orders: &Orders) {
    let fs = CutFs::new(orders.syncs);
    // The line that the test harness may have begun is none of ours.
    say("");
    let mut script = Script::new(orders);
    loop {
        match Wal::open(&fs, &orders.dir, BINDING, orders.options()) {
            Ok((wal, _)) => {
                fs.limit(orders.syncs_once_open);
                one_life(wal, &mut script, orders);
            }
            Err(OpenError::NotCreated { .. }) => {
                say("begin creation");
                Wal::create(&fs, &orders.dir, BINDING, &orders.options()).expect("a healthy disk");
                say("done");
            }
            Err(error) => panic!("a healthy log does not open: {error}"),
        }
    }
}

/// From opening the log to closing it, or to leaving it as it is.
fn one_life(mut wal: Wal<CutFs>, script: &mut Script, orders: &Orders) {
    let mut model = Model::of(&wal);
    say(&format!("opened {}", sketch(&model)));
    let closes = std::thread::scope(|scope| {
        let (wanted, wishes) = mpsc::channel();
        if orders.prepares_ahead {
            let preparer = wal.preparer();
            scope.spawn(move || wishes.iter().for_each(|()| prepare(&preparer)));
        }
        loop {
            let (salt, step) = script.next(&model);
            say(&format!("begin {step:?}"));
            if matches!(step, Step::Reopen | Step::Kill) {
                return matches!(step, Step::Reopen);
            }
            apply(&mut wal, &model, &step, salt).expect("a healthy disk with room");
            say("done");
            model = model.outcomes(&step, salt).pop().unwrap();
            // Nobody listens if segments are not prepared ahead.
            let _ = wanted.send(());
        }
    });
    if closes {
        wal.close().expect("a healthy disk");
    }
}

fn prepare(preparer: &Preparer<CutFs>) {
    match preparer.prepare_spare() {
        Ok(_) | Err(WalError::NoSpace { .. }) => {}
        Err(error) => panic!("a healthy disk fails: {error}"),
    }
}

/// One line in one write, past the test harness, which would keep it.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{line}\n").as_bytes())
        .expect("somebody listens");
}
