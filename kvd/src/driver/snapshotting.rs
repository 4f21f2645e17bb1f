//! Snapshots as the driver sees them: when one is written, and how one from the leader takes the place of the store.

use raft_core::{Entry, EntryId, Envelope, LogIndex, Persist, SnapshotMeta, Storage as _};

use super::{Driver, Effect, WrittenSnapshot};
use crate::kv::snapshot::SnapshotHeader;
use crate::kv::store::Store;
use crate::log_worker::LogJob;

/// A snapshot to be written: an immutable view and what it covers.
#[derive(Debug)]
pub struct SnapshotOrder {
    /// The state after `meta.id` was applied; writes go on meanwhile.
    pub view: Store,
    /// What it covers.
    pub meta: SnapshotMeta,
    /// Keep only this one: the log has run out of room, or is damaged, and must not be kept for an older one.
    pub only_one: bool,
}

/// A snapshot from a peer that is complete, verified and durable here, but not yet accepted by the core.
#[derive(Debug)]
pub struct StagedSnapshot {
    /// The shell's number for it, see [`Effect::SnapshotTaken`].
    pub ticket: u64,
    /// The peer's message.
    pub envelope: Envelope,
    /// What the file says of itself.
    pub header: SnapshotHeader,
    /// The state that it holds.
    pub store: Store,
}

/// What an entry takes in the log beside its payload: local prefix, header, padding, its place in the seal index.
const STORED_OVERHEAD_BYTES: u64 = 88;

/// Ticks to wait after a snapshot that could not be written: the disk may be full for a while.
const RETRY_TICKS: u64 = 100;

/// When the next snapshot is due.
#[derive(Debug)]
pub(super) struct Snapshots {
    newest: LogIndex,
    bytes_since: u64,
    writing: bool,
    wanted: bool,
    /// The log is damaged at this entry: a snapshot that covers it is wanted, and the log only from there on.
    instead_of: Option<LogIndex>,
    /// After one that could not be written, the next is not tried before this tick.
    not_before: u64,
    /// Term of the entry that was applied last; a snapshot names it.
    applied_term: raft_core::Term,
    /// The one that the core is just being offered.
    offered: Option<StagedSnapshot>,
    /// The one that the core has accepted. It installs it at once, or as soon as the log up to it is durable.
    accepted: Option<StagedSnapshot>,
}

impl Snapshots {
    pub(super) fn new(newest: Option<SnapshotMeta>) -> Snapshots {
        let id = newest.map_or(EntryId::default(), |meta| meta.id);
        Snapshots {
            newest: id.index,
            bytes_since: 0,
            writing: false,
            wanted: false,
            instead_of: None,
            not_before: 0,
            applied_term: id.term,
            offered: None,
            accepted: None,
        }
    }

    /// Wants a snapshot in place of the damaged entry at `index`, which is applied.
    pub(super) fn want_instead_of(&mut self, index: LogIndex) {
        self.instead_of = self.instead_of.max(Some(index));
    }

    /// The newest snapshot is not to be counted on any more.
    pub(super) fn forget_newest(&mut self) {
        self.newest = LogIndex(0);
    }

    /// The core has accepted the snapshot that ends with `id`. One that it accepted before is of no use any more.
    pub(super) fn accept(&mut self, id: EntryId) {
        let offered = self.offered.take();
        assert!(
            offered
                .as_ref()
                .is_some_and(|it| it.header.index == id.index.0),
            "the core accepted snapshot {id}, and was offered another"
        );
        self.accepted = offered;
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// The state is now that of another node's snapshot.
    pub(super) fn restart_at(&mut self, id: EntryId) {
        self.applied_term = id.term;
        self.bytes_since = 0;
    }

    pub(super) fn count(&mut self, entry: &Entry) {
        self.bytes_since += entry.payload.len() as u64 + STORED_OVERHEAD_BYTES;
        self.applied_term = entry.term;
    }
}

impl Driver {
    /// Writes a snapshot as soon as that is possible, whatever has been applied since the last one.
    pub(super) fn want_snapshot(&mut self) {
        self.snapshots.wanted = true;
    }

