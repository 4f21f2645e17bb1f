//! Running one command on the data, all of it or nothing.

use std::borrow::Borrow;
use std::ops::Bound;

use bytes::Bytes;

use super::command::{
    Command, CommandResult, Compare, KeyRange, KeyValue, Op, OpResult, RangeQuery, RangeResult,
    Test,
};
use super::key::Key;
use super::limits::StoreLimits;
use super::map::CowMap;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) value: Bytes,
    pub(crate) create_revision: u64,
    pub(crate) mod_revision: u64,
    pub(crate) version: u64,
}

/// The data.
pub(crate) type Data = CowMap<Key, Record>;

impl Record {
    /// As users see it.
    pub(crate) fn with_key(&self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }
}

/// What an answer may still hold.
struct Room {
    items: usize,
    bytes: usize,
    empty: bool,
}

/// What one item adds to an answer beside key and value.
const ITEM_BYTES: usize = 32;

impl Room {
    fn new(limits: &StoreLimits) -> Room {
        Room {
            items: limits.answer_items,
            bytes: limits.answer_bytes,
            empty: true,
        }
    }

    /// Takes in one item. The first fits whatever its size, else it could never be read.
    fn take(&mut self, bytes: usize) -> bool {
        let bytes = bytes + ITEM_BYTES;
        if !self.empty && (self.items == 0 || self.bytes < bytes) {
            return false;
        }
        self.empty = false;
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// The elements of a range, strictly after `after` if given.
pub(super) fn elements<'a>(
    data: &'a Data,
    range: &KeyRange,
    after: Option<&Bytes>,
) -> impl Iterator<Item = (&'a Key, &'a Record)> + use<'a> {
    let (start, end) = range.bounds();
    let start = latest(start, after);
    data.iter_from(start.as_ref().map(|key| &key[..]))
        .take_while(move |(key, _)| is_before((*key).borrow(), &end))
}

/// The later one of the start of a range and the place where the page before ended.
fn latest(start: Bound<Bytes>, after: Option<&Bytes>) -> Bound<Bytes> {
    let Some(after) = after else { return start };
    match start {
        Bound::Included(key) if key > *after => Bound::Included(key),
        Bound::Excluded(key) if key > *after => Bound::Excluded(key),
        Bound::Included(_) | Bound::Excluded(_) | Bound::Unbounded => {
            Bound::Excluded(after.clone())
        }
    }
}

fn is_before(key: &[u8], end: &Bound<Bytes>) -> bool {
    match end {
        Bound::Unbounded => true,
        Bound::Included(end) => key <= &end[..],
        Bound::Excluded(end) => key < &end[..],
    }
}

/// Answers a query of its own, outside any transaction.
pub(crate) fn query(
    data: &Data,
    query: &RangeQuery,
    revision: u64,
    limits: &StoreLimits,
) -> RangeResult {
    read(data, query, revision, &mut Room::new(limits))
}

fn read(data: &Data, query: &RangeQuery, revision: u64, room: &mut Room) -> RangeResult {
    if query.count_only {
        return RangeResult {
            items: Vec::new(),
            count: count(data, &query.range, query.after.as_ref()),
            more: false,
            revision,
        };
    }
    let limit = if query.limit == 0 {
        usize::MAX
    } else {
        query.limit as usize
    };
    let mut items = Vec::new();
    let mut more = false;
    for (key, record) in elements(data, &query.range, query.after.as_ref()) {
        let bytes = key.len()
            + if query.keys_only {
                0
            } else {
                record.value.len()
            };
        if items.len() == limit || !room.take(bytes) {
            more = true;
            break;
        }
        let mut item = record.with_key(key.to_bytes());
        if query.keys_only {
            item.value = Bytes::new();
        }
        items.push(item);
    }
    RangeResult {
        count: items.len() as u64,
        items,
        more,
        revision,
    }
}

/// How many keys of a range lie after `after`, if given.
pub(super) fn count(data: &Data, range: &KeyRange, after: Option<&Bytes>) -> u64 {
    let (start, end) = range.bounds();
    let start = latest(start, after);
    let before_start = data.count_before(start.as_ref().map(|key| &key[..]));
    let before_end = match &end {
        Bound::Unbounded => data.len(),
        // Taken as the start of a range, "excluded" is what lies after the key: so the two change places.
        Bound::Included(key) => data.count_before(Bound::Excluded(&key[..])),
        Bound::Excluded(key) => data.count_before(Bound::Included(&key[..])),
    };
    before_end.saturating_sub(before_start) as u64
}

/// Whether a comparison holds. The numbers of an absent key are 0; its value passes no test.
fn holds(data: &Data, compare: &Compare) -> bool {
    let record = data.get(&compare.key[..]);
    let number = |field: fn(&Record) -> u64| record.map_or(0, field);
    match &compare.test {
        Test::Absent => record.is_none(),
        Test::Present => record.is_some(),
        Test::Version(op, given) => op.holds(&number(|record| record.version), given),
        Test::CreateRevision(op, given) => {
            op.holds(&number(|record| record.create_revision), given)
        }
        Test::ModRevision(op, given) => op.holds(&number(|record| record.mod_revision), given),
        Test::Value(op, given) => record.is_some_and(|record| op.holds(&record.value, given)),
    }
}

/// Data that one command changes.
pub(super) struct Changes<'a> {
    pub(super) data: &'a mut Data,
    /// The revision of everything written here.
    pub(super) revision: u64,
    pub(super) changed: bool,
    /// What the touched keys held before, in the order of the changes. A single step either does all or nothing, and
    /// needs none.
    pub(super) undo: Option<Vec<(Key, Option<Record>)>>,
}

/// A command at work.
struct Transaction<'a> {
    changes: Changes<'a>,
    limits: &'a StoreLimits,
    room: Room,
}

