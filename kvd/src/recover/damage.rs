//! What a log with damaged entries still says.
//!
//! Damaged entries above the snapshot that the node starts from come back from its peers, see `docs/design/004`. Those at or
//! below it need nobody: the snapshot holds what they led to, and the log is purged up to there.

use raft_core::{Configuration, EntryId, EntryKind, LogIndex, NodeId, Term};
use raft_log::{Corruption, FaultyEntry, Fs, Wal, WalError};

use super::RecoverError;

/// What the log holds at the last entry of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// That entry: all up to it is the same here and there.
    Held,
    /// Another entry, or nothing.
    NotHeld,
    /// An entry of which too little can be read to tell, not known to be committed.
    ///
    /// Neither the log nor the snapshot may give way then. n1 has acknowledged 7 and 8@4, lost the header of 7, and received a
    /// snapshot that ends with 7@3. If its own 7 is that one, 8@4 must stay; if not, a log with 7@3 in front of 8@4 is one that
    /// no leader ever had.
    Undecided,
}

/// Whether the log holds the entry, damaged or not, by the terms of its neighbours: they never fall within a log.
///
/// An own entry of unknown term in front of 9@4 is the 7@4 of another log: the leader of term 4 made both.
pub(super) fn fit<F: Fs>(wal: &Wal<F>, commit: u64, id: EntryId) -> Fit {
    let (index, term) = (id.index.0, id.term.0);
    match wal.term(index) {
        Some(stored) if stored == term => return Fit::Held,
        Some(_) => return Fit::NotHeld,
        None if !is_stored(wal, index) => return Fit::NotHeld,
        None => {}
    }
    let (least, most) = (
        known_term(wal, (0..index).rev()),
        known_term(wal, index + 1..=wal.last_index()),
    );
    // A snapshot holds committed state, and so does the log up to its commit index.
    if term == most || index <= commit && (least..most).contains(&term) {
        Fit::Held
    } else if (least..most).contains(&term) {
        Fit::Undecided
    } else {
        Fit::NotHeld
    }
}

fn is_stored<F: Fs>(wal: &Wal<F>, index: u64) -> bool {
    (wal.first_index()..=wal.last_index()).contains(&index)
}

/// The first known term of these entries. There is one on either side: the log knows those of the entry before its first one,
/// and of its last one.
fn known_term<F: Fs>(wal: &Wal<F>, mut indexes: impl Iterator<Item = u64>) -> u64 {
    indexes
        .find_map(|index| wal.term(index))
        .expect("the terms at both ends of a log are known")
}

/// The entry of the log at `index`, or the next one whose term is known.
pub(super) fn stored_from<F: Fs>(wal: &Wal<F>, index: LogIndex) -> EntryId {
    let known = |index| {
        let term = Term(wal.term(index)?);
        let index = LogIndex(index);
        Some(EntryId { index, term })
    };
    (index.0..=wal.last_index())
        .find_map(known)
        .expect("the term of a log's last entry is known")
}

/// Drops the log up to the snapshot if it is damaged there, so that nobody needs a peer for what the snapshot covers. The
/// snapshot was just loaded, so it is verified and durable.
///
/// Returns how many damaged entries it covers.
pub(super) fn purge_covered<F: Fs>(
    wal: &mut Wal<F>,
    faulty: &[FaultyEntry],
    snapshot: EntryId,
) -> Result<usize, WalError> {
    let covered = faulty.partition_point(|faulty| faulty.index <= snapshot.index.0);
    if covered > 0 {
        wal.purge_prefix(snapshot.index.0, snapshot.term.0)?;
    }
    Ok(covered)
}

/// A damaged entry above the snapshot, for the core, and where the damage is.
#[derive(Clone, Debug)]
pub(super) struct Damaged {
    pub(super) entry: raft_core::FaultyEntry,
    pub(super) corruption: Corruption,
}

impl Damaged {
    /// `known` is what was found out about damage when the log was opened; full segments are read for the first time now.
    pub(super) fn new<F: Fs>(
        wal: &Wal<F>,
        known: &[FaultyEntry],
        index: LogIndex,
        corruption: Corruption,
    ) -> Result<Damaged, RecoverError> {
        let kind = known
            .iter()
            .find(|faulty| faulty.index == index.0)
            .and_then(|faulty| faulty.kind);
        let entry = raft_core::FaultyEntry {
            index,
            term: wal.term(index.0).map(Term),
            kind: kind.map(EntryKind::try_from).transpose()?,
        };
        Ok(Damaged { entry, corruption })
    }
}

/// Whether any of these configurations has a member that could have a copy of what `node` lost.
pub(super) fn has_peers<'a>(
    mut configurations: impl Iterator<Item = &'a Configuration>,
    node: u64,
) -> bool {
    configurations.any(|it| it.members().iter().any(|member| *member != NodeId(node)))
}
