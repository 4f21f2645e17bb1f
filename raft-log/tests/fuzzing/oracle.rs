//! What must hold of every answer that `open` gives.

use std::collections::BTreeMap;
use std::path::Path;

use raft_log::fs::{Fs, SimFs};
use raft_log::{Check, OpenError, Opened, ReadError, Report, Wal};

use super::bounds::within_bounds;
use super::directory::bytes_on;
use crate::support::{self, Model, append, dir, payload, small};

/// What an open log holds: its intact entries, and what it says of the others.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub intact: Model,
    /// Damaged entries by index, with the term if it is still known.
    pub faulty: BTreeMap<u64, Option<u64>>,
}

/// Damaged entries that the open names.
fn faulty_of(opened: &Opened) -> BTreeMap<u64, Option<u64>> {
    let faulty = opened.faulty.iter();
    faulty.map(|entry| (entry.index, entry.term)).collect()
}

/// Opens the log within bounds; an error must be one that says what is wrong with the files.
pub fn open(fs: &SimFs) -> Result<(Wal<SimFs>, Opened), OpenError> {
    let result = within_bounds(bytes_on(fs), "open", || support::open(fs, &small()));
    result.inspect_err(|error| check_refusal(fs, error))
}

fn check_refusal(fs: &SimFs, error: &OpenError) {
    match error {
        OpenError::Corrupt(corruption) => assert!(
            corruption.expected != corruption.found,
            "the same value twice: {corruption}"
        ),
        OpenError::Missing { .. }
        | OpenError::WrongBinding { .. }
        | OpenError::NewerFormat { .. } => {}
        OpenError::NotCreated { .. } => {
            // An operator would create a log here.
            let names = fs.list(&dir()).unwrap_or_default();
            // No segment has a number above 2^63.
            let is_segment = |name: &String| {
                let number = name.strip_prefix("segment-");
                number.is_some_and(|number| number.as_bytes() < b"8".as_slice())
            };
            let is_of_a_log = |name: &String| name == "hard-state" || is_segment(name);
            assert!(
                !names.iter().any(is_of_a_log) || is_incomplete(fs),
                "a log that was never created, with {names:?}"
            );
        }
        // The disk is healthy, nobody else is there, and the options are good.
        OpenError::Locked { .. } | OpenError::Options(_) | OpenError::Io(_) | _ => {
            panic!("no word about the files: {error}")
        }
    }
}

/// Whether the control file is there: then it says itself whether the log was ever completely created.
fn is_incomplete(fs: &SimFs) -> bool {
    fs.exists(&dir().join("control")).expect("a healthy disk")
}

/// Reads everything. Each entry must be intact or said to be damaged, and everything said must agree.
pub fn read_back(wal: &Wal<SimFs>, opened: &Opened) -> Found {
    let reader = wal.reader();
    let (first, last) = (opened.first_index, opened.last_index);
    assert_eq!((reader.first_index(), reader.last_index()), (first, last));
    assert_eq!((wal.first_index(), wal.last_index()), (first, last));
    assert_eq!(opened.floor, wal.floor());
    assert_eq!((opened.term, opened.vote), wal.hard_state());
    assert!(opened.commit <= last, "commit {} of {last}", opened.commit);
    let mut faulty = faulty_of(opened);
    let mut intact = Model {
        floor: opened.floor,
        entries: BTreeMap::new(),
        hard_state: wal.hard_state(),
    };
    let mut last_term = opened.floor.1;
    for index in first..=last {
        let entry = match reader.entries(index..index + 1, u64::MAX) {
            Ok(read) if read.len() == 1 => read[0].clone(),
            // Named by the open, or in a segment that it does not read.
            Err(ReadError::Corrupt(corruption)) => {
                assert_eq!(corruption.index, Some(index), "{corruption}");
                faulty.entry(index).or_insert(corruption.term);
                continue;
            }
            other => panic!("entry {index}: {other:?}"),
        };
        assert!(!faulty.contains_key(&index), "named, and there: {entry:?}");
        assert_eq!((entry.index, reader.term(index)), (index, Some(entry.term)));
        assert!(entry.term >= last_term, "term {last_term} before {entry:?}");
        last_term = entry.term;
        let payload = entry.payload.to_vec();
        intact.entries.insert(index, (entry.term, payload));
    }
    if faulty.is_empty() {
        let whole = reader.entries(first..last + 1, u64::MAX);
        let whole = whole.expect("each was readable alone");
        assert_eq!(whole.len(), intact.entries.len());
    }
    Found { intact, faulty }
}