    /// Orders a snapshot when one is due.
    ///
    /// Only of what is synced here, so that the log goes on from the snapshot; unless the log is full: then nothing else makes
    /// room, see `docs/design/008`.
    pub(super) fn maybe_write_snapshot(&mut self) {
        let applied = LogIndex(self.store.applied_index());
        // A state that is suspect, or ahead of what is committed here since it was rebuilt.
        if self.suspicion.is_some() || applied > self.node.commit_index() {
            return;
        }
        // A log without room holds up every write, and with them the bytes that would make a snapshot due.
        let starved =
            self.space.is_starved(self.now) && self.node.storage().first_index() <= applied;
        let due = self.snapshots.wanted
            || self.snapshots.bytes_since >= self.options.snapshot_every_bytes;
        let new = applied > self.snapshots.newest;
        let first = self.node.storage().first_index();
        self.snapshots.instead_of.take_if(|index| *index < first); // Purged meanwhile.
        let damaged = self
            .snapshots
            .instead_of
            .is_some_and(|index| index <= applied);
        if !(due && new || starved || damaged)
            || self.snapshots.writing
            || self.now < self.snapshots.not_before
            || applied > self.node.persisted_index() && !starved
        {
            return;
        }
        let Some((configuration_index, configuration)) = self.node.configuration_at(applied) else {
            return;
        };
        let configuration = configuration.clone();
        let id = EntryId {
            index: applied,
            term: self.snapshots.applied_term,
        };
        let meta = SnapshotMeta {
            id,
            configuration,
            configuration_index,
        };
        self.snapshots.writing = true;
        self.snapshots.wanted = false;
        self.snapshots.bytes_since = 0;
        self.effects
            .push(Effect::WriteSnapshot(Box::new(SnapshotOrder {
                view: self.store.clone(),
                meta,
                only_one: starved || damaged,
            })));
    }

    pub(super) fn handle_snapshot_written(&mut self, written: Option<WrittenSnapshot>) {
        self.snapshots.writing = false;
        let Some(written) = written else {
            self.snapshots.wanted = true;
            self.snapshots.not_before = self.now + RETRY_TICKS;
            return;
        };
        if written.meta.id.index < self.snapshots.newest || self.suspicion.is_some() {
            return;
        }
        self.snapshots.newest = written.meta.id.index;
        self.node.storage_mut().set_snapshot(written.meta);
        self.purge(written.oldest_kept);
    }

    fn purge(&mut self, through: EntryId) {
        if through.index >= self.node.storage().first_index() {
            self.node.storage_mut().purge(through);
            self.effects.push(Effect::Log(LogJob::Purge { through }));
        }
    }

    /// Offers a staged snapshot to the core. Whether the core takes it shows in the next `Ready`.
    pub(super) fn handle_snapshot_staged(&mut self, staged: StagedSnapshot) {
        let envelope = staged.envelope.clone();
        let ticket = staged.ticket;
        self.snapshots.offered = Some(staged);
        if let Err(rejected) = self.node.step(envelope) {
            tracing::info!(%rejected, "snapshot not needed");
        }
        self.run_core();
        if let Some(declined) = self.snapshots.offered.take() {
            self.maybe_rebuild(declined);
        }
        self.effects.push(Effect::SnapshotTaken { ticket });
    }

    /// The store changes together with the log: from here on everything that is applied comes after the snapshot.
    pub(super) fn install_if_staged(&mut self, persist: &Persist) {
        let Some(meta) = &persist.snapshot else {
            return;
        };
        let staged = self
            .snapshots
            .accepted
            .take()
            .expect("the core installs only what it has accepted");
        assert_eq!(
            meta.id.index.0, staged.header.index,
            "the core installs another snapshot than the accepted one"
        );
        self.store = staged.store.with_machines(self.store.programs().clone());
        self.snapshots.newest = meta.id.index;
        self.snapshots.applied_term = meta.id.term;
        self.snapshots.bytes_since = 0;
        self.reroute_covered(meta.id.index);
    }
}
