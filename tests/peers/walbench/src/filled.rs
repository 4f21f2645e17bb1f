//! Logs of 1 GiB, to be opened and read.

use std::path::{Path, PathBuf};

use crate::PAYLOAD_BYTES;
use crate::engine::{Engine, Log, RAFT_ENGINE, RAFT_LOG, REF_PWRITE, Setup};
use crate::payloads::Payloads;

pub const ENGINES: [Engine; 3] = [REF_PWRITE, RAFT_ENGINE, RAFT_LOG];

/// 1 GiB of payload.
pub const ENTRIES: u64 = (1 << 30) / PAYLOAD_BYTES as u64;

const NO_POOL: Setup = Setup { pool_segments: 0 };

/// Where an engine's log is, filled with appends of `batch` entries. What an earlier run left is used again.
pub fn filled(engine: &Engine, dir: &Path, batch: usize) -> PathBuf {
    let name = engine.name.replace(|it: char| !it.is_alphanumeric(), "-");
    let dir = dir.join(format!("filled-{batch}-{name}"));
    if !dir.exists() {
        let mut payloads = Payloads::new(1);
        let log = (engine.open)(&dir, NO_POOL);
        for _ in 0..ENTRIES / batch as u64 {
            log.append_lazily(payloads.batch(batch));
        }
        log.close();
    }
    dir
}

pub fn open(engine: &Engine, dir: &Path) -> Box<dyn Log> {
    let log = (engine.open)(dir, NO_POOL);
    assert_eq!(log.last_index(), ENTRIES, "filled by a run to its end");
    log
}
