//! Exactly once: each acknowledged write took effect once, each of unknown outcome at most once, each refused one never.
//!
//! This needs values that tell the writes apart, or increments that are counted; and no times at all. It finds what a search
//! for an order would find too, but in any number of writes and with the name of the write.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Debug;

use super::history::{History, Outcome};

/// What the clients know of writes of unique values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims<V: Ord> {
    claims: BTreeMap<V, Claim>,
    /// Values that were asked for more than once: then nobody can tell the writes apart.
    asked_twice: Vec<V>,
}

/// What a client knows of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It was acknowledged: it took effect once.
    Acknowledged,
    /// Nobody knows: it took effect once, or never.
    Unknown,
    /// It was refused for good: it never takes effect.
    Failed,
}

impl<V: Ord> Default for Claims<V> {
    fn default() -> Claims<V> {
        Claims {
            claims: BTreeMap::new(),
            asked_twice: Vec::new(),
        }
    }
}

impl<V: Ord + Clone> Claims<V> {
    /// Takes in what is known of the write of this value.
    pub fn add(&mut self, value: V, claim: Claim) {
        if self.claims.insert(value.clone(), claim).is_some() {
            self.asked_twice.push(value);
        }
    }

    /// The claims of a history; `value` says what an operation writes, if it writes.
    pub fn of<I, O>(history: &History<I, O>, value: impl Fn(&I) -> Option<V>) -> Claims<V> {
        let mut claims = Claims::default();
        for operation in history.operations() {
            let claim = match &operation.outcome {
                Outcome::Returned { .. } => Claim::Acknowledged,
                Outcome::Unknown => Claim::Unknown,
                Outcome::Failed => Claim::Failed,
            };
            if let Some(value) = value(&operation.input) {
                claims.add(value, claim);
            }
        }
        claims
    }

    /// Compares with what took effect: all values in a log of applied writes, or in the final state.
    ///
    /// # Errors
    /// Every value that is not there as often as it must be.
    pub fn check(&self, applied: impl IntoIterator<Item = V>) -> Result<(), OnceViolation<V>> {
        let mut counts: BTreeMap<V, u64> = BTreeMap::new();
        for value in applied {
            *counts.entry(value).or_default() += 1;
        }
        let mut violation = OnceViolation {
            asked_twice: self.asked_twice.clone(),
            ..OnceViolation::default()
        };
        for (value, claim) in &self.claims {
            match (claim, counts.remove(value).unwrap_or(0)) {
                (Claim::Acknowledged, 1) | (Claim::Unknown, 0 | 1) | (Claim::Failed, 0) => {}
                (Claim::Acknowledged, 0) => violation.lost.push(value.clone()),
                (Claim::Acknowledged | Claim::Unknown, times) => {
                    violation.repeated.push((value.clone(), times));
                }
                (Claim::Failed, _) => violation.failed.push(value.clone()),
            }
        }
        violation.unasked = counts.into_keys().collect();
        if violation.is_empty() {
            Ok(())
        } else {
            Err(violation)
        }
    }
}

/// Writes that did not take effect as often as they must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceViolation<V> {
    /// Acknowledged, and not there.
    pub lost: Vec<V>,
    /// There more than once, and how often.
    pub repeated: Vec<(V, u64)>,
    /// Refused for good, and there.
    pub failed: Vec<V>,
    /// There, and nobody asked for it.
    pub unasked: Vec<V>,
    /// Asked for by several operations, so that nothing can be said. A mistake of the workload.
    pub asked_twice: Vec<V>,
}

impl<V> Default for OnceViolation<V> {
    fn default() -> OnceViolation<V> {
        OnceViolation {
            lost: Vec::new(),
            repeated: Vec::new(),
            failed: Vec::new(),
            unasked: Vec::new(),
            asked_twice: Vec::new(),
        }
    }
}

impl<V> OnceViolation<V> {
    fn is_empty(&self) -> bool {
        let lists = [&self.lost, &self.failed, &self.unasked, &self.asked_twice];
        self.repeated.is_empty() && lists.iter().all(|list| list.is_empty())
    }
}

impl<V: Debug> fmt::Display for OnceViolation<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not exactly once")?;
        for (values, what) in [
            (&self.lost, "acknowledged, but lost"),
            (&self.failed, "refused for good, but took effect"),
            (&self.unasked, "took effect, but nobody asked"),
            (&self.asked_twice, "asked for by several operations"),
        ] {
            for value in values {
                write!(f, "\n  {what}: {value:?}")?;
            }
        }
        for (value, times) in &self.repeated {
            write!(f, "\n  took effect {times} times: {value:?}")?;
        }
        Ok(())
    }
}

