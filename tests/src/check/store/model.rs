//! The model of the whole store.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use kvd::kv::command::{
    Command, CommandResult, Compare, KeyRange, KeyValue, Op, OpResult, RangeQuery, RangeResult,
    Test,
};

use super::{Answer, Request, has_changed};
use crate::check::serial::{NumberedStore, Place};

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its value.
    pub value: Bytes,
    /// Revision at which it was created.
    pub create_revision: u64,
    /// Revision of its last write.
    pub mod_revision: u64,
    /// Number of writes since it was created.
    pub version: u64,
}

/// All keys, and the revision of the last change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StoreState {
    /// All keys.
    pub records: BTreeMap<Bytes, Record>,
    /// Of the last change; 0 before the first.
    pub revision: u64,
}

/// The model of the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreModel;

impl NumberedStore for StoreModel {
    type State = StoreState;
    type Input = Request;
    type Output = Answer;

    fn initial(&self) -> StoreState {
        StoreState::default()
    }

    fn run(&self, state: &mut StoreState, request: &Request) -> Answer {
        match request {
            Request::Write(command) => Answer::Written(state.write(command)),
            Request::Read(query) => Answer::Found(state.read(query)),
        }
    }

    fn revision(&self, state: &StoreState) -> u64 {
        state.revision
    }

    fn place(&self, answer: &Answer) -> Place {
        match answer {
            Answer::Written(result) => Place {
                revision: result.revision,
                changed: result.results.iter().any(has_changed),
            },
            Answer::Found(result) => Place {
                revision: result.revision,
                changed: false,
            },
        }
    }

    fn agrees(&self, expected: &Answer, seen: &Answer) -> bool {
        match (expected, seen) {
            (Answer::Written(expected), Answer::Written(seen)) => agrees(expected, seen),
            (Answer::Found(expected), Answer::Found(seen)) => is_page_of(seen, expected),
            (Answer::Written(_), Answer::Found(_)) | (Answer::Found(_), Answer::Written(_)) => {
                false
            }
        }
    }

    fn describe(&self, request: &Request, answer: Option<&Answer>) -> String {
        match answer {
            Some(answer) => format!("{request} -> {answer}"),
            None => request.to_string(),
        }
    }

    fn describe_output(&self, answer: &Answer) -> String {
        answer.to_string()
    }
}

impl Hash for Request {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Commands have no hash of their own; equal ones have the same bytes.
        match self {
            Request::Write(command) => command.encode().hash(hasher),
            Request::Read(query) => query.range.hash(hasher),
        }
    }
}

fn agrees(expected: &CommandResult, seen: &CommandResult) -> bool {
    let numbers =
        |result: &CommandResult| (result.revision, result.succeeded, result.results.len());
    let mut steps = expected.results.iter().zip(&seen.results);
    numbers(expected) == numbers(seen)
        && steps.all(|steps| match steps {
            (OpResult::Range(expected), OpResult::Range(seen)) => is_page_of(seen, expected),
            (expected, seen) => expected == seen,
        })
}

/// Whether an answer is the right one, or the beginning of it, cut off by a limit of the server.
fn is_page_of(seen: &RangeResult, expected: &RangeResult) -> bool {
    let is_cut = seen.more
        && seen.revision == expected.revision
        && !seen.items.is_empty()
        && seen.count == seen.items.len() as u64
        && seen.items.len() < expected.items.len()
        && expected.items.starts_with(&seen.items);
    seen == expected || is_cut
}

impl StoreState {
    fn write(&mut self, command: &Command) -> CommandResult {
        match command {
            Command::Op(op) => self.run_all(std::slice::from_ref(op), true),
            Command::Txn(txn) => {
                let holds = txn.compare.iter().all(|compare| self.holds(compare));
                self.run_all(if holds { &txn.then } else { &txn.otherwise }, holds)
            }
            Command::CloseSession | Command::KeepAlive | _ => self.run_all(&[], true),
        }
    }

    /// All steps, or none.
    fn run_all(&mut self, ops: &[Op], succeeded: bool) -> CommandResult {
        let mut before = self.clone_if_needed(ops);
        let mut results: Vec<OpResult> = Vec::new();
        for op in ops {
            let has_changed = results.iter().any(has_changed);
            let result = self.step(op, has_changed);
            if result.is_undone() {
                if let Some(before) = before.take() {
                    *self = before;
                }
                return CommandResult {
                    revision: self.revision,
                    succeeded: false,
                    results: vec![result],
                };
            }
            results.push(result);
        }
        self.revision += u64::from(results.iter().any(has_changed));
        CommandResult {
            revision: self.revision,
            succeeded,
            results,
        }
    }

