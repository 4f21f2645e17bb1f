//! Answers to clients, and the refusal that several parts of the driver give.

use super::{ClientId, Driver, Effect};
use crate::wire::client::{Quorum, Refusal, Response, ResponseFrame};

impl Driver {
    pub(super) fn answer(&mut self, client: ClientId, id: u64, body: Response) {
        self.effects.push(Effect::Answer {
            client,
            frame: ResponseFrame { id, body },
        });
    }

    pub(super) fn refuse(&mut self, client: ClientId, id: u64, refusal: Refusal) {
        self.answer(client, id, Response::Refused(refusal));
    }

    pub(super) fn no_leader(&self) -> Refusal {
        if self.is_removed() {
            return Refusal::NoLeader {
                detail: "this node was removed from the cluster".into(),
            };
        }
        let Quorum {
            voters,
            quorum,
            reachable,
            ..
        } = self.quorum_of(self.node.configuration());
        Refusal::NoLeader {
            detail: format!("{reachable} of {voters} voters have a link here, quorum is {quorum}"),
        }
    }
}
