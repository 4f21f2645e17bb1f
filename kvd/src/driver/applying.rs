//! Committed entries on their way into the store, so much at a time that the node goes on answering its peers.
//!
//! The core hands out a bounded number of bytes that are not applied yet. A turn that has applied its share keeps that to itself
//! until the next event or turn: then there is no more for it, however much is committed.

use raft_core::{Entry, EntryKind, LogIndex};

use super::{Driver, Effect};
use crate::kv::store::Applied;

/// Bytes of committed entries after which a turn applies no more. The rest follows in later turns, see [`Driver::has_more`]: a
/// node that starts with a long tail of log, or was away, answers its peers meanwhile. About 4 ms of work.
pub const TURN_APPLY_BYTES: u64 = 512 << 10;

/// What this turn has applied.
#[derive(Debug, Default)]
pub(super) struct Applying {
    turn_bytes: u64,
    /// Applied, and not told to the core yet.
    untold: Option<LogIndex>,
}

impl Applying {
    pub(super) fn begin_turn(&mut self) {
        self.turn_bytes = 0;
    }
}

impl Driver {
    /// Whether there is work left over that no event will bring: call [`Driver::turn`] again soon.
    pub fn has_more(&self) -> bool {
        self.applying.untold.is_some()
    }

    /// Tells the core what the turn before has applied, so that it hands out more.
    pub(super) fn tell_applied(&mut self) {
        if let Some(index) = self.applying.untold.take() {
            self.node.on_applied(index);
        }
    }

    /// Applies entries, or keeps them for as long as there is no state that they could be applied to.
    pub(super) fn apply(&mut self, entries: Vec<Entry>) {
        let mut entries = entries.into_iter();
        while !self.is_frozen()
            && let Some(entry) = entries.next()
        {
            let index = entry.index;
            self.applying.turn_bytes += entry.payload.len() as u64;
            // The state may have been rebuilt from a snapshot that goes further than the core had come.
            if index > LogIndex(self.store.applied_index()) && !self.apply_one(entry) {
                return;
            }
            self.applying.untold = Some(index);
        }
        if self.applying.turn_bytes < TURN_APPLY_BYTES {
            self.tell_applied();
        }
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.pending.extend(entries);
        }
    }

    fn is_frozen(&self) -> bool {
        self.suspicion.as_ref().is_some_and(|it| it.is_frozen())
    }

    /// Whether the next entry may be applied as well.
    fn apply_one(&mut self, entry: Entry) -> bool {
        self.snapshots.count(&entry);
        match entry.kind {
            EntryKind::Command => {
                let agreed = self.store.agreed();
                let applied = self.store.apply(entry.index.0, &entry.payload);
                if let Applied::Refused(refusal) = &applied
                    && refusal.must_stop()
                {
                    self.halted = true;
                    self.effects.push(Effect::Halt {
                        index: entry.index,
                        refusal: refusal.clone(),
                    });
                    return false;
                }
                self.note_member_edit(entry.index, entry.term, &applied);
                self.answer_write(entry.index, entry.term, applied);
                let news = self.store.agreed().filter(|news| Some(*news) != agreed);
                if let Some(news) = news {
                    self.compare(news);
                }
            }
            EntryKind::Noop | EntryKind::Configuration => {
                self.store.skip(entry.index.0);
                self.reroute_displaced(entry.index);
            }
        }
        self.note_position(entry.index.0);
        true
    }
}
