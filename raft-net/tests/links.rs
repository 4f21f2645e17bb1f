//! Links between nodes: messages, restarts, cuts, incarnations, snapshots.

#![allow(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one event among all"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    DEADLINE, Node, any_port, authority, hello, introduce, node_credentials, options, pair,
};
use raft_net::{
    AdmitAll, Credentials, Endpoint, Impairment, Lane, NetEvent, Path, PeerAddress, Refusal,
    SendError, TransferError,
};

#[tokio::test]
async fn messages_keep_their_order_in_each_lane_in_both_directions() {
    let authority = authority();
    let (mut first, mut second) = pair(&authority).await;
    for number in 0..1000_u32 {
        let lane = if number % 10 == 0 {
            Lane::Urgent
        } else {
            Lane::Bulk
        };
        let parts = || {
            vec![
                Bytes::copy_from_slice(&number.to_le_bytes()),
                Bytes::from_static(b"tail"),
            ]
        };
        first.endpoint.send(2, lane, parts()).unwrap();
        second.endpoint.send(1, lane, parts()).unwrap();
    }
    for node in [&mut first, &mut second] {
        let mut last = [None::<u32>; 2];
        for _ in 0..1000 {
            let (from, lane, payload) = node.message().await;
            assert_ne!(from, node.id);
            assert_eq!(&payload[4..], b"tail");
            let number = u32::from_le_bytes(payload[..4].try_into().unwrap());
            assert_eq!(number % 10 == 0, lane == Lane::Urgent);
            let last = &mut last[usize::from(lane == Lane::Bulk)];
            assert!(
                last.is_none_or(|last| last < number),
                "{number} after {last:?}"
            );
            *last = Some(number);
        }
    }
}

