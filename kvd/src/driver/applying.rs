//! Committed entries on their way into the store.

use raft_core::{Entry, EntryKind, LogIndex};

use super::{Driver, Effect};
use crate::kv::store::Applied;

impl Driver {
    /// Applies entries, or keeps them for as long as there is no state that they could be applied to.
    pub(super) fn apply(&mut self, entries: Vec<Entry>) {
        let mut entries = entries.into_iter();
        let mut last = None;
        while !self.is_frozen()
            && let Some(entry) = entries.next()
        {
            let index = entry.index;
            // The state may have been rebuilt from a snapshot that goes further than the core had come.
            if index > LogIndex(self.store.applied_index()) && !self.apply_one(entry) {
                return;
            }
            last = Some(index);
        }
        if let Some(last) = last {
            self.node.on_applied(last);
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
