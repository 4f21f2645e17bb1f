//! The search for an order.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::plan::Plan;
use crate::check::history::{Model, OpId};

/// How the search ended.
pub(super) enum End {
    /// All answered operations have a place, in this order.
    Placed(Vec<OpId>),
    /// Everything was tried.
    Stuck,
    /// The steps ran out.
    GivenUp,
}

/// How many of each kind of unknown operations took effect: kind and count, sorted, counts above 0.
pub(super) type Spent = Vec<(u32, u32)>;

/// A way in which the operations up to some return can have happened.
#[derive(Clone)]
pub(super) struct Config<S> {
    pub(super) state: S,
    /// Answered operations that have their place and have not returned, sorted.
    pub(super) done: Vec<u32>,
    pub(super) spent: Spent,
    /// The last operation that took its place.
    pub(super) last: Step,
}

/// A place in [`Trail`]; 0 is the beginning.
pub(super) type Step = u32;

/// All orders tried, as a tree: each operation points to the one before it.
struct Trail(Vec<(Step, OpId)>);

impl Trail {
    fn push(&mut self, before: Step, id: OpId) -> Step {
        self.0.push((before, id));
        self.0.len() as Step
    }

    fn order(&self, mut last: Step) -> Vec<OpId> {
        let mut order = Vec::new();
        while let Some(&(before, id)) = last.checked_sub(1).and_then(|it| self.0.get(it as usize)) {
            order.push(id);
            last = before;
        }
        order.reverse();
        order
    }
}

/// What is yet to be tried with a configuration at a return that it has no place for.
enum Todo<S> {
    /// The operation that returns takes its place next.
    Direct(Config<S>),
    /// Another operation comes before it.
    Detour(Config<S>),
}

/// State and `done` of configurations, with the antichain of `spent` that got there.
type Seen<S> = HashMap<(S, Vec<u32>), Vec<(Spent, Step)>>;

pub(super) struct Search<'a, M: Model> {
    pub(super) model: &'a M,
    pub(super) plan: &'a Plan<'a, M>,
    steps: u64,
    steps_max: u64,
    trail: Trail,
    /// For each return, what is yet to be tried.
    todo: Vec<VecDeque<Todo<M::State>>>,
    /// For each return, what has been tried or will be.
    seen: Vec<Seen<M::State>>,
    /// No return behind this one has anything to be tried.
    top: usize,
    /// The last configuration, at the end.
    placed: Option<Step>,
}

