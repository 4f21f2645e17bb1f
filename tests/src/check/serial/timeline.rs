//! Operations in the order that their answers claim.

use std::collections::BTreeMap;

use super::explain::Fault;
use super::{NumberedStore, Place};
use crate::check::history::{History, OpId, Operation, Time};

/// What the answers claim of one revision.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Who made it.
    pub(super) change: Option<OpId>,
    /// Who read at it, or changed nothing.
    pub(super) reads: Vec<OpId>,
}

pub(super) struct Timeline {
    /// By revision; those without any claim are not in it.
    pub(super) claims: BTreeMap<u64, Claims>,
    /// In the order of invocation.
    pub(super) unknown: Vec<OpId>,
}

/// The place of an answer among all: at one revision the change comes first.
type Rank = (u64, bool);

impl Timeline {
    pub(super) fn new<S: NumberedStore>(
        store: &S,
        history: &History<S::Input, S::Output>,
    ) -> Result<Timeline, Fault> {
        let mut claims: BTreeMap<u64, Claims> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (index, operation) in history.operations().iter().enumerate() {
            let id = OpId(index);
            let Some(output) = operation.output() else {
                if operation.is_possible() {
                    unknown.push(id);
                }
                continue;
            };
            let Place { revision, changed } = store.place(output);
            let claims = claims.entry(revision).or_default();
            if !changed {
                claims.reads.push(id);
            } else if let Some(first) = claims.change.replace(id) {
                let second = id;
                return Err(Fault::SameRevision {
                    revision,
                    first,
                    second,
                });
            }
        }
        unknown.sort_by_key(|id| history.operations()[id.0].invoked);
        Ok(Timeline { claims, unknown })
    }

    /// The highest revision that any answer shows.
    pub(super) fn last_revision(&self) -> u64 {
        self.claims.keys().next_back().copied().unwrap_or_default()
    }

    /// Operations from the last place to the first, each with its rank.
    fn backwards(&self) -> impl Iterator<Item = (Rank, OpId)> {
        self.claims.iter().rev().flat_map(|(&revision, claims)| {
            let reads = claims.reads.iter().map(move |&id| ((revision, true), id));
            reads.chain(claims.change.map(|id| ((revision, false), id)))
        })
    }

    /// An operation that was invoked after another one had returned, but has a lower place.
    pub(super) fn find_out_of_order<I, O>(&self, history: &History<I, O>) -> Option<Fault> {
        let operation = |id: OpId| &history.operations()[id.0];
        // The first to return of all that have a higher place, and of those of this place.
        let mut behind: Option<OpId> = None;
        let mut here: Option<(Rank, OpId)> = None;
        for (rank, id) in self.backwards() {
            if let Some((_, first)) = here.take_if(|(known, _)| *known != rank) {
                behind = Some(earlier(history, behind, first));
            }
            if let Some(returned) = behind
                && operation(returned).is_before(operation(id))
            {
                return Some(Fault::OutOfOrder {
                    returned,
                    invoked_later: id,
                });
            }
            here = Some((rank, earlier(history, here.map(|(_, first)| first), id)));
        }
        None
    }

    /// For each revision with claims: when the first of the operations returned that have their place there or later.
    pub(super) fn first_returns<I, O>(&self, history: &History<I, O>) -> BTreeMap<u64, Time> {
        let mut first_returns = BTreeMap::new();
        let mut first = Time::MAX;
        for ((revision, _), id) in self.backwards() {
            first = first.min(return_of(&history.operations()[id.0]));
            first_returns.insert(revision, first);
        }
        first_returns
    }
}

fn return_of<I, O>(operation: &Operation<I, O>) -> Time {
    operation.returned().unwrap_or(Time::MAX)
}

/// The one of the two that returned first.
fn earlier<I, O>(history: &History<I, O>, one: Option<OpId>, other: OpId) -> OpId {
    let returned = |id: OpId| return_of(&history.operations()[id.0]);
    match one {
        Some(one) if returned(one) <= returned(other) => one,
        Some(_) | None => other,
    }
}
