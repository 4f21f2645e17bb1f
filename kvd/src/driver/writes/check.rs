//! What is refused before it is a ticket: definitely, because nothing of it was sent.

use super::super::Driver;
use crate::kv::command::{Command, command_crc};
use crate::kv::limits;
use crate::wire::client::Refusal;
use crate::wire::peer::ForwardedWrite;

impl Driver {
    pub(super) fn check_write(&self, write: &ForwardedWrite) -> Result<(), Refusal> {
        if self.stopping.is_some() && !self.is_leader() {
            return Err(Refusal::Stopping);
        }
        if self.writes.tickets.len() >= self.options.waiting_count
            || self.writes.bytes >= self.options.waiting_bytes
        {
            return Err(Refusal::Overloaded {
                what: "requests waiting".into(),
                limit: self.options.waiting_bytes,
            });
        }
        if self.is_leader() && self.space.is_full() {
            return Err(Refusal::NoSpace);
        }
        if command_crc(&write.command) != write.crc {
            return Err(Refusal::CommandCorrupt);
        }
        let command = Command::decode(&write.command).map_err(|error| Refusal::BadRequest {
            why: error.to_string(),
        })?;
        check_issuer(&command)?;
        limits::check(&self.options.limits, &command)?;
        if let Command::Custom(custom) = &command {
            self.store.check_custom(custom)?;
        }
        Ok(())
    }
}

/// Refuses commands that only the cluster itself may issue.
fn check_issuer(command: &Command) -> Result<(), Refusal> {
    let why = match command {
        Command::Members(_) => "the table of members is edited by the cluster itself",
        Command::StateHash(_) => "what the state is, the cluster finds out by itself",
        Command::Op(_)
        | Command::Txn(_)
        | Command::CloseSession
        | Command::KeepAlive
        | Command::Custom(_) => return Ok(()),
    };
    Err(Refusal::NotAuthorised { why: why.into() })
}
