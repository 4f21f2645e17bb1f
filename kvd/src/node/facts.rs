//! What the machine says: free space, the time that syncs take, when the certificate ends.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use raft_log::fs::{Fs, OsFs};

use crate::driver::Facts;
use crate::log_worker::LogReport;

/// Syncs over which percentiles are taken.
const SYNCS_MAX: usize = 1024;

pub(super) struct FactFinder {
    data: PathBuf,
    certificate_expires: String,
    log_bytes: u64,
    sync_us: VecDeque<u32>,
}

impl FactFinder {
    pub(super) fn new(data: &Path, certificate_expires: String) -> FactFinder {
        FactFinder {
            data: data.to_owned(),
            certificate_expires,
            log_bytes: 0,
            sync_us: VecDeque::new(),
        }
    }

    pub(super) fn note(&mut self, report: &LogReport) {
        self.log_bytes = report.size_bytes;
        if let Some(took) = report.sync_us.filter(|_| report.persisted.is_some()) {
            self.sync_us.truncate(SYNCS_MAX - 1);
            self.sync_us.push_front(took);
        }
    }

    pub(super) fn find(&self) -> Facts {
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
        }
    }
}
