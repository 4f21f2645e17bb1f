//! `kvctl cas`

use kvd::kv::command::{CmpOp, Op, OpResult, Test};

use super::set::{Written, conditional, not_written};
use super::{Answer, argument, strange};
use crate::cli::CasArgs;
use crate::connect::Session;
use crate::fault::Fault;

pub(super) async fn run(args: CasArgs, session: &Session) -> Result<Answer, Fault> {
    let key = argument(args.key);
    let test = Test::Value(CmpOp::Equal, argument(args.old));
    let put = Op::Put {
        key: key.clone(),
        value: argument(args.new),
        want_previous: false,
    };
    let client = session.client();
    let result = client.write(conditional(&key, test, put)).await;
    client.close().await;
    let result = result?;
    match result.results.into_iter().next() {
        Some(OpResult::Put { version, .. }) if result.succeeded => Ok(Answer::done(Written {
            version,
            revision: result.revision,
            previous: None,
        })),
        Some(OpResult::Range(found)) => Err(not_written(&key, found.items.first())),
        _ => Err(strange()),
    }
}
