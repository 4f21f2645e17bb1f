//! How a leader brings its log to the others.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::leader::{Leader, announce_state};
use crate::core::Core;
use crate::progress::Progress;
use crate::types::entries_bytes;
use crate::{
    Append, Commit, Entry, EntryId, Event, Fetch, FetchPurpose, InstallSnapshot, LogIndex, Message,
    NodeId, Storage, StorageError,
};

impl Leader {
    /// Sends each follower what it lacks, as far as its window allows.
    pub(super) fn replicate<S: Storage>(&mut self, core: &mut Core<S>) {
        for (peer, progress) in self.peers.iter_mut() {
            while send_entries(core, peer, progress) {}
            maybe_send_empty(core, peer, progress);
            maybe_tell_commit(core, peer, progress);
        }
        self.notice_damage(core); // Reading may have found it.
    }

    /// Entries that the driver read for a follower. Old answers are ignored: the log, or what the
    /// follower needs, may have changed meanwhile.
    pub(crate) fn on_fetched<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        peer: NodeId,
        start: LogIndex,
        entries: Vec<Entry>,
    ) {
        let config = &core.config;
        let (count_max, bytes_max) = (config.max_inflight_appends, config.max_inflight_bytes);
        let Some(progress) = self
            .peers
            .get_mut(peer)
            .filter(|progress| progress.fetching == Some(start))
        else {
            return;
        };
        progress.fetching = None;
        let is_wanted = progress.next == start && progress.may_send(count_max, bytes_max);
        let prev = core.log.id(start.prev());
        if let Some(prev) = prev.filter(|_| is_wanted && core.log.are_own(start, &entries)) {
            send_append(core, peer, progress, prev, entries);
        }
        self.needs_flush = true;
    }

    /// The entries are gone. If our newest snapshot covers them it takes their place, also if they are
    /// damaged and still there.
    pub(crate) fn on_fetch_failed<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        peer: NodeId,
        start: LogIndex,
    ) {
        let progress = self
            .peers
            .get_mut(peer)
            .filter(|progress| progress.fetching == Some(start));
        let Some(progress) = progress else { return };
        progress.fetching = None;
        if core.log.is_in_snapshot(start) {
            send_snapshot(core, peer, progress);
        }
        self.needs_flush = true;
    }
}

/// Sends one append with entries. Returns whether one was sent.
fn send_entries<S: Storage>(core: &mut Core<S>, peer: NodeId, progress: &mut Progress) -> bool {
    let config = &core.config;
    let (count_max, bytes_max) = (config.max_inflight_appends, config.max_inflight_bytes);
    if progress.next > core.log.last_index()
        || progress.fetching.is_some()
        || !progress.may_send(count_max, bytes_max)
    {
        return false;
    }
    let Some(prev) = core.log.id(progress.next.prev()) else {
        send_snapshot(core, peer, progress);
        return false;
    };
    let range = progress.next..core.log.last_index().next();
    let max_bytes = core.config.max_append_bytes;
    let mut entries = Vec::new();
    match core.log.entries(range.clone(), max_bytes, &mut entries) {
        Ok(()) => {
            send_append(core, peer, progress, prev, entries);
            true
        }
        Err(StorageError::Later) => {
            progress.fetching = Some(range.start);
            core.outbox.fetches.push(Fetch {
                purpose: FetchPurpose::Peer(peer),
                range: core.log.durable_part(range),
                max_bytes,
            });
            false
        }
        Err(StorageError::Faulty) => {
            wait_for_repair(core, peer, progress);
            false
        }
        Err(StorageError::Compacted | StorageError::Unavailable) => {
            send_snapshot(core, peer, progress);
            false
        }
    }
}

/// The follower needs an entry that is damaged here. It gets no entries until that is back, but a
/// probe still asks how far it is: n2 may believe that n1 repairs its log, and hands over to nobody
/// of whom it believes that.
fn wait_for_repair<S: Storage>(core: &mut Core<S>, peer: NodeId, progress: &mut Progress) {
    if core.log.is_in_snapshot(progress.next) {
        send_snapshot(core, peer, progress);
    } else {
        core.log.on_faulty(progress.next);
    }
}

fn maybe_send_empty<S: Storage>(core: &mut Core<S>, peer: NodeId, progress: &mut Progress) {
    if !progress.wants_empty_append() || progress.fetching.is_some() {
        return;
    }
    match core.log.id(progress.next.prev()) {
        Some(prev) => send_append(core, peer, progress, prev, Vec::new()),
        None => send_snapshot(core, peer, progress),
    }
}

/// A follower in replication learns what is committed as soon as it was sent that. It does not answer.
fn maybe_tell_commit<S: Storage>(core: &mut Core<S>, peer: NodeId, progress: &mut Progress) {
    let Some(index) = progress.untold_commit(core.log.committed()) else {
        return;
    };
    progress.told_commit = index;
    if let Some(id) = core.log.id(index) {
        core.send(peer, Message::Commit(Commit { id }));
    }
}

/// Sends entries that follow `prev`, the entry before the next one to be sent.
fn send_append<S: Storage>(
    core: &mut Core<S>,
    peer: NodeId,
    progress: &mut Progress,
    prev: EntryId,
    entries: Vec<Entry>,
) {
    let last = entries.last().map_or(prev.index, |entry| entry.index);
    let commit = core.log.committed();
    progress.on_append_sent(last, entries_bytes(&entries), commit);
    core.send(
        peer,
        Message::Append(Append {
            prev,
            entries,
            commit,
        }),
    );
}

/// The follower needs entries that are gone, so it gets the state that they led to.
fn send_snapshot<S: Storage>(core: &mut Core<S>, peer: NodeId, progress: &mut Progress) {
    let before = progress.state();
    // Nobody there to receive it: a probe again when the follower is heard.
    let is_there = progress.is_in_reach();
    match core.log.storage.snapshot().filter(|_| is_there) {
        Some(meta) => {
            progress.become_snapshot(meta.id.index);
            announce_state(core, peer, before, progress.state());
            core.event(Event::SnapshotSent { peer, id: meta.id });
            let meta = Box::new(meta);
            core.send(peer, Message::InstallSnapshot(InstallSnapshot { meta }));
        }
        None => {
            progress.become_probe(progress.next);
            progress.pause_probe();
            if is_there {
                core.event(Event::SnapshotUnavailable { peer });
            }
        }
    }
}
