//! A slow and obvious checker, and random histories.

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use kvd::kv::auth::{Principal, Role};
use kvd::kv::command::{Command, CommandResult, RangeQuery, RangeResult, command_crc};
use kvd::kv::envelope::{Envelope, SessionRef};
use kvd::kv::limits::StoreLimits;
use kvd::kv::{Applied, Store};
use kvd_sim::check::history::{History, Model, Operation, Outcome, Time};
use kvd_sim::check::kv::{Action, Expect, KeyAnswer, KeyHistory, KeyOp, Stamp};

/// Whether some order of the operations explains all answers: tries every order of every choice of unknown operations.
pub(crate) fn is_linearizable_slowly<M: Model>(
    model: &M,
    history: &History<M::Input, M::Output>,
) -> bool {
    let all: Vec<_> = history
        .operations()
        .iter()
        .filter(|operation| !matches!(operation.outcome, Outcome::Failed))
        .collect();
    let (answered, unknown): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|operation| operation.output().is_some());
    (0..1_u32 << unknown.len()).any(|choice| {
        let chosen = unknown
            .iter()
            .enumerate()
            .filter(|(place, _)| choice & (1 << place) != 0)
            .map(|(_, operation)| *operation);
        let mut order: Vec<_> = answered.iter().copied().chain(chosen).collect();
        any_order(&mut order, 0, &|order| explains(model, order))
    })
}

/// Whether the check holds for any order of `items[fixed..]` behind the fixed ones.
fn any_order<T>(items: &mut [T], fixed: usize, check: &impl Fn(&[T]) -> bool) -> bool {
    if fixed == items.len() {
        return check(items);
    }
    for next in fixed..items.len() {
        items.swap(fixed, next);
        let found = any_order(items, fixed + 1, check);
        items.swap(fixed, next);
        if found {
            return true;
        }
    }
    false
}

/// Said once more, so that a mistake in the checked code does not hide itself.
fn is_before<I, O>(one: &Operation<I, O>, other: &Operation<I, O>) -> bool {
    match &one.outcome {
        Outcome::Returned { at, .. } => *at < other.invoked,
        Outcome::Unknown | Outcome::Failed => false,
    }
}

fn explains<M: Model>(model: &M, order: &[&Operation<M::Input, M::Output>]) -> bool {
    let keeps_time = order.iter().enumerate().all(|(place, later)| {
        order[..place]
            .iter()
            .all(|earlier| !is_before(later, earlier))
    });
    keeps_time && replays(model, order.iter().copied())
}

/// Whether a model gives these answers in this order.
pub(crate) fn replays<'a, M: Model + 'a>(
    model: &M,
    order: impl IntoIterator<Item = &'a Operation<M::Input, M::Output>>,
) -> bool
where
    M::Input: 'a,
    M::Output: 'a,
{
    let mut state = model.initial();
    for operation in order {
        match model.step(&state, &operation.input, operation.output()) {
            Some(next) => state = next,
            None => return false,
        }
    }
    true
}

/// What one request is to be, before it is known what is answered.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    pub(crate) process: u64,
    pub(crate) invoked: Time,
    /// From the invocation to the moment at which it takes effect.
    pub(crate) until_effect: Time,
    /// From there to the return.
    pub(crate) until_return: Time,
    pub(crate) fate: Fate,
    pub(crate) op: KeyOp,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// Takes effect, but nobody hears of it.
    AnswerLost,
    RequestLost,
    Refused,
}

/// Which numbers the clients look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looks {
    pub(crate) versions: bool,
    pub(crate) revisions: bool,
}

/// Carries out what is intended, one at a time, in a real store.
pub(crate) fn execute(intents: &[Intent], looks: Looks) -> KeyHistory {
    let mut order: Vec<usize> = (0..intents.len()).collect();
    order.sort_by_key(|&place| intents[place].invoked + intents[place].until_effect);
    let mut served = Served::default();
    let mut outcomes = vec![Outcome::Unknown; intents.len()];
    for place in order {
        let intent = &intents[place];
        outcomes[place] = match intent.fate {
            Fate::Answered => Outcome::Returned {
                at: intent.invoked + intent.until_effect + intent.until_return,
                output: look(served.run(&intent.op), looks),
            },
            Fate::AnswerLost => {
                served.run(&intent.op);
                Outcome::Unknown
            }
            Fate::RequestLost => Outcome::Unknown,
            Fate::Refused => Outcome::Failed,
        };
    }
    let mut history = KeyHistory::default();
    for (intent, outcome) in intents.iter().zip(outcomes) {
        let operation = Operation {
            process: intent.process,
            invoked: intent.invoked,
            input: intent.op.clone(),
            outcome,
        };
        history.push(operation).expect("times are in order");
    }
    history
}

/// kvd's own store, which answers requests one at a time.
pub(crate) struct Served {
    store: Store,
    index: u64,
}

impl Default for Served {
    fn default() -> Served {
        Served {
            store: Store::new(StoreLimits::default()),
            index: 0,
        }
    }
}

impl Served {
    pub(crate) fn run(&mut self, op: &KeyOp) -> KeyAnswer {
        let answer = match op.command() {
            Some(command) => op.answer(&self.write(&command)),
            None => op.read(&self.store.query(&op.query())),
        };
        answer.expect("kvd answers what it was asked")
    }

