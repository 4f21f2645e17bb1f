//! Promises of a running cluster, each checked by a watcher of its own.
//!
//! Watchers are fed with what the nodes do ([`Seen`]) and know nothing else: not the network, not the disks, not who drives
//! the nodes. So the same watchers serve a simulation, a script and a cluster of somebody else's making.
//!
//! | watcher | promise |
//! |---|---|
//! | [`OneLeader`] | at most one leader in a term |
//! | [`LogMatching`] | an entry with the same index and term is the same everywhere, and so is all before it |
//! | [`LeaderCompleteness`] | a new leader holds every committed entry |
//! | [`Agreement`] | all nodes commit the same entries, and no commit index falls within a life |
//! | [`QuorumDurable`] | what is committed is durable on a quorum at that moment |
//! | [`Votes`] | no node votes for two candidates in a term, in however many lives |
//! | [`DurableFirst`] | no message promises what is not on the disk of its sender |
//! | [`NothingLost`] | what was durable is there after a start |
//! | [`SameState`] | the state after entry i is that of a replay of all entries up to i |
//! | [`Bounds`] | the log keeps within its limit |

mod agreement;
mod bounds;
mod durable_first;
mod leader_completeness;
mod log_matching;
mod logs;
mod nothing_lost;
mod one_leader;
mod quorum_durable;
mod same_state;
mod votes;

use std::fmt;

use raft_core::{
    Configuration, Entry, EntryId, Envelope, Event, HardState, LogIndex, NodeId, Persist,
    PersistId, Role, Term,
};

pub use self::agreement::Agreement;
pub use self::bounds::Bounds;
pub use self::durable_first::DurableFirst;
pub use self::leader_completeness::LeaderCompleteness;
pub use self::log_matching::LogMatching;
pub use self::logs::{Log, Logs};
pub use self::nothing_lost::NothingLost;
pub use self::one_leader::OneLeader;
pub use self::quorum_durable::QuorumDurable;
pub use self::same_state::{Replay, SameState};
pub use self::votes::Votes;

/// Something that a node did, in the order in which it did it.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// It opened its log and takes part from now on.
    Started {
        /// Term and vote.
        hard_state: HardState,
        /// The entry before the first one.
        floor: EntryId,
        /// All entries after the floor.
        entries: &'a [Entry],
    },
    /// It handed this to its disk.
    Given(&'a Persist),
    /// Everything up to this part is durable on its disk.
    Durable(PersistId),
    /// A message leaves it.
    Sends(&'a Envelope),
    /// Its core told of something.
    Told(&'a Event),
    /// It has done what it had to do for now, and is in this state.
    Turned(State<'a>),
    /// Its log takes so many bytes on the disk, the limit being the second.
    LogBytes(u64, u64),
}

/// What a node is after a turn.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Its term.
    pub term: Term,
    /// Its role.
    pub role: Role,
    /// Its commit index.
    pub commit: LogIndex,
    /// The last entry that its state machine has applied.
    pub applied: LogIndex,
    /// Hash of the state machine.
    pub hash: u64,
    /// The configuration in force.
    pub configuration: &'a Configuration,
}

/// A promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule, the same for all violations of one kind.
    pub rule: &'static str,
    /// Who, where, what.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

impl std::error::Error for Violation {}

/// Checks one promise.
pub trait Watcher {
    /// What the rule is called in violations.
    const RULE: &'static str;

    /// A node did something. `logs` holds what all nodes had done before.
    ///
    /// # Errors
    /// What is wrong.
    fn see(&mut self, node: NodeId, seen: &Seen<'_>, logs: &Logs) -> Result<(), String>;
}

/// All watchers together.
#[derive(Debug, Default)]
pub struct Watchers<R> {
    logs: Logs,
    one_leader: OneLeader,
    log_matching: LogMatching,
    leader_completeness: LeaderCompleteness,
    agreement: Agreement,
    quorum_durable: QuorumDurable,
    votes: Votes,
    durable_first: DurableFirst,
    nothing_lost: NothingLost,
    same_state: SameState<R>,
    bounds: Bounds,
}

fn ask<W: Watcher>(
    watcher: &mut W,
    node: NodeId,
    seen: &Seen<'_>,
    logs: &Logs,
) -> Result<(), Violation> {
    watcher.see(node, seen, logs).map_err(|text| Violation {
        rule: W::RULE,
        text: format!("{node}: {text}"),
    })
}

impl<R: Replay> Watchers<R> {
    /// Watchers of nodes that have done nothing yet. `replay` is a state machine before the first entry.
    pub fn new(replay: R) -> Watchers<R> {
        Watchers {
            logs: Logs::default(),
            one_leader: OneLeader::default(),
            log_matching: LogMatching::default(),
            leader_completeness: LeaderCompleteness::default(),
            agreement: Agreement::default(),
            quorum_durable: QuorumDurable::default(),
            votes: Votes::default(),
            durable_first: DurableFirst,
            nothing_lost: NothingLost,
            same_state: SameState::new(replay),
            bounds: Bounds,
        }
    }

    /// A node did something.
    ///
    /// # Errors
    /// The first promise that this breaks.
    pub fn see(&mut self, node: NodeId, seen: &Seen<'_>) -> Result<(), Violation> {
        ask(&mut self.nothing_lost, node, seen, &self.logs)?;
        self.logs.see(node, seen);
        let logs = &self.logs;
        ask(&mut self.one_leader, node, seen, logs)?;
        ask(&mut self.log_matching, node, seen, logs)?;
        // Before the entries that this node commits now are known as committed.
        ask(&mut self.quorum_durable, node, seen, logs)?;
        ask(&mut self.agreement, node, seen, logs)?;
        self.logs.note_commit(node, seen);
        let logs = &self.logs;
        ask(&mut self.leader_completeness, node, seen, logs)?;
        ask(&mut self.votes, node, seen, logs)?;
        ask(&mut self.durable_first, node, seen, logs)?;
        ask(&mut self.same_state, node, seen, logs)?;
        ask(&mut self.bounds, node, seen, logs)
    }

    /// What is known of the logs.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The state after all committed entries.
    pub fn replayed(&self) -> &R {
        self.same_state.replayed()
    }
}
