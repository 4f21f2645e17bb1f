//! Running the operations again in the order that they claim.

use std::collections::{BTreeMap, HashSet};

use super::NumberedStore;
use super::explain::Fault;
use super::timeline::Timeline;
use crate::check::history::{History, OpId, Time};

/// How the replay ended.
pub(super) enum End {
    /// All answers came out the same.
    Explained,
    /// However the gaps are filled, an answer is wrong; this one came last. With the changes before it.
    Fault(Fault, Vec<OpId>),
    /// The runs ran out.
    GivenUp,
}

/// Where a stretch without gaps ended.
enum Stretch {
    End,
    /// Nobody claims to have made this revision.
    Gap(u64),
    Fault(Fault),
}

/// A gap, and who is yet to be tried for it.
struct Frame<S> {
    revision: u64,
    /// Before that revision.
    state: S,
    candidates: Vec<OpId>,
}

/// A gap reached with these operations used up, sorted, and this state.
type Reached<S> = (u64, Vec<OpId>, S);

pub(super) struct Replay<'a, S: NumberedStore> {
    store: &'a S,
    history: &'a History<S::Input, S::Output>,
    timeline: &'a Timeline,
    /// For each revision with claims: the first return of those that have their place there or later.
    first_returns: BTreeMap<u64, Time>,
    runs: u64,
    runs_max: u64,
    /// How the gaps below are filled at the moment.
    filled: Vec<(u64, OpId)>,
    reached: HashSet<Reached<S::State>>,
    /// The fault that came last, its revision and the changes before it.
    furthest: Option<(u64, Fault, Vec<OpId>)>,
}

