//! What must hold at the end of a run: the nodes are equal, and what clients were told is what happened.

use bytes::Bytes;

use kvd::kv::command::{Command, Op};
use kvd::kv::envelope::Envelope;
use kvd::kv::limits::StoreLimits;
use kvd::kv::snapshot::{SnapshotContext, SnapshotWriter};
use kvd::kv::store::Store;
use raft_core::EntryKind;

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
    check_history(&calls)?;
    check_once(world, &calls)
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
fn check_history(calls: &[Call]) -> Result<(), Violation> {
    let violated = |text: String| Violation {
        rule: "strictly serializable",
        text,
    };
    match store::check(&history_of(calls), RUNS_MAX_DEFAULT) {
        SerialVerdict::Serializable { .. } => Ok(()),
        SerialVerdict::Violation(violation) => Err(violated(violation.to_string())),
        SerialVerdict::Undecided { runs } => Err(violated(format!("undecided after {runs} runs"))),
    }
}

fn history_of(calls: &[Call]) -> StoreHistory {
    let mut history = StoreHistory::default();
    for call in calls {
        let request = match &call.asked {
            Asked::Write(command) => Request::Write(command.clone()),
            Asked::Read(query) => Request::Read(query.clone()),
        };
        let id = history.invoke(call.client as u64, call.begun_us, request);
        let answer = match &call.told {
            Told::Unknown => continue,
            Told::Failed => {
                history.fail(id).expect("it is open");
                continue;
            }
            Told::Written(result) => Answer::Written(result.clone()),
            Told::Read(result) => Answer::Found(result.clone()),
        };
        let at = call.ended_us.expect("an answer ends a call");
        history.answer(id, at, answer).expect("it is open");
    }
    history
}

/// Each value that was acknowledged was written once, each of unknown outcome at most once, each that failed never.
///
/// The log says what was written: a value may be gone from the store. An entry that repeats a request has no effect, so a
/// request counts once, by client and sequence.
fn check_once(world: &World, calls: &[Call]) -> Result<(), Violation> {
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
        .check(applied_values(world))
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

/// The values of all puts that took effect, in the order of the log.
fn applied_values(world: &World) -> Vec<Bytes> {
    let mut store = Store::new(StoreLimits::default());
    let mut values = Vec::new();
    for entry in world.committed() {
        if entry.kind != EntryKind::Command {
            store.skip(entry.index.0);
            continue;
        }
        let before = store.revision();
        store.apply(entry.index.0, &entry.payload);
        if store.revision() > before
            && let Ok(envelope) = Envelope::decode(&entry.payload)
            && let Ok(command) = Command::decode(envelope.command)
        {
            values.extend(put_value(&command));
        }
    }
    values
}
