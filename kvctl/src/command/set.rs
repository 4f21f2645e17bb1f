//! `kvctl set`

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use bytes::Bytes;
use kvd::kv::command::{CmpOp, Command, Compare, KeyValue, Op, OpResult, RangeQuery, Test, Txn};
use serde_json::{Value, json};

use super::{Answer, argument, shown, strange};
use crate::cli::SetArgs;
use crate::connect::Session;
use crate::fault::Fault;
use crate::json::key_value;
use crate::output::{View, record};

pub(super) async fn run(args: SetArgs, session: &Session) -> Result<Answer, Fault> {
    let test = condition(&args);
    let (prev, request_id) = (args.prev, args.request_id);
    let key = argument(args.key);
    let value = value(
        args.value.map(argument),
        args.file.as_deref(),
        session.no_input,
    )?;
    let put = Op::Put {
        key: key.clone(),
        value,
        want_previous: prev,
    };
    let command = match test {
        None => put.into(),
        Some(test) => conditional(&key, test, put),
    };
    let client = session.client();
    let result = match request_id {
        Some(id) => client.write_named(command, id).await,
        None => client.write(command).await,
    };
    client.close().await;
    let result = result?;
    match result.results.into_iter().next() {
        Some(OpResult::Put { version, previous }) if result.succeeded => {
            Ok(Answer::done(Written {
                version,
                revision: result.revision,
                previous: prev.then_some(previous),
            }))
        }
        Some(OpResult::Range(found)) if !result.succeeded => {
            Err(not_written(&key, found.items.first()))
        }
        _ => Err(strange()),
    }
}

fn condition(args: &SetArgs) -> Option<Test> {
    if args.if_absent {
        return Some(Test::Absent);
    }
    let version = args
        .if_version
        .map(|version| Test::Version(CmpOp::Equal, version));
    let value = args
        .if_value
        .clone()
        .map(|value| Test::Value(CmpOp::Equal, argument(value)));
    version.or(value)
}

/// Writes if the test holds; otherwise reads what is there, for the message.
pub(super) fn conditional(key: &Bytes, test: Test, put: Op) -> Command {
    let compare = Compare {
        key: key.clone(),
        test,
    };
    let query = RangeQuery {
        keys_only: true,
        ..RangeQuery::key(key.clone())
    };
    Command::Txn(Txn {
        compare: vec![compare],
        then: vec![put],
        otherwise: vec![Op::Range(query)],
    })
}

/// The comparison did not hold.
pub(super) fn not_written(key: &[u8], found: Option<&KeyValue>) -> Fault {
    let known = match found {
        Some(item) => format!(
            "{} has version {}, written at revision {}",
            shown(key),
            item.version,
            item.mod_revision
        ),
        None => format!("{} is absent", shown(key)),
    };
    Fault::no("not written: the condition does not hold").with_known(known)
}

/// The value as an argument, from a file, or from standard input.
fn value(argument: Option<Bytes>, file: Option<&Path>, no_input: bool) -> Result<Bytes, Fault> {
    if let Some(file) = file {
        return std::fs::read(file)
            .map(Bytes::from)
            .map_err(|error| Fault::usage(format!("{}: {error}", file.display())));
    }
    match argument {
        Some(value) if value.as_ref() != b"-" => return Ok(value),
        _ => {}
    }
    if no_input {
        return Err(Fault::usage(
            "there is no value, and --no-input forbids to read one",
        ));
    }
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Fault::usage("there is no value").with_help(
            "kvctl set KEY VALUE; or pipe it in: kvctl set KEY < FILE; or --file FILE",
        ));
    }
    let mut bytes = Vec::new();
    stdin
        .read_to_end(&mut bytes)
        .map_err(|error| Fault::usage(format!("standard input: {error}")))?;
    Ok(bytes.into())
}

/// A key was written.
pub(super) struct Written {
    pub(super) version: u64,
    pub(super) revision: u64,
    /// What it held before, if that was asked for.
    pub(super) previous: Option<Option<KeyValue>>,
}

impl View for Written {
    fn human(&self) -> Vec<u8> {
        let mut text =
            format!("OK  version {}, revision {}\n", self.version, self.revision).into_bytes();
        match &self.previous {
            None => {}
            Some(None) => text.extend_from_slice(b"it was absent before\n"),
            Some(Some(previous)) => text.extend(record([b"previous".as_slice(), &previous.value])),
        }
        text
    }

    fn plain(&self) -> Vec<u8> {
        self.human()
    }

    fn json(&self) -> Value {
        let mut value = json!({ "ok": true, "version": self.version, "revision": self.revision });
        if let Some(previous) = &self.previous {
            value["previous"] = previous.as_ref().map_or(Value::Null, key_value);
        }
        value
    }
}
