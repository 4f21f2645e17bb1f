//! What the machine says: free space, the time that syncs take, when the certificate ends.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_log::fs::{Fs, OsFs};

use crate::driver::Facts;
use crate::log_worker::LogReport;

/// Syncs over which percentiles are taken.
const SYNCS_MAX: usize = 1024;

/// Looks over which the longest turn is remembered; there is one look a second.
const LOOKS_MAX: usize = 10;

pub(super) struct FactFinder {
    data: PathBuf,
    certificate_expires: String,
    log_bytes: u64,
    sync_us: VecDeque<u32>,
    /// The longest turn before each of the last looks; the newest first and still growing.
    turns: VecDeque<Duration>,
}

impl FactFinder {
    pub(super) fn new(data: &Path, certificate_expires: String) -> FactFinder {
        FactFinder {
            data: data.to_owned(),
            certificate_expires,
            log_bytes: 0,
            sync_us: VecDeque::new(),
            turns: VecDeque::from([Duration::ZERO]),
        }
    }

    pub(super) fn note(&mut self, report: &LogReport) {
        self.log_bytes = report.size_bytes;
        if let Some(took) = report.sync_us.filter(|_| report.persisted.is_some()) {
            self.sync_us.truncate(SYNCS_MAX - 1);
            self.sync_us.push_front(took);
        }
    }

    /// The loop has been busy for this long with one turn.
    pub(super) fn note_turn(&mut self, took: Duration) {
        let longest = self.turns.front_mut();
        let longest = longest.expect("there is always a newest one");
        *longest = took.max(*longest);
    }

    pub(super) fn find(&mut self) -> Facts {
        let longest = self.turns.iter().max().copied().unwrap_or_default();
        self.turns.truncate(LOOKS_MAX - 1);
        self.turns.push_front(Duration::ZERO);
        let mut sorted: Vec<u32> = self.sync_us.iter().copied().collect();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let position = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(position).map_or(0, |took| u64::from(*took))
        };
        Facts {
            log_bytes: self.log_bytes,
            sync_p50_us: percentile(50),
            sync_p99_us: percentile(99),
            // A file system that does not say is shown as 0; nothing depends on it.
            disk_free_bytes: OsFs.available_bytes(&self.data).unwrap_or(0),
            certificate_expires: self.certificate_expires.clone(),
            longest_turn_us: u64::try_from(longest.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_is_remembered_for_some_looks_and_then_forgotten() {
        let mut facts = FactFinder::new(Path::new("/"), String::new());
        for ms in [3, 20, 1] {
            facts.note_turn(Duration::from_millis(ms));
        }
        for look in 0..LOOKS_MAX {
            assert_eq!(facts.find().longest_turn_us, 20_000, "look {look}");
            facts.note_turn(Duration::from_millis(2));
        }
        assert_eq!(facts.find().longest_turn_us, 2_000);
    }
}
