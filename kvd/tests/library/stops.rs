//! Programs that cannot run a command: refused before it is proposed, and stopped before it is applied.

use kvd::client::ClientError;
use kvd::exit::{ExitCode, Failure};
use kvd::machine::{Machines, State, StateMachine, SubmitError, View};
use kvd::wire::client::Refusal;

use super::support::{Cluster, Count, Counter, PATIENCE, TooMuch};

#[tokio::test]
async fn a_node_without_the_machine_refuses_it_by_name() {
    let mut cluster = Cluster::start(1);
    cluster.kill(0);
    cluster.restart(0, Machines::new());
    let counter = cluster.client(0).machine::<Counter>();
    let refusal = Refusal::NoMachine {
        machine: "counter".into(),
        version: 1,
        known: None,
    };
    let refused = counter.submit(&Count::One).await;
    let expected = SubmitError::Failed(ClientError::Refused(refusal));
    assert_eq!(refused, Err(expected));
}

#[tokio::test]
async fn a_node_that_finds_a_command_without_its_machine_stops_with_code_66() {
    let mut cluster = Cluster::start(1);
    let counter = cluster.client(0).machine::<Counter>();
    assert_eq!(counter.submit(&Count::One).await, Ok(1));
    cluster.kill(0);
    cluster.restart(0, Machines::new());
    let failure = stopped(&mut cluster).await;
    assert_eq!(failure.code, ExitCode::FormatNewer, "{failure}");
    assert!(
        failure.what.contains("state machine counter of version 1"),
        "{failure}"
    );
    // With the machine everything is there.
    cluster.restart(0, Counter);
    let counter = cluster.client(0).machine::<Counter>();
    assert_eq!(counter.ask(&false).await, Ok(1));
}

/// It stops at the same command whenever it is started, until the program is mended; nothing of the command is ever seen.
#[tokio::test]
async fn a_node_whose_machine_panics_stops_with_code_70() {
    let mut cluster = Cluster::start(1);
    let counter = cluster.client(0).machine::<Counter>();
    assert_eq!(counter.submit(&Count::One).await, Ok(1));
    let panicking = tokio::spawn(async move { counter.submit(&Count::Panic).await });
    let first = stopped(&mut cluster).await;
    assert_eq!(first.code, ExitCode::MachineFailed, "{first}");
    assert_eq!(first.what, "state machine counter panicked: told to");
    assert!(first.index.is_some(), "{first}");
    let outcome = panicking.await.unwrap();
    assert!(
        matches!(outcome, Err(SubmitError::Unknown(_))),
        "it is in the log: {outcome:?}"
    );
    cluster.restart(0, Counter);
    assert_eq!(stopped(&mut cluster).await, first);
    cluster.restart(0, Mended);
    let counter = cluster.client(0).machine::<Counter>();
    assert_eq!(counter.ask(&false).await, Ok(1));
    assert_eq!(counter.submit(&Count::One).await, Ok(2));
}

async fn stopped(cluster: &mut Cluster) -> Failure {
    let mut node = cluster.nodes[0].take().unwrap();
    let ended = tokio::time::timeout(PATIENCE, node.ended()).await;
    ended.expect("it stops");
    node.join().unwrap_err()
}

/// The counter, with the panic taken out.
struct Mended;

impl StateMachine for Mended {
    const NAME: &'static str = Counter::NAME;
    type Command = Count;
    type Answer = u64;
    type Rejection = TooMuch;
    type Question = bool;
    type Reply = u64;

    fn apply(&self, state: &mut State<'_>, count: Count) -> Result<u64, TooMuch> {
        match count {
            Count::One => Counter.apply(state, count),
            Count::Panic => Err(TooMuch),
        }
    }

    fn query(&self, view: &View<'_>, panics: bool) -> u64 {
        Counter.query(view, panics)
    }
}
