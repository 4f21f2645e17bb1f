//! Clients of the world: each has one request in flight, repeats it through other nodes until it is answered, and writes
//! down what it asked and what it was told.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use kvd::kv::command::{
    CmpOp, Command, CommandResult, Compare, KeyRange, Op, OpResult, RangeQuery, RangeResult, Test,
    Txn, command_crc,
};
use kvd::kv::envelope::SessionRef;
use kvd::wire::client::{Consistency, Outcome, Refusal, Request, Response};

use super::scenario::Scenario;
use super::{Place, Us};

/// A request without an answer is sent again after so long, to whichever node.
const RETRY_US: Us = 700_000;
/// After a refusal, or when nobody is there, the next attempt is made after so long.
const PAUSE_US: Us = 20_000;
/// A client gives a request up after so long.
const PATIENCE_US: Us = 6_000_000;
/// How long a node may keep a request, in milliseconds.
const TIMEOUT_MS: u32 = 2_000;
/// Bytes of each value beside what makes it unique, so that logs and snapshots have some size.
const PADDING_BYTES: usize = 60;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A write, as it is applied.
    Write(Command),
    /// A read of one key that sees everything acknowledged before it began.
    Read(RangeQuery),
}

/// What the client knows of it at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet, or nothing definite: it may take effect at any time, once, or never.
    Unknown,
    /// It never took effect and never will.
    Failed,
    /// It was applied, with this result.
    Written(CommandResult),
    /// It was read.
    Read(RangeResult),
}

/// A request from its beginning to its end, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whose it is, counted from 0.
    pub client: usize,
    /// Name of the session and place in it, under which a write travels.
    pub session: (u128, u64),
    /// When it was first sent.
    pub begun_us: Us,
    /// When the client was told, or gave up; none if it still waits.
    pub ended_us: Option<Us>,
    /// What was asked.
    pub asked: Asked,
    /// What became of it.
    pub told: Told,
}

/// An attempt on its way.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    id: u64,
    place: Place,
    /// When the next one is made.
    until: Us,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    rng: StdRng,
    name: u128,
    sequence: u64,
    /// Requests made so far; makes values unique.
    made: u64,
    keys: u64,
    rest_us: Us,
    rests_until: Us,
    attempts: u64,
    attempt: Option<Attempt>,
    /// Attempts of the present request that left and were not refused for good: each may take effect.
    open: u32,
    stopped: bool,
    /// What it last saw under each register, to compare with.
    seen: Vec<Option<Bytes>>,
    calls: Vec<Call>,
    waits: bool,
}

impl Client {
    pub(super) fn new(number: usize, scenario: &Scenario) -> Client {
        let seed = scenario.seed ^ (number as u64 + 1) << 40;
        let mut rng = StdRng::seed_from_u64(seed);
        let name = rng.random();
        Client {
            number,
            rng,
            name,
            sequence: 1,
            made: 0,
            keys: scenario.keys.max(1),
            rest_us: scenario.rest_ms * 1_000,
            rests_until: 0,
            attempts: 0,
            attempt: None,
            open: 0,
            stopped: false,
            seen: vec![None; scenario.keys.max(1) as usize],
            calls: Vec::new(),
            waits: false,
        }
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Begins nothing new.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.waits
    }

    /// When it has something to do without being told.
    pub(super) fn next_at(&self) -> Option<Us> {
        match &self.attempt {
            Some(attempt) => Some(attempt.until),
            None if self.stopped => None,
            None => Some(self.rests_until),
        }
    }

    /// What it sends now, if anything: to whom, under which id, what.
    pub(super) fn act(&mut self, now: Us, nodes: usize) -> Option<(Place, u64, Request)> {
        if self.next_at().is_none_or(|at| at > now) {
            return None;
        }
        if !self.waits {
            self.begin(now);
        } else if self.call().begun_us + PATIENCE_US <= now {
            self.give_up(now);
            return None;
        }
        self.attempts += 1;
        let place = self.rng.random_range(0..nodes);
        let until = now + RETRY_US;
        self.attempt = Some(Attempt {
            id: self.attempts,
            place,
            until,
        });
        Some((place, self.attempts, self.request()))
    }

    fn begin(&mut self, now: Us) {
        self.made += 1;
        let asked = self.draw();
        self.calls.push(Call {
            client: self.number,
            session: (self.name, self.sequence),
            begun_us: now,
            ended_us: None,
            asked,
            told: Told::Unknown,
        });
        self.waits = true;
        self.open = 0;
    }

    fn call(&self) -> &Call {
        self.calls.last().expect("a request is on its way")
    }

    fn request(&self) -> Request {
        match &self.call().asked {
            Asked::Read(query) => Request::Read {
                consistency: Consistency::Linearizable,
                query: query.clone(),
                timeout_ms: TIMEOUT_MS,
            },
            Asked::Write(command) => {
                let command = command.encode();
                Request::Write {
                    session: SessionRef::Named(self.name),
                    sequence: self.sequence,
                    done_below: self.sequence,
                    crc: command_crc(&command),
                    command,
                    timeout_ms: TIMEOUT_MS,
                }
            }
        }
    }

