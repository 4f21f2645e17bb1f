//! A node's life on one disk, stopped at every storage call, and recovered; recovery stopped as well.

use std::time::{Duration, Instant};

use kvd::log_worker::{LogJob, LogReport, LogWorker};
use kvd::recover::{Recovered, core_entries};
use kvd::snapshots::SnapshotDir;
use raft_core::{Entry, HardState, NodeId, Persist, PersistId, Term};
use raft_log::fs::SimFs;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::{
    Stopped, apply, entries, files, fresh, hard_state, id, meta, open_snapshots, persist, receive,
    snapshot_bytes, start, store_at,
};

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// The history that the cluster committed: terms 1, 2, 3 and 4.
pub fn committed_term(index: u64) -> u64 {
    match index {
        ..=10 => 1,
        11..=30 => 2,
        31..=61 => 3,
        _ => 4,
    }
}

/// What a node has been told is durable, and what it was asked for last.
#[derive(Clone, Debug, Default)]
struct Promised {
    hard_state: (u64, Option<u64>),
    /// Everything at or below is committed state, in a snapshot that was installed.
    installed: u64,
    /// (index, term) of the log behind it.
    log: Vec<(u64, u64)>,
    under_way: Option<Persist>,
}

impl Promised {
    fn keep(&mut self, part: &Persist) {
        if let Some(HardState { term, vote }) = part.hard_state {
            self.hard_state = (term.0, vote.map(|vote| vote.0));
        }
        if let Some(meta) = &part.snapshot {
            self.installed = meta.id.index.0;
            self.log.clear();
        }
        if let Some(first) = part.entries.first() {
            self.log.retain(|(index, _)| *index < first.index.0);
        }
        let new = part.entries.iter();
        self.log
            .extend(new.map(|entry| (entry.index.0, entry.term.0)));
    }

    /// Whether the part under way may have taken away what was promised for this index.
    fn may_be_replaced(&self, index: u64) -> bool {
        self.under_way.as_ref().is_some_and(|part| {
            let overwritten = part.entries.first();
            part.snapshot.is_some() || overwritten.is_some_and(|first| first.index.0 <= index)
        })
    }
}

/// One run of a node; `None` from any step means that the machine stopped.
struct Life {
    worker: LogWorker<SimFs>,
    snapshots: SnapshotDir<SimFs>,
    promised: Promised,
    part: u64,
}

impl Life {
    fn work(&mut self) -> Option<LogReport> {
        match self.worker.work() {
            Ok(report) => Some(report),
            Err(failure) => {
                assert!(
                    failure.0.what.contains("stopped"),
                    "it failed by itself: {failure}"
                );
                None
            }
        }
    }

    fn persist(
        &mut self,
        state: Option<HardState>,
        snapshot: Option<(u64, u64)>,
        new: Vec<Entry>,
    ) -> Option<()> {
        self.part += 1;
        let mut part = persist(self.part, state, new);
        part.snapshot = snapshot.map(|(index, term)| meta(index, term).into());
        self.promised.under_way = Some(part.clone());
        self.worker.push(LogJob::Persist(part.clone()));
        let report = self.work()?;
        assert_eq!(report.persisted, Some(PersistId(self.part)));
        self.promised.under_way = None;
        self.promised.keep(&part);
        Some(())
    }

    fn snapshot(&mut self, index: u64) -> Option<()> {
        let term = committed_term(index);
        stopped(
            self.snapshots
                .write(&store_at(index, committed_term), &meta(index, term)),
        )?;
        let through = stopped(self.snapshots.prune())?;
        self.worker.push(LogJob::Purge { through });
        self.work().map(drop)
    }

    fn receive(&mut self, index: u64) -> Option<()> {
        let meta = meta(index, committed_term(index));
        let bytes = snapshot_bytes(&store_at(index, committed_term), &meta);
        stopped(receive(&self.snapshots, &bytes, &meta)).map(drop)
    }

