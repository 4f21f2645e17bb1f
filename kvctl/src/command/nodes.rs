//! Which nodes a command means.

use kvd::client::{ClientError, NodeReport, Survey};

use crate::fault::Fault;

/// The members of these names, or all.
pub(super) fn chosen<'a>(
    survey: &'a Survey,
    names: &[String],
) -> Result<Vec<(&'a str, &'a NodeReport)>, Fault> {
    let named = |report: &'a NodeReport| Some((report.name.as_deref()?, report));
    let mut members: Vec<_> = survey.nodes.iter().filter_map(named).collect();
    let is_member = |name: &String| members.iter().any(|(member, _)| member == name);
    if let Some(stranger) = names.iter().find(|name| !is_member(name)) {
        let known: Vec<&str> = members.iter().map(|(member, _)| *member).collect();
        return Err(Fault::usage(format!("there is no node {stranger}"))
            .with_known(format!("the members are {}", known.join(", "))));
    }
    members.retain(|(member, _)| names.is_empty() || names.iter().any(|name| name == member));
    Ok(members)
}

/// Fails if nobody answered within `budget`.
pub(super) fn check_heard(survey: &Survey, budget: std::time::Duration) -> Result<(), Fault> {
    match survey.answers().next() {
        Some(_) => Ok(()),
        None => Err(ClientError::Unreachable(survey.evidence(budget)).into()),
    }
}