impl<V: Debug> std::error::Error for OnceViolation<V> {}

/// Equal increments of one counter: how many were acknowledged, and of how many nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Acknowledged increments.
    pub acknowledged: u64,
    /// Increments of unknown outcome.
    pub unknown: u64,
}

/// A counter that does not show what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountViolation {
    /// What the clients know.
    pub count: Count,
    /// What the counter shows.
    pub found: u64,
}

impl Count {
    /// The number of increments of each kind in a history; `is_increment` picks those of the counter.
    pub fn of<I, O>(history: &History<I, O>, is_increment: impl Fn(&I) -> bool) -> Count {
        let mut count = Count::default();
        for operation in history.operations() {
            if !is_increment(&operation.input) {
                continue;
            }
            match &operation.outcome {
                Outcome::Returned { .. } => count.acknowledged += 1,
                Outcome::Unknown => count.unknown += 1,
                Outcome::Failed => {}
            }
        }
        count
    }

    /// Compares with the number of increments that the counter shows in the end.
    ///
    /// # Errors
    /// It shows fewer than were acknowledged, or more than were asked for and not refused.
    pub fn check(self, found: u64) -> Result<(), CountViolation> {
        let most = self.acknowledged.saturating_add(self.unknown);
        if (self.acknowledged..=most).contains(&found) {
            return Ok(());
        }
        Err(CountViolation { count: self, found })
    }
}

impl fmt::Display for CountViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count {
            acknowledged,
            unknown,
        } = self.count;
        let found = self.found;
        write!(
            f,
            "not exactly once: {found} increments counted, {acknowledged} acknowledged and {unknown} unknown"
        )
    }
}

impl std::error::Error for CountViolation {}

/// Writes of unique values and what took effect, as in the text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceHistory {
    /// The writes.
    pub writes: History<String, ()>,
    /// What took effect.
    pub applied: Vec<String>,
}

impl OnceHistory {
    /// See [`Claims::check`].
    ///
    /// # Errors
    /// Every value that is not there as often as it must be.
    pub fn check(&self) -> Result<(), OnceViolation<String>> {
        let claims = Claims::of(&self.writes, |value| Some(value.clone()));
        claims.check(self.applied.iter().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named_with_what_is_wrong() {
        let mut claims = Claims::default();
        for (value, claim) in [
            ("lost", Claim::Acknowledged),
            ("once", Claim::Acknowledged),
            ("twice", Claim::Acknowledged),
            ("never", Claim::Unknown),
            ("late", Claim::Unknown),
            ("thrice", Claim::Unknown),
            ("refused", Claim::Failed),
            ("zombie", Claim::Failed),
            ("vague", Claim::Acknowledged),
            ("vague", Claim::Unknown),
        ] {
            claims.add(value, claim);
        }
        let applied = [
            "once", "twice", "late", "thrice", "thrice", "thrice", "twice", "zombie", "vague",
            "alien",
        ];
        let violation = claims.check(applied).unwrap_err();
        let expected = OnceViolation {
            lost: vec!["lost"],
            repeated: vec![("thrice", 3), ("twice", 2)],
            failed: vec!["zombie"],
            unasked: vec!["alien"],
            asked_twice: vec!["vague"],
        };
        assert_eq!(violation, expected);
        assert_eq!(violation.to_string().lines().count(), 7);
    }

    #[test]
    fn a_counter_shows_all_acknowledged_increments_and_no_more_than_were_asked() {
        let count = Count {
            acknowledged: 5,
            unknown: 2,
        };
        for found in 0..10 {
            assert_eq!(
                count.check(found).is_ok(),
                (5..=7).contains(&found),
                "{found}"
            );
        }
    }

    #[test]
    fn refused_increments_and_other_operations_do_not_count() {
        let mut history: History<&str, ()> = History::default();
        for input in ["add", "add", "add", "add", "look"] {
            history.invoke(1, 0, input);
        }
        let ids: Vec<_> = (0..5).map(crate::check::history::OpId).collect();
        history.answer(ids[0], 1, ()).unwrap();
        history.answer(ids[1], 1, ()).unwrap();
        history.fail(ids[2]).unwrap();
        history.answer(ids[4], 1, ()).unwrap();
        let expected = Count {
            acknowledged: 2,
            unknown: 1,
        };
        assert_eq!(Count::of(&history, |input| *input == "add"), expected);
    }
}
