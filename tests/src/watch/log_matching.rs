//! Log matching (thesis 3.5).

use std::collections::BTreeMap;

use raft_core::{EntryId, EntryKind, LogIndex, NodeId, Term};

use super::{Logs, Seen, Watcher};

/// What is known of an entry: kind, payload checksum, and the term of the entry before it.
type Facts = (EntryKind, u32, Term);

/// Remembers each entry that any node ever had. Since the one before it is part of what must agree, logs that agree in one
/// entry agree in all before it.
#[derive(Clone, Debug, Default)]
pub struct LogMatching(BTreeMap<(LogIndex, Term), Facts>);

impl Watcher for LogMatching {
    const RULE: &'static str = "log matching";

    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String> {
        let entries = match seen {
            Seen::Given(persist) => &persist.entries,
            Seen::Started { entries, .. } => *entries,
            Seen::Durable(_)
            | Seen::Sends(_)
            | Seen::Told(_)
            | Seen::Turned(_)
            | Seen::LogBytes(..) => return Ok(()),
        };
        let log = logs.given(node);
        for entry in entries {
            let id = EntryId {
                index: entry.index,
                term: entry.term,
            };
            let before = id.index.0.checked_sub(1).map(LogIndex);
            let before = before.and_then(|index| log.term(index)).unwrap_or_default();
            let facts = (entry.kind, entry.checksum, before);
            let known = *self.0.entry((id.index, id.term)).or_insert(facts);
            if known != facts {
                return Err(format!("{id} is {facts:?}, elsewhere {known:?}"));
            }
        }
        Ok(())
    }
}
