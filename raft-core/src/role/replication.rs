//! How a leader brings its log to the others.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::leader::{Leader, announce_state};
use crate::core::Core;
use crate::types::entries_bytes;
use crate::{
    Append, Entry, EntryId, Event, Fetch, FetchPurpose, InstallSnapshot, LogIndex, Message, NodeId,
    Storage, StorageError,
};

impl Leader {
    /// Sends each follower what it lacks, as far as its window allows.
    pub(super) fn replicate<S: Storage>(&mut self, core: &mut Core<S>) {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in peers {
            while self.send_entries(core, peer) {}
            self.maybe_send_empty(core, peer);
        }
    }

    /// Sends one append with entries. Returns whether one was sent.
    fn send_entries<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) -> bool {
        let progress = &self.peers[&peer];
        let config = &core.config;
        let may_send = progress.may_send(config.max_inflight_appends, config.max_inflight_bytes);
        if !may_send || progress.fetching.is_some() || progress.next > core.log.last_index() {
            return false;
        }
        if core.log.term(progress.next.prev()).is_none() {
            self.send_snapshot(core, peer);
            return false;
        }
        let range = progress.next..core.log.last_index().next();
        match core
            .log
            .entries(range.clone(), core.config.max_append_bytes)
        {
            Ok(entries) => {
                self.send_append(core, peer, entries);
                true
            }
            Err(StorageError::Later) => {
                self.peers.get_mut(&peer).expect("a member").fetching = Some(range.start);
                let max_bytes = core.config.max_append_bytes;
                core.outbox.fetches.push(Fetch {
                    purpose: FetchPurpose::Peer(peer),
                    range: core.log.durable_part(range),
                    max_bytes,
                });
                false
            }
            Err(StorageError::Compacted | StorageError::Unavailable) => {
                self.send_snapshot(core, peer);
                false
            }
        }
    }

    fn maybe_send_empty<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) {
        let progress = &self.peers[&peer];
        if !progress.wants_empty_append(core.log.committed()) || progress.fetching.is_some() {
            return;
        }
        if core.log.term(progress.next.prev()).is_some() {
            self.send_append(core, peer, Vec::new());
        } else {
            self.send_snapshot(core, peer);
        }
    }

    fn send_append<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId, entries: Vec<Entry>) {
        let progress = self.peers.get_mut(&peer).expect("a member");
        let index = progress.next.prev();
        let term = core.log.term(index).expect("the caller made sure");
        let last = entries.last().map_or(index, |entry| entry.index);
        let commit = core.log.committed();
        progress.on_append_sent(last, entries_bytes(&entries), commit);
        core.send(
            peer,
            Message::Append(Append {
                prev: EntryId { index, term },
                entries,
                commit,
            }),
        );
    }

    /// The follower needs entries that are gone, so it gets the state that they led to.
    fn send_snapshot<S: Storage>(&mut self, core: &mut Core<S>, peer: NodeId) {
        let progress = self.peers.get_mut(&peer).expect("a member");
        let before = progress.state();
        // Nobody there to receive it: a probe again when the follower is heard.
        let is_there = progress.is_in_reach();
        match core.log.storage.snapshot().filter(|_| is_there) {
            Some(meta) => {
                progress.become_snapshot(meta.id.index);
                announce_state(core, peer, before, progress.state());
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
            .get_mut(&peer)
            .filter(|progress| progress.fetching == Some(start))
        else {
            return;
        };
        progress.fetching = None;
        let is_wanted = progress.next == start && progress.may_send(count_max, bytes_max);
        if is_wanted && core.log.are_own(start, &entries) && core.log.term(start.prev()).is_some() {
            self.send_append(core, peer, entries);
        }
        self.needs_flush = true;
    }

    pub(crate) fn on_fetch_failed(&mut self, peer: NodeId, start: LogIndex) {
        let progress = self
            .peers
            .get_mut(&peer)
            .filter(|progress| progress.fetching == Some(start));
        if let Some(progress) = progress {
            progress.fetching = None;
            self.needs_flush = true;
        }
    }
}