    fn live(&mut self) -> Option<()> {
        self.persist(hard_state(1, Some(2)), None, entries(1..=10, 1))?;
        self.snapshot(8)?;
        self.persist(hard_state(2, None), None, entries(11..=20, 2))?;
        self.snapshot(18)?;
        // Another leader of term 2 would be a contradiction; these will never be committed.
        self.persist(None, None, entries(21..=35, 2))?;
        self.snapshot(28)?;
        self.worker.idle().ok()?;
        self.receive(60)?;
        self.persist(
            hard_state(3, Some(3)),
            Some((60, 3)),
            [entries(61..=61, 3), entries(62..=63, 3)].concat(),
        )?;
        self.persist(hard_state(4, None), None, entries(62..=65, 4))?;
        self.snapshot(64)?;
        self.persist(None, None, entries(66..=90, 4))
    }
}

fn stopped<T>(result: Result<T, kvd::snapshots::SnapshotDirError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.is_stopped(), "it failed by itself: {error}");
            None
        }
    }
}

/// Runs a node from a fresh disk until the machine stops at `call`; whether it lived to the end, and what it was promised.
fn run_until(base: &SimFs, call: u64) -> (SimFs, bool, Promised) {
    let fs = base.fork();
    fs.stop_at_call(fs.calls() + call);
    let Recovered { wal, snapshots, .. } = match start(&fs) {
        Ok(recovered) => recovered,
        Err(error) => {
            assert!(error.is_stopped(), "{error}");
            return (fs, false, Promised::default());
        }
    };
    let mut life = Life {
        worker: LogWorker::new(wal),
        snapshots,
        promised: Promised::default(),
        part: 0,
    };
    let whole = life.live().is_some();
    let promised = life.promised;
    (fs, whole, promised)
}

/// Looks at what a restart found.
fn check(recovered: &Recovered<SimFs>, promised: &Promised, what: &str) {
    let wal = &recovered.wal;
    let (term, vote) = wal.hard_state();
    assert!(
        term > promised.hard_state.0 || (term, vote) == promised.hard_state || vote.is_some(),
        "{what}: {term} {vote:?}"
    );
    assert!(
        (term, vote.is_some()) >= (promised.hard_state.0, promised.hard_state.1.is_some()),
        "{what}: term {term} and vote {vote:?}, promised {:?}",
        promised.hard_state
    );
    assert!(wal.last_term() <= term, "{what}");

    let applied = recovered.store.applied_index();
    assert!(applied >= promised.installed, "{what}: at {applied}");
    assert!(applied >= wal.floor().0, "{what}: entries are missing");
    assert_eq!(
        recovered.store.hash(),
        store_at(applied, committed_term).hash(),
        "{what}: the state at {applied} is none that was ever committed"
    );
    for (index, term) in &promised.log {
        let found = wal.term(*index);
        assert!(
            *index <= applied || found == Some(*term) || promised.may_be_replaced(*index),
            "{what}: entry {index} of term {term} was promised, there is {found:?}"
        );
    }
    replay(recovered, what);
    let snapshots = recovered.snapshots.list().expect("a healthy disk");
    assert!(recovered.opened.damaged.is_empty(), "{what}");
    assert!(snapshots.len() <= 4, "{what}: {snapshots:?}");
}

/// Everything behind the snapshot is there, readable, and gives the state of the history that its terms name.
pub fn replay(recovered: &Recovered<SimFs>, what: &str) {
    let (wal, mut store) = (&recovered.wal, recovered.store.clone());
    let applied = store.applied_index();
    let mut next = applied + 1;
    while next <= wal.last_index() {
        let stored = wal.reader().entries(next..wal.last_index() + 1, 4000);
        for entry in core_entries(stored.expect("readable")).expect("known kinds") {
            assert_eq!(entry.index.0, next, "{what}");
            apply(&mut store, &entry);
            next += 1;
        }
    }
    let term_of = |index: u64| match wal.term(index) {
        Some(term) if index > applied => term,
        _ => committed_term(index),
    };
    let expected = store_at(store.applied_index(), term_of);
    assert_eq!(store.hash(), expected.hash(), "{what}");
}

/// After recovery the node goes on: the next entry goes behind the last one, and stays.
fn goes_on(fs: &SimFs, recovered: Recovered<SimFs>, what: &str) {
    let last = recovered.wal.last_index();
    let term = recovered.wal.hard_state().0 + 1;
    let state = Some(HardState {
        term: Term(term),
        vote: Some(NodeId(1)),
    });
    let mut worker = LogWorker::new(recovered.wal);
    worker.push(LogJob::Persist(persist(
        1,
        state,
        entries(last + 1..=last + 1, term),
    )));
    worker.work().expect("a healthy disk");
    drop(worker);
    fs.power_cut(&mut rng(last));
    let again = start(fs).unwrap_or_else(|error| panic!("{what}, then on: {error}"));
    assert_eq!(again.wal.last_index(), last + 1, "{what}");
    let left = files(fs);
    assert!(
        left.iter().all(|name| !name.ends_with(".tmp")),
        "{what}: {left:?}"
    );
}

