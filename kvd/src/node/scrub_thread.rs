//! The thread that reads the log through, so that rot is found and repaired before two nodes have lost the same entry.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use raft_core::LogIndex;
use raft_log::fs::Fs;
use raft_log::{ReadError, Reader, Scrubbed};
use tokio::sync::mpsc;

use crate::driver::{ClientId, Event};
use crate::wire::client::{Refusal, Response, ResponseFrame, ScrubReport};

/// Stored bytes that are read at a time.
const STEP_BYTES: u64 = 256 << 10;

/// Time between two steps. Together with [`STEP_BYTES`] it bounds the rate to 1 MiB/s: a log of 1 GiB is read three to four
/// times in an hour, with a hundredth of what a slow disk can read.
const STEP_PAUSE: Duration = Duration::from_millis(250);

/// How long to wait after the file system failed otherwise than by not giving bytes back.
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// A handle on the thread, which ends after its present step when this is dropped.
pub(super) struct ScrubThread {
    _stop: Sender<()>,
}

impl ScrubThread {
    /// Starts the thread. It tells `inbox` which entries are damaged; each again at every round until it is repaired.
    pub(super) fn start<F: Fs>(
        reader: &Reader<F>,
        inbox: mpsc::Sender<Event>,
    ) -> std::io::Result<ScrubThread> {
        let (stop, stopped) = channel();
        let mut scrub = reader.scrub();
        std::thread::Builder::new()
            .name("kvd-scrub".into())
            .spawn(move || run(|| scrub.step(STEP_BYTES), STEP_PAUSE, &stopped, &inbox))?;
        Ok(ScrubThread { _stop: stop })
    }
}

fn run(
    mut step: impl FnMut() -> Result<Scrubbed, ReadError>,
    pause: Duration,
    stopped: &Receiver<()>,
    inbox: &mpsc::Sender<Event>,
) {
    let mut wait = pause;
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = pause;
        match step() {
            Ok(found) => {
                if !tell(&found, inbox) {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the log cannot be read through");
                wait = FAILED_PAUSE;
            }
        }
    }
}

/// Reports what was found; false if nobody listens any more.
fn tell(found: &Scrubbed, inbox: &mpsc::Sender<Event>) -> bool {
    let mut damaged = Vec::new();
    for corruption in &found.damaged {
        tracing::error!(%corruption, "damage found in the log");
        damaged.extend(corruption.index.map(LogIndex));
    }
    damaged.is_empty() || inbox.blocking_send(Event::Faulty(damaged)).is_ok()
}

/// Reads the whole log at once, as fast as the disk does, tells `inbox` which entries are damaged, and answers the client.
pub(super) fn scrub_now<F: Fs>(
    reader: Reader<F>,
    inbox: mpsc::Sender<Event>,
    client: ClientId,
    id: u64,
) {
    tokio::task::spawn_blocking(move || {
        let body = match read_through(&reader, &inbox) {
            Ok(report) => Response::Scrubbed(report),
            Err(error) => Response::Refused(Refusal::BadRequest {
                why: format!("the log cannot be read through: {error}"),
            }),
        };
        // A loop that is gone has nobody to answer.
        let _ = inbox.blocking_send(Event::Scrubbed(client, ResponseFrame { id, body }));
    });
}

fn read_through<F: Fs>(
    reader: &Reader<F>,
    inbox: &mpsc::Sender<Event>,
) -> Result<ScrubReport, ReadError> {
    let mut report = ScrubReport::default();
    let mut scrub = reader.scrub();
    loop {
        let found = scrub.step(STEP_BYTES)?;
        report.entries += found.indexes.end - found.indexes.start;
        report.bytes += found.bytes;
        report.damaged += found.damaged.len() as u64;
        let first = found.damaged.iter().find_map(|damage| damage.index);
        report.first_damaged = report.first_damaged.or(first);
        if !tell(&found, inbox) || found.is_round_done {
            return Ok(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_log::fs::SimFs;
    use raft_log::{Binding, EntryRef, Options, Wal};

    use super::*;

    #[test]
    fn rotten_entry_is_told_and_a_dropped_handle_ends_the_thread() {
        let fs = SimFs::new(1);
        let (dir, binding) = (
            std::path::Path::new("/log"),
            Binding {
                cluster: 1,
                node: 1,
            },
        );
        let options = Options {
            segment_bytes: 64 << 10,
            max_bytes: 1 << 20,
            reserve_bytes: 0,
            ..Options::default()
        };
        Wal::create(&fs, dir, binding, &options).unwrap();
        let (mut wal, _) = Wal::open(&fs, dir, binding, options).unwrap();
        let entry = |index| EntryRef {
            index,
            term: 1,
            kind: 1,
            payload: &[],
            payload_crc: 0,
        };
        wal.append(&[entry(1), entry(2), entry(3)]).unwrap();
        wal.sync().unwrap();
        let segment = fs.list(dir).unwrap();
        let segment = segment
            .iter()
            .find(|name| name.starts_with("segment-"))
            .unwrap();
        // In the header of the second record: behind the segment's header, the first record, and a local prefix.
        let record = 16 + raft_log::record::HEADER_BYTES as u64;
        fs.flip_bit(&dir.join(segment), (4096 + record + 16 + 4) * 8);
        let mut scrub = wal.reader().scrub();
        let (inbox, mut told) = mpsc::channel(4);
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            run(
                || scrub.step(STEP_BYTES),
                Duration::from_millis(1),
                &stopped,
                &inbox,
            );
        });
        let Some(Event::Faulty(indexes)) = told.blocking_recv() else {
            panic!("nothing was told")
        };
        assert_eq!(indexes, [LogIndex(2)]);
        drop(stop);
        while told.blocking_recv().is_some() {}
        thread.join().unwrap();
    }
}
