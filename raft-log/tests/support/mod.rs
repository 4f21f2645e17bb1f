//! A log under test beside a model of what it must hold.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses another part"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use raft_log::fs::{Fs, SimFs, is_stopped};
use raft_log::record::payload_checksum;
use raft_log::{
    Binding, Corruption, EntryRef, IoFault, OpenError, Opened, Options, ReadError, Wal, WalError,
};

pub mod random;

pub const BINDING: Binding = Binding {
    cluster: 0x00c0_ffee,
    node: 3,
};

pub fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

/// The smallest segments: five entries of 1,500 bytes fit into one.
pub fn small() -> Options {
    Options {
        segment_bytes: 16 << 10,
        max_bytes: 1 << 20,
        reserve_bytes: 0,
        spare_segments: 1,
    }
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub floor: (u64, u64),
    /// Entries above the floor: term and payload.
    pub entries: BTreeMap<u64, (u64, Vec<u8>)>,
    pub hard_state: (u64, Option<u64>),
}

impl Model {
    pub fn empty() -> Model {
        Model {
            floor: (0, 0),
            entries: BTreeMap::new(),
            hard_state: (0, None),
        }
    }

    pub fn last_index(&self) -> u64 {
        self.entries
            .last_key_value()
            .map_or(self.floor.0, |(index, _)| *index)
    }

    pub fn last_term(&self) -> u64 {
        self.entries
            .last_key_value()
            .map_or(self.floor.1, |(_, (term, _))| *term)
    }

    pub fn term(&self, index: u64) -> u64 {
        if index == self.floor.0 {
            self.floor.1
        } else {
            self.entries[&index].0
        }
    }

    /// What `wal` holds, read back through a reader.
    pub fn of<F: Fs>(wal: &Wal<F>) -> Model {
        let reader = wal.reader();
        let (first, last) = (reader.first_index(), reader.last_index());
        let mut entries = BTreeMap::new();
        let mut next = first;
        while next <= last {
            for entry in reader
                .entries(next..last + 1, 4000)
                .expect("every entry is readable")
            {
                assert_eq!(entry.index, next, "entries are consecutive");
                assert_eq!(reader.term(next), Some(entry.term));
                entries.insert(next, (entry.term, entry.payload.to_vec()));
                next += 1;
            }
        }
        assert_eq!(
            wal.last_index(),
            last,
            "nothing was appended since the last sync"
        );
        assert_eq!(wal.first_index(), first);
        Model {
            floor: wal.floor(),
            entries,
            hard_state: wal.hard_state(),
        }
    }

    /// What a log that holds this may hold while `step` is under way; the last is what it holds afterwards.
    pub fn outcomes(&self, step: &Step, salt: u64) -> Vec<Model> {
        let before = self.clone();
        let mut after = before.clone();
        match step {
            Step::HardState(term, vote) => after.hard_state = (*term, *vote),
            Step::Append(sizes) => return self.appended(sizes, salt),
            Step::Truncate(from) => after.entries.retain(|index, _| index < from),
            Step::Purge(index) => {
                after.floor = (*index, before.term(*index));
                after.entries.retain(|kept, _| kept > index);
            }
            Step::Reset(index, term) => {
                after.floor = (*index, *term);
                after.entries.clear();
            }
            Step::Flush | Step::Prepare | Step::Reopen | Step::Kill => return vec![before],
        }
        vec![before, after]
    }

    /// Of an unsynced batch any number of entries from the front may be there.
    fn appended(&self, sizes: &[(u64, usize)], salt: u64) -> Vec<Model> {
        let mut models = vec![self.clone()];
        for (index, term, payload) in batch(self, sizes, salt) {
            let mut next = models.last().unwrap().clone();
            next.entries.insert(index, (term, payload));
            models.push(next);
        }
        models
    }
}

