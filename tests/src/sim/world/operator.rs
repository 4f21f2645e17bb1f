//! What an operator asks for. Nobody waits for the answers: what was refused shows in what the cluster is.

use kvd::wire::client::{MemberAddress, MemberChange, Request};

use super::{Due, World};
use crate::sim::fault::places;
use crate::sim::{Place, node};
use crate::watch::Violation;

/// Number of the client under which the operator asks.
const OPERATOR: usize = usize::MAX;
/// How long a node may keep a request, in milliseconds.
const TIMEOUT_MS: u32 = 5_000;

impl World {
    pub(super) fn discard_log(&mut self, place: Place) -> Result<(), Violation> {
        self.order(place, Request::DiscardLog)
    }

    pub(super) fn transfer(&mut self, to: Place) -> Result<(), Violation> {
        let to = Some(node::name(to));
        self.order_leader(Request::TransferLeader { to })
    }

    pub(super) fn add(&mut self, place: Place) -> Result<(), Violation> {
        self.put_into_use(place);
        self.change_members(vec![MemberChange::Add(address(place))])
    }

    pub(super) fn remove(&mut self, place: Place) -> Result<(), Violation> {
        let name = node::name(place);
        self.change_members(vec![MemberChange::Remove { name }])
    }

    pub(super) fn replace(&mut self, old: Place, new: Place) -> Result<(), Violation> {
        self.put_into_use(new);
        let (old, new) = (node::name(old), address(new));
        self.change_members(vec![MemberChange::Replace { old, new }])
    }

    /// Some join and some leave, in one request.
    pub(super) fn change(&mut self, add: u32, remove: u32) -> Result<(), Violation> {
        places(add).for_each(|place| self.put_into_use(place));
        let joins = places(add).map(|place| MemberChange::Add(address(place)));
        let leaves = places(remove).map(|place| MemberChange::Remove {
            name: node::name(place),
        });
        self.change_members(joins.chain(leaves).collect())
    }

    /// Starts the process of a machine that was none of the founders.
    fn put_into_use(&mut self, place: Place) {
        if !std::mem::replace(&mut self.nodes[place].in_use, true) {
            self.plan(self.now, Due::Start { place });
        }
    }

    fn change_members(&mut self, changes: Vec<MemberChange>) -> Result<(), Violation> {
        self.order_leader(Request::ChangeMembers {
            changes,
            dry_run: false,
            timeout_ms: TIMEOUT_MS,
        })
    }

    /// Asks whoever leads; if nobody does, the operator has asked in vain.
    fn order_leader(&mut self, request: Request) -> Result<(), Violation> {
        match self.leader() {
            Some(leader) => self.order(leader, request),
            None => Ok(()),
        }
    }

    fn order(&mut self, place: Place, request: Request) -> Result<(), Violation> {
        self.ask(place, OPERATOR, 0, request)
    }
}

fn address(place: Place) -> MemberAddress {
    MemberAddress {
        name: node::name(place),
        id: node::id(place).0,
        address: format!("{}:7400", node::name(place)),
    }
}
