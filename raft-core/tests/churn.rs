//! Longer runs: votes split again and again, nodes come and go, a dead member is replaced.

mod harness;

use std::collections::BTreeSet;

use harness::{Cluster, envelope, id};
use raft_core::{
    ConfigurationChange, EntryId, MemberChange, Message, NodeId, Rejected, Role, Term, VoteResponse,
};

const ELECTION_TIMEOUT_TICKS: u32 = 10;

/// Case 7: five nodes stand at the same moment three times over; left to their own timeouts they
/// elect a leader, and the term has not run away.
#[test]
fn split_votes_end_in_a_leader() {
    const ROUNDS: u64 = 3;
    let mut cluster = Cluster::new(5);
    cluster.start_all();
    for _ in 0..ROUNDS {
        for node in 1..=5 {
            cluster.campaign(id(node));
        }
        cluster.settle();
        assert_eq!(cluster.leaders(), [], "the votes were meant to be split");
    }
    cluster.run(10 * ELECTION_TIMEOUT_TICKS);
    let leaders = cluster.leaders();
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    let term = cluster.status(leaders[0]).term;
    assert!(
        term <= Term(ROUNDS + 2),
        "term {term} after {ROUNDS} rounds"
    );
}

/// What a client has proposed and does not know the fate of.
struct Pending {
    asked: NodeId,
    entry: EntryId,
    value: String,
}

/// Five nodes, three clients, and chance.
struct Churn {
    cluster: Cluster,
    seed: u64,
    pending: Vec<Pending>,
    acknowledged: BTreeSet<String>,
    proposed: u64,
}

impl Churn {
    fn roll(&mut self, bound: u64) -> u64 {
        // A linear congruence is chance enough to choose victims by.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.seed >> 33) % bound
    }

    /// Each client proposes a value of its own at a node that believes it leads.
    fn propose(&mut self) {
        for asked in self.cluster.leaders() {
            for client in 0..3 {
                self.proposed += 1;
                let value = format!("c{client}.{}", self.proposed);
                if let Ok(entry) = self.cluster.propose(asked, &[&value]) {
                    self.pending.push(Pending {
                        asked,
                        entry,
                        value,
                    });
                }
            }
        }
    }

    /// A client gets its answer from the node it asked, once that has applied the entry. If the node
    /// dies before, or applies another entry there, the client never learns what became of it.
    fn answer(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if !self.cluster.is_up(pending.asked) {
                continue;
            }
            let applied = &self.cluster.member(pending.asked).applied;
            match applied.iter().find(|it| it.index == pending.entry.index) {
                Some(entry) if entry.id() == pending.entry => {
                    self.acknowledged.insert(pending.value);
                }
                Some(_) => {}
                None => self.pending.push(pending),
            }
        }
    }

    fn disturb(&mut self) {
        let victim = id(1 + self.roll(5));
        match self.roll(4) {
            0 if self.cluster.is_up(victim) => {
                let kept = self.roll(3) as usize;
                self.cluster.crash(victim, kept);
            }
            1 => drop(self.cluster.isolated.insert(victim)),
            2 => self.cluster.isolated.clear(),
            _ => self.cluster.start_all(),
        }
    }
}