impl<'a, S: NumberedStore> Replay<'a, S> {
    pub(super) fn new(
        store: &'a S,
        history: &'a History<S::Input, S::Output>,
        timeline: &'a Timeline,
        runs_max: u64,
    ) -> Replay<'a, S> {
        Replay {
            store,
            history,
            timeline,
            first_returns: timeline.first_returns(history),
            runs: 0,
            runs_max: runs_max.saturating_add(history.operations().len() as u64),
            filled: Vec::new(),
            reached: HashSet::new(),
            furthest: None,
        }
    }

    pub(super) fn runs(&self) -> u64 {
        self.runs
    }

    pub(super) fn filled(&self) -> Vec<(u64, OpId)> {
        self.filled.clone()
    }

    pub(super) fn run(&mut self) -> End {
        let mut frames = Vec::new();
        let mut state = self.store.initial();
        let base = self.store.revision(&state);
        let stretch = match self.check_beginning(base, &mut state) {
            Some(fault) => Stretch::Fault(fault),
            None => self.stretch(base + 1, &mut state),
        };
        if self.take(stretch, base, state, &mut frames) {
            return End::Explained;
        }
        while let Some(frame) = frames.last_mut() {
            if self.runs >= self.runs_max {
                return End::GivenUp;
            }
            let revision = frame.revision;
            self.filled.retain(|(filled, _)| *filled < revision);
            let Some(candidate) = frame.candidates.pop() else {
                frames.pop();
                continue;
            };
            let mut state = frame.state.clone();
            self.runs += 1;
            let input = &self.history.operations()[candidate.0].input;
            self.store.run(&mut state, input);
            if self.store.revision(&state) != revision {
                continue;
            }
            self.filled.push((revision, candidate));
            let stretch = match self.check_reads(revision, &mut state) {
                Some(fault) => Stretch::Fault(fault),
                None => self.stretch(revision + 1, &mut state),
            };
            if self.take(stretch, revision, state, &mut frames) {
                return End::Explained;
            }
        }
        let (_, fault, before) = self.furthest.take().expect("nothing else ends the loop");
        End::Fault(fault, before)
    }

    /// Takes note of the end of a stretch that began behind `from`. Whether all is explained.
    fn take(
        &mut self,
        stretch: Stretch,
        from: u64,
        state: S::State,
        frames: &mut Vec<Frame<S::State>>,
    ) -> bool {
        match stretch {
            Stretch::End => return true,
            Stretch::Fault(fault) => self.note(fault, from),
            Stretch::Gap(revision) => {
                let candidates = self.candidates(revision);
                // Noted here already: if no candidate changes anything, nothing else tells of this gap.
                let tried = candidates.clone();
                self.note(Fault::Unclaimed { revision, tried }, from);
                let mut used: Vec<OpId> = self.filled.iter().map(|(_, id)| *id).collect();
                used.sort();
                if self.reached.insert((revision, used, state.clone())) {
                    frames.push(Frame {
                        revision,
                        state,
                        candidates,
                    });
                }
            }
        }
        false
    }

    fn note(&mut self, fault: Fault, from: u64) {
        let revision = fault.revision().max(from);
        if self
            .furthest
            .as_ref()
            .is_none_or(|(known, ..)| *known < revision)
        {
            let mut before = self.changes_until(revision);
            before.retain(|id| !fault.is_about(*id));
            self.furthest = Some((revision, fault, before));
        }
    }

    /// Who made the revisions up to this one, as far as it is known.
    fn changes_until(&self, revision: u64) -> Vec<OpId> {
        let claimed = self.timeline.claims.range(..=revision);
        let claimed = claimed.filter_map(|(&revision, claims)| Some((revision, claims.change?)));
        let mut changes: BTreeMap<u64, OpId> = claimed.collect();
        changes.extend(
            self.filled
                .iter()
                .copied()
                .filter(|(filled, _)| *filled <= revision),
        );
        changes.into_values().collect()
    }

    /// Replays from a revision to the next gap.
    fn stretch(&mut self, from: u64, state: &mut S::State) -> Stretch {
        for revision in from..=self.timeline.last_revision() {
            let change = self.timeline.claims.get(&revision);
            let Some(change) = change.and_then(|claims| claims.change) else {
                return Stretch::Gap(revision);
            };
            let fault = self.run_checked(revision, change, state);
            if let Some(fault) = fault.or_else(|| self.check_reads(revision, state)) {
                return Stretch::Fault(fault);
            }
        }
        Stretch::End
    }

    /// What was read before the first change. No operation has made a revision that early.
    fn check_beginning(&mut self, base: u64, state: &mut S::State) -> Option<Fault> {
        let timeline = self.timeline;
        timeline
            .claims
            .range(..=base)
            .find_map(|(&revision, claims)| {
                let change = claims.change;
                let change = change.and_then(|id| self.run_checked(revision, id, state));
                change.or_else(|| self.check_reads(revision, state))
            })
    }

    /// What was read at this revision, or changed nothing there.
    fn check_reads(&mut self, revision: u64, state: &mut S::State) -> Option<Fault> {
        let timeline = self.timeline;
        let mut reads = timeline.claims.get(&revision)?.reads.iter().copied();
        // One that changes something raises the revision, and that is a fault.
        reads.find_map(|id| self.run_checked(revision, id, state))
    }

    fn run_checked(&mut self, revision: u64, id: OpId, state: &mut S::State) -> Option<Fault> {
        let operation = self.history.operation(id)?;
        self.runs += 1;
        let expected = self.store.run(state, &operation.input);
        let seen = operation.output()?;
        let agrees = self.store.agrees(&expected, seen);
        if agrees && self.store.revision(state) == revision {
            return None;
        }
        Some(Fault::WrongAnswer {
            revision,
            id,
            expected: self.store.describe_output(&expected),
        })
    }

    /// Operations of unknown outcome that can have made a revision, as far as times tell. The likeliest one comes last: it
    /// was asked for shortly before. Of several that ask the same one is enough: if one suits here and another later, they
    /// could as well change places.
    fn candidates(&self, revision: u64) -> Vec<OpId> {
        // Whoever made the revision was invoked before anybody could see it.
        let deadline = self.first_returns.range(revision..).next();
        let deadline = deadline.map_or(Time::MAX, |(_, first)| *first);
        let operation = |id: OpId| &self.history.operations()[id.0];
        let mut inputs = HashSet::new();
        let mut candidates = self.timeline.unknown.clone();
        candidates.retain(|id| {
            let is_used = self.filled.iter().any(|(_, used)| used == id);
            !is_used && operation(*id).invoked <= deadline && inputs.insert(&operation(*id).input)
        });
        candidates
    }
}
