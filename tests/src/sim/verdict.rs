//! What must hold at the end of a run: the nodes are equal, and what clients were told is what happened.

use std::collections::BTreeMap;

use bytes::Bytes;

use kvd::kv::command::{Command, CommandResult, Op};
use kvd::kv::envelope::{Envelope, SessionRef};
use kvd::kv::limits::StoreLimits;
use kvd::kv::snapshot::{SnapshotContext, SnapshotWriter};
use kvd::kv::store::{Applied, Store};
use raft_core::EntryKind;

use super::Us;
use super::client::{Asked, Call, Told};
use super::world::World;
use crate::check::once::{Claim, Claims};
use crate::check::serial::{RUNS_MAX_DEFAULT, SerialVerdict};
use crate::check::store::{self, Answer, Request, StoreHistory};
use crate::watch::Violation;

/// Compares the nodes with each other, and what clients were told with what became of it.
pub(super) fn check(world: &World) -> Result<(), Violation> {
    check_stores(world)?;
    let calls = world.calls();
    let log = replay(world);
    check_history(&history_of(&calls, &log, world.now()))?;
    check_once(&calls, &log)
}

/// All nodes hold the same, down to the sessions, and it is what a replay of all committed entries gives.
fn check_stores(world: &World) -> Result<(), Violation> {
    let expected = snapshot_bytes(world.replayed());
    for place in world.members() {
        let store = world.store(place).expect("all members run at the end");
        if snapshot_bytes(store) != expected {
            return Err(Violation {
                rule: "same state",
                text: format!(
                    "n{} differs from a replay of all committed entries",
                    place + 1
                ),
            });
        }
    }
    Ok(())
}

/// Everything that a store holds.
fn snapshot_bytes(store: &Store) -> Vec<u8> {
    let context = SnapshotContext {
        term: 0,
        configuration: Bytes::new(),
        configuration_index: 0,
        members: Vec::new(),
        cluster: super::node::CLUSTER,
        cluster_version: 0,
    };
    SnapshotWriter::new(store.clone(), context)
        .flat_map(|chunk| chunk.to_vec())
        .collect()
}

/// The answers are those of one order of all operations, in which none moves before one that had ended when it began.
fn check_history(history: &StoreHistory) -> Result<(), Violation> {
    let violated = |text: String| Violation {
        rule: "strictly serializable",
        text,
    };
    match store::check(history, RUNS_MAX_DEFAULT) {
        SerialVerdict::Serializable { .. } => Ok(()),
        SerialVerdict::Violation(violation) => Err(violated(violation.to_string())),
        SerialVerdict::Undecided { runs } => Err(violated(format!("undecided after {runs} runs"))),
    }
}

/// What was asked and answered. What a client does not know, the log does: a write of unknown outcome is taken for answered at
/// the end if it is in the log, else for one that never takes effect. That only makes the check stricter, and short.
fn history_of(calls: &[Call], log: &[Ran], end: Us) -> StoreHistory {
    let results = results_of(log);
    let mut history = StoreHistory::default();
    for call in calls {
        let request = match &call.asked {
            Asked::Write(command) => Request::Write(command.clone()),
            Asked::Read(query) => Request::Read(query.clone()),
        };
        let id = history.invoke(call.client as u64, call.begun_us, request);
        let known = match (&call.told, &call.asked) {
            (Told::Written(result), _) => Some((call.ended_us, Answer::Written(result.clone()))),
            (Told::Read(result), _) => Some((call.ended_us, Answer::Found(result.clone()))),
            (Told::Unknown, Asked::Write(_)) => {
                let result = results.get(&call.session);
                result.map(|result| (Some(end), Answer::Written((*result).clone())))
            }
            (Told::Unknown, Asked::Read(_)) | (Told::Failed, _) => None,
        };
        match known {
            Some((at, answer)) => {
                let at = at.expect("an answer ends a call");
                history.answer(id, at, answer).expect("it is open");
            }
            None => history.fail(id).expect("it is open"),
        }
    }
    history
}

/// What each write in a session came to.
fn results_of(log: &[Ran]) -> BTreeMap<(u128, u64), &CommandResult> {
    let mut results = BTreeMap::new();
    for ran in log {
        if let Some(session) = ran.session {
            results.entry(session).or_insert(&ran.result);
        }
    }
    results
}

/// A committed command that was not refused.
struct Ran {
    /// Name of its session and its place in it.
    session: Option<(u128, u64)>,
    /// The unique value, if it is a plain put.
    value: Option<Bytes>,
    /// What it came to.
    result: CommandResult,
}

/// Applies all committed commands once more.
fn replay(world: &World) -> Vec<Ran> {
    let mut store = Store::new(StoreLimits::default());
    let mut log = Vec::new();
    for entry in world.committed() {
        if entry.kind != EntryKind::Command {
            store.skip(entry.index.0);
        } else if let Applied::Done { result, .. } = store.apply(entry.index.0, &entry.payload)
            && let Ok(envelope) = Envelope::decode(&entry.payload)
            && let Ok(command) = Command::decode(envelope.command)
        {
            let session = match envelope.session {
                SessionRef::Named(name) => Some((name, envelope.sequence)),
                SessionRef::None | SessionRef::Id(_) => None,
            };
            let value = put_value(&command);
            log.push(Ran {
                session,
                value,
                result,
            });
        }
    }
    log
}

/// Each value that was acknowledged was written once, each of unknown outcome at most once, each that failed never.
///
/// The log says what was written: a value may be gone from the store. An entry that repeats a request has no effect, so a
/// request counts once, by client and sequence.
fn check_once(calls: &[Call], log: &[Ran]) -> Result<(), Violation> {
    let mut claims = Claims::default();
    for call in calls {
        if let Asked::Write(command) = &call.asked
            && let Some(value) = put_value(command)
        {
            let claim = match call.told {
                Told::Written(_) => Claim::Acknowledged,
                Told::Failed => Claim::Failed,
                Told::Unknown | Told::Read(_) => Claim::Unknown,
            };
            claims.add(value, claim);
        }
    }
    claims
        .check(applied_values(log))
        .map_err(|violation| Violation {
            rule: "exactly once",
            text: violation.to_string(),
        })
}

/// The unique value of a plain put.
fn put_value(command: &Command) -> Option<Bytes> {
    if let Command::Op(Op::Put { value, .. }) = command {
        return Some(value.clone());
    }
    None
}

/// The values of all puts that took effect, in the order of the log. An entry that repeats a request has no effect: the revision
/// in its answer is an old one.
fn applied_values(log: &[Ran]) -> Vec<Bytes> {
    let (mut revision, mut values) = (0, Vec::new());
    for ran in log {
        if ran.result.revision > revision {
            revision = ran.result.revision;
            values.extend(ran.value.clone());
        }
    }
    values
}
