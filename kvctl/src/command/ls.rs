//! `kvctl ls`

use kvd::kv::command::{KeyRange, RangeQuery};

use super::get::{Fields, Items};
use super::{Answer, argument, mark_local, read_all};
use crate::cli::LsArgs;
use crate::connect::Session;
use crate::fault::Fault;

pub(super) async fn run(args: LsArgs, session: &Session) -> Result<Answer, Fault> {
    let range = args
        .prefix
        .map_or(KeyRange::All, |prefix| KeyRange::Prefix(argument(prefix)));
    let query = RangeQuery {
        keys_only: true,
        ..RangeQuery::new(range)
    };
    let client = session.client();
    let answer = read_all(&client, query, session.consistency, args.limit).await;
    client.close().await;
    let answer = answer?;
    mark_local(&answer, &session.printer);
    let fields = Fields {
        values: false,
        meta: false,
    };
    Ok(Answer::done(Items { answer, fields }))
}
