//! `kvctl health`

use std::time::Duration;

use kvd::client::{Client, ClientOptions, Survey};
use kvd::kv::command::{KeyRange, RangeQuery};
use kvd::wire::client::Consistency;
use serde_json::json;
use tokio::time::Instant;

use super::Answer;
use super::status::Summary;
use crate::cli::HealthArgs;
use crate::connect::Session;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::Sentence;

/// Longest single look; a cluster that needs more is not healthy now.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks with `--wait`.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn run(args: HealthArgs, session: &Session) -> Result<Answer, Fault> {
    let deadline = Instant::now() + args.wait.unwrap_or(session.options.timeout);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let look = look(session, left.clamp(PAUSE, LOOK_MAX), args.require_all).await;
        let over = args.wait.is_none() || Instant::now() + PAUSE >= deadline;
        if look.is_ok() || over {
            return Ok(answer(look));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One sentence: healthy, or why not.
async fn look(session: &Session, budget: Duration, require_all: bool) -> Result<String, String> {
    let client = Client::new(ClientOptions {
        timeout: budget,
        ..session.options.clone()
    });
    let survey = client.survey().await;
    let served = match judge(&survey, require_all) {
        Ok(()) => serves(&client).await,
        Err(why) => Err(why),
    };
    client.close().await;
    let summary = Summary::of(&survey);
    match served {
        Ok(()) => Ok(summary.sentence()),
        Err(why) => Err(format!("unhealthy: {why}")),
    }
}

/// What the nodes say of themselves can be a moment old; that a linearizable read is answered is the proof.
async fn serves(client: &Client) -> Result<(), String> {
    let query = RangeQuery {
        count_only: true,
        ..RangeQuery::new(KeyRange::Key("health".into()))
    };
    match client.read(query, Consistency::Linearizable).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn judge(survey: &Survey, require_all: bool) -> Result<(), String> {
    let summary = Summary::of(survey);
    let findings = survey.evidence(Duration::ZERO).findings;
    let asked: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if !summary.is_healthy() {
        let leader = if summary.leader.is_none() {
            "no leader"
        } else {
            "no quorum"
        };
        return Err(format!("{leader}: {}", asked.join(", ")));
    }
    if !require_all {
        return Ok(());
    }
    let missing: Vec<String> = findings
        .iter()
        .filter(|finding| !finding.found.is_answer())
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(format!("not all members answer: {}", missing.join(", ")));
    }
    let lost: Vec<&str> = survey
        .answers()
        .filter(|status| status.leader != summary.leader)
        .map(|status| status.name.as_str())
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(format!(
        "not all members know the leader: {}",
        lost.join(", ")
    ))
}

fn answer(look: Result<String, String>) -> Answer {
    let healthy = look.is_ok();
    let text = look.unwrap_or_else(|why| why);
    let facts = json!({ "healthy": healthy, "reason": text });
    Answer {
        view: Some(Box::new(Sentence { text, facts })),
        code: if healthy {
            ExitCode::Done
        } else {
            ExitCode::No
        },
    }
}