/// All entries are there as they were: each is intact, or said to be damaged.
pub fn check_complete(found: &Found, model: &Model, what: &str) {
    let Found { intact, faulty } = found;
    assert_eq!(intact.floor, model.floor, "{what}: floor");
    assert_eq!(intact.hard_state, model.hard_state, "{what}: term and vote");
    for (index, (term, payload)) in &model.entries {
        match (intact.entries.get(index), faulty.get(index)) {
            (Some(entry), None) => assert!(
                (entry.0, &entry.1) == (*term, payload),
                "{what}: entry {index} of term {term} became one of term {}",
                entry.0
            ),
            (None, Some(known)) => assert!(
                known.is_none_or(|known| known == *term),
                "{what}: damaged entry {index} of term {term} is said to be of {known:?}"
            ),
            (None, None) => panic!("{what}: entry {index} is lost without a word"),
            (Some(_), Some(_)) => panic!("{what}: entry {index} is both intact and damaged"),
        }
    }
    let known = intact.entries.keys().chain(faulty.keys());
    let invented = known.filter(|index| !model.entries.contains_key(index));
    assert_eq!(invented.count(), 0, "{what}: entries that never were");
}

/// Goes on writing, closes, opens again: what was there and what was added is there.
pub fn check_goes_on(fs: &SimFs, mut wal: Wal<SimFs>, found: Found) {
    let Found { mut intact, faulty } = found;
    if !faulty.is_empty() {
        // What may be written over damage is for the tests of the repair.
        return;
    }
    let term = intact.last_term().max(1);
    within_bounds(bytes_on(fs), "append and close", || {
        for bytes in [0, 100, small().payload_bytes_max() as usize] {
            let index = intact.last_index() + 1;
            let payload = payload(index, term, 99, bytes);
            append(&mut wal, &[(index, term, payload.clone())]).expect("the next entry");
            wal.sync().expect("a healthy disk");
            intact.entries.insert(index, (term, payload));
        }
        let (term, vote) = (intact.hard_state.0 + 1, Some(1));
        wal.set_hard_state(term, vote).expect("a later term");
        intact.hard_state = (term, vote);
        wal.close().expect("a healthy disk");
    });
    let (wal, opened) = open(fs).expect("it was closed just now");
    let found = read_back(&wal, &opened);
    check_complete(&found, &intact, "after close");
    assert!(found.faulty.is_empty(), "{:?}", found.faulty);
    for report in &opened.reports {
        // What was damaged was mended by the first open and the close after it, except what the simulated medium
        // never gives back, and the index of a segment whose purged records, which nobody asks for, rotted as well.
        let may_stay = match report {
            Report::CopyRewritten(it) => it.check == Check::Unreadable,
            Report::IndexDamaged(it) => {
                it.check == Check::Unreadable || has_purged_records(fs, &it.file, &opened)
            }
            Report::CopiesLost(_) | _ => false,
        };
        assert!(may_stay, "reported again: {report}");
    }
}

/// Whether entries of this segment may lie at or below the floor: only the oldest one goes on both sides of it.
fn has_purged_records(fs: &SimFs, file: &Path, opened: &Opened) -> bool {
    opened.floor.0 > 0 && support::segments(fs).first().is_some_and(|it| it == file)
}

/// Every call returns, whatever it says: reading, going on writing, closing, opening again.
pub fn check_answers(fs: &SimFs, mut wal: Wal<SimFs>) {
    within_bounds(bytes_on(fs), "reading and writing", || {
        let reader = wal.reader();
        let (first, last) = (reader.first_index(), reader.last_index());
        let mut next = first;
        while next <= last
            && let Ok(part) = reader.entries(next..last + 1, 1000)
        {
            assert_eq!(part[0].index, next);
            next += part.len() as u64;
        }
        // An error is an answer, too.
        let (term, _) = wal.hard_state();
        let _ = wal.set_hard_state(term.saturating_add(1), None);
        let (index, term) = (last.saturating_add(1), wal.last_term().max(1));
        let payload = payload(index, term, 99, 100);
        let _ = append(&mut wal, &[(index, term, payload)]);
        let _ = wal.sync();
        let _ = wal.close();
    });
    let _ = open(fs);
}
