//! Terms of all entries as run lengths: a log of millions of entries has a handful of terms.

/// Which term each index has. Terms never fall from one index to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// (first index of the run, term), ascending in both.
    runs: Vec<(u64, u64)>,
}

impl Terms {
    /// Notes that `index`, the next one, has `term`.
    pub(crate) fn push(&mut self, index: u64, term: u64) {
        match self.runs.last() {
            Some((_, last)) if *last == term => {}
            Some((first, last)) => {
                assert!(
                    *first < index,
                    "run of index {index} after one from {first}"
                );
                assert!(*last < term, "term {term} after term {last}");
                self.runs.push((index, term));
            }
            None => self.runs.push((index, term)),
        }
    }

    /// Notes the term of an entry that was not known before. What is said of the others stays.
    pub(crate) fn set(&mut self, index: u64, term: u64) {
        let (known, next) = (self.term(index), self.term(index + 1));
        if known == Some(term) {
            return;
        }
        let at = self.runs.partition_point(|(first, _)| *first < index);
        match self.runs.get_mut(at) {
            Some((first, known)) if *first == index => *known = term,
            Some(_) | None => self.runs.insert(at, (index, term)),
        }
        let begins_run = self
            .runs
            .get(at + 1)
            .is_some_and(|(first, _)| *first == index + 1);
        if let Some(next) = next.filter(|_| !begins_run) {
            self.runs.insert(at + 1, (index + 1, next));
        }
    }

    /// Appends all runs of `later`, which begin behind everything here.
    pub(crate) fn extend(&mut self, later: &Terms) {
        for (index, term) in &later.runs {
            self.push(*index, *term);
        }
    }

    /// Forgets `index` and everything behind it.
    pub(crate) fn truncate(&mut self, index: u64) {
        let keep = self.runs.partition_point(|(first, _)| *first < index);
        self.runs.truncate(keep);
    }

    /// Forgets what is before `index`.
    pub(crate) fn drop_before(&mut self, index: u64) {
        let behind = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs.drain(..behind.saturating_sub(1));
    }

    /// Term of `index`, which must lie in the log; `None` in front of the first run.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|(first, _)| *first <= index);
        behind.checked_sub(1).map(|run| self.runs[run].1)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_agree_with_a_plain_list(
            steps in proptest::collection::vec((0u64..3, 1usize..5), 1..20), cut in 0usize..60, keep in 0usize..60,
        ) {
            let (mut terms, mut list, mut term) = (Terms::default(), Vec::new(), 1);
            for (raise, count) in steps {
                term += raise;
                for _ in 0..count {
                    list.push(term);
                    terms.push(list.len() as u64, term);
                }
            }
            let cut = cut.min(list.len());
            list.truncate(cut);
            terms.truncate(cut as u64 + 1);
            let keep = keep.min(cut);
            terms.drop_before(keep as u64 + 1);
            for (at, term) in list.iter().enumerate().skip(keep) {
                prop_assert_eq!(terms.term(at as u64 + 1), Some(*term));
            }
        }
    }
}
