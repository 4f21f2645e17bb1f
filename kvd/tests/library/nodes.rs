//! Commands on nodes that die: each acknowledged one took effect once.

use std::collections::BTreeSet;

use kvd::client::ClientError;
use kvd::machine::{AskError, Handle, SubmitError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::support::{Cluster, Count, Counter, TooMuch};

const ROUNDS: u64 = 3;
/// Submitters at the same time, and what each submits, one after the other.
const SUBMITTERS: u64 = 4;
const EACH: u64 = 12;
const SUBMITS: u64 = SUBMITTERS * EACH;

/// Many commands on their way.
struct Submitting(JoinSet<Vec<u64>>);

/// Submits many commands; returns as soon as the first is answered.
async fn submit_many(counter: &Handle<Counter>) -> Submitting {
    let mut tasks = JoinSet::new();
    let (begun, mut answered) = mpsc::channel(1);
    for _ in 0..SUBMITTERS {
        let (counter, begun) = (counter.clone(), begun.clone());
        tasks.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..EACH {
                answers.push(counter.submit(&Count::One).await.unwrap());
                // Only the first is waited for.
                let _ = begun.try_send(());
            }
            answers
        });
    }
    answered.recv().await.unwrap();
    Submitting(tasks)
}

impl Submitting {
    async fn answers(self) -> Vec<u64> {
        self.0.join_all().await.concat()
    }
}

/// In each round the leader dies while commands are on their way through a follower, and comes back with its log.
#[tokio::test]
async fn commands_through_a_follower_take_effect_once_though_leaders_die() {
    let mut cluster = Cluster::start(3);
    let mut answers = BTreeSet::new();
    for round in 1..=ROUNDS {
        let leader = cluster.leader(&cluster.client(0)).await;
        let counter = cluster.client((leader + 1) % 3).machine::<Counter>();
        assert_eq!(
            counter.ask(&false).await.unwrap(),
            (round - 1) * (SUBMITS + 1)
        );
        answers.insert(counter.submit(&Count::One).await.unwrap());
        let submitting = submit_many(&counter).await;
        cluster.kill(leader);
        answers.extend(submitting.answers().await);
        cluster.restart(leader, Counter);
    }
    let total = ROUNDS * (SUBMITS + 1);
    assert_eq!(
        answers,
        (1..=total).collect(),
        "each answer once, and no gap"
    );
    for place in 0..3 {
        let counter = cluster.client(place).machine::<Counter>();
        assert_eq!(counter.ask(&false).await.unwrap(), total);
    }
}

/// A process without a node: the node that it is connected to dies, whichever that is.
#[tokio::test]
async fn commands_over_the_network_take_effect_once_though_every_node_dies_once() {
    let mut cluster = Cluster::start(3);
    let client = cluster.remote();
    let counter = client.machine::<Counter>();
    let mut answers = BTreeSet::from([counter.submit(&Count::One).await.unwrap()]);
    for place in 0..3 {
        let submitting = submit_many(&counter).await;
        cluster.kill(place);
        answers.extend(submitting.answers().await);
        cluster.restart(place, Counter);
    }
    let total = 3 * SUBMITS + 1;
    assert_eq!(answers, (1..=total).collect());
    assert_eq!(counter.ask(&false).await.unwrap(), total);
    client.close().await;
}

/// A command under a name, from a process that died before it had the answer and one that comes after it.
#[tokio::test]
async fn a_named_command_has_the_same_answer_in_every_process() {
    let mut cluster = Cluster::start(1);
    let name = 0x5eed;
    let first = cluster.client(0).machine::<Counter>();
    assert_eq!(first.submit_named(&Count::One, name).await, Ok(1));
    assert_eq!(first.submit(&Count::One).await, Ok(2));
    cluster.kill(0);
    cluster.restart(0, Counter);
    let second = cluster.client(0).machine::<Counter>();
    assert_eq!(second.submit_named(&Count::One, name).await, Ok(1));
    assert_eq!(second.ask(&false).await, Ok(2));
    let local = second.ask_local(&false).await.unwrap();
    assert_eq!(local.reply, 2);
    // The client of a node that is gone says so; nothing was sent.
    let gone = first.submit(&Count::One).await;
    assert!(
        matches!(gone, Err(SubmitError::Failed(ClientError::Unreachable(_)))),
        "{gone:?}"
    );
}

#[tokio::test]
async fn a_question_that_makes_the_machine_panic_is_refused_and_the_node_goes_on() {
    let cluster = Cluster::start(1);
    let counter = cluster.client(0).machine::<Counter>();
    let refused = counter.ask(&true).await.unwrap_err();
    assert!(
        matches!(refused, AskError::Failed(ClientError::Refused(_))),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("asked to"), "{refused}");
    let answer: Result<u64, SubmitError<TooMuch>> = counter.submit(&Count::One).await;
    assert_eq!(answer, Ok(1));
}