impl<'a, M: Model> Search<'a, M> {
    pub(super) fn new(model: &'a M, plan: &'a Plan<'a, M>, steps_max: u64) -> Search<'a, M> {
        let returns = plan.answered.len();
        Search {
            model,
            plan,
            steps: 0,
            // Each step adds at most one operation to the trail, whose places are 32 bits wide.
            steps_max: steps_max.min(u64::from(u32::MAX)),
            trail: Trail(Vec::new()),
            todo: (0..returns).map(|_| VecDeque::new()).collect(),
            seen: (0..returns).map(|_| Seen::new()).collect(),
            top: 0,
            placed: None,
        }
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn run(&mut self) -> End {
        self.settle(
            0,
            Config {
                state: self.model.initial(),
                done: Vec::new(),
                spent: Spent::new(),
                last: 0,
            },
        );
        while self.placed.is_none() {
            if self.steps >= self.steps_max {
                return End::GivenUp;
            }
            let at = self.top;
            match self.todo.get_mut(at).and_then(VecDeque::pop_front) {
                Some(Todo::Direct(config)) => {
                    self.place(at, &config, at as u32);
                    self.todo[at].push_back(Todo::Detour(config));
                }
                Some(Todo::Detour(config)) => self.detour(at, &config),
                None if at == 0 => return End::Stuck,
                None => self.top -= 1,
            }
        }
        End::Placed(self.trail.order(self.placed.unwrap_or_default()))
    }

    /// Gives the operation `it` its place after `config`, if it fits there.
    fn place(&mut self, at: usize, config: &Config<M::State>, it: u32) {
        let answered = &self.plan.answered[it as usize];
        let input = &answered.operation.input;
        self.steps += 1;
        let Some(state) = self.model.step(&config.state, input, Some(answered.output)) else {
            return;
        };
        let mut done = config.done.clone();
        insert(&mut done, it);
        let last = self.trail.push(config.last, answered.id);
        let spent = config.spent.clone();
        self.settle(
            at,
            Config {
                state,
                done,
                spent,
                last,
            },
        );
    }

    /// Any open operation comes before the one that returns.
    fn detour(&mut self, at: usize, config: &Config<M::State>) {
        let plan = self.plan;
        for &it in &plan.open[at] {
            if it as usize != at && config.done.binary_search(&it).is_err() {
                self.place(at, config, it);
            }
        }
        let now = plan.answered[at].returned;
        let mut left: Vec<(usize, u32)> = Vec::new();
        for (kind, alike) in (0..).zip(&plan.unknown) {
            let invoked = alike.invoked_by(now);
            if invoked == 0 {
                // Sorted by the first invocation: the rest comes later still.
                break;
            }
            let used = config.spent.iter().find(|(spent, _)| *spent == kind);
            let used = used.map_or(0, |(_, count)| *count as usize);
            left.push((invoked - used, kind));
        }
        // What there is most of is missed least later.
        left.sort_by_key(|&(left, kind)| (Reverse(left), kind));
        for (left, kind) in left {
            if left > 0 {
                self.spend(at, config, kind);
            }
        }
    }

    /// One more of the unknown operations of this kind took effect.
    fn spend(&mut self, at: usize, config: &Config<M::State>, kind: u32) {
        let alike = &self.plan.unknown[kind as usize];
        let place = config.spent.binary_search_by_key(&kind, |(kind, _)| *kind);
        let used = place.map_or(0, |place| config.spent[place].1);
        self.steps += 1;
        let Some(state) = self.model.step(&config.state, alike.input, None) else {
            return;
        };
        if state == config.state {
            return;
        }
        let mut spent = config.spent.clone();
        match place {
            Ok(place) => spent[place].1 += 1,
            Err(place) => spent.insert(place, (kind, 1)),
        }
        let last = self.trail.push(config.last, alike.members[used as usize].1);
        let done = config.done.clone();
        self.settle(
            at,
            Config {
                state,
                done,
                spent,
                last,
            },
        );
    }

    /// Takes in a configuration at a return: reads that fit take their place, returns that have theirs pass by.
    fn settle(&mut self, mut at: usize, mut config: Config<M::State>) {
        loop {
            if at == self.plan.answered.len() {
                self.placed = Some(config.last);
                return;
            }
            self.place_reads(at, &mut config);
            // What has returned is gone, so the least of the rest is the next to return.
            if config.done.first() != Some(&(at as u32)) {
                break;
            }
            config.done.remove(0);
            at += 1;
        }
        if self.is_new(at, &config) && !self.is_dead_end(at, &config) {
            self.todo[at].push_back(Todo::Direct(config));
            self.top = self.top.max(at);
        }
    }

    fn place_reads(&mut self, at: usize, config: &mut Config<M::State>) {
        let plan = self.plan;
        for &it in &plan.open[at] {
            let answered = &plan.answered[it as usize];
            if !answered.is_read || config.done.binary_search(&it).is_ok() {
                continue;
            }
            self.steps += 1;
            let input = &answered.operation.input;
            let state = self.model.step(&config.state, input, Some(answered.output));
            if state.as_ref() == Some(&config.state) {
                insert(&mut config.done, it);
                config.last = self.trail.push(config.last, answered.id);
            }
        }
    }

    /// Whether an open operation can never have its place after this.
    fn is_dead_end(&self, at: usize, config: &Config<M::State>) -> bool {
        self.plan.open[at].iter().any(|&it| {
            let answered = &self.plan.answered[it as usize];
            let input = &answered.operation.input;
            config.done.binary_search(&it).is_err()
                && self
                    .model
                    .is_out_of_reach(&config.state, input, answered.output)
        })
    }

    /// Whether nothing as good has been seen at this return.
    fn is_new(&mut self, at: usize, config: &Config<M::State>) -> bool {
        let key = (config.state.clone(), config.done.clone());
        let found = (config.spent.clone(), config.last);
        match self.seen[at].entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(vec![found]);
                true
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                // Long lists of ways would take longer than runs of the model.
                self.steps += known.len() as u64;
                if known
                    .iter()
                    .any(|(spent, _)| is_within(spent, &config.spent))
                {
                    return false;
                }
                known.retain(|(spent, _)| !is_within(&config.spent, spent));
                known.push(found);
                true
            }
        }
    }

    /// The return that no configuration got past, when all was tried.
    pub(super) fn furthest(&self) -> usize {
        let tried = self.seen.iter().rposition(|seen| !seen.is_empty());
        tried.unwrap_or_default()
    }

    /// The states that were possible at a return, and an order that led to one: with as many answered operations as can be,
    /// and no more of unknown outcome than these need.
    pub(super) fn reached(&self, at: usize) -> (Vec<M::State>, Vec<OpId>) {
        let mut states: Vec<M::State> = Vec::new();
        let mut best: Option<(usize, Vec<OpId>)> = None;
        for ((state, done), ways) in self.seen.get(at).into_iter().flatten() {
            if !states.contains(state) {
                states.push(state.clone());
            }
            for (_, last) in ways {
                let order = self.trail.order(*last);
                // Ties are broken, so that the same history always has the same explanation.
                let rank = (Reverse(done.len()), order.len(), &order);
                let is_better = best
                    .as_ref()
                    .is_none_or(|(placed, best)| rank < (Reverse(*placed), best.len(), best));
                if is_better {
                    best = Some((done.len(), order));
                }
            }
        }
        (states, best.map(|(_, order)| order).unwrap_or_default())
    }
}

fn insert(sorted: &mut Vec<u32>, it: u32) {
    if let Err(place) = sorted.binary_search(&it) {
        sorted.insert(place, it);
    }
}

/// Whether `less` spends no more of any kind than `more`.
fn is_within(less: &Spent, more: &Spent) -> bool {
    less.iter().all(|(kind, count)| {
        let found = more.binary_search_by_key(kind, |(kind, _)| *kind);
        found.is_ok_and(|place| more[place].1 >= *count)
    })
}
