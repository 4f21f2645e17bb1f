//! The copies of damaged entries that a former life put back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::recover::{Mode, Opener, Recovered};
use crate::dir::{self, Name};
use crate::error::{IoFault, OpenError, WalError};
use crate::fs::Fs;
use crate::options::Options;
use crate::repairs::{Copied, Repairs};
use crate::segment::{Spare, allocate};
use crate::twin::Report;
use crate::view::{Part, View};

/// The newest copy of each entry that has one.
type CopyOf<F> = BTreeMap<u64, Copied<F>>;

impl<F: Fs> Opener<'_, F> {
    /// Reads all copies, and leads readers to those that count. If some copy does not, those that do are written into a new file,
    /// and the old ones are left over: once there is another entry in its place, the copy would look like that one's.
    pub(super) fn overlay_copies(
        &mut self,
        names: &[String],
        recovered: &mut Recovered<F>,
        spares: &mut Vec<(u64, Spare<F>)>,
        options: &Options,
        leftovers: &mut Vec<PathBuf>,
    ) -> Result<Repairs<F>, OpenError> {
        let (mut repairs, mut copies) = self.load_copies(names, leftovers)?;
        let view = &mut recovered.view;
        let floor = view.floor.0;
        copies.retain(|index, _| *index > floor); // Nothing comes in their place any more.
        let all = copies.len();
        copies.retain(|index, copied| counts(view, *index, copied));
        let mut parts: Vec<Part<F>> = copies.values().map(|copied| copied.part.clone()).collect();
        if parts.len() < all {
            let spare = self.spare(spares, options, parts.is_empty())?;
            let (cluster, generation) = (self.binding.cluster, self.slot.generation);
            let (fs, dir, binding) = (self.fs, self.dir, self.binding);
            let begin_file = |repairs: &mut Repairs<F>| match spare {
                Some(spare) => repairs.begin_file(fs, dir, binding, generation, spare),
                None => Ok(()),
            };
            let rewritten = repairs.rewrite(cluster, generation, &parts, begin_file)?;
            let old = rewritten.old.iter().map(|segment| segment.path.clone());
            leftovers.extend(old);
            parts = rewritten.parts;
        }
        lead_to(view, &copies, parts);
        Ok(repairs)
    }

    /// As [`overlay_copies`](Self::overlay_copies), and leaves the files as they are.
    pub(super) fn look_at_copies(
        &mut self,
        names: &[String],
        recovered: &mut Recovered<F>,
    ) -> Result<(), OpenError> {
        let (_, mut copies) = self.load_copies(names, &mut Vec::new())?;
        let view = &mut recovered.view;
        copies.retain(|index, copied| *index > view.floor.0 && counts(view, *index, copied));
        let parts = copies.values().map(|copied| copied.part.clone()).collect();
        lead_to(view, &copies, parts);
        Ok(())
    }

    fn load_copies(
        &mut self,
        names: &[String],
        leftovers: &mut Vec<PathBuf>,
    ) -> Result<(Repairs<F>, CopyOf<F>), OpenError> {
        let (mut repairs, mut copies) = (Repairs::none(), BTreeMap::new());
        for name in names {
            let Name::Repair(number) = dir::parse_name(name) else {
                continue;
            };
            let path = dir::repair_path(self.dir, number);
            match self.find(path.clone(), number, true) {
                Ok(found) => {
                    let segment = Arc::new(found.into_segment()?);
                    let rewrites = self.mode == Mode::Use;
                    repairs.load(segment, self.binding.cluster, rewrites, &mut copies)?;
                }
                // The entries are as damaged as they were before the copies came.
                Err(OpenError::Corrupt(corruption)) => {
                    self.reports.push(Report::CopiesLost(corruption));
                    leftovers.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((repairs, copies))
    }

    /// A spare for the copies that stay, if there are any.
    fn spare(
        &self,
        spares: &mut Vec<(u64, Spare<F>)>,
        options: &Options,
        is_needless: bool,
    ) -> Result<Option<Spare<F>>, OpenError> {
        if is_needless {
            return Ok(None);
        }
        if let Some((_, spare)) = spares.pop() {
            return Ok(Some(spare));
        }
        match allocate(self.fs, self.dir, options, 1) {
            Ok(spare) => Ok(Some(spare)),
            Err(WalError::Io(fault)) => Err(fault.into()),
            Err(error) => {
                let full = std::io::Error::new(std::io::ErrorKind::StorageFull, error.to_string());
                Err(IoFault::new(self.dir, "allocate in", full).into())
            }
        }
    }
}

/// Leads readers to the copies, which lie in `parts`.
fn lead_to<F: Fs>(view: &mut View<F>, copies: &CopyOf<F>, parts: Vec<Part<F>>) {
    for (part, (index, copied)) in parts.into_iter().zip(copies) {
        if view.faulty.remove(index).is_some() {
            view.terms.set(*index, copied.term);
        }
        view.repaired.insert(*index, part);
    }
}

/// Whether a copy is that of the entry which the log holds, or lost, at this index. If not even its term is known the copy is
/// the only one that names it: copies of what was cut off are gone before anything is appended in its place.
fn counts<F: Fs>(view: &View<F>, index: u64, copied: &Copied<F>) -> bool {
    index <= view.last_index && view.term(index).is_none_or(|term| term == copied.term)
}
