//! What a test does by hand: requests that no client of the world would send, and starts before their time.

use std::collections::BTreeMap;

use kvd::wire::client::{Request, Response};

use super::World;
use crate::sim::{Place, Us};
use crate::watch::Violation;

/// Number of the client under which requests made by hand are sent.
pub(super) const PROBE: usize = usize::MAX - 1;

/// Requests made by hand, and their answers by number.
#[derive(Debug, Default)]
pub(super) struct Probes {
    asked: u64,
    answers: BTreeMap<u64, (Us, Response)>,
}

impl Probes {
    /// An answer came.
    pub(super) fn answered(&mut self, now: Us, number: u64, response: Response) {
        self.answers.insert(number, (now, response));
    }
}

impl World {
    /// Hands a request to a node. Its number, for [`World::probed`]; none if no process is there to take it.
    ///
    /// What it writes is in no history: clients of the world that read it would seem to see a value that nobody wrote.
    ///
    /// # Errors
    /// A promise that is broken at once.
    pub fn probe(&mut self, place: Place, request: Request) -> Result<Option<u64>, Violation> {
        if !self.nodes[place].is_live() {
            return Ok(None);
        }
        self.probes.asked += 1;
        let number = self.probes.asked;
        self.ask(place, PROBE, number, request)?;
        Ok(Some(number))
    }

    /// When a request made by hand was answered, and how; none as long as it is not, which may be forever.
    pub fn probed(&self, number: u64) -> Option<&(Us, Response)> {
        self.probes.answers.get(&number)
    }

    /// Starts the process of a node that is down, before it was due.
    ///
    /// # Errors
    /// A promise that is broken at once.
    pub fn start_now(&mut self, place: Place) -> Result<(), Violation> {
        self.nodes[place].back_at = self.now;
        self.start(place)
    }
}