impl Model {
    /// What can be read of a log with damage, entry by entry, and what each of the others said.
    pub fn of_damaged<F: Fs>(wal: &Wal<F>) -> (Model, Vec<(u64, Corruption)>) {
        let reader = wal.reader();
        let (mut entries, mut damaged) = (BTreeMap::new(), Vec::new());
        for index in reader.first_index()..=reader.last_index() {
            match reader.entries(index..index + 1, u64::MAX) {
                Ok(read) => {
                    assert_eq!((read.len(), read[0].index), (1, index));
                    entries.insert(index, (read[0].term, read[0].payload.to_vec()));
                }
                Err(ReadError::Corrupt(corruption)) => damaged.push((index, corruption)),
                Err(error) => panic!("entry {index}: {error}"),
            }
        }
        let model = Model {
            floor: wal.floor(),
            entries,
            hard_state: wal.hard_state(),
        };
        (model, damaged)
    }
}

/// One thing done to a log.
#[derive(Clone, Debug)]
pub enum Step {
    HardState(u64, Option<u64>),
    /// Appends one entry per (term, payload bytes) and syncs.
    Append(Vec<(u64, usize)>),
    Truncate(u64),
    Purge(u64),
    Reset(u64, u64),
    Flush,
    Prepare,
    /// Closes and opens again.
    Reopen,
    /// Opens again without closing, as after `kill -9`.
    Kill,
}

/// Bytes that tell entries apart, also two with the same index and term.
pub fn payload(index: u64, term: u64, salt: u64, bytes: usize) -> Vec<u8> {
    let mut mixed = index.wrapping_mul(0x9e37_79b9) ^ term.rotate_left(32) ^ salt.rotate_left(48);
    (0..bytes)
        .map(|_| {
            mixed = mixed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (mixed >> 56) as u8
        })
        .collect()
}

pub fn append<F: Fs>(wal: &mut Wal<F>, entries: &[(u64, u64, Vec<u8>)]) -> Result<(), WalError> {
    let refs: Vec<EntryRef<'_>> = entries
        .iter()
        .map(|(index, term, payload)| EntryRef {
            index: *index,
            term: *term,
            kind: 2,
            payload,
            payload_crc: payload_checksum(BINDING.cluster, payload),
        })
        .collect();
    wal.append(&refs)
}

pub fn create(fs: &SimFs, options: &Options) {
    Wal::create(fs, &dir(), BINDING, options).expect("a healthy disk");
}

pub fn open(fs: &SimFs, options: &Options) -> Result<(Wal<SimFs>, Opened), OpenError> {
    Wal::open(fs, &dir(), BINDING, options.clone())
}

pub fn segment(number: u64) -> PathBuf {
    dir().join(format!("segment-{number:016x}"))
}

pub fn segments(fs: &SimFs) -> Vec<PathBuf> {
    let names = fs.list(&dir()).expect("a healthy disk");
    names
        .iter()
        .filter(|name| name.starts_with("segment-"))
        .map(|name| dir().join(name))
        .collect()
}

/// A log, the model of what it acknowledged, and what it was doing when the machine stopped.
pub struct Subject {
    pub fs: SimFs,
    pub options: Options,
    pub wal: Option<Wal<SimFs>>,
    pub acknowledged: Model,
    pub interrupted: Option<Step>,
    salt: u64,
}

impl Subject {
    pub fn new(fs: SimFs, options: Options) -> Subject {
        create(&fs, &options);
        Subject {
            fs,
            options,
            wal: None,
            acknowledged: Model::empty(),
            interrupted: None,
            salt: 0,
        }
    }

    /// Does all steps, or as many as there are calls.
    pub fn run(&mut self, script: &[Step]) {
        for step in script {
            if !self.step(step) {
                self.interrupted = Some(step.clone());
                self.wal = None;
                return;
            }
        }
    }

    /// Does all steps; the first that fails ends it.
    pub fn run_until_error(&mut self, script: &[Step]) -> Option<(Step, WalError)> {
        for step in script {
            self.salt += 1;
            let wal = self.wal.as_mut().expect("opened before");
            if let Err(error) = apply(wal, &self.acknowledged, step, self.salt) {
                return Some((step.clone(), error));
            }
            self.acknowledged = self.outcomes(step).pop().unwrap();
        }
        None
    }

