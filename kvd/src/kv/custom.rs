//! State machines of users: their states, and running one of their commands.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::command::{CommandResult, Custom, KeyRange, OpResult};
use super::hash::Hasher;
use super::key::Key;
use super::limits::{CommandLimits, StoreLimits};
use super::map::CowMap;
use super::store::ApplyRefusal;
use super::transaction::{self, Changes, Data};
use crate::machine::{Broken, Context, Erased, Items, Machines, Outcome, Read, State, View, Write};
use crate::wire::client::Refusal;

/// The state of one machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct MachineState {
    /// The highest version of a command that it has taken. A program of a lower one cannot know what is written there.
    pub(crate) version: u32,
    /// Its keys and values.
    pub(crate) data: Data,
}

/// The states of all machines that ever took a command, by name.
pub(crate) type MachineStates = CowMap<String, MachineState>;

/// What a command did, and a digest of what it wrote.
pub(super) struct Ran {
    pub(super) result: CommandResult,
    pub(super) digest: u64,
}

/// Runs a command; `revision` is the store's revision before.
///
/// # Errors
/// This program cannot run it and must stop: see [`ApplyRefusal::must_stop`].
pub(super) fn run(
    machines: &Machines,
    states: &mut MachineStates,
    custom: &Custom,
    context: Context,
    revision: u64,
    limits: &StoreLimits,
) -> Result<Ran, ApplyRefusal> {
    let reached = states.get(&custom.machine[..]).map_or(0, |s| s.version);
    let machine = find(machines, &custom.machine, custom.version.max(reached))?;
    if reached < custom.version {
        raise(states, custom);
    }
    let state = states
        .get_mut(&custom.machine[..])
        .expect("a command of version 1 or more makes the state");
    let mut tree = Tree {
        changes: Changes {
            data: &mut state.data,
            revision: revision + 1,
            changed: false,
            undo: Some(Vec::new()),
        },
        refused: None,
    };
    let outcome = machine.apply(&mut State::new(&mut tree, context), &custom.command);
    match outcome {
        Ok(outcome) => {
            let result = tree.verdict(outcome, limits.answer_bytes);
            Ok(tree.finish(result))
        }
        Err(broken) => {
            tree.changes.roll_back();
            Err(must_stop(custom, broken))
        }
    }
}

fn must_stop(custom: &Custom, broken: Broken) -> ApplyRefusal {
    let machine = custom.machine.clone();
    match broken {
        Broken::Undecodable(error) => ApplyRefusal::UnreadableCommand {
            machine,
            version: custom.version,
            why: error.to_string(),
        },
        Broken::Panicked(why) => ApplyRefusal::MachinePanicked { machine, why },
    }
}

/// The machine that can take what is of this version.
fn find<'a>(
    machines: &'a Machines,
    name: &str,
    version: u32,
) -> Result<&'a dyn Erased, ApplyRefusal> {
    let found = machines.find(name);
    let known = found.map(|machine| machine.version());
    match found.filter(|_| known >= Some(version)) {
        Some(machine) => Ok(machine),
        None => Err(ApplyRefusal::NoMachine {
            machine: name.to_owned(),
            version,
            known,
        }),
    }
}

fn raise(states: &mut MachineStates, custom: &Custom) {
    match states.get_mut(&custom.machine[..]) {
        Some(state) => state.version = custom.version,
        None => {
            let state = MachineState {
                version: custom.version,
                data: Data::new(),
            };
            states.insert(custom.machine.clone(), state);
        }
    }
}

/// Whether this program can run a command, before it is proposed.
///
/// # Errors
/// Definite: the command is in no log.
pub(super) fn check(
    machines: &Machines,
    states: &MachineStates,
    custom: &Custom,
) -> Result<(), Refusal> {
    let reached = states.get(&custom.machine[..]).map_or(0, |s| s.version);
    if custom.version == 0 {
        let why = "no state machine has version 0".to_owned();
        return Err(Refusal::BadRequest { why });
    }
    let machine = find(machines, &custom.machine, custom.version.max(reached))?;
    machine
        .check(&custom.command)
        .map_err(|broken| bad_request(&custom.machine, "command", &broken))
}

