//! What the store promises, in the words of its users: clients that lose answers, repeat themselves, and come back late.

use super::super::auth::{Principal, Role};
use super::super::command::{CmpOp, Compare, KeyRange, Op, Test, Txn};
use super::super::envelope::SessionRef;
use super::super::limits::{CommandLimits, SessionLimits};
use super::super::snapshot::{SnapshotContext, SnapshotReader, SnapshotWriter};
use super::*;

mod agreed;
mod machines;
mod operations;
mod replay;
mod sessions;

/// Three replicas that apply the same log and must agree after each entry.
struct Cluster {
    replicas: Vec<Store>,
    log: Vec<Bytes>,
    limits: StoreLimits,
    machines: Machines,
    now_ms: u64,
}

/// A write of one client, ready to be sent any number of times.
#[derive(Clone)]
struct Write {
    principal: Principal,
    session: SessionRef,
    sequence: u64,
    done_below: u64,
    command: Bytes,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::with_limits(StoreLimits::default())
    }

    fn with_limits(limits: StoreLimits) -> Cluster {
        let replicas = vec![Store::new(limits); 3];
        Cluster {
            replicas,
            log: Vec::new(),
            limits,
            machines: Machines::new(),
            now_ms: 0,
        }
    }

    /// Commits a payload everywhere.
    fn commit(&mut self, payload: Bytes) -> Applied {
        let index = self.log.len() as u64 + 1;
        self.log.push(payload.clone());
        let applied: Vec<Applied> = self
            .replicas
            .iter_mut()
            .map(|store| store.apply(index, &payload))
            .collect();
        assert!(
            applied.iter().all(|one| *one == applied[0]),
            "replicas differ at {index}"
        );
        let hash = self.replicas[0].hash();
        assert!(
            self.replicas.iter().all(|store| store.hash() == hash),
            "hashes differ at {index}"
        );
        applied.into_iter().next().unwrap()
    }

    fn send(&mut self, write: &Write) -> Applied {
        let payload = write.payload(self.now_ms);
        self.commit(payload)
    }

    /// A command without a session.
    fn run(&mut self, command: impl Into<Command>) -> CommandResult {
        let write = Write::new(SessionRef::None, 0, command);
        done(self.send(&write)).1
    }

    fn value(&self, key: &'static str) -> Option<Bytes> {
        let result = self.replicas[0].query(&RangeQuery::key(key));
        result.items.into_iter().next().map(|item| item.value)
    }

    /// Every replica forgets all it has in memory: the first replays the log, the others load a snapshot of it.
    fn restart(&mut self) {
        let mut replayed = Store::new(self.limits).with_machines(self.machines.clone());
        for (payload, index) in self.log.iter().zip(1..) {
            replayed.apply(index, payload);
        }
        assert_eq!(replayed.hash(), self.replicas[0].hash());
        let bytes = snapshot(&replayed);
        let (_, loaded) = SnapshotReader::read(self.limits, &bytes).unwrap();
        let loaded = loaded.with_machines(self.machines.clone());
        assert_eq!(replayed.state_hash(), loaded.state_hash());
        self.replicas = vec![replayed, loaded.clone(), loaded];
    }
}

impl Write {
    fn new(session: SessionRef, sequence: u64, command: impl Into<Command>) -> Write {
        let done_below = u64::from(sequence > 0);
        let principal = Principal::new(Role::Client, "app");
        Write {
            principal,
            session,
            sequence,
            done_below,
            command: command.into().encode(),
        }
    }

    fn done_below(mut self, done_below: u64) -> Write {
        self.done_below = done_below;
        self
    }

    fn by(mut self, name: &str) -> Write {
        self.principal.name = name.to_owned();
        self
    }

    fn payload(&self, log_time_ms: u64) -> Bytes {
        Envelope {
            principal: self.principal.borrowed(),
            session: self.session,
            sequence: self.sequence,
            done_below: self.done_below,
            log_time_ms,
            command_crc: command_crc(&self.command),
            command: &self.command,
        }
        .encode()
    }
}

fn snapshot(store: &Store) -> Vec<u8> {
    let context = SnapshotContext {
        term: 7,
        configuration: Bytes::from_static(b"n1 n2 n3"),
        configuration_index: 1,
        members: Vec::new(),
        cluster: 0xc0ff_ee42,
        cluster_version: 1,
    };
    SnapshotWriter::new(store.clone(), context)
        .flatten()
        .collect()
}

#[track_caller]
fn done(applied: Applied) -> (u64, CommandResult) {
    match applied {
        Applied::Done { session, result } => (session, result),
        Applied::Refused(refusal) => panic!("refused: {refusal}"),
    }
}

#[track_caller]
fn refused(applied: Applied) -> ApplyRefusal {
    match applied {
        Applied::Done { result, .. } => panic!("done: {result:?}"),
        Applied::Refused(refusal) => refusal,
    }
}

fn put(key: &'static str, value: impl Into<Bytes>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        want_previous: false,
    }
}

fn increment(key: &'static str, by: i64) -> Op {
    Op::Increment {
        key: key.into(),
        by,
    }
}

fn delete(range: KeyRange) -> Op {
    Op::Delete {
        range,
        want_previous: false,
    }
}