    /// Only increments can undo what was done before them.
    fn clone_if_needed(&self, ops: &[Op]) -> Option<StoreState> {
        let behind_first = ops.iter().skip(1);
        let mut increments = behind_first.filter(|op| matches!(op, Op::Increment { .. }));
        increments.next().map(|_| self.clone())
    }

    /// One step; `has_changed`: an earlier step of the same command changed something.
    fn step(&mut self, op: &Op, has_changed: bool) -> OpResult {
        match op {
            Op::Put {
                key,
                value,
                want_previous,
            } => {
                let previous = self.item(key).filter(|_| *want_previous);
                let version = self.put(key, value.clone());
                OpResult::Put { version, previous }
            }
            Op::Delete {
                range,
                want_previous,
            } => {
                let removed = self.items(range, None);
                for item in &removed {
                    self.records.remove(&item.key);
                }
                OpResult::Deleted {
                    count: removed.len() as u64,
                    previous: if *want_previous { removed } else { Vec::new() },
                }
            }
            Op::Range(query) => {
                let mut found = self.read(query);
                found.revision += u64::from(has_changed);
                OpResult::Range(found)
            }
            Op::Increment { key, by } => self.increment(key, *by),
        }
    }

    fn put(&mut self, key: &Bytes, value: Bytes) -> u64 {
        let revision = self.revision + 1;
        let before = self.records.get(key);
        let record = Record {
            value,
            create_revision: before.map_or(revision, |record| record.create_revision),
            mod_revision: revision,
            version: before.map_or(1, |record| record.version + 1),
        };
        let version = record.version;
        self.records.insert(key.clone(), record);
        version
    }

    fn increment(&mut self, key: &Bytes, by: i64) -> OpResult {
        let before = match self.records.get(key) {
            None => Some(0),
            Some(record) => number(&record.value),
        };
        let Some(before) = before else {
            return OpResult::NotANumber;
        };
        let Some(value) = before.checked_add(by) else {
            return OpResult::Overflow;
        };
        let version = self.put(key, value.to_string().into());
        OpResult::Incremented { value, version }
    }

    fn read(&self, query: &RangeQuery) -> RangeResult {
        let mut items = self.items(&query.range, query.after.as_ref());
        let all = items.len();
        let limit = if query.limit == 0 {
            all
        } else {
            query.limit as usize
        };
        items.truncate(if query.count_only { 0 } else { limit });
        if query.keys_only {
            items.iter_mut().for_each(|item| item.value = Bytes::new());
        }
        RangeResult {
            count: if query.count_only { all } else { items.len() } as u64,
            more: !query.count_only && items.len() < all,
            items,
            revision: self.revision,
        }
    }

    fn items(&self, range: &KeyRange, after: Option<&Bytes>) -> Vec<KeyValue> {
        let is_in = |key: &Bytes| match range {
            KeyRange::Key(only) => key == only,
            KeyRange::Prefix(prefix) => key.starts_with(prefix),
            KeyRange::Between { start, end } => key >= start && key < end,
            KeyRange::All => true,
        };
        let keys = self.records.keys();
        keys.filter(|key| is_in(key) && after.is_none_or(|after| *key > after))
            .filter_map(|key| self.item(key))
            .collect()
    }

    fn item(&self, key: &Bytes) -> Option<KeyValue> {
        let record = self.records.get(key)?;
        Some(KeyValue {
            key: key.clone(),
            value: record.value.clone(),
            create_revision: record.create_revision,
            mod_revision: record.mod_revision,
            version: record.version,
        })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let record = self.records.get(&compare.key);
        let number = |read: fn(&Record) -> u64| record.map_or(0, read);
        match &compare.test {
            Test::Absent => record.is_none(),
            Test::Present => record.is_some(),
            Test::Version(op, given) => op.holds(&number(|it| it.version), given),
            Test::CreateRevision(op, given) => op.holds(&number(|it| it.create_revision), given),
            Test::ModRevision(op, given) => op.holds(&number(|it| it.mod_revision), given),
            Test::Value(op, given) => record.is_some_and(|record| op.holds(&record.value, given)),
        }
    }
}

/// A decimal 64-bit integer in text: an optional sign and digits, nothing else.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
