//! Keys and values.

use bytes::Bytes;

use super::Shell;
use crate::kv::command::{
    CmpOp, Command, CommandResult, Compare, KeyRange, Op, OpResult, RangeQuery, Test, Txn,
};
use crate::wire::client::Consistency;

impl Shell {
    pub(super) fn set(
        &mut self,
        key: String,
        value: String,
        via: Option<&str>,
    ) -> Result<(), String> {
        let op = Op::Put {
            key: key.into(),
            value: value.into(),
            want_previous: false,
        };
        let result = self.write(Command::Op(op), via)?;
        print_written(&result)
    }

    fn write(&self, command: Command, via: Option<&str>) -> Result<CommandResult, String> {
        let client = self.client(via)?;
        let written = self.runtime.block_on(client.write(command));
        written.map_err(|error| error.to_string())
    }

    pub(super) fn get(&mut self, key: String, via: Option<&str>) -> Result<(), String> {
        let client = self.client(via)?;
        let read = client.read(RangeQuery::key(key.clone()), Consistency::Linearizable);
        let answer = self
            .runtime
            .block_on(read)
            .map_err(|error| error.to_string())?;
        let item = answer
            .result
            .items
            .first()
            .ok_or_else(|| format!("{key} is absent"))?;
        let text = String::from_utf8_lossy(&item.value).into_owned();
        println!("{text}");
        self.last_value = Some(text);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: String) -> Result<(), String> {
        let op = Op::Delete {
            range: KeyRange::Key(Bytes::from(key)),
            want_previous: false,
        };
        let result = self.write(Command::Op(op), None)?;
        match result.results.first() {
            Some(OpResult::Deleted { count, .. }) => println!("{count} deleted"),
            other => return Err(format!("the cluster answered {other:?}")),
        }
        Ok(())
    }

    pub(super) fn compare_and_set(
        &mut self,
        key: &str,
        old: String,
        new: String,
    ) -> Result<(), String> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let txn = Txn {
            compare: vec![Compare {
                key: key.clone(),
                test: Test::Value(CmpOp::Equal, old.clone().into()),
            }],
            then: vec![Op::Put {
                key: key.clone(),
                value: new.into(),
                want_previous: false,
            }],
            otherwise: vec![Op::Range(RangeQuery::key(key.clone()))],
        };
        let result = self.write(Command::Txn(txn), None)?;
        let key = String::from_utf8_lossy(&key);
        match result.results.first() {
            Some(OpResult::Range(found)) => Err(match found.items.first() {
                Some(item) => {
                    let held = String::from_utf8_lossy(&item.value);
                    format!("not written: {key} holds {held} and not {old}")
                }
                None => format!("not written: {key} is absent"),
            }),
            _ => print_written(&result),
        }
    }

    pub(super) fn expect(&self, wanted: &str) -> Result<(), String> {
        match &self.last_value {
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(format!("expected {wanted}, found {found}")),
            None => Err(format!("expected {wanted}, and nothing was read yet")),
        }
    }
}

fn print_written(result: &CommandResult) -> Result<(), String> {
    match result.results.first() {
        Some(OpResult::Put { version, .. }) => {
            println!("OK  version {version}, revision {}", result.revision);
            Ok(())
        }
        other => Err(format!("the cluster answered {other:?}")),
    }
}