/// Runs a command; `revision` is the store's revision before.
pub(crate) fn run(
    data: &mut Data,
    command: Command,
    revision: u64,
    limits: &StoreLimits,
) -> CommandResult {
    let (succeeded, ops) = match command {
        Command::Op(op) => (true, vec![op]),
        Command::Txn(txn) => {
            let succeeded = txn.compare.iter().all(|compare| holds(data, compare));
            (succeeded, if succeeded { txn.then } else { txn.otherwise })
        }
        // What a command of a state machine does, `custom` knows.
        Command::CloseSession
        | Command::KeepAlive
        | Command::Members(_)
        | Command::StateHash(_)
        | Command::Custom(_) => (true, Vec::new()),
    };
    let undo = (ops.len() > 1).then(Vec::new);
    let transaction = Transaction {
        changes: Changes {
            data,
            revision: revision + 1,
            changed: false,
            undo,
        },
        limits,
        room: Room::new(limits),
    };
    transaction.run(ops, succeeded)
}

impl Changes<'_> {
    /// The store's revision after these changes.
    pub(super) fn revision_after(&self) -> u64 {
        self.revision - u64::from(!self.changed)
    }

    /// Takes all changes back.
    pub(super) fn roll_back(self) {
        for (key, record) in self.undo.into_iter().flatten().rev() {
            match record {
                Some(record) => self.data.insert(key, record),
                None => self.data.remove(key.borrow() as &[u8]),
            };
        }
    }

    /// Writes and answers the new version.
    pub(super) fn write(&mut self, key: Bytes, value: Bytes) -> u64 {
        self.changed = true;
        let revision = self.revision;
        if let Some(record) = self.data.get_mut(&key[..]) {
            let next = Record {
                value,
                create_revision: record.create_revision,
                mod_revision: revision,
                version: record.version + 1,
            };
            let version = next.version;
            let old = std::mem::replace(record, next);
            if let Some(undo) = &mut self.undo {
                undo.push((key.into(), Some(old)));
            }
            return version;
        }
        let key = Key::from(key);
        if let Some(undo) = &mut self.undo {
            undo.push((key.clone(), None));
        }
        self.data.insert(
            key,
            Record {
                value,
                create_revision: revision,
                mod_revision: revision,
                version: 1,
            },
        );
        1
    }

    /// Removes a key; whether there was one.
    pub(super) fn remove(&mut self, key: Key) -> bool {
        let Some(old) = self.data.remove(key.borrow() as &[u8]) else {
            return false;
        };
        self.changed = true;
        if let Some(undo) = &mut self.undo {
            undo.push((key, Some(old)));
        }
        true
    }
}

impl Transaction<'_> {
    fn run(mut self, ops: Vec<Op>, succeeded: bool) -> CommandResult {
        let before = self.changes.revision - 1;
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            let result = self.step(op);
            if result.is_undone() {
                self.changes.roll_back();
                return CommandResult {
                    revision: before,
                    succeeded: false,
                    results: vec![result],
                };
            }
            results.push(result);
        }
        let revision = self.changes.revision_after();
        CommandResult {
            revision,
            succeeded,
            results,
        }
    }

    fn step(&mut self, op: Op) -> OpResult {
        match op {
            Op::Put {
                key,
                value,
                want_previous,
            } => self.put(key, value, want_previous),
            Op::Delete {
                range,
                want_previous,
            } => self.delete(&range, want_previous),
            Op::Increment { key, by } => self.increment(key, by),
            Op::Range(query) => {
                let revision = self.changes.revision_after();
                OpResult::Range(read(self.changes.data, &query, revision, &mut self.room))
            }
        }
    }

    fn answer_too_large(&self) -> OpResult {
        OpResult::AnswerTooLarge {
            limit_bytes: self.limits.answer_bytes as u64,
        }
    }

    fn put(&mut self, key: Bytes, value: Bytes, want_previous: bool) -> OpResult {
        let mut previous = None;
        if want_previous && let Some(record) = self.changes.data.get(&key[..]) {
            if !self.room.take(key.len() + record.value.len()) {
                return self.answer_too_large();
            }
            previous = Some(record.with_key(key.clone()));
        }
        OpResult::Put {
            version: self.changes.write(key, value),
            previous,
        }
    }

    fn delete(&mut self, range: &KeyRange, want_previous: bool) -> OpResult {
        let mut previous = Vec::new();
        if want_previous {
            for (key, record) in elements(self.changes.data, range, None) {
                if !self.room.take(key.len() + record.value.len()) {
                    return self.answer_too_large();
                }
                previous.push(record.with_key(key.to_bytes()));
            }
        }
        let count = match range {
            KeyRange::Key(key) => u64::from(self.changes.remove(key.clone().into())),
            KeyRange::Prefix(_) | KeyRange::Between { .. } | KeyRange::All => {
                let keys: Vec<Key> = elements(self.changes.data, range, None)
                    .map(|(key, _)| key.clone())
                    .collect();
                let count = keys.len() as u64;
                for key in keys {
                    self.changes.remove(key);
                }
                count
            }
        };
        OpResult::Deleted { count, previous }
    }

    fn increment(&mut self, key: Bytes, by: i64) -> OpResult {
        let number = match self.changes.data.get(&key[..]) {
            None => Some(0),
            Some(record) => number(&record.value),
        };
        let Some(number) = number else {
            return OpResult::NotANumber;
        };
        let Some(value) = number.checked_add(by) else {
            return OpResult::Overflow;
        };
        let version = self.changes.write(key, Bytes::from(value.to_string()));
        OpResult::Incremented { value, version }
    }
}

/// A decimal 64-bit integer in text: an optional sign and digits, nothing else.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
