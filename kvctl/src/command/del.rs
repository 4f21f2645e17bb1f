//! `kvctl del`

use bytes::Bytes;
use kvd::client::Client;
use kvd::kv::command::{Command, KeyRange, Op, OpResult, Txn};
use serde_json::json;

use super::{Answer, argument};
use crate::cli::DelArgs;
use crate::connect::Session;
use crate::fault::Fault;
use crate::output::Sentence;

/// Keys removed in one write, which takes effect as a whole: the default limit of steps in a transaction.
const KEYS_PER_WRITE: usize = 128;

pub(super) async fn run(args: DelArgs, session: &Session) -> Result<Answer, Fault> {
    let keys: Vec<Bytes> = args.keys.into_iter().map(argument).collect();
    let client = session.client();
    let removed = remove(&client, &keys).await;
    client.close().await;
    let (count, revision) = removed?;
    Ok(Answer::done(Sentence {
        text: count.to_string(),
        facts: json!({ "deleted": count, "revision": revision }),
    }))
}

async fn remove(client: &Client, keys: &[Bytes]) -> Result<(u64, u64), Fault> {
    let (mut count, mut revision) = (0, 0);
    for keys in keys.chunks(KEYS_PER_WRITE) {
        let result = client.write(removal(keys)).await?;
        revision = result.revision;
        count += result.results.iter().map(removed).sum::<u64>();
    }
    Ok((count, revision))
}

fn removal(keys: &[Bytes]) -> Command {
    let steps = keys.iter().map(|key| Op::Delete {
        range: KeyRange::Key(key.clone()),
        want_previous: false,
    });
    Command::Txn(Txn {
        then: steps.collect(),
        ..Txn::default()
    })
}

fn removed(result: &OpResult) -> u64 {
    if let OpResult::Deleted { count, .. } = result {
        return *count;
    }
    0
}
