//! Linearizability: is there an order of the operations, each at one moment between its invocation and its return, in which
//! a store that runs one at a time answers what the clients saw?
//!
//! ```text
//! c1  |--- put x 1 -> ok ---|
//! c2        |- get x -> 1 -|   |- get x -> none -|        not linearizable: 1 was seen, then no more
//! ```
//!
//! The method is that of Wing and Gong, with the just-in-time order and the memory of Lowe ("Testing for linearizability",
//! 2017), and per key (Horn and Kroening, "Faster linearizability checking via P-compositionality", 2015). In short:
//!
//! - Returns are taken in the order of time. An operation is given its place when it returns, or earlier if another one that
//!   returns needs it before itself. So a configuration is a state and the few operations that have their place and have
//!   not returned; what has returned has its place in all of them.
//! - No two equal configurations are tried at the same return. One that has used up more operations of unknown outcome to get
//!   to the same state is not tried either: nobody requires those operations, so whatever follows is possible without them too.
//! - Operations of unknown outcome that ask the same are alike; the one invoked first is used first.
//! - A read takes its place as soon as the state fits: moved forward, it disturbs nobody.
//! - A configuration after which an open answer can never come about, [`Model::is_out_of_reach`], is not gone on
//!   with.
//! - The search is eager: it goes on from the configuration that got furthest, and comes back to the others only when stuck.
//!
//! The answer is exact, unless the search takes more steps than allowed; then it is [`Verdict::Undecided`].

mod explain;
mod plan;
mod search;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use super::history::{History, Model, OpId};

pub use self::explain::{Undecided, Violation};
use self::plan::Plan;
use self::search::{End, Search};

/// Steps that the search in one part of a history may take: runs of the model, and comparisons of ways to one state. Some
/// seconds at most.
pub const STEPS_MAX_DEFAULT: u64 = 10_000_000;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// There is such an order.
    Linearizable(Witness),
    /// There is none.
    Violation(Box<Violation>),
    /// Nobody knows: the search was given up.
    Undecided(Undecided),
}

/// The proof that a history is linearizable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// For each part of the history, in the order of first appearance: an order that explains all answers. Operations of
    /// unknown outcome that need not have taken effect are left out.
    pub orders: Vec<Vec<OpId>>,
    /// Steps of the search, in all parts together.
    pub steps: u64,
}

impl Verdict {
    /// Whether the history is linearizable; not so if nobody knows.
    pub fn is_linearizable(&self) -> bool {
        match self {
            Verdict::Linearizable(_) => true,
            Verdict::Violation(_) | Verdict::Undecided(_) => false,
        }
    }

    /// The proof.
    ///
    /// # Panics
    /// With the explanation, if the history is not linearizable or nobody knows.
    pub fn expect_linearizable(self) -> Witness {
        match self {
            Verdict::Linearizable(witness) => witness,
            Verdict::Violation(violation) => panic!("{violation}"),
            Verdict::Undecided(undecided) => panic!("{undecided}"),
        }
    }
}

/// Checks a whole history against one state.
///
/// `steps_max` bounds the search, see [`STEPS_MAX_DEFAULT`].
pub fn check<M: Model>(
    model: &M,
    history: &History<M::Input, M::Output>,
    steps_max: u64,
) -> Verdict {
    check_parts(model, history, steps_max, |_| Whole)
}

/// The name of the only part.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Whole;

impl Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all")
    }
}

/// Checks each part of a history by itself, against a state of its own. Much faster, and the same, if no operation touches
/// two parts: `part` is then the key of the operation.
///
/// `steps_max` bounds the search in each part. A violation in one part counts even if another part was given up.
pub fn check_parts<M: Model, K: Clone + Eq + Hash + Debug>(
    model: &M,
    history: &History<M::Input, M::Output>,
    steps_max: u64,
    part: impl Fn(&M::Input) -> K,
) -> Verdict {
    let mut orders = Vec::new();
    let mut steps = 0;
    let mut undecided = None;
    for (name, ids) in split(history, part) {
        let plan = Plan::new(model, history, &ids);
        let mut search = Search::new(model, &plan, steps_max);
        match search.run() {
            End::Placed(order) => orders.push(order),
            End::Stuck => {
                let violation = Violation::new(&search, format!("{name:?}"));
                return Verdict::Violation(Box::new(violation));
            }
            End::GivenUp => undecided = Some(Undecided::new(&search, format!("{name:?}"))),
        }
        steps += search.steps();
    }
    match undecided {
        Some(undecided) => Verdict::Undecided(undecided),
        None => Verdict::Linearizable(Witness { orders, steps }),
    }
}

/// The operations of each part that may have taken effect, parts in the order of their first appearance.
fn split<I, O, K: Clone + Eq + Hash>(
    history: &History<I, O>,
    part: impl Fn(&I) -> K,
) -> Vec<(K, Vec<OpId>)> {
    let mut parts: Vec<(K, Vec<OpId>)> = Vec::new();
    let mut places: HashMap<K, usize> = HashMap::new();
    for (index, operation) in history.operations().iter().enumerate() {
        if !operation.is_possible() {
            continue;
        }
        let key = part(&operation.input);
        let place = *places.entry(key.clone()).or_insert(parts.len());
        if place == parts.len() {
            parts.push((key, Vec::new()));
        }
        parts[place].1.push(OpId(index));
    }
    parts
}
