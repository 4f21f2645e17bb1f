//! How the writers of one group wait, and what they are told.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::thread::futex;

use crate::error::WalError;
use crate::group::GroupError;

/// Nobody sleeps yet.
const FORMING: u32 = 0;
/// Somebody sleeps, or is about to.
const ASLEEP: u32 = 1;
/// The log is free, and one of the writers should lead the group.
const LEAD: u32 = 2;
/// The outcomes are there.
const SETTLED: u32 = 3;

/// Where the writers of one group wait for it, all of them on one word: a single system call wakes them all, none takes a
/// lock when it wakes up, and for a leader without followers there is no call at all.
///
/// ```text
/// FORMING --> ASLEEP <--> LEAD      one writer is woken to lead, and takes the word back
///    |          |          |
///    +----------+----------+-----> SETTLED    all are woken
/// ```
#[derive(Debug, Default)]
pub(super) struct Turn {
    word: AtomicU32,
    outcomes: OnceLock<Outcomes>,
}

/// What became of a group.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// For each writer the indexes of its entries, or why they were refused.
    taken: Vec<Result<Range<u64>, Arc<WalError>>>,
    /// Of everything that was taken.
    synced: Result<(), Arc<WalError>>,
}

impl Turn {
    /// Sleeps until the group is settled or this writer is called to lead it.
    pub(super) fn wait(&self) {
        loop {
            match self.word.load(Ordering::Acquire) {
                SETTLED => return,
                LEAD if self.swap(LEAD, ASLEEP) => return,
                // An error means that the word has changed or a signal came: look again.
                ASLEEP => {
                    let _ = futex::wait(&self.word, futex::Flags::PRIVATE, ASLEEP, None);
                }
                FORMING => {
                    self.swap(FORMING, ASLEEP);
                }
                _ => {}
            }
        }
    }

    /// Wakes one writer, to lead. It need not find the log free any more: then another one leads, with this group.
    pub(super) fn call_for_leader(&self) {
        let lead = |word| matches!(word, FORMING | ASLEEP).then_some(LEAD);
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, lead);
        if before == Ok(ASLEEP) {
            wake(&self.word, 1);
        }
    }

    /// Tells all writers, once.
    pub(super) fn settle(&self, outcomes: Outcomes) {
        let set = self.outcomes.set(outcomes);
        assert!(set.is_ok(), "a group was settled twice");
        if self.word.swap(SETTLED, Ordering::AcqRel) != FORMING {
            wake(&self.word, i32::MAX as u32);
        }
    }

    /// What writer number `writer` is told; `None` before the group is settled.
    pub(super) fn outcome(&self, writer: usize) -> Option<Result<Range<u64>, GroupError>> {
        self.outcomes.get().map(|outcomes| outcomes.of(writer))
    }

    fn swap(&self, from: u32, to: u32) -> bool {
        self.word
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

fn wake(word: &AtomicU32, writers_max: u32) {
    // It can fail only for an address that is none.
    let _ = futex::wake(word, futex::Flags::PRIVATE, writers_max);
}

impl Outcomes {
    pub(super) fn new(
        taken: Vec<Result<Range<u64>, Arc<WalError>>>,
        synced: Result<(), Arc<WalError>>,
    ) -> Outcomes {
        Outcomes { taken, synced }
    }

    fn of(&self, writer: usize) -> Result<Range<u64>, GroupError> {
        let indexes = self.taken[writer].clone().map_err(GroupError::Refused)?;
        let unknown = |error: &Arc<WalError>| GroupError::Unknown(Arc::clone(error));
        self.synced.as_ref().map_err(unknown)?;
        Ok(indexes)
    }
}