    pub(crate) fn write(&mut self, command: &Command) -> CommandResult {
        let principal = Principal::new(Role::Client, "app");
        let command = command.encode();
        let payload = Envelope {
            principal: principal.borrowed(),
            session: SessionRef::None,
            sequence: 0,
            done_below: 0,
            log_time_ms: 0,
            command_crc: command_crc(&command),
            command: &command,
        }
        .encode();
        self.index += 1;
        match self.store.apply(self.index, &payload) {
            Applied::Done { result, .. } => result,
            Applied::Refused(refusal) => panic!("{refusal}"),
        }
    }

    pub(crate) fn query(&self, query: &RangeQuery) -> RangeResult {
        self.store.query(query)
    }
}

/// The answer without the numbers that the client does not look at.
fn look(answer: KeyAnswer, looks: Looks) -> KeyAnswer {
    let seen = |stamp: Stamp| Stamp {
        version: stamp.version.filter(|_| looks.versions),
        revision: stamp.revision.filter(|_| looks.revisions),
    };
    match answer {
        KeyAnswer::Value(value, stamp) => KeyAnswer::Value(value, seen(stamp)),
        KeyAnswer::Set(stamp) => KeyAnswer::Set(seen(stamp)),
        KeyAnswer::Removed(stamp) => KeyAnswer::Removed(seen(stamp)),
        KeyAnswer::Number(number, stamp) => KeyAnswer::Number(number, seen(stamp)),
        KeyAnswer::Absent
        | KeyAnswer::NothingRemoved
        | KeyAnswer::Differs
        | KeyAnswer::NotANumber
        | KeyAnswer::Overflow => answer,
    }
}

/// A random request for one of `keys` keys, with values that often meet.
pub(crate) fn draw_op(rng: &mut StdRng, keys: u64) -> KeyOp {
    let value = |rng: &mut StdRng| Bytes::from(rng.random_range(0..4).to_string());
    let action = match rng.random_range(0..10) {
        0..4 => Action::Get,
        4..6 => Action::Put(value(rng)),
        6 => Action::Delete,
        7 => Action::Increment(rng.random_range(-1..3)),
        _ => Action::CompareAndSet {
            expect: match rng.random_range(0..4) {
                0 => Expect::Absent,
                1 => Expect::Version(rng.random_range(0..3)),
                _ => Expect::Value(value(rng)),
            },
            value: value(rng),
        },
    };
    KeyOp {
        key: format!("k{}", rng.random_range(0..keys)).into(),
        action,
    }
}

/// What of a thousand requests becomes of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Losses {
    pub(crate) unknown: u32,
    pub(crate) refused: u32,
}

impl Losses {
    pub(crate) fn draw(self, rng: &mut StdRng) -> Fate {
        let drawn = rng.random_range(0..1000);
        if drawn < self.refused {
            Fate::Refused
        } else if drawn >= self.refused + self.unknown {
            Fate::Answered
        } else if drawn % 2 == 0 {
            Fate::AnswerLost
        } else {
            Fate::RequestLost
        }
    }
}

/// Clients that each ask one thing after another; an unknown one may take effect long after.
pub(crate) fn draw_intents(
    rng: &mut StdRng,
    (count, clients, keys): (usize, u64, u64),
    losses: Losses,
) -> Vec<Intent> {
    let mut now = vec![0; clients as usize];
    let mut intents = Vec::with_capacity(count);
    for number in 0..count {
        let process = number as u64 % clients;
        let clock = &mut now[process as usize];
        let invoked = *clock + rng.random_range(0..4);
        let fate = losses.draw(rng);
        let longest = if fate == Fate::AnswerLost { 200 } else { 10 };
        let (until_effect, until_return) = (rng.random_range(0..longest), rng.random_range(0..10));
        *clock = invoked + until_effect.min(10) + until_return;
        intents.push(Intent {
            process,
            invoked,
            until_effect,
            until_return,
            fate,
            op: draw_op(rng, keys),
        });
    }
    intents
}

/// Another answer than this one, for one key with values that often meet.
pub(crate) fn other_answer(rng: &mut StdRng, answer: &KeyAnswer) -> KeyAnswer {
    let digit = rng.random_range(0..4);
    let none = Stamp::default();
    match answer {
        KeyAnswer::Value(_, stamp) if digit == 0 => KeyAnswer::Value("9".into(), *stamp),
        KeyAnswer::Value(..) if digit == 1 => KeyAnswer::Absent,
        KeyAnswer::Value(..) | KeyAnswer::Absent => {
            KeyAnswer::Value(digit.to_string().into(), none)
        }
        KeyAnswer::Set(stamp) => KeyAnswer::Set(Stamp {
            version: Some(stamp.version.map_or(3, |version| version + 1)),
            ..*stamp
        }),
        KeyAnswer::Removed(_) => KeyAnswer::NothingRemoved,
        KeyAnswer::NothingRemoved => KeyAnswer::Removed(none),
        KeyAnswer::Differs => KeyAnswer::Set(none),
        KeyAnswer::Number(number, stamp) => KeyAnswer::Number(number + 1, *stamp),
        KeyAnswer::NotANumber | KeyAnswer::Overflow => KeyAnswer::Number(1, none),
    }
}
