//! `kvctl leader`

use serde_json::json;

use super::Answer;
use crate::cli::{LeaderArgs, LeaderVerb};
use crate::connect::Session;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::Sentence;

pub(super) async fn run(args: LeaderArgs, session: &Session) -> Result<Answer, Fault> {
    match args.verb {
        None | Some(LeaderVerb::Show) => show(session).await,
        Some(LeaderVerb::Transfer { node }) => transfer(session, node).await,
    }
}

async fn show(session: &Session) -> Result<Answer, Fault> {
    let client = session.client();
    let survey = client.survey().await;
    client.close().await;
    let summary = super::status::Summary::of(&survey);
    if let (Some(leader), Some(term)) = (&summary.leader, summary.term) {
        return Ok(Answer::done(Sentence {
            text: leader.clone(),
            facts: json!({ "leader": leader, "term": term }),
        }));
    }
    let evidence = survey.evidence(session.options.timeout);
    if evidence.answered() == 0 {
        return Err(Fault::from(kvd::client::ClientError::Unreachable(evidence)));
    }
    let known = evidence
        .findings
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    Err(Fault::new(ExitCode::No, "there is no leader").with_known(known))
}

async fn transfer(session: &Session, node: Option<String>) -> Result<Answer, Fault> {
    let client = session.client();
    let done = client.transfer_leader(node.clone()).await;
    client.close().await;
    done?;
    let to = node.unwrap_or_else(|| "the node best suited".to_owned());
    Ok(Answer::done(Sentence {
        text: format!("leadership handed over to {to}"),
        facts: json!({ "ok": true }),
    }))
}
