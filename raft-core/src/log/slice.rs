//! A piece of another node's log, checked before anything acts on it.

use crate::{
    Append, Configuration, Entry, EntryId, EntryKind, LogIndex, MalformedAppend, RepairAsk,
    SnapshotMeta, Term,
};

/// Whether `append` could be a piece of the log of a leader of `term`.
///
/// The follower's log code relies on all of this and only asserts it: consecutive indexes, terms
/// that never fall and do not exceed the leader's, payloads that fit their kinds, configurations
/// that can be decoded.
pub(crate) fn check_append(term: Term, append: &Append) -> Result<(), MalformedAppend> {
    let count = append.entries.len() as u64;
    if append.prev.index > LogIndex::MAX || append.prev.index.0 + count > LogIndex::MAX.0 {
        return Err(MalformedAppend::IndexOutOfRange(append.prev));
    }
    if (append.prev.index.0 == 0) != (append.prev.term.0 == 0) {
        return Err(MalformedAppend::ImpossibleId(append.prev));
    }
    if append.prev.term > term {
        return Err(MalformedAppend::TermOrder(append.prev));
    }
    let mut last = append.prev;
    for entry in &append.entries {
        check_follows(last, entry, term)?;
        check_payload(entry)?;
        last = entry.id();
    }
    Ok(())
}

/// Whether `ask` could be a question about a log.
pub(crate) fn repair_ask_is_sound(ask: &RepairAsk) -> bool {
    ask.first > LogIndex(0)
        && ask.first <= ask.last
        && ask.first <= ask.anchor.index
        && ask.last <= LogIndex::MAX
        && ask.anchor.index <= LogIndex::MAX
        && ask.anchor.term > Term(0)
        && ask.anchor.term <= Term::MAX
}

/// Whether `entries` could be those asked for, or some of them.
pub(crate) fn check_repair(ask: &RepairAsk, entries: &[Entry]) -> Result<(), MalformedAppend> {
    let Some(first) = entries.first().map(Entry::id) else {
        return Ok(());
    };
    if first.index < ask.first || ask.last.next().distance_from(first.index) < entries.len() as u64
    {
        return Err(MalformedAppend::IndexOutOfRange(first));
    }
    let index = first.index.prev();
    let mut last = EntryId {
        index,
        term: Term(0),
    };
    for entry in entries {
        check_follows(last, entry, Term::MAX)?;
        check_payload(entry)?;
        last = entry.id();
    }
    Ok(())
}

fn check_follows(last: EntryId, entry: &Entry, term: Term) -> Result<(), MalformedAppend> {
    let found = entry.id();
    if found.index != last.index.next() {
        return Err(MalformedAppend::Gap {
            expected: last.index.next(),
            found,
        });
    }
    if found.term.0 == 0 {
        return Err(MalformedAppend::ImpossibleId(found));
    }
    if found.term < last.term || found.term > term {
        return Err(MalformedAppend::TermOrder(found));
    }
    Ok(())
}

fn check_payload(entry: &Entry) -> Result<(), MalformedAppend> {
    let id = entry.id();
    if entry.payload.is_empty() && entry.checksum != 0 {
        return Err(MalformedAppend::Payload(id));
    }
    match entry.kind {
        EntryKind::Command => Ok(()),
        EntryKind::Noop if entry.payload.is_empty() => Ok(()),
        EntryKind::Noop => Err(MalformedAppend::Payload(id)),
        EntryKind::Configuration => match Configuration::decode(&entry.payload) {
            Ok(_) => Ok(()),
            Err(error) => Err(MalformedAppend::Configuration { id, error }),
        },
    }
}

