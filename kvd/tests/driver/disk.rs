//! A disk that does nothing by itself, and knows what it has been told to keep.

use std::collections::{BTreeMap, VecDeque};

use kvd::log_worker::{LogJob, LogReport};
use raft_core::{
    AppendResponse, Entry, EntryId, Envelope, HardState, LogIndex, Message, Persist, PersistId,
    VoteResponse,
};

/// What one driver has given to its log, and how much of that has been reported as synced.
#[derive(Debug)]
pub struct Disk {
    pub queue: VecDeque<Persist>,
    /// Space that reports name.
    pub prepared_bytes: u64,
    pub full: bool,
    pub purged: Vec<EntryId>,
    pub noted: Vec<LogIndex>,
    /// Damaged entries that were put back.
    pub repaired: Vec<LogIndex>,
    /// What is on it.
    pub entries: BTreeMap<LogIndex, Entry>,
    submitted: PersistId,
    hard_state: HardState,
    last: LogIndex,
    last_ever: LogIndex,
}

impl Disk {
    pub fn new() -> Disk {
        Disk {
            queue: VecDeque::new(),
            prepared_bytes: 1 << 30,
            full: false,
            purged: Vec::new(),
            noted: Vec::new(),
            repaired: Vec::new(),
            entries: BTreeMap::new(),
            submitted: PersistId(0),
            hard_state: HardState::default(),
            last: LogIndex(0),
            last_ever: LogIndex(0),
        }
    }

    pub fn push(&mut self, job: LogJob) {
        match job {
            LogJob::Persist(persist) => {
                assert_eq!(persist.id.0, self.submitted.0 + 1, "parts come in order");
                self.submitted = persist.id;
                self.queue.push_back(persist);
            }
            LogJob::Purge { through } => self.purged.push(through),
            LogJob::NoteCommit(index) => {
                assert!(
                    index <= self.last,
                    "commit hint {index}, but only {} is synced",
                    self.last
                );
                self.noted.push(index);
            }
        }
    }

    /// A new life of the node begins; gives its term and vote. What was not synced is lost.
    pub fn restart(&mut self) -> HardState {
        self.queue.clear();
        self.submitted = PersistId(0);
        self.hard_state
    }

    /// The last index on the disk.
    pub fn synced(&self) -> LogIndex {
        self.last
    }

    /// Bytes of payload that wait for the disk.
    pub fn queued_bytes(&self) -> u64 {
        let entries = self.queue.iter().flat_map(|persist| &persist.entries);
        entries.map(|entry| entry.payload.len() as u64).sum()
    }

    /// Number of entries that wait for the disk.
    pub fn queued_entries(&self) -> usize {
        self.queue.iter().map(|persist| persist.entries.len()).sum()
    }

    /// Syncs the next `count` parts, and reports only the last of them.
    pub fn sync(&mut self, count: usize) -> LogReport {
        let mut persisted = None;
        for persist in self.queue.drain(..count) {
            self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
            if let Some(meta) = &persist.snapshot
                && !persist.snapshot_keeps_log
            {
                self.last = meta.id.index;
            }
            for entry in persist.repaired {
                self.repaired.push(entry.index);
            }
            for entry in persist.entries {
                self.last = entry.index;
                self.entries.insert(entry.index, entry);
            }
            persisted = Some(persist.id);
        }
        self.last_ever = self.last_ever.max(self.last);
        LogReport {
            persisted,
            ..self.report()
        }
    }

    /// A report that completes nothing.
    pub fn report(&self) -> LogReport {
        LogReport {
            persisted: None,
            repaired: None,
            prepared_bytes: self.prepared_bytes,
            size_bytes: 0,
            floor: EntryId::default(),
            full: self.full,
            sync_us: None,
        }
    }

    /// Whatever leaves a node must be true of its disk at that moment.
    pub fn check_promise(&self, envelope: &Envelope) {
        if matches!(
            envelope.message,
            Message::PreVote(_) | Message::PreVoteResponse(VoteResponse { granted: true })
        ) {
            return;
        }
        let known = self.hard_state;
        assert!(
            envelope.term <= known.term,
            "{envelope} before its term is synced: {known}"
        );
        if let Message::VoteResponse(VoteResponse { granted: true }) = envelope.message
            && known.term == envelope.term
        {
            assert_eq!(known.vote, Some(envelope.to), "{envelope} before the vote");
        }
        let mut promised = LogIndex(0);
        if let Message::AppendResponse(AppendResponse::Accepted { matched }) = envelope.message {
            promised = matched;
        }
        if let Message::SnapshotResponse(response) = envelope.message {
            promised = response.matched;
        }
        assert!(
            promised <= self.last_ever,
            "{envelope}, but only {} is synced",
            self.last_ever
        );
    }
}
