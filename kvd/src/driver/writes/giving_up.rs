//! Writes that this node refuses or lets go of because of what it is, not because of what they are.

use super::{TicketId, unknown};
use crate::driver::Driver;
use crate::kv::command::Command;
use crate::wire::client::{Refusal, Response};

/// Refuses commands that only the cluster itself may issue.
pub(super) fn check_issuer(command: &Command) -> Result<(), Refusal> {
    let why = match command {
        Command::Members(_) => "the table of members is edited by the cluster itself",
        Command::StateHash(_) => "what the state is, the cluster finds out by itself",
        Command::Op(_) | Command::Txn(_) | Command::CloseSession | Command::KeepAlive => {
            return Ok(());
        }
    };
    Err(Refusal::NotAuthorised { why: why.into() })
}

impl Driver {
    /// The state of this node is suspect: it must not say what became of any write. Those that may have had an effect are
    /// repeated by whoever asked, elsewhere.
    pub(in crate::driver) fn give_up_writes(&mut self) {
        self.writes.proposed.clear();
        let open: Vec<(TicketId, bool)> = self
            .writes
            .tickets
            .iter()
            .map(|(id, ticket)| (*id, ticket.may_have_effect()))
            .collect();
        for (id, may_have_effect) in open {
            let response = match may_have_effect {
                true => unknown("the state of the node that was asked is suspect"),
                false => Response::Refused(self.elsewhere()),
            };
            self.finish(id, response);
        }
    }
}