    fn draw(&mut self) -> Asked {
        let place = self.rng.random_range(0..self.keys) as usize;
        let other = self.rng.random_range(0..self.keys) as usize;
        let key = register(place);
        let value = self.value();
        let op = match self.rng.random_range(0..20) {
            0..=5 => return Asked::Read(RangeQuery::key(key)),
            6 => return Asked::Read(RangeQuery::new(KeyRange::All)),
            7..=10 => Op::Put {
                key,
                value,
                want_previous: self.rng.random(),
            },
            11..=14 => Op::Increment {
                key: counter(place),
                by: 1,
            },
            15 => Op::Delete {
                range: KeyRange::Key(key),
                want_previous: true,
            },
            16 | 17 => return Asked::Write(self.compare_and_set(place, value).into()),
            _ => return Asked::Write(copy_pair(place, other, value).into()),
        };
        Asked::Write(op.into())
    }

    fn value(&self) -> Bytes {
        let (client, made) = (self.number, self.made);
        format!("{client}.{made} {}", "x".repeat(PADDING_BYTES)).into()
    }

    fn compare_and_set(&self, place: usize, value: Bytes) -> Txn {
        let key = register(place);
        let test = match &self.seen[place] {
            Some(seen) => Test::Value(CmpOp::Equal, seen.clone()),
            None => Test::Absent,
        };
        Txn {
            compare: vec![Compare {
                key: key.clone(),
                test,
            }],
            then: vec![Op::Put {
                key: key.clone(),
                value,
                want_previous: false,
            }],
            otherwise: vec![Op::Range(RangeQuery::key(key))],
        }
    }

    /// The node that was asked is not there: nothing was sent.
    pub(super) fn refused_at_the_door(&mut self, now: Us) {
        if let Some(attempt) = &mut self.attempt {
            attempt.until = now + PAUSE_US;
        }
    }

    /// The request of this attempt left, so it may take effect.
    pub(super) fn sent(&mut self) {
        self.open += 1;
    }

    /// The node that was asked is gone.
    pub(super) fn lost(&mut self, now: Us, place: Place) {
        if let Some(attempt) = &mut self.attempt
            && attempt.place == place
        {
            attempt.until = attempt.until.min(now + PAUSE_US);
        }
    }

    /// An answer came.
    pub(super) fn answered(&mut self, now: Us, id: u64, response: Response) {
        if !self.waits || self.attempt.is_none_or(|attempt| attempt.id != id) {
            return;
        }
        if let Response::Written { result, .. } = response {
            self.note_seen(&result.results);
            self.end(now, Told::Written(result));
        } else if let Response::Range { result, .. } = response {
            self.note_read(&result);
            self.end(now, Told::Read(result));
        } else if let Response::Refused(refusal) = response {
            self.refused(now, &refusal);
        } else {
            panic!("client {}: {response:?}", self.number);
        }
    }

    fn refused(&mut self, now: Us, refusal: &Refusal) {
        if matches!(refusal, Refusal::SessionExpired) {
            self.name = self.rng.random();
            self.sequence = 0;
            self.end(now, Told::Unknown);
            return;
        }
        if refusal.outcome() == Outcome::Definite {
            self.open -= 1;
        }
        self.refused_at_the_door(now);
    }

    fn give_up(&mut self, now: Us) {
        let told = match self.open {
            0 => Told::Failed,
            _ => Told::Unknown,
        };
        self.end(now, told);
    }

    fn end(&mut self, now: Us, told: Told) {
        let call = self.calls.last_mut().expect("a request is on its way");
        if let Asked::Write(_) = call.asked {
            self.sequence += 1;
        }
        call.told = told;
        call.ended_us = Some(now);
        self.waits = false;
        self.attempt = None;
        self.rests_until = now + self.rng.random_range(0..=self.rest_us);
    }

    fn note_read(&mut self, result: &RangeResult) {
        for item in &result.items {
            if let Some(place) = place_of(&item.key) {
                self.seen[place] = Some(item.value.clone());
            }
        }
    }

    fn note_seen(&mut self, results: &[OpResult]) {
        for result in results {
            if let OpResult::Range(range) = result {
                self.note_read(range);
            }
        }
    }
}

fn register(place: usize) -> Bytes {
    format!("r{place}").into()
}

fn counter(place: usize) -> Bytes {
    format!("n{place}").into()
}

fn place_of(key: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(key).ok()?;
    text.strip_prefix('r')?.parse().ok()
}

/// Reads two registers and writes both, in one step.
fn copy_pair(one: usize, other: usize, value: Bytes) -> Txn {
    let put = |place| Op::Put {
        key: register(place),
        value: value.clone(),
        want_previous: false,
    };
    let read = |place| Op::Range(RangeQuery::key(register(place)));
    Txn {
        compare: Vec::new(),
        then: vec![read(one), read(other), put(one), put(other)],
        otherwise: Vec::new(),
    }
}