#[tokio::test]
async fn send_tells_apart_unknown_down_and_too_large() {
    let authority = authority();
    let node = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    assert_eq!(
        node.send(9, Lane::Bulk, "x"),
        Err(SendError::UnknownPeer { peer: 9 })
    );
    let (first, second) = pair(&authority).await;
    let large = vec![Bytes::from(vec![0; 8 << 20]), Bytes::from_static(b"x")];
    let error = first.endpoint.send(2, Lane::Bulk, large).unwrap_err();
    assert_eq!(
        error,
        SendError::TooLarge {
            bytes: (8 << 20) + 1,
            limit: 8 << 20
        }
    );
    drop(second);
    let gone = async {
        while first.send(2, Lane::Bulk, "x") != Err(SendError::Down { peer: 2 }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

#[tokio::test]
async fn bulk_of_many_mebibytes_passes_while_the_consumer_reads() {
    let authority = authority();
    let (first, mut second) = pair(&authority).await;
    let message = Bytes::from(vec![7_u8; 1 << 20]);
    let (mut sent, mut received) = (0, 0);
    while received < 64 {
        match first.endpoint.send(2, Lane::Bulk, vec![message.clone()]) {
            Ok(()) if sent < 64 => sent += 1,
            Ok(()) | Err(SendError::Full { .. }) => {
                assert_eq!(second.message().await.2.len(), 1 << 20);
                received += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn removed_peer_loses_its_link_and_comes_back_when_named_again() {
    let authority = authority();
    let (mut first, mut second) = pair(&authority).await;
    first.endpoint.set_peers(vec![]);
    second.down(1).await;
    assert_eq!(
        first.send(2, Lane::Bulk, "x"),
        Err(SendError::UnknownPeer { peer: 2 })
    );
    let refusal = second.until(refused_by).await;
    assert_eq!(refusal, (1, Refusal::UnknownMember));
    introduce(&first, &second);
    first.up(2).await;
    second.up(1).await;
}

fn refused_by(event: NetEvent) -> Option<(u64, Refusal)> {
    match event {
        NetEvent::RefusedBy { id, refusal } => Some((id, refusal)),
        _ => None,
    }
}

/// The refused side learns the reason, whichever of the two dials.
#[tokio::test]
async fn stale_incarnation_is_refused_and_hears_why() {
    let authority = authority();
    for stale in [1, 2] {
        let (one, two) = (
            node_credentials(&authority, 1),
            node_credentials(&authority, 2),
        );
        let mut first = Node::start(&one, 1, 5, any_port());
        let mut second = Node::start(&two, 2, 5, any_port());
        introduce(&first, &second);
        first.up(2).await;
        second.up(1).await;
        let (dying, other, credentials) = if stale == 1 {
            (first, second, &one)
        } else {
            (second, first, &two)
        };
        let listen = dying.endpoint.local_addr();
        drop(dying);
        // The older directory takes the place of the newer one.
        let seen = hello(stale, 5).incarnation();
        let mut restarted = rebind(credentials, stale, 4, listen).await;
        restarted.endpoint.set_peers(vec![other.address()]);
        let refusal = restarted.until(refused_by).await;
        assert_eq!(refusal, (other.id, Refusal::StaleIncarnation { seen }));
    }
}

/// The port of an endpoint that was just dropped is free once its tasks have ended.
async fn rebind(credentials: &Credentials, id: u64, boot: u64, listen: SocketAddr) -> Node {
    let begin = Instant::now();
    loop {
        let bound = Endpoint::bind(
            options(listen),
            credentials.clone(),
            hello(id, boot),
            Arc::new(AdmitAll),
        );
        match bound {
            Ok((endpoint, events)) => {
                return Node {
                    id,
                    endpoint,
                    events,
                };
            }
            Err(error) => assert!(begin.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn snapshot_arrives_whole_and_is_acknowledged_or_refused_with_the_reason() {
    let authority = authority();
    let (first, mut second) = pair(&authority).await;
    let receiver = tokio::spawn(async move {
        for round in 0..2 {
            let mut snapshot = second.until(snapshot_of).await;
            assert_eq!(
                (snapshot.from(), &snapshot.header()[..]),
                (1, &b"header"[..])
            );
            let mut bytes = 0;
            while let Some(chunk) = snapshot.chunk().await.unwrap() {
                bytes += chunk.len();
            }
            assert_eq!(bytes, 5 << 20);
            if round == 0 {
                snapshot.accept().await.unwrap();
            } else {
                snapshot.refuse("checksum").await.unwrap();
            }
        }
        // A transfer that is dropped half-way is refused as well.
        drop(second.until(snapshot_of).await);
        second
    });
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let mut sender = first
            .endpoint
            .send_snapshot(2, Bytes::from_static(b"header"))
            .await
            .unwrap();
        let written = async {
            for _ in 0..5 {
                sender.write(Bytes::from(vec![1; 1 << 20])).await?;
            }
            sender.finish().await
        };
        outcomes.push(written.await);
    }
    assert_eq!(outcomes[0], Ok(()));
    assert_eq!(
        outcomes[1],
        Err(TransferError::Refused {
            reason: "checksum".to_owned()
        })
    );
    assert!(
        matches!(outcomes[2], Err(TransferError::Refused { .. })),
        "{:?}",
        outcomes[2]
    );
    receiver.await.unwrap();
}

fn snapshot_of(event: NetEvent) -> Option<raft_net::IncomingSnapshot> {
    match event {
        NetEvent::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    }
}

/// Case 58: heartbeats are not blocked by a snapshot stream.
#[tokio::test]
async fn stuck_snapshots_and_a_stuck_bulk_lane_do_not_hold_up_the_urgent_lane() {
    let authority = authority();
    let (first, mut second) = pair(&authority).await;
    let mut stuck = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..4 {
        let begun = first
            .endpoint
            .send_snapshot(2, Bytes::from_static(b"header"));
        let begun = tokio::time::timeout(DEADLINE, begun).await;
        let mut sender = begun.expect("room for one more stream").unwrap();
        senders.push(tokio::spawn(async move {
            loop {
                sender.write(Bytes::from(vec![1; 1 << 20])).await.unwrap();
            }
        }));
        // Taken and never read.
        stuck.push(second.until(snapshot_of).await);
    }
    let begin = Instant::now();
    for round in 0..50 {
        first
            .send(2, Lane::Urgent, &format!("beat {round}"))
            .unwrap();
        let (_, lane, payload) = second.message().await;
        assert_eq!(
            (lane, &payload[..]),
            (Lane::Urgent, format!("beat {round}").as_bytes())
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!(
        "50 heartbeats beside 4 stuck snapshots: {:?}",
        begin.elapsed()
    );
    assert!(
        senders.iter().all(|sender| !sender.is_finished()),
        "a sender did not wait"
    );
    senders.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A node in a runtime of its own, which can be dropped at any moment: nothing is said to anybody, as in a crash.
struct Crashable {
    runtime: tokio::runtime::Runtime,
    node: Node,
}

impl Crashable {
    fn start(credentials: &Credentials, id: u64, boot: u64, listen: SocketAddr) -> Crashable {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let node = runtime.block_on(async { rebind(credentials, id, boot, listen).await });
        Crashable { runtime, node }
    }

    fn set_peers(&self, peers: Vec<PeerAddress>) {
        let _inside = self.runtime.enter();
        self.node.endpoint.set_peers(peers);
    }

    /// The runtime goes first, so that no task can send a farewell.
    fn crash(self) {
        let Crashable { runtime, node } = self;
        runtime.shutdown_timeout(Duration::from_secs(5));
        // Its connections have no driver any more; the drop is silent.
        drop(node);
    }
}

#[test]
fn peers_reconnect_at_once_after_an_abrupt_restart() {
    let authority = authority();
    let test = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for restarted in [1, 2] {
        let other = 3 - restarted;
        let credentials = node_credentials(&authority, restarted);
        let mut times = Vec::new();
        let mut survivor = test.block_on(async {
            Node::start(&node_credentials(&authority, other), other, 1, any_port())
        });
        let mut crashable = Crashable::start(&credentials, restarted, 1, any_port());
        let listen = crashable.node.endpoint.local_addr();
        test.block_on(async {
            survivor.endpoint.set_peers(vec![crashable.node.address()]);
            crashable.set_peers(vec![survivor.address()]);
            survivor.up(restarted).await;
        });
        for boot in 2..7 {
            crashable.crash();
            // Long enough that the survivor has noticed nothing, short of its idle timeout, or a little beyond.
            std::thread::sleep(Duration::from_millis(if boot % 2 == 0 {
                100
            } else {
                1500
            }));
            crashable = Crashable::start(&credentials, restarted, boot, listen);
            let begin = Instant::now();
            crashable.set_peers(vec![survivor.address()]);
            test.block_on(async { while survivor.up(restarted).await.boot_counter != boot {} });
            times.push(begin.elapsed());
        }
        println!("node {restarted} killed and back: linked again after {times:?}");
        assert!(times.iter().all(|time| *time < Duration::from_secs(5)));
    }
}

#[tokio::test]
async fn closing_tells_the_peers_why_and_statistics_tell_of_the_link() {
    let authority = authority();
    let (first, mut second) = pair(&authority).await;
    first.send(2, Lane::Bulk, "x").unwrap();
    second.message().await;
    let stats = second.endpoint.peer_stats(1).unwrap();
    assert_eq!(stats.remote, first.endpoint.local_addr());
    assert!(stats.received_bytes > 0);
    assert_eq!(stats.queued_bytes, 0);
    first.endpoint.close("going home").await;
    assert_eq!(second.down(1).await, "going home");
    assert_eq!(second.endpoint.peer_stats(1), None);
}

/// An endpoint on `[::]` serves IPv4 peers too, by any name that resolves.
#[tokio::test]
async fn dual_stack_endpoint_is_reached_by_ipv4_and_by_name() {
    if std::net::UdpSocket::bind("[::]:0").is_err() {
        println!("no IPv6 on this machine");
        return;
    }
    let authority = authority();
    let both = Node::start(
        &node_credentials(&authority, 2),
        2,
        1,
        "[::]:0".parse().unwrap(),
    );
    let mut four = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    let port = both.endpoint.local_addr().port();
    both.endpoint.set_peers(vec![four.address()]);
    for host in ["127.0.0.1", "localhost"] {
        let address = format!("{host}:{port}");
        four.endpoint.set_peers(vec![PeerAddress {
            address,
            ..both.address()
        }]);
        four.up(2).await;
        four.send(2, Lane::Bulk, host).unwrap();
        four.endpoint.set_peers(vec![]);
        four.down(2).await;
    }
}

/// A peer that is admitted and then breaks the link again and again does not cause a storm of handshakes.
#[tokio::test]
async fn links_that_break_at_once_are_dialled_with_back_off() {
    let authority = authority();
    let dialler = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    // This one has no room for the dialler's bulk lane: with a frame limit of 0 bytes each message breaks the link.
    let mut small = options(any_port());
    small.frame_bytes_max = 0;
    let mut breaker = Node::start_with(&node_credentials(&authority, 2), hello(2, 1), small);
    introduce(&dialler, &breaker);
    let (begin, mut links) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(2) {
        let _ = dialler.send(2, Lane::Bulk, "x");
        let event = tokio::time::timeout(Duration::from_millis(1), breaker.events.recv()).await;
        if matches!(event, Ok(Some(NetEvent::PeerUp { .. }))) {
            links += 1;
        }
    }
    println!("{links} links in 2 s");
    assert!((2..=20).contains(&links), "{links} links in 2 s");
}

#[tokio::test]
async fn healed_cut_moves_again() {
    let authority = authority();
    let (mut first, mut second) = pair(&authority).await;
    for cut in [100, 300, 700, 1200, 2500] {
        let cut_path = |peer| Impairment {
            peers: [(peer, Path::CUT)].into(),
            ..Impairment::default()
        };
        first.endpoint.impair(&cut_path(2));
        second.endpoint.impair(&cut_path(1));
        let end = Instant::now() + Duration::from_millis(cut);
        while Instant::now() < end {
            // A cut link may or may not have been noticed.
            let _ = first.send(2, Lane::Urgent, "before");
            let _ = second.send(1, Lane::Urgent, "before");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        first.endpoint.impair(&Impairment::default());
        second.endpoint.impair(&Impairment::default());
        let begin = Instant::now();
        let wanted = format!("after {cut}");
        let moved = async {
            loop {
                let _ = first.send(2, Lane::Urgent, &wanted);
                let arrived =
                    tokio::time::timeout(Duration::from_millis(10), second.message()).await;
                if arrived.is_ok_and(|(_, _, payload)| payload == wanted.as_bytes()) {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, moved).await.unwrap();
        println!(
            "cut of {cut} ms healed: first message after {:?}",
            begin.elapsed()
        );
        while let Ok(event) = first.events.try_recv() {
            drop(event);
        }
    }
}

#[tokio::test]
async fn loss_and_delay_slow_messages_down_but_lose_none_of_a_living_link() {
    let authority = authority();
    let (first, mut second) = pair(&authority).await;
    let path = Path {
        loss: 0.1,
        delay: Duration::from_millis(5),
        ..Path::default()
    };
    first.endpoint.impair(&Impairment {
        others: path,
        ..Impairment::default()
    });
    second.endpoint.impair(&Impairment {
        others: path,
        ..Impairment::default()
    });
    let begin = Instant::now();
    for number in 0..40 {
        first.send(2, Lane::Bulk, &number.to_string()).unwrap();
        assert_eq!(second.message().await.2, number.to_string());
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(40 * 5),
        "{:?}",
        begin.elapsed()
    );
}
