//! The verbs, one per file. Each returns what is to be printed; only the bulk ones print by themselves.

mod cas;
mod cluster;
mod context;
mod del;
mod export;
mod get;
mod health;
mod import;
mod incr;
mod leader;
mod log;
mod ls;
mod member;
mod nodes;
mod scrub;
mod set;
mod status;
mod version;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use kvd::client::{Client, ReadAnswer};
use kvd::kv::command::{CommandResult, KeyValue, OpResult, RangeQuery};
use kvd::wire::client::Consistency;

use crate::cli::{Cli, ClusterVerb, Verb};
use crate::connect::Session;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::{Printer, View};

/// What a verb has done.
pub(crate) struct Answer {
    pub(crate) view: Option<Box<dyn View>>,
    pub(crate) code: ExitCode,
}

impl Answer {
    fn done(view: impl View + 'static) -> Answer {
        Answer {
            view: Some(Box::new(view)),
            code: ExitCode::Done,
        }
    }

    fn printed() -> Answer {
        Answer {
            view: None,
            code: ExitCode::Done,
        }
    }
}

/// Carries out a verb.
pub(crate) async fn run(cli: Cli) -> Result<Answer, Fault> {
    let global = &cli.global;
    let session = || Session::new(global);
    match cli.verb {
        Verb::Set(args) => set::run(args, &session()?).await,
        Verb::Get(args) => get::run(args, &session()?).await,
        Verb::Del(args) => del::run(args, &session()?).await,
        Verb::Ls(args) => ls::run(args, &session()?).await,
        Verb::Cas(args) => cas::run(args, &session()?).await,
        Verb::Incr(args) => incr::run(args, &session()?).await,
        Verb::Import(args) => import::run(args, &session()?).await,
        Verb::Export(args) => export::run(args, &session()?).await,
        Verb::Status => status::run(&session()?).await,
        Verb::Health(args) => health::run(args, &session()?).await,
        Verb::Leader(args) => leader::run(args, &session()?).await,
        Verb::Log(verb) => log::run(verb, &session()?).await,
        Verb::Scrub { nodes } => scrub::run(&nodes, &session()?).await,
        Verb::Member(verb) => member::run(verb, global, &session()?).await,
        Verb::Cluster(ClusterVerb::Init(args)) => cluster::init(&args).map(Answer::done),
        Verb::Context(verb) => context::run(verb, global),
        Verb::Version => Ok(Answer::done(version::version())),
    }
}

/// An argument as it was given: keys and values are bytes.
fn argument(text: OsString) -> Bytes {
    Bytes::from(text.into_vec())
}

/// A key for a message.
fn shown(key: &[u8]) -> String {
    crate::escape::escape(key)
}

/// All pages of a query, up to `limit` keys. The pages are read one after the other: they are not one snapshot.
async fn read_all(
    client: &Client,
    mut query: RangeQuery,
    consistency: Consistency,
    limit: Option<u64>,
) -> Result<ReadAnswer, Fault> {
    let mut items: Vec<KeyValue> = Vec::new();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(items.len() as u64));
        query.limit = left.map_or(0, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let mut answer = client.read(query.clone(), consistency).await?;
        items.append(&mut answer.result.items);
        let enough = limit.is_some_and(|limit| items.len() as u64 >= limit);
        query.after = items.last().map(|item| item.key.clone());
        if !answer.result.more || enough || query.after.is_none() {
            answer.result.items = items;
            return Ok(answer);
        }
    }
}

/// Says that an answer may be stale, to whoever did not ask for silence.
fn mark_local(answer: &ReadAnswer, printer: &Printer) {
    if answer.local {
        printer.trace(format_args!(
            "local read: what one node had applied up to log index {}; it may be stale",
            answer.applied
        ));
    }
}

/// The one step of a write that had one step.
fn only_step(result: &CommandResult) -> Result<&OpResult, Fault> {
    result
        .results
        .first()
        .ok_or_else(|| Fault::new(ExitCode::Internal, "the node answered without a result"))
}

/// The answer does not belong to the question.
fn strange() -> Fault {
    Fault::new(
        ExitCode::Internal,
        "the node answered something that was not asked",
    )
}
