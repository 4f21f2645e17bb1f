//! What a node does not start on.

use crate::{ConfigError, EntryId, InitialState, LogIndex, Storage};

/// Refuses a storage that contradicts itself: acting on it could break what was promised in an
/// earlier life.
pub(super) fn check_initial<S: Storage>(
    initial: &InitialState,
    storage: &S,
) -> Result<(), ConfigError> {
    let (first, last) = (storage.first_index(), storage.last_index());
    let (applied, commit) = (initial.applied, initial.commit);
    if !(first.prev() <= applied && applied <= commit && commit <= last) {
        return Err(ConfigError::Positions {
            first,
            applied,
            commit,
            last,
        });
    }
    check_faulty(initial, last)?;
    let faulty_end = initial.faulty.last().filter(|faulty| faulty.index == last);
    let last_term = match faulty_end.and_then(|faulty| faulty.term) {
        Some(term) => term,
        None => storage.term(last).map_err(|_| ConfigError::Positions {
            first,
            applied,
            commit,
            last,
        })?,
    };
    if last_term > initial.hard_state.term {
        let last = EntryId {
            index: last,
            term: last_term,
        };
        return Err(ConfigError::LogAheadOfTerm {
            last,
            term: initial.hard_state.term,
        });
    }
    let base = (initial.configuration_index, &initial.configuration);
    let stored = initial
        .configurations
        .iter()
        .filter(|(index, _)| *index > base.0);
    let stored = stored.map(|(index, configuration)| (*index, configuration));
    let mut before = None;
    for (index, configuration) in core::iter::once(base).chain(stored) {
        if index > last || before.is_some_and(|before| index <= before) {
            return Err(ConfigError::ConfigurationOrder { index });
        }
        configuration
            .check()
            .map_err(|error| ConfigError::Configuration { index, error })?;
        before = Some(index);
    }
    Ok(())
}

fn check_faulty(initial: &InitialState, last: LogIndex) -> Result<(), ConfigError> {
    let mut before = initial.applied;
    for faulty in &initial.faulty {
        let index = faulty.index;
        if index <= before || index > last {
            return Err(ConfigError::FaultyOrder { index });
        }
        if index == last && faulty.term.is_none() {
            return Err(ConfigError::UnknownEnd { index });
        }
        before = index;
    }
    Ok(())
}
