//! Bytes from a peer or a stranger that no correct node would send.

#![allow(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one event among all"
)]

mod common;
#[path = "common/stranger.rs"]
mod stranger;

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use common::{DEADLINE, Node, any_port, authority, hello, name, node_credentials, pair};
use raft_net::pki::Authority;
use raft_net::{ClientOptions, Lane, NetEvent, PEER_ALPN, PeerAddress, connect_client};
use stranger::Stranger;

/// Node 2, and a stranger that holds the certificate of its peer 1 and has said hello.
async fn node_and_rogue_peer(authority: &Authority) -> (Node, Stranger) {
    let mut node = Node::start(&node_credentials(authority, 2), 2, 1, any_port());
    node.endpoint.set_peers(vec![PeerAddress {
        id: 1,
        name: name(1),
        address: "127.0.0.1:9".to_owned(),
    }]);
    let own = authority.issue_node("n1", 1, 30, &[]).unwrap();
    let remote = node.endpoint.local_addr();
    let rogue = Stranger::connect(remote, "n2.node.kvd", PEER_ALPN, authority, Some(&own))
        .await
        .unwrap();
    rogue.greet(&hello(1, 1)).await.unwrap();
    node.up(1).await;
    (node, rogue)
}

async fn closed(rogue: &Stranger) -> String {
    tokio::time::timeout(DEADLINE, rogue.connection.closed())
        .await
        .expect("the connection is closed")
        .to_string()
}

/// Bytes of memory this process has in use.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Case 61: on a lane, a frame with declared length 2^32-1, an unknown stream type, a truncated frame and the end of
/// the lane all close the connection; the node stays up and its memory stays where it was.
#[tokio::test]
async fn broken_lanes_close_the_connection_and_nothing_else() {
    let authority = authority();
    let too_large = [&[Lane::Bulk as u8][..], &u32::MAX.to_le_bytes(), b"x"].concat();
    let cases: [(&str, &[u8], bool, &str); 5] = [
        (
            "declared length 2^32-1",
            &too_large,
            false,
            "frame of 4294967295 bytes, limit 8388608",
        ),
        (
            "unknown stream type",
            &[77],
            false,
            "unknown stream type 77",
        ),
        ("no stream type", &[], true, "unknown stream type"),
        (
            "truncated frame",
            &[1, 100, 0, 0, 0, b'x'],
            true,
            "stream ended 99 bytes before the end of a frame",
        ),
        ("lane that ends", &[1], true, "a lane ended"),
    ];
    for (case, bytes, finish, wanted) in cases {
        let (mut node, rogue) = node_and_rogue_peer(&authority).await;
        let before = resident_bytes();
        let mut stream = rogue.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        if finish {
            stream.finish().unwrap();
        }
        let told = closed(&rogue).await;
        assert!(told.contains(wanted), "{case}: {told}");
        node.down(1).await;
        let grown = resident_bytes().saturating_sub(before);
        assert!(
            grown < 2 * raft_net::limits::FRAME_BYTES_MAX as u64,
            "{case}: {grown} bytes"
        );
        // The certificate's owner may come again.
        let own = authority.issue_node("n1", 1, 30, &[]).unwrap();
        let remote = node.endpoint.local_addr();
        let again = Stranger::connect(remote, "n2.node.kvd", PEER_ALPN, &authority, Some(&own))
            .await
            .unwrap();
        again.greet(&hello(1, 1)).await.unwrap();
    }
}

/// Case 61: frames that came before the broken one are delivered.
#[tokio::test]
async fn good_frames_before_a_bad_one_are_delivered() {
    let authority = authority();
    let (mut node, rogue) = node_and_rogue_peer(&authority).await;
    let mut stream = rogue.connection.open_uni().await.unwrap();
    stream
        .write_all(
            &[
                &[Lane::Urgent as u8][..],
                &2_u32.to_le_bytes(),
                b"ok",
                &[255; 4],
            ]
            .concat(),
        )
        .await
        .unwrap();
    assert_eq!(
        node.message().await,
        (1, Lane::Urgent, Bytes::from_static(b"ok"))
    );
    assert!(closed(&rogue).await.contains("limit"));
}

