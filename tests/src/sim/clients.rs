//! Clients of the world: each counts a key of its own up, and repeats a request until it is answered.

use bytes::Bytes;

use kvd::kv::command::{Command, Op, OpResult, RangeQuery, command_crc};
use kvd::kv::envelope::SessionRef;
use kvd::kv::store::Store;
use kvd::wire::client::{Refusal, Request, Response};

use super::Place;

/// Ticks after which a request without an answer is sent again, to whichever node.
const RETRY_TICKS: u64 = 150;

/// How long a node may keep a request, in milliseconds.
const TIMEOUT_MS: u32 = 2_000;

/// Bytes of a value beside the counter, so that logs and snapshots have some size.
const PADDING_BYTES: usize = 100;

/// A client that counts: sequence `n` writes the key `client/n` and increments its counter, in turns.
///
/// Increments show what is applied twice, distinct keys what is lost.
#[derive(Debug)]
pub struct Counter {
    number: u64,
    name: u128,
    sequence: u64,
    acknowledged: u64,
    asked: Option<(Place, u64)>,
    stopped: bool,
    /// The last answer that was not the one hoped for, for failures.
    last_refusal: Option<Refusal>,
}

impl Counter {
    pub(super) fn new(number: u64, name: u128) -> Counter {
        Counter {
            number,
            name,
            sequence: 1,
            acknowledged: 0,
            asked: None,
            stopped: false,
            last_refusal: None,
        }
    }

    /// How many of its writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn picture(&self) -> String {
        let (number, sequence) = (self.number, self.sequence);
        format!(
            "client {number}: at {sequence}, asked {:?}, last refused: {:?}",
            self.asked, self.last_refusal
        )
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// The request to be sent now, if any; the id is the sequence.
    pub(super) fn next(&mut self, now: u64, place: Place) -> Option<(u64, Request)> {
        let waiting = self
            .asked
            .is_some_and(|(_, since)| since + RETRY_TICKS > now);
        if waiting || self.stopped && self.asked.is_none() {
            return None;
        }
        self.asked = Some((place, now));
        let command = self.command(self.sequence).encode();
        let request = Request::Write {
            session: SessionRef::Named(self.name),
            sequence: self.sequence,
            done_below: self.sequence,
            crc: command_crc(&command),
            command,
            timeout_ms: TIMEOUT_MS,
        };
        Some((self.sequence, request))
    }

    fn command(&self, sequence: u64) -> Command {
        Command::Op(match sequence % 2 {
            0 => Op::Increment {
                key: self.counter_key(),
                by: 1,
            },
            _ => Op::Put {
                key: self.key(sequence),
                value: value(sequence),
                want_previous: false,
            },
        })
    }

    /// An increment answers with the count: one too many means that it ran twice.
    fn check_answer(&self, results: &[OpResult]) {
        match results {
            [OpResult::Incremented { value, .. }] => {
                assert_eq!(*value as u64, self.sequence / 2, "client {}", self.number)
            }
            [OpResult::Put { version, .. }] => assert_eq!(*version, 1, "client {}", self.number),
            other => panic!("client {}: {other:?}", self.number),
        }
    }

    fn counter_key(&self) -> Bytes {
        format!("counter/{}", self.number).into()
    }

    fn key(&self, sequence: u64) -> Bytes {
        format!("client/{}/{sequence}", self.number).into()
    }

    pub(super) fn answered(&mut self, place: Place, (id, response): (u64, Response)) {
        if id != self.sequence || self.asked.is_none_or(|(asked, _)| asked != place) {
            return;
        }
        if let Response::Written { result, .. } = response {
            self.check_answer(&result.results);
            self.acknowledged += 1;
            self.sequence += 1;
            self.asked = None;
        } else if let Response::Refused(refusal) = response {
            // Refused or unknown: the same request goes out again at once.
            self.last_refusal = Some(refusal);
            self.asked = Some((place, 0));
        } else {
            panic!("client {}: {response:?}", self.number);
        }
    }

    /// The node that was asked is gone.
    pub(super) fn lost(&mut self, place: Place) {
        if let Some((asked, since)) = &mut self.asked
            && *asked == place
        {
            *since = 0;
        }
    }

    pub(super) fn check(&self, node: &str, store: &Store) {
        let counted = self.read_counter(store);
        // The write that is still open may have been applied.
        let least = self.acknowledged / 2;
        let most = if self.asked.is_some() {
            self.sequence / 2
        } else {
            least
        };
        assert!(
            (least..=most).contains(&counted),
            "{node}: client {} counted {counted}, not {least}..={most}",
            self.number
        );
        for sequence in (1..=self.acknowledged).filter(|sequence| sequence % 2 == 1) {
            let found = store.query(&RangeQuery::key(self.key(sequence)));
            let item = found.items.first().unwrap_or_else(|| {
                panic!(
                    "{node}: acknowledged write {sequence} of client {} is missing",
                    self.number
                )
            });
            assert_eq!(
                (item.version, &item.value),
                (1, &value(sequence)),
                "{node}: write {sequence} of client {}",
                self.number
            );
        }
    }

    fn read_counter(&self, store: &Store) -> u64 {
        let found = store.query(&RangeQuery::key(self.counter_key()));
        found.items.first().map_or(0, |item| {
            let text = std::str::from_utf8(&item.value).expect("a counter is text");
            text.parse().expect("a counter is a number")
        })
    }
}

fn value(sequence: u64) -> Bytes {
    format!("{sequence}-{}", "x".repeat(PADDING_BYTES)).into()
}