pub fn restart(fs: &SimFs, seed: u64) -> SimFs {
    let fs = fs.fork();
    if seed == 0 {
        fs.crash_process();
    } else {
        fs.power_cut(&mut rng(seed));
    }
    fs
}

/// Cases 17, 33, 35: appends, votes, snapshots written and pruned, purges, a snapshot received and installed, a suffix
/// overwritten; the process dies or the power goes at every storage call. What was promised is there, and the state is one
/// that was committed.
#[test]
fn node_that_stops_at_any_storage_call_recovers() {
    let base = fresh(3);
    for call in 1.. {
        let (fs, whole, promised) = run_until(&base, call);
        for seed in 0..4 {
            let what = format!("call {call}, seed {seed}");
            let fs = restart(&fs, seed * call);
            let recovered = start(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&recovered, &promised, &what);
            goes_on(&fs, recovered, &what);
        }
        if whole {
            assert!(call > 100, "only {call} calls");
            return;
        }
    }
}

/// Time for the test below; `KVD_TEST_LONG=1` takes every combination.
fn budget() -> Duration {
    match std::env::var("KVD_TEST_LONG") {
        Ok(long) if long == "1" => Duration::MAX,
        _ => Duration::from_secs(8),
    }
}

/// Case 33: the machine stops again while it recovers. In particular an interrupted installation is finished by the second
/// recovery as it would have been by the first.
#[test]
fn node_that_stops_again_while_it_recovers_recovers() {
    let base = fresh(3);
    let begun = Instant::now();
    // A stride that visits all calls in a scattered order, so that a short run sees all parts of the life.
    let calls = (1..).find(|call| run_until(&base, 25 * call).1).unwrap() * 25;
    let order = (0..calls).map(|at| 1 + (at * 377) % calls);
    let mut recoveries = 0;
    for call in order {
        let (fs, _, promised) = run_until(&base, call);
        for again in 1.. {
            let what = format!("call {call}, then call {again} of recovery");
            let fs = restart(&fs, call % 3);
            fs.stop_at_call(fs.calls() + again);
            let first = start(&fs);
            let whole = first.is_ok();
            if let Err(error) = first {
                assert!(error.is_stopped(), "{what}: {error}");
            }
            let fs = restart(&fs, again % 3);
            let recovered = start(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&recovered, &promised, &what);
            recoveries += 1;
            if whole {
                break;
            }
        }
        if begun.elapsed() > budget() {
            break;
        }
    }
    println!("{recoveries} interrupted recoveries");
    assert!(recoveries > 50);
}

/// A node with a log of twenty entries and a received snapshot that it has not installed.
pub fn staged() -> SimFs {
    let fs = fresh(5);
    let mut worker = LogWorker::new(start(&fs).unwrap().wal);
    worker.push(LogJob::Persist(persist(
        1,
        hard_state(2, Some(2)),
        [entries(1..=10, 1), entries(11..=20, 2)].concat(),
    )));
    worker.work().unwrap();
    worker.idle().unwrap();
    drop(worker);
    fs.crash_process();
    let meta = meta(60, 3);
    let bytes = snapshot_bytes(&store_at(60, committed_term), &meta);
    receive(&open_snapshots(&fs), &bytes, &meta).unwrap();
    fs
}

/// Cases 31, 33: a received snapshot is durable, the process dies before the log knows of it. The store that a restart begins
/// with is that of the snapshot, and the log begins behind it.
#[test]
fn received_snapshot_survives_a_crash_before_its_installation() {
    let fs = staged();
    fs.power_cut(&mut rng(1));
    let recovered = start(&fs).unwrap();
    assert!(recovered.opened.finished_install);
    assert_eq!(recovered.opened.snapshot, Some(id(60, 3)));
    assert_eq!(recovered.wal.floor(), (60, 3));
    assert_eq!(recovered.store.hash(), store_at(60, committed_term).hash());
}