/// Case 61: an unknown bidirectional stream type and an overlong snapshot header are refused; streams beyond the
/// limit cannot be opened at all.
#[tokio::test]
async fn broken_snapshot_streams_do_not_disturb_the_node() {
    let authority = authority();
    let (mut node, rogue) = node_and_rogue_peer(&authority).await;
    let (mut send, _recv) = rogue.connection.open_bi().await.unwrap();
    send.write_all(&[3, 255, 255, 255, 255]).await.unwrap();
    let stopped = tokio::time::timeout(DEADLINE, send.stopped())
        .await
        .unwrap();
    assert!(stopped.is_ok(), "{stopped:?}");
    let mut open = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(200), rogue.connection.open_bi()).await
    {
        open.push(stream.unwrap());
        assert!(open.len() <= 4, "no limit on streams");
    }
    open[0].0.write_all(&[99]).await.unwrap();
    assert!(closed(&rogue).await.contains("unknown stream type 99"));
    node.down(1).await;
}

/// Case 61: a hello that is none closes the connection before any message.
#[tokio::test]
async fn broken_hello_is_refused() {
    let authority = authority();
    let mut node = Node::start(&node_credentials(&authority, 2), 2, 1, any_port());
    node.endpoint.set_peers(vec![PeerAddress {
        id: 1,
        name: name(1),
        address: "127.0.0.1:9".to_owned(),
    }]);
    let own = authority.issue_node("n1", 1, 30, &[]).unwrap();
    let remote = node.endpoint.local_addr();
    for bytes in [
        &b"\x04\0\0\0kvdh"[..],
        b"\xff\xff\xff\xff",
        &[&[40, 0, 0, 0][..], &[7; 40]].concat(),
    ] {
        let rogue = Stranger::connect(remote, "n2.node.kvd", PEER_ALPN, &authority, Some(&own))
            .await
            .unwrap();
        let (mut send, _recv) = rogue.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let told = closed(&rogue).await;
        assert!(told.contains("hello") || told.contains("limit"), "{told}");
        let logged = node.refused().await;
        assert!(
            logged.contains("hello") || logged.contains("limit"),
            "{logged}"
        );
    }
}

/// Case 61: garbage datagrams are ignored; links and new connections work beside them.
#[tokio::test]
async fn garbage_datagrams_are_ignored() {
    let authority = authority();
    let (mut first, mut second) = pair(&authority).await;
    let target = second.endpoint.local_addr();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 1_u64;
    for round in 0..5000 {
        let mut datagram = vec![0; 1 + round % 1400];
        for byte in &mut datagram {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_le_bytes()[7];
        }
        // Half of them look like the first packet of a connection.
        if round % 2 == 0 {
            datagram[0] |= 0xc0;
            if let Some(version) = datagram.get_mut(1..5) {
                version.copy_from_slice(&[0, 0, 0, 1]);
            }
        }
        socket.send_to(&datagram, target).unwrap();
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    first.send(2, Lane::Bulk, "still here").unwrap();
    assert_eq!(second.message().await.2, "still here");
    second.send(1, Lane::Urgent, "me too").unwrap();
    assert_eq!(first.message().await.2, "me too");
}

/// Case 61: a client's frame that is too large or cut is an error to its reader, and to nobody else.
#[tokio::test]
async fn broken_client_frames_are_errors_of_that_stream() {
    let authority = authority();
    let mut node = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    let issued = authority.issue_client("ops", 30).unwrap();
    let remote = node.endpoint.local_addr();
    for (bytes, wanted) in [
        (&b"\x10\xff\xff\xff\xff"[..], "limit 4194304"),
        (b"\x10\x05\0\0\0x", "4 bytes before the end"),
    ] {
        let rogue = Stranger::connect(
            remote,
            "node.kvd",
            raft_net::CLIENT_ALPN,
            &authority,
            Some(&issued),
        )
        .await
        .unwrap();
        let (mut send, _recv) = rogue.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let mut stream = node
            .until(|event| match event {
                NetEvent::Client(stream) => Some(stream),
                _ => None,
            })
            .await;
        let error = tokio::time::timeout(DEADLINE, stream.receiver.recv())
            .await
            .unwrap()
            .unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        let more =
            tokio::time::timeout(Duration::from_millis(100), rogue.connection.open_bi()).await;
        assert!(more.is_err(), "a client may open one stream only");
    }
    let ops = common::credentials(&authority, &issued);
    connect_client(&remote.to_string(), &ops, None, &ClientOptions::default())
        .await
        .unwrap();
}