/// Case 15: ten minutes, at a tick of 100 ms, of cuts, crashes and restarts every 0.7 election
/// timeouts. Every value that a client was told is committed is in the log in the end, once.
#[test]
fn churn_loses_and_repeats_nothing() {
    const TICKS: u32 = 6_000;
    let mut cluster = Cluster::new(5);
    cluster.start_all();
    let mut churn = Churn {
        cluster,
        seed: 15,
        pending: Vec::new(),
        acknowledged: BTreeSet::new(),
        proposed: 0,
    };
    for tick in 0..TICKS {
        if tick % 5 == 0 {
            churn.propose();
        }
        if tick % (ELECTION_TIMEOUT_TICKS * 7 / 10) == 0 {
            churn.disturb();
        }
        churn.cluster.run(1);
        churn.answer();
    }
    churn.cluster.isolated.clear();
    churn.cluster.start_all();
    churn.cluster.run(20 * ELECTION_TIMEOUT_TICKS);
    let leaders = churn.cluster.leaders();
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    let expected = churn.cluster.log_of(leaders[0]);
    for node in 1..=5 {
        assert_eq!(churn.cluster.log_of(id(node)), expected, "n{node}");
    }
    let stored = churn.cluster.disk(leaders[0]).stored();
    let values: Vec<String> = stored
        .map(|entry| String::from_utf8_lossy(&entry.payload).into_owned())
        .collect();
    let (told, proposed) = (churn.acknowledged.len(), churn.proposed);
    println!(
        "{told} of {proposed} values acknowledged, term {}",
        expected[expected.len() - 1].term
    );
    assert!(
        told > 500,
        "only {told} values were acknowledged: too rough to show anything"
    );
    for value in &churn.acknowledged {
        let count = values.iter().filter(|it| *it == value).count();
        assert_eq!(count, 1, "{value} is in the log {count} times");
    }
}

/// Proposes at each tick and asserts that a proposal is committed at least every three election
/// timeouts.
fn run_under_load(cluster: &mut Cluster, ticks: u32) {
    let mut idle = 0;
    let mut committed = commit_index(cluster);
    for _ in 0..ticks {
        for leader in cluster.leaders() {
            cluster.propose(leader, &["x"]).ok();
        }
        cluster.run(1);
        let now = commit_index(cluster);
        idle = if now > committed { 0 } else { idle + 1 };
        committed = now;
        assert!(
            idle <= 3 * ELECTION_TIMEOUT_TICKS,
            "nothing committed for {idle} ticks"
        );
    }
}

fn commit_index(cluster: &Cluster) -> u64 {
    let leaders = cluster.leaders();
    let commits = leaders
        .iter()
        .map(|leader| cluster.status(*leader).commit.0);
    commits.max().unwrap_or(0)
}

/// Case 30: n3 is dead for ever. n4 comes as a learner, catches up, becomes a voter in the step in
/// which n3 goes, and the cluster takes writes all the time. The vote of n3 counts no more.
#[test]
fn dead_member_is_replaced_under_load() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    run_under_load(&mut cluster, 20);
    cluster.crash(id(3), 0);
    cluster.join(id(4));
    let learner = ConfigurationChange::new([MemberChange::AddLearner(id(4))]);
    cluster.change(id(1), &learner).unwrap();
    run_under_load(&mut cluster, 20);
    let replacement = [MemberChange::Promote(id(4)), MemberChange::Remove(id(3))];
    let replacement = ConfigurationChange::new(replacement);
    cluster.change(id(1), &replacement).unwrap();
    run_under_load(&mut cluster, 20);
    let status = cluster.status(id(4));
    let members: Vec<NodeId> = status.configuration.all_voters().collect();
    assert_eq!(members, [1, 2, 4].map(NodeId));
    assert!(!status.configuration.is_joint());

    // The dead one comes back after all, and would vote for n2 against its leader.
    cluster.start(id(3));
    cluster.isolated.insert(id(1));
    cluster.isolated.insert(id(4));
    cluster.run(3 * ELECTION_TIMEOUT_TICKS);
    assert_ne!(
        cluster.status(id(2)).role,
        Role::Leader,
        "n3 does not count"
    );
    let term = cluster.status(id(2)).term;
    let grant = Message::VoteResponse(VoteResponse { granted: true });
    assert_ne!(
        cluster.status(id(2)).role,
        Role::Candidate,
        "no pre-vote was won"
    );
    cluster.isolated.clear();
    let refused = cluster.deliver(envelope(3, 2, term.0, grant));
    assert!(
        matches!(
            refused,
            Err(Rejected::Unasked | Rejected::UnknownSender { .. })
        ),
        "{refused:?}"
    );
    run_under_load(&mut cluster, 50);
}