/// Whether `meta` could name a snapshot of a leader of `term`.
pub(crate) fn snapshot_is_sound(term: Term, meta: &SnapshotMeta) -> bool {
    meta.id.index.0 > 0
        && meta.id.index <= LogIndex::MAX
        && meta.id.term.0 > 0
        && meta.id.term <= term
        && meta.configuration_index <= meta.id.index
        && meta.configuration.check().is_ok()
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use bytes::Bytes;

    use super::*;
    use crate::{ConfigurationError, NodeId};

    fn entry(index: u64, term: u64, kind: EntryKind, payload: &[u8]) -> Entry {
        let payload = Bytes::copy_from_slice(payload);
        let checksum = u32::from(!payload.is_empty());
        Entry {
            index: LogIndex(index),
            term: Term(term),
            kind,
            payload,
            checksum,
        }
    }

    fn id(index: u64, term: u64) -> EntryId {
        EntryId {
            index: LogIndex(index),
            term: Term(term),
        }
    }

    fn check(prev: EntryId, entries: &[Entry]) -> Result<(), MalformedAppend> {
        check_append(
            Term(5),
            &Append {
                prev,
                entries: entries.to_vec(),
                commit: LogIndex(0),
            },
        )
    }

    #[test]
    fn sound_appends_pass() {
        assert_eq!(check(id(0, 0), &[]), Ok(()));
        let configuration = Configuration::new([NodeId(1)]).encode();
        let entries = [
            entry(4, 3, EntryKind::Noop, b""),
            entry(5, 3, EntryKind::Command, b"x"),
            entry(6, 5, EntryKind::Command, b""),
            entry(7, 5, EntryKind::Configuration, &configuration),
        ];
        assert_eq!(check(id(3, 2), &entries), Ok(()));
    }

    #[test]
    fn contradictory_appends_are_refused_by_kind() {
        use MalformedAppend as M;
        let command = |index, term| entry(index, term, EntryKind::Command, b"x");
        let gap = M::Gap {
            expected: LogIndex(4),
            found: id(5, 3),
        };
        assert_eq!(check(id(3, 2), &[command(5, 3)]), Err(gap));
        assert_eq!(
            check(id(3, 2), &[command(4, 1)]),
            Err(M::TermOrder(id(4, 1)))
        );
        assert_eq!(
            check(id(3, 2), &[command(4, 6)]),
            Err(M::TermOrder(id(4, 6)))
        );
        assert_eq!(check(id(3, 6), &[]), Err(M::TermOrder(id(3, 6))));
        assert_eq!(check(id(3, 0), &[]), Err(M::ImpossibleId(id(3, 0))));
        assert_eq!(check(id(0, 1), &[]), Err(M::ImpossibleId(id(0, 1))));
        assert_eq!(
            check(id(0, 0), &[command(1, 0)]),
            Err(M::ImpossibleId(id(1, 0)))
        );
        let far = id(u64::MAX, 2);
        assert_eq!(check(far, &[command(1, 2)]), Err(M::IndexOutOfRange(far)));
        let full_noop = entry(4, 3, EntryKind::Noop, b"x");
        assert_eq!(check(id(3, 2), &[full_noop]), Err(M::Payload(id(4, 3))));
        let odd = Entry {
            checksum: 7,
            ..entry(4, 3, EntryKind::Command, b"")
        };
        assert_eq!(check(id(3, 2), &[odd]), Err(M::Payload(id(4, 3))));
        let garbage = entry(4, 3, EntryKind::Configuration, b"\x01garbage");
        let refused = check(id(3, 2), &[garbage]);
        let error = ConfigurationError::WrongLength;
        assert_eq!(
            refused,
            Err(M::Configuration {
                id: id(4, 3),
                error
            })
        );
    }

    #[test]
    fn impossible_snapshots_are_refused() {
        let configuration = Configuration::new([NodeId(1)]);
        let sound = SnapshotMeta {
            id: id(4, 3),
            configuration,
            configuration_index: LogIndex(2),
        };
        assert!(snapshot_is_sound(Term(3), &sound));
        assert!(!snapshot_is_sound(Term(2), &sound));
        let faults: Vec<SnapshotMeta> = Vec::from([
            SnapshotMeta {
                id: id(0, 0),
                ..sound.clone()
            },
            SnapshotMeta {
                id: id(u64::MAX, 3),
                ..sound.clone()
            },
            SnapshotMeta {
                configuration_index: LogIndex(5),
                ..sound.clone()
            },
            SnapshotMeta {
                configuration: Configuration::default(),
                ..sound
            },
        ]);
        assert!(faults.iter().all(|meta| !snapshot_is_sound(Term(3), meta)));
    }
}
