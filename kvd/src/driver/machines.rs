//! State machines of users: which this program has, and questions to them.

use super::reads::Wanted;
use super::{ClientId, Driver};
use crate::kv::command::Custom;
use crate::machine::Machines;
use crate::wire::client::{Consistency, Refusal};

impl Driver {
    /// Gives the store these state machines in place of those it has: before the first event.
    pub fn set_machines(&mut self, machines: Machines) {
        // A clone shares everything, and the old one goes at once.
        self.store = self.store.clone().with_machines(machines);
    }

    /// Takes a question.
    pub(super) fn handle_ask(
        &mut self,
        client: ClientId,
        id: u64,
        consistency: Consistency,
        question: Custom,
        timeout_ms: u32,
    ) {
        let limit = self.options.limits.value_bytes;
        if question.command.len() > limit {
            let refusal = Refusal::TooLarge {
                what: "question".into(),
                bytes: question.command.len() as u64,
                limit: limit as u64,
            };
            self.refuse(client, id, refusal);
            return;
        }
        self.take_read(client, id, consistency, Wanted::Reply(question), timeout_ms);
    }
}