    /// False if the machine stopped.
    fn step(&mut self, step: &Step) -> bool {
        self.salt += 1;
        let again = matches!(step, Step::Reopen | Step::Kill);
        if (self.wal.is_none() || again) && !self.reopen(matches!(step, Step::Reopen)) {
            return false;
        }
        let done = apply(
            self.wal.as_mut().unwrap(),
            &self.acknowledged,
            step,
            self.salt,
        );
        match done {
            Ok(()) => {
                self.acknowledged = self.outcomes(step).pop().unwrap();
                true
            }
            Err(error) => {
                assert!(stopped(&error), "{step:?} failed by itself: {error}");
                assert!(matches!(
                    self.wal.as_mut().unwrap().sync(),
                    Err(WalError::Poisoned)
                ));
                false
            }
        }
    }

    fn reopen(&mut self, close: bool) -> bool {
        if let Some(wal) = self.wal.take()
            && close
            && let Err(error) = wal.close()
        {
            assert!(stopped(&error), "close failed by itself: {error}");
            return false;
        }
        match open(&self.fs, &self.options) {
            Ok((wal, _)) => {
                self.wal = Some(wal);
                true
            }
            Err(OpenError::Io(IoFault { source, .. })) if is_stopped(&source) => false,
            Err(error) => panic!("a healthy log does not open: {error}"),
        }
    }

    /// What the log may hold while `step` is under way; the last is what it holds afterwards.
    pub fn outcomes(&self, step: &Step) -> Vec<Model> {
        self.acknowledged.outcomes(step, self.salt)
    }

    /// What a restart may find.
    pub fn possible(&self) -> Vec<Model> {
        match &self.interrupted {
            Some(step) => self.outcomes(step),
            None => vec![self.acknowledged.clone()],
        }
    }
}

fn batch(model: &Model, sizes: &[(u64, usize)], salt: u64) -> Vec<(u64, u64, Vec<u8>)> {
    let first = model.last_index() + 1;
    let entry = |(index, (term, bytes)): (u64, &(u64, usize))| {
        (index, *term, payload(index, *term, salt, *bytes))
    };
    (first..).zip(sizes).map(entry).collect()
}

/// Does `step` to a log that holds `model`.
pub fn apply<F: Fs>(
    wal: &mut Wal<F>,
    model: &Model,
    step: &Step,
    salt: u64,
) -> Result<(), WalError> {
    match step {
        Step::HardState(term, vote) => wal.set_hard_state(*term, *vote),
        Step::Append(sizes) => {
            append(wal, &batch(model, sizes, salt))?;
            wal.note_commit(model.last_index());
            wal.sync()
        }
        Step::Truncate(from) => wal.truncate_suffix(*from),
        Step::Purge(index) => wal.purge_prefix(*index, model.term(*index)),
        Step::Reset(index, term) => wal.reset(*index, *term),
        Step::Flush => wal.flush_control(),
        Step::Prepare => wal.preparer().work().map(|_| ()),
        Step::Reopen | Step::Kill => Ok(()),
    }
}

pub fn stopped(error: &WalError) -> bool {
    matches!(error, WalError::Io(fault) if is_stopped(&fault.source))
}

/// Opens the log and says what it holds.
pub fn recovered(fs: &SimFs, options: &Options) -> Result<(Wal<SimFs>, Model), OpenError> {
    let (wal, opened) = open(fs, options)?;
    let model = Model::of(&wal);
    assert_eq!(opened.last_index, model.last_index());
    assert_eq!(opened.floor, model.floor);
    assert_eq!((opened.term, opened.vote), model.hard_state);
    assert!(
        opened.commit <= opened.last_index,
        "the commit hint is never above the log"
    );
    Ok((wal, model))
}

/// Time that a test with a budget may take.
pub fn budget() -> std::time::Duration {
    let seconds = std::env::var("RAFT_LOG_CRASH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    std::time::Duration::from_secs_f64(seconds.unwrap_or(4.0))
}

pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
