//! One part of a history, laid out for the search: returns in the order of time, what is open at each, and operations of
//! unknown outcome sorted by what they ask.

use std::collections::HashMap;

use crate::check::history::{History, Model, OpId, Operation, Time};

/// An answered operation, in the order of returns.
pub(super) struct Answered<'a, M: Model> {
    pub(super) id: OpId,
    pub(super) operation: &'a Operation<M::Input, M::Output>,
    pub(super) output: &'a M::Output,
    pub(super) returned: Time,
    /// See [`Model::is_read`].
    pub(super) is_read: bool,
}

/// Operations of unknown outcome that all ask the same, so that one is as good as another.
pub(super) struct Alike<'a, M: Model> {
    pub(super) input: &'a M::Input,
    /// In the order of invocation.
    pub(super) members: Vec<(Time, OpId)>,
}

impl<M: Model> Alike<'_, M> {
    /// How many had been invoked by then.
    pub(super) fn invoked_by(&self, time: Time) -> usize {
        self.members
            .partition_point(|(invoked, _)| *invoked <= time)
    }
}

pub(super) struct Plan<'a, M: Model> {
    pub(super) history: &'a History<M::Input, M::Output>,
    /// In the order of their returns: the place in this list is what the search calls an operation.
    pub(super) answered: Vec<Answered<'a, M>>,
    /// For each return: which answered operations were invoked and had not returned before it, itself included.
    pub(super) open: Vec<Vec<u32>>,
    /// In the order of their first invocation.
    pub(super) unknown: Vec<Alike<'a, M>>,
}

impl<'a, M: Model> Plan<'a, M> {
    pub(super) fn new(
        model: &M,
        history: &'a History<M::Input, M::Output>,
        ids: &[OpId],
    ) -> Plan<'a, M> {
        let chosen = || ids.iter().map(|id| (*id, &history.operations()[id.0]));
        let answered = answered(model, chosen());
        Plan {
            history,
            open: open(&answered),
            answered,
            unknown: unknown(model, chosen()),
        }
    }
}

fn answered<'a, M: Model>(
    model: &M,
    chosen: impl Iterator<Item = (OpId, &'a Operation<M::Input, M::Output>)>,
) -> Vec<Answered<'a, M>> {
    let mut answered: Vec<Answered<'a, M>> = chosen
        .filter_map(|(id, operation)| {
            let (output, returned) = (operation.output()?, operation.returned()?);
            Some(Answered {
                id,
                operation,
                output,
                returned,
                is_read: model.is_read(&operation.input, Some(output)),
            })
        })
        .collect();
    answered.sort_by_key(|it| (it.returned, it.operation.invoked, it.id));
    answered
}

fn open<M: Model>(answered: &[Answered<'_, M>]) -> Vec<Vec<u32>> {
    let mut by_invocation: Vec<u32> = (0..answered.len() as u32).collect();
    by_invocation.sort_by_key(|&it| answered[it as usize].operation.invoked);
    let mut coming = by_invocation.into_iter().peekable();
    let mut open: Vec<u32> = Vec::new();
    let mut all = Vec::with_capacity(answered.len());
    for (place, it) in answered.iter().enumerate() {
        while let Some(next) =
            coming.next_if(|&next| answered[next as usize].operation.invoked <= it.returned)
        {
            open.push(next);
        }
        all.push(open.clone());
        open.retain(|&other| other as usize != place);
    }
    all
}

/// Reads of unknown outcome say nothing at all and are left out.
fn unknown<'a, M: Model>(
    model: &M,
    chosen: impl Iterator<Item = (OpId, &'a Operation<M::Input, M::Output>)>,
) -> Vec<Alike<'a, M>>
where
    M::Output: 'a,
{
    let mut unknown: Vec<Alike<'a, M>> = Vec::new();
    let mut places: HashMap<&M::Input, usize> = HashMap::new();
    for (id, operation) in chosen {
        if operation.output().is_some() || model.is_read(&operation.input, None) {
            continue;
        }
        let place = *places.entry(&operation.input).or_insert(unknown.len());
        if place == unknown.len() {
            unknown.push(Alike {
                input: &operation.input,
                members: Vec::new(),
            });
        }
        unknown[place].members.push((operation.invoked, id));
    }
    for alike in &mut unknown {
        alike.members.sort();
    }
    unknown.sort_by_key(|alike| alike.members[0]);
    unknown
}
