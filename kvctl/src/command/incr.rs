//! `kvctl incr`

use kvd::kv::command::{Command, Op, OpResult};
use serde_json::json;

use super::{Answer, argument, only_step, shown, strange};
use crate::cli::IncrArgs;
use crate::connect::Session;
use crate::fault::Fault;
use crate::output::Sentence;

pub(super) async fn run(args: IncrArgs, session: &Session) -> Result<Answer, Fault> {
    let key = argument(args.key);
    let command = Command::from(Op::Increment {
        key: key.clone(),
        by: args.by,
    });
    let client = session.client();
    let result = match args.request_id {
        Some(id) => client.write_named(command, id).await,
        None => client.write(command).await,
    };
    client.close().await;
    let result = result?;
    let step = only_step(&result)?;
    if let OpResult::Incremented { value, version } = step {
        return Ok(Answer::done(Sentence {
            text: value.to_string(),
            facts: json!({ "value": value, "version": version, "revision": result.revision }),
        }));
    }
    let what = if *step == OpResult::NotANumber {
        format!("{} holds no decimal 64-bit integer", shown(&key))
    } else if *step == OpResult::Overflow {
        "the sum does not fit into 64 bits".to_owned()
    } else {
        return Err(strange());
    };
    Err(Fault::no(what).with_known("nothing was written"))
}
