//! An installation that is interrupted, and whose recovery is interrupted too.

use kvd::log_worker::{LogJob, LogWorker};
use kvd::recover::Recovered;
use raft_log::fs::SimFs;

use crate::crash::{committed_term, replay, restart, staged};
use crate::support::{
    entries, hard_state, meta, open_snapshots, persist, receive, snapshot_bytes, start, store_at,
};

/// Cases 31, 33: the process dies at any call of an installation, the next one dies at any call of its recovery, and then the
/// power goes. The first recovery believes what is only in the cache, so it must make that durable before it acts on it.
#[test]
fn installation_that_is_interrupted_twice_is_finished() {
    let base = staged();
    for call in 1.. {
        let fs = base.fork();
        let Recovered { wal, .. } = start(&fs).unwrap();
        // Recovery has finished the installation; the log is made to go another way, and then the core installs.
        let mut worker = LogWorker::new(wal);
        worker.push(LogJob::Persist(persist(1, None, entries(61..=75, 3))));
        worker.work().unwrap();
        worker.idle().unwrap();
        let meta = meta(90, 4);
        let bytes = snapshot_bytes(&store_at(90, committed_term), &meta);
        receive(&open_snapshots(&fs), &bytes, &meta).unwrap();
        fs.stop_at_call(fs.calls() + call);
        let mut part = persist(2, hard_state(4, None), entries(91..=95, 4));
        part.snapshot = Some(meta.into());
        worker.push(LogJob::Persist(part));
        let whole = worker.work().is_ok();
        drop(worker);
        interrupt_recovery(&fs, &format!("call {call}"));
        if whole {
            return;
        }
    }
}

fn interrupt_recovery(fs: &SimFs, what: &str) {
    for again in 1.. {
        let fs = restart(fs, 0);
        fs.stop_at_call(fs.calls() + again);
        let whole = start(&fs).is_ok();
        for seed in 1..6 {
            let what = format!("{what}, then call {again} of recovery, seed {seed}");
            let fs = restart(&fs, again * 10 + seed);
            let recovered = start(&fs).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(recovered.store.applied_index(), 90, "{what}");
            assert_eq!(recovered.wal.floor(), (90, 4), "{what}");
            replay(&recovered, &what);
        }
        if whole {
            return;
        }
    }
}
