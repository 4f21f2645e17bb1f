//! Case 58: many transports, one after the other, and what the other side is told of them.

#![allow(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one event among all"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Node, any_port, authority, hello, introduce, node_credentials, options};
use raft_net::{AdmitAll, Endpoint, Lane, NetEvent};

/// Case 58: the transport is killed, not the process, many times; no message of an old connection is processed after
/// one of a newer incarnation, and each message lies between the `PeerUp` and the `PeerDown` of its own link.
///
/// A multi-threaded runtime, so that the readers of an old link really run beside the handshake of a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_of_an_old_incarnation_follows_one_of_a_newer() {
    let authority = authority();
    for (killed, other) in [(1, 2), (2, 1)] {
        let credentials = node_credentials(&authority, killed);
        // Its events are read at the very end, so all of them must find room.
        let mut roomy = options(any_port());
        roomy.events_max = 1 << 16;
        let own = node_credentials(&authority, other);
        let mut survivor = Node::start_with(&own, hello(other, 1), roomy);
        let mut current = Node::start(&credentials, killed, 1, any_port());
        introduce(&current, &survivor);
        let boots = 60;
        let mut old = Vec::new();
        for boot in 1..=boots {
            // Messages without end, from this incarnation and still from the former ones.
            current.up(other).await;
            for _ in 0..20 {
                send_own_boot(&current, other, boot);
            }
            if boot == boots {
                break;
            }
            // Every other time the old transport lives on beside the new one, with its link still open.
            let address = any_port();
            let next = Node::start(&credentials, killed, boot + 1, address);
            next.endpoint.set_peers(vec![survivor.address()]);
            survivor.endpoint.set_peers(vec![next.address()]);
            if boot % 2 == 0 {
                send_own_boot(&current, other, boot);
                old.push((boot, current));
                if old.len() > 3 {
                    old.remove(0);
                }
            } else {
                drop(current);
            }
            for (boot, node) in &old {
                send_own_boot(node, other, *boot);
            }
            current = next;
        }
        check_order(&mut survivor, killed, boots).await;
    }
}

fn send_own_boot(node: &Node, to: u64, boot: u64) {
    for lane in [Lane::Urgent, Lane::Bulk] {
        // An old transport may have lost its link by now.
        let _ = node
            .endpoint
            .send(to, lane, vec![Bytes::copy_from_slice(&boot.to_le_bytes())]);
    }
}

/// Reads events until everything of the last incarnation is there.
async fn check_order(survivor: &mut Node, peer: u64, boots: u64) {
    let (mut linked, mut newest, mut of_last, mut messages) = (None, 0, 0, 0);
    while of_last < 40 {
        let event = tokio::time::timeout(common::DEADLINE, survivor.events.recv())
            .await
            .unwrap()
            .unwrap();
        match event {
            NetEvent::PeerUp { id, hello } => {
                assert_eq!(id, peer);
                assert_eq!(
                    linked, None,
                    "PeerUp of {} without PeerDown of {linked:?}",
                    hello.boot_counter
                );
                assert!(
                    hello.boot_counter >= newest,
                    "{} after {newest}",
                    hello.boot_counter
                );
                newest = hello.boot_counter;
                linked = Some(newest);
            }
            NetEvent::PeerDown { .. } => {
                assert!(linked.take().is_some(), "PeerDown without PeerUp");
            }
            NetEvent::Message {
                boot_counter,
                payload,
                ..
            } => {
                assert_eq!(
                    payload[..],
                    boot_counter.to_le_bytes(),
                    "attributed to another incarnation"
                );
                assert_eq!(Some(boot_counter), linked, "outside of its link");
                messages += 1;
                of_last += u64::from(boot_counter == boots);
            }
            _ => {}
        }
    }
    println!("{messages} messages of {boots} incarnations in order");
}

/// The same incarnation may come back as often as it likes, and its links replace each other.
#[tokio::test]
async fn transport_killed_a_hundred_times_links_again_each_time() {
    let authority = authority();
    let (one, two) = (
        node_credentials(&authority, 1),
        node_credentials(&authority, 2),
    );
    let mut second = Node::start(&two, 2, 1, any_port());
    let begin = std::time::Instant::now();
    for round in 0..100_u64 {
        let bound = Endpoint::bind(
            options(any_port()),
            one.clone(),
            hello(1, 1 + round),
            Arc::new(AdmitAll),
        );
        let (endpoint, events) = bound.unwrap();
        let mut first = Node {
            id: 1,
            endpoint,
            events,
        };
        introduce(&first, &second);
        first.up(2).await;
        assert_eq!(second.up(1).await.boot_counter, 1 + round);
        first.send(2, Lane::Bulk, &round.to_string()).unwrap();
        assert_eq!(second.message().await.2, round.to_string());
    }
    println!("100 transports: {:?}", begin.elapsed());
    tokio::time::sleep(Duration::from_millis(1)).await;
}