/// Asks a machine.
///
/// # Errors
/// This program does not have it, the question makes no sense to it, or the reply is too large.
pub(super) fn query(
    machines: &Machines,
    states: &MachineStates,
    asked: &Custom,
    context: Context,
    limits: &StoreLimits,
) -> Result<Bytes, Refusal> {
    let nothing = MachineState::default();
    let state = states.get(&asked.machine[..]).unwrap_or(&nothing);
    let machine = find(machines, &asked.machine, asked.version.max(state.version))?;
    let tree = Frozen(&state.data);
    let reply = machine
        .query(&View::new(&tree, context), &asked.command)
        .map_err(|broken| bad_request(&asked.machine, "question", &broken))?;
    if reply.len() > limits.answer_bytes {
        return Err(Refusal::TooLarge {
            what: "reply".into(),
            bytes: reply.len() as u64,
            limit: limits.answer_bytes as u64,
        });
    }
    Ok(reply.into())
}

fn bad_request(machine: &str, what: &str, broken: &Broken) -> Refusal {
    let why = match broken {
        Broken::Undecodable(error) => format!("no {what} of state machine {machine}: {error}"),
        Broken::Panicked(why) => format!("state machine {machine} panicked at the {what}: {why}"),
    };
    Refusal::BadRequest { why }
}

/// What a machine reads from.
struct Frozen<'a>(&'a Data);

impl Read for Frozen<'_> {
    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.0.get(key).map(|record| &record.value)
    }

    fn range(&self, range: &KeyRange) -> Items<'_> {
        Box::new(
            transaction::elements(self.0, range, None)
                .map(|(key, record)| (key.borrow(), &record.value)),
        )
    }

    fn count(&self, range: &KeyRange) -> u64 {
        transaction::count(self.0, range, None)
    }
}

/// What a machine reads from and writes to.
struct Tree<'a> {
    changes: Changes<'a>,
    /// The first write that no state can hold.
    refused: Option<String>,
}

impl Read for Tree<'_> {
    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.changes.data.get(key).map(|record| &record.value)
    }

    fn range(&self, range: &KeyRange) -> Items<'_> {
        Box::new(
            transaction::elements(self.changes.data, range, None)
                .map(|(key, record)| (key.borrow(), &record.value)),
        )
    }

    fn count(&self, range: &KeyRange) -> u64 {
        transaction::count(self.changes.data, range, None)
    }
}

impl Write for Tree<'_> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        // The ceilings, not what a cluster is configured to: they are the same in every program.
        match CommandLimits::CEILING.check_write(&key, &value) {
            Ok(()) => drop(self.changes.write(key, value)),
            Err(error) => drop(self.refused.get_or_insert_with(|| error.to_string())),
        }
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        self.changes.remove(Bytes::copy_from_slice(key).into())
    }
}

impl Tree<'_> {
    /// What becomes of the command.
    fn verdict(&mut self, outcome: Outcome, answer_bytes: usize) -> OpResult {
        let bytes = match &outcome {
            Outcome::Answered(bytes) | Outcome::Rejected(bytes) => bytes.len(),
        };
        if bytes > answer_bytes {
            let limit_bytes = answer_bytes as u64;
            return OpResult::AnswerTooLarge { limit_bytes };
        }
        match (outcome, self.refused.take()) {
            (Outcome::Rejected(bytes), _) => OpResult::Rejected {
                rejection: bytes.into(),
            },
            (Outcome::Answered(_), Some(why)) => OpResult::WriteRefused { why },
            (Outcome::Answered(bytes), None) => OpResult::Answered {
                answer: bytes.into(),
            },
        }
    }

    fn finish(self, result: OpResult) -> Ran {
        let succeeded = !result.is_undone();
        let before = self.changes.revision - 1;
        let (revision, digest) = if succeeded {
            (self.changes.revision_after(), digest(&self.changes))
        } else {
            self.changes.roll_back();
            (before, 0)
        };
        Ran {
            result: CommandResult {
                revision,
                succeeded,
                results: vec![result],
            },
            digest,
        }
    }
}

/// Of the keys that were touched and what they hold now, in the order of the keys: two replicas that came to the same state in
/// another order have the same digest, and two whose machine is not deterministic have another one at once.
fn digest(changes: &Changes<'_>) -> u64 {
    let touched: BTreeSet<&Key> = changes.undo.iter().flatten().map(|(key, _)| key).collect();
    let mut hasher = Hasher::new(touched.len() as u64);
    for key in touched {
        let key: &[u8] = key.borrow();
        hasher.bytes(key);
        match changes.data.get(key) {
            Some(record) => hasher.bytes(&record.value),
            None => hasher.word(u64::MAX),
        }
    }
    hasher.finish()
}
