//! A replicated counter: commands of a type of our own, answers for those who proposed them, reads
//! at a follower, a crash, and a snapshot for the server that missed too much.
//!
//! The part that is the same for all state machines is in `driver/server.rs`.
//!
//! `cargo run -p raft-core --example replicated_counter`

mod driver;

use driver::{Cluster, Encoded, Outcome, StateMachine};
use raft_core::{EntryId, NodeId};

/// What clients ask for.
#[derive(Clone, Copy, Debug)]
enum Command {
    /// Answered with the sum.
    Add(i64),
    /// Answered with what the counter was.
    Reset,
}

/// The core carries bytes. What they mean is agreed between all servers of a cluster, of this
/// version and the next: so the numbers are written down, and never used for anything else.
impl Encoded for Command {
    fn encode(&self) -> Vec<u8> {
        match self {
            Command::Add(number) => [&[1][..], &number.to_le_bytes()].concat(),
            Command::Reset => vec![2],
        }
    }

    fn decode(bytes: &[u8]) -> Option<Command> {
        match bytes.split_first()? {
            (1, number) => Some(Command::Add(i64::from_le_bytes(number.try_into().ok()?))),
            (2, []) => Some(Command::Reset),
            _ => None,
        }
    }
}

/// The state that the commands lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counter {
    value: i64,
}

impl StateMachine for Counter {
    type Command = Command;
    type Answer = i64;

    fn apply(&mut self, command: Command) -> i64 {
        match command {
            Command::Add(number) => {
                // What is beyond the numbers must give the same everywhere, be it built with checks
                // for overflow or without.
                self.value = self.value.wrapping_add(number);
                self.value
            }
            Command::Reset => std::mem::take(&mut self.value),
        }
    }
}

/// A snapshot is the state as bytes.
impl Encoded for Counter {
    fn encode(&self) -> Vec<u8> {
        self.value.to_le_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Counter> {
        let value = i64::from_le_bytes(bytes.try_into().ok()?);
        Some(Counter { value })
    }
}

/// Proposes a command at the leader until it is executed, and returns its answer.
fn execute(cluster: &mut Cluster<Counter>, command: Command) -> i64 {
    loop {
        let leader = cluster.await_leader();
        let proposer = leader.node.id();
        let proposed = leader
            .propose(&command)
            .expect("the leader takes proposals");
        match await_outcome(cluster, proposer, proposed) {
            Outcome::Applied(answer) => {
                println!("{proposer}: {command:?} is {proposed}, answer {answer}");
                return answer;
            }
            Outcome::Lost => {}
            // Proposing it again could add twice. Real clients number their commands, and the state
            // machine keeps the newest number of each client with its answer.
            Outcome::Unknown => panic!("nobody knows whether {command:?} was executed"),
        }
    }
}

/// Waits until it is decided which entry takes the place of a proposal.
fn await_outcome(
    cluster: &mut Cluster<Counter>,
    proposer: NodeId,
    proposed: EntryId,
) -> Outcome<i64> {
    cluster.run_until(|cluster| cluster.server(proposer).has_outcome(proposed));
    let outcome = cluster.server_mut(proposer).take_outcome(proposed);
    outcome.expect("just seen")
}

/// A proposal is named by index and term, and here is why both are needed: a leader that is cut off
/// takes a command, which nobody else gets. The next leader puts an entry of its own there.
fn cut_off_leader_loses_its_proposal(cluster: &mut Cluster<Counter>) {
    let leader = cluster.await_leader();
    let id = leader.node.id();
    let lost = leader
        .propose(&Command::Reset)
        .expect("it leads, it thinks");
    cluster.cut_off(id);
    cluster.run_until(|cluster| cluster.leader().is_some_and(|leader| leader != id));
    execute(cluster, Command::Add(10));
    cluster.reconnect(id);
    assert_eq!(await_outcome(cluster, id, lost), Outcome::Lost);
    println!("{id}: Reset is not executed, {lost} is another entry");
}

/// A server crashes. When it comes back, the others have put a snapshot in place of the entries
/// that it misses.
fn restarted_server_gets_a_snapshot(cluster: &mut Cluster<Counter>, id: NodeId) {
    let before = cluster.server(id).node.status().last;
    cluster.crash(id);
    execute(cluster, Command::Add(100));
    let leader = cluster.await_leader();
    let snapshot = leader.compact().id;
    assert!(snapshot.index > before.index, "{id} misses entries");
    execute(cluster, Command::Add(1000));

    // Its state machine is empty at first: memory is gone, and its disk has entries of which it does
    // not know yet whether they are committed.
    cluster.start(id);
    assert_eq!(cluster.server(id).machine, Counter::default());
    cluster.run_until(|cluster| cluster.server(id).node.status().applied > snapshot.index);
    let status = cluster.server(id).node.status();
    assert_eq!(status.snapshot, Some(snapshot));
    println!("{status}");
}

/// Reads at a server, whatever it is. A follower asks the leader at which index it may read, and
/// then needs no more of it than that number; no entry is written for it.
fn read(cluster: &mut Cluster<Counter>, id: NodeId) -> i64 {
    let reader = cluster.server_mut(id);
    let read = reader.begin_read().expect("a leader is known");
    cluster.run_until(|cluster| cluster.server(id).read(read).is_some());
    let counter = cluster.server(id).read(read).expect("just seen");
    println!("{id}: the counter is {}", counter.value);
    counter.value
}

pub(crate) fn main() {
    let mut cluster = Cluster::found([1, 2, 3]);
    assert_eq!(execute(&mut cluster, Command::Add(2)), 2);
    assert_eq!(execute(&mut cluster, Command::Add(3)), 5);
    assert_eq!(execute(&mut cluster, Command::Reset), 5);

    cut_off_leader_loses_its_proposal(&mut cluster);
    let leader = cluster.await_leader().node.id();
    let follower = [1, 2, 3].map(NodeId).into_iter().find(|id| *id != leader);
    let follower = follower.expect("two of three follow");
    restarted_server_gets_a_snapshot(&mut cluster, follower);
    assert_eq!(read(&mut cluster, follower), 1110);

    cluster.settle();
    for server in cluster.servers() {
        assert_eq!(server.machine, Counter { value: 1110 });
    }
}
