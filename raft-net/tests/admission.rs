//! The application has the last word on a peer, and has it before the first message.

#![allow(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one event among all"
)]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Node, any_port, authority, hello, introduce, node_credentials, options};
use raft_net::{Admission, Endpoint, Hello, Lane, NetEvent, Refusal, SendError};
use tokio::sync::Semaphore;

/// Answers when it is allowed to, and remembers who asked.
struct Gate {
    open: Semaphore,
    verdict: Result<(), Refusal>,
    asked: Mutex<Vec<Hello>>,
}

impl Gate {
    fn new(verdict: Result<(), Refusal>, permits: usize) -> Arc<Gate> {
        Arc::new(Gate {
            open: Semaphore::new(permits),
            verdict,
            asked: Mutex::default(),
        })
    }
}

impl Admission for Gate {
    fn admit<'a>(
        &'a self,
        hello: &'a Hello,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(hello.clone());
            self.open.acquire().await.unwrap().forget();
            self.verdict
        })
    }

    fn refuse_stranger(&self, _: u64) -> Refusal {
        self.verdict.err().unwrap_or(Refusal::UnknownMember)
    }
}

fn guarded(credentials: &raft_net::Credentials, id: u64, gate: Arc<Gate>) -> Node {
    let (endpoint, events) =
        Endpoint::bind(options(any_port()), credentials.clone(), hello(id, 1), gate).unwrap();
    Node {
        id,
        endpoint,
        events,
    }
}

/// Whichever of the two dials: nothing is up and nothing is delivered while the admission is undecided.
#[tokio::test]
async fn no_message_is_delivered_before_admission() {
    let authority = authority();
    for (careful, other) in [(1, 2), (2, 1)] {
        let gate = Gate::new(Ok(()), 0);
        let mut careful = guarded(
            &node_credentials(&authority, careful),
            careful,
            gate.clone(),
        );
        let other = Node::start(&node_credentials(&authority, other), other, 1, any_port());
        introduce(&careful, &other);
        let early = async {
            loop {
                // The other side may already have its end of the link.
                let _ = other.send(careful.id, Lane::Urgent, "early");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let early = tokio::time::timeout(Duration::from_millis(300), early);
        assert!(early.await.is_err());
        assert!(careful.events.try_recv().is_err());
        let down = SendError::Down { peer: other.id };
        assert_eq!(careful.send(other.id, Lane::Bulk, "x"), Err(down));
        assert!(!gate.asked.lock().unwrap().is_empty());
        gate.open.add_permits(100);
        assert_eq!(careful.up(other.id).await, hello(other.id, 1));
        assert_eq!(gate.asked.lock().unwrap()[0], hello(other.id, 1));
    }
}

/// Whichever of the two dials, the refused side hears the reason and the refusing side sees no link.
#[tokio::test]
async fn refusal_of_the_admission_reaches_the_other_side() {
    let authority = authority();
    for (careful, other) in [(1, 2), (2, 1)] {
        let gate = Gate::new(Err(Refusal::Removed), 1000);
        let mut careful = guarded(&node_credentials(&authority, careful), careful, gate);
        let mut other = Node::start(&node_credentials(&authority, other), other, 1, any_port());
        introduce(&careful, &other);
        let told = other.until(|event| match event {
            NetEvent::RefusedBy { id, refusal } => Some((id, refusal)),
            _ => None,
        });
        assert_eq!(told.await, (careful.id, Refusal::Removed));
        let logged = careful.refused().await;
        assert!(logged.contains("removed from the cluster"), "{logged}");
    }
}

/// An admission that never answers costs the peer its handshake, not the endpoint its life.
#[tokio::test]
async fn admission_that_hangs_ends_with_the_handshake_timeout() {
    let authority = authority();
    let gate = Gate::new(Ok(()), 0);
    let mut hasty = options(any_port());
    hasty.handshake_timeout = Duration::from_millis(200);
    let (endpoint, events) = Endpoint::bind(
        hasty,
        node_credentials(&authority, 2),
        hello(2, 1),
        gate.clone(),
    )
    .unwrap();
    let mut careful = Node {
        id: 2,
        endpoint,
        events,
    };
    let mut other = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    introduce(&careful, &other);
    assert!(careful.refused().await.contains("in time"));
    gate.open.add_permits(100);
    careful.up(1).await;
    other.up(2).await;
}

/// A node that is not among the peers any more hears why, whichever of the two would have dialled: nobody else tells it.
#[tokio::test]
async fn a_stranger_is_told_what_the_admission_says_of_it() {
    let authority = authority();
    for (careful, other) in [(1, 2), (2, 1)] {
        let gate = Gate::new(Err(Refusal::Removed), 0);
        let careful = guarded(&node_credentials(&authority, careful), careful, gate);
        let mut other = Node::start(&node_credentials(&authority, other), other, 1, any_port());
        other.endpoint.set_peers(vec![careful.address()]);
        let told = other.until(|event| match event {
            NetEvent::RefusedBy { id, refusal } => Some((id, refusal)),
            _ => None,
        });
        assert_eq!(told.await, (careful.id, Refusal::Removed));
    }
}
