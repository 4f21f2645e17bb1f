//! Writes that this node lets go of because of what it is, not because of what they are.

use super::{TicketId, unknown};
use crate::driver::Driver;
use crate::wire::client::Response;

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
