//! Who is served and who is not, and that the others are told why.

#![allow(clippy::unwrap_used, reason = "a failed test may panic anywhere")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests look for one event among all"
)]

mod common;
#[path = "common/stranger.rs"]
mod stranger;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{
    CLUSTER, DEADLINE, Node, any_port, authority, credentials, hello, introduce, name,
    node_credentials, options, pair,
};
use raft_net::pki::{Authority, IssuedCertificate, Validity};
use raft_net::{
    CLIENT_ALPN, ClientConnection, ClientOptions, ClusterId, ConnectError, Credentials, DenyList,
    Identity, Lane, NetEvent, PEER_ALPN, PeerAddress, Refusal, connect_client,
};
use stranger::{Stranger, try_to_be_served};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn node_identity(id: u64) -> Identity {
    Identity::Node {
        cluster: CLUSTER,
        name: name(id),
        id,
    }
}

fn client_identity() -> Identity {
    Identity::Client {
        cluster: CLUSTER,
        name: "ops".to_owned(),
    }
}

fn expired() -> Validity {
    Validity {
        not_before: SystemTime::now() - 3 * DAY,
        not_after: SystemTime::now() - DAY,
    }
}

fn not_yet() -> Validity {
    Validity {
        not_before: SystemTime::now() + DAY,
        not_after: SystemTime::now() + 3 * DAY,
    }
}

/// The certificates a stranger may come with. `right` is the good one for the protocol, `other_role` is good for
/// the other protocol.
fn certificates(
    authority: &Authority,
    right: &Identity,
    other_role: &Identity,
) -> Vec<(&'static str, Option<IssuedCertificate>)> {
    let other_ca = Authority::create(CLUSTER, "other", 30).unwrap();
    let elsewhere =
        Authority::from_pem(ClusterId(7), authority.ca_pem(), authority.key_pem()).unwrap();
    let abroad = match right {
        Identity::Node { name, id, .. } => elsewhere.issue_node(name, *id, 30, &[]),
        Identity::Client { name, .. } | Identity::Admin { name, .. } => {
            elsewhere.issue_client(name, 30)
        }
    };
    let good = Validity::days(30);
    vec![
        ("no certificate", None),
        ("other CA", Some(other_ca.issue(right, good, &[]).unwrap())),
        (
            "expired",
            Some(authority.issue(right, expired(), &[]).unwrap()),
        ),
        (
            "not yet valid",
            Some(authority.issue(right, not_yet(), &[]).unwrap()),
        ),
        (
            "wrong role",
            Some(authority.issue(other_role, good, &[]).unwrap()),
        ),
        ("wrong cluster", Some(abroad.unwrap())),
        ("right", Some(authority.issue(right, good, &[]).unwrap())),
    ]
}

/// What either side must find in the reason.
fn expected_reason(case: &str) -> &'static str {
    match case {
        "no certificate" => "no certificates",
        "other CA" => "UnknownIssuer",
        "expired" => "expired",
        "not yet valid" => "not valid yet",
        "wrong role" => "wrong role",
        "wrong cluster" => "wrong cluster",
        "other node id" => "another node",
        other => panic!("{other}"),
    }
}

/// Case 59: of the certificate matrix only the right certificate is served, on either protocol; every refusal is
/// told to the stranger and to the log, with the reason.
#[tokio::test]
async fn only_the_right_certificate_is_served_on_either_protocol() {
    let authority = authority();
    // Node 2 has a peer 1 that will come from outside.
    let mut node = Node::start(&node_credentials(&authority, 2), 2, 1, any_port());
    let remote = node.endpoint.local_addr();
    let absent = PeerAddress {
        id: 1,
        name: name(1),
        address: "127.0.0.1:9".to_owned(),
    };
    node.endpoint.set_peers(vec![absent]);
    for (alpn, right, other_role) in [
        (PEER_ALPN, node_identity(1), client_identity()),
        (CLIENT_ALPN, client_identity(), node_identity(1)),
    ] {
        for (case, own) in certificates(&authority, &right, &other_role) {
            let protocol = String::from_utf8_lossy(alpn).into_owned();
            let outcome =
                try_to_be_served(remote, alpn, &authority, own.as_ref(), &hello(1, 1)).await;
            if case == "right" {
                assert_eq!(outcome, Ok(()), "{protocol}, {case}");
                continue;
            }
            let told = outcome.expect_err(&format!("{protocol}, {case} was served"));
            let logged = node.refused().await;
            println!("{protocol:12} {case:15} told: {told} | logged: {logged}");
            let wanted = expected_reason(case);
            assert!(told.contains(wanted), "{protocol}, {case}: told {told:?}");
            assert!(
                logged.contains(wanted),
                "{protocol}, {case}: logged {logged:?}"
            );
        }
    }
}

/// Case 59: a right certificate does not let its owner speak for another node.
#[tokio::test]
async fn hello_of_another_node_than_the_certificate_is_refused() {
    let authority = authority();
    let mut node = Node::start(&node_credentials(&authority, 9), 9, 1, any_port());
    let remote = node.endpoint.local_addr();
    let absent = |id| PeerAddress {
        id,
        name: name(id),
        address: "127.0.0.1:9".to_owned(),
    };
    node.endpoint.set_peers(vec![absent(1), absent(2)]);
    let own = authority.issue_node("n1", 1, 30, &[]).unwrap();
    let told = try_to_be_served(remote, PEER_ALPN, &authority, Some(&own), &hello(2, 1))
        .await
        .unwrap_err();
    assert!(told.contains("another node"), "{told}");
    let told = node.refused().await;
    assert!(told.contains("another node"), "{told}");
    // And one that is nobody's peer is refused although its certificate and hello agree.
    let unknown = authority.issue_node("n3", 3, 30, &[]).unwrap();
    let told = try_to_be_served(remote, PEER_ALPN, &authority, Some(&unknown), &hello(3, 1))
        .await
        .unwrap_err();
    assert!(told.contains("not a known member"), "{told}");
    let mut foreign = hello(1, 1);
    foreign.cluster = ClusterId(7);
    let told = try_to_be_served(remote, PEER_ALPN, &authority, Some(&own), &foreign)
        .await
        .unwrap_err();
    assert!(told.contains("wrong cluster"), "{told}");
}

/// Case 59: the dialler checks as well. Another name is found by TLS, another id by us.
#[tokio::test]
async fn dialler_refuses_a_node_with_another_name_or_another_id() {
    let authority = authority();
    let impostor = Node::start(&node_credentials(&authority, 3), 3, 1, any_port());
    let mut dialler = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    let address = impostor.endpoint.local_addr().to_string();
    let dial = |id, name: &str| {
        vec![PeerAddress {
            id,
            name: name.to_owned(),
            address: address.clone(),
        }]
    };
    dialler.endpoint.set_peers(dial(2, "n2"));
    let reason = dialler.refused().await;
    assert!(reason.contains("not valid for name"), "{reason}");
    dialler.endpoint.set_peers(dial(4, "n3"));
    let reason = dialler.refused().await;
    assert!(reason.contains("another node"), "{reason}");
}

fn client_credentials(authority: &Authority, name: &str) -> Credentials {
    credentials(authority, &authority.issue_client(name, 30).unwrap())
}

async fn connect(
    address: &str,
    who: &Credentials,
    expect_node: Option<&str>,
) -> Result<ClientConnection, ConnectError> {
    connect_client(address, who, expect_node, &ClientOptions::default()).await
}

async fn client_stream(node: &mut Node) -> raft_net::ClientStream {
    node.until(|event| match event {
        NetEvent::Client(stream) => Some(stream),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn client_talks_to_any_node_or_to_the_one_it_names() {
    let authority = authority();
    let mut node = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    let address = node.endpoint.local_addr().to_string();
    let ops = client_credentials(&authority, "ops");
    for expect_node in [None, Some("n1")] {
        let connected = connect(&address, &ops, expect_node);
        let (connected, mut stream) = tokio::join!(connected, client_stream(&mut node));
        let mut client = connected.unwrap();
        assert_eq!(client.server, node_identity(1));
        assert_eq!(*stream.identity, client_identity());
        client
            .sender
            .send_all(&[Bytes::from_static(b"question"), Bytes::from_static(b"two")])
            .await
            .unwrap();
        assert_eq!(stream.receiver.recv().await.unwrap().unwrap(), "question");
        assert_eq!(stream.receiver.recv().await.unwrap().unwrap(), "two");
        stream
            .sender
            .send_all(&[Bytes::from_static(b"answer")])
            .await
            .unwrap();
        assert_eq!(client.receiver.recv().await.unwrap().unwrap(), "answer");
        client.handle.close().await;
        assert!(stream.receiver.recv().await.is_err());
    }
    let wrong = connect_client(&address, &ops, Some("n2"), &ClientOptions::default()).await;
    assert!(
        matches!(&wrong, Err(ConnectError::BadServer { reason }) if reason.contains("not valid for name")),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn refusal_of_a_client_certificate_is_found_while_connecting() {
    let authority = authority();
    let node = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    let address = node.endpoint.local_addr().to_string();
    // Signed by a CA that only the client trusts, besides ours.
    let other = Authority::create(CLUSTER, "other", 30).unwrap();
    let issued = other.issue_client("ops", 30).unwrap();
    let both = format!("{}{}", authority.ca_pem(), other.ca_pem());
    let foreign = Credentials::from_pem(
        both.as_bytes(),
        issued.cert_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    )
    .unwrap();
    let error = connect(&address, &foreign, None).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Rejected(reason) if reason.reason.contains("UnknownIssuer")),
        "{error:?}"
    );
    // A node's certificate is none for a client.
    let error = connect(&address, &node_credentials(&authority, 2), None)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectError::Rejected(reason) if reason.refusal == Some(Refusal::WrongRole)),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_a_timeout_and_no_such_name_is_said_so() {
    let authority = authority();
    let ops = client_credentials(&authority, "ops");
    let mut options = ClientOptions::default();
    options.timeout = Duration::from_millis(300);
    let error = connect_client("127.0.0.1:9", &ops, None, &options)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
    let error = connect("no port", &ops, None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
}

#[tokio::test]
async fn clients_are_limited_by_identity_and_in_all() {
    let authority = authority();
    let mut limits = options(any_port());
    limits.clients_max = 3;
    limits.clients_per_identity_max = 2;
    let mut node = Node::start_with(&node_credentials(&authority, 1), hello(1, 1), limits);
    let address = node.endpoint.local_addr().to_string();
    let (a, b) = (
        client_credentials(&authority, "a"),
        client_credentials(&authority, "b"),
    );
    let first = connect(&address, &a, None).await.unwrap();
    let kept_stream = client_stream(&mut node).await;
    let _second = connect(&address, &a, None).await.unwrap();
    too_many(connect(&address, &a, None).await.unwrap_err());
    let _third = connect(&address, &b, None).await.unwrap();
    too_many(connect(&address, &b, None).await.unwrap_err());
    assert_eq!(node.endpoint.client_count(), 3);
    first.handle.close().await;
    drop(kept_stream);
    let place_came_back = async {
        while connect(&address, &b, None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, place_came_back)
        .await
        .unwrap();
}

fn too_many(error: ConnectError) {
    let refusal = match &error {
        ConnectError::Rejected(reason) => reason.refusal,
        _ => None,
    };
    assert_eq!(refusal, Some(Refusal::TooManyConnections), "{error:?}");
}

#[tokio::test]
async fn dropping_a_client_stream_ends_the_connection_after_the_last_answer() {
    let authority = authority();
    let mut node = Node::start(&node_credentials(&authority, 1), 1, 1, any_port());
    let address = node.endpoint.local_addr().to_string();
    let ops = client_credentials(&authority, "ops");
    let mut client = connect(&address, &ops, None).await.unwrap();
    let mut stream = client_stream(&mut node).await;
    stream
        .sender
        .send_all(&[Bytes::from_static(b"goodbye")])
        .await
        .unwrap();
    drop(stream);
    assert_eq!(client.receiver.recv().await.unwrap().unwrap(), "goodbye");
    assert_eq!(client.receiver.recv().await, Ok(None));
}

/// Case 60, the transport's part: new files are used for new handshakes, a CA that was taken out of the bundle is
/// refused, and existing links stay.
#[tokio::test]
async fn reload_moves_to_a_new_ca_without_losing_a_link() {
    let old = authority();
    let new = Authority::create(CLUSTER, "new", 30).unwrap();
    let (mut first, mut second) = pair(&old).await;
    let both = format!("{}{}", old.ca_pem(), new.ca_pem());
    let issued = [1, 2].map(|id| new.issue_node(&name(id), id, 30, &[]).unwrap());
    let load = |ca: &str, id: usize| {
        let own = &issued[id - 1];
        Credentials::from_pem(
            ca.as_bytes(),
            own.cert_pem.as_bytes(),
            own.key_pem.as_bytes(),
        )
        .unwrap()
    };
    for ca in [both.as_str(), new.ca_pem()] {
        first.endpoint.reload(load(ca, 1)).unwrap();
        second.endpoint.reload(load(ca, 2)).unwrap();
        first.send(2, Lane::Bulk, "still the old link").unwrap();
        assert_eq!(second.message().await.2, "still the old link");
    }
    let address = first.endpoint.local_addr().to_string();
    let with_old = client_credentials(&old, "ops");
    let error = connect(&address, &with_old, None).await.unwrap_err();
    assert!(matches!(error, ConnectError::BadServer { .. }), "{error:?}");
    let own = old.issue_client("ops", 30).unwrap();
    let told = try_to_be_served(
        first.endpoint.local_addr(),
        CLIENT_ALPN,
        &new,
        Some(&own),
        &hello(1, 1),
    )
    .await;
    assert!(told.unwrap_err().contains("UnknownIssuer"));
    let with_new = client_credentials(&new, "ops");
    connect(&address, &with_new, None).await.unwrap();
    // A new link is made with the new certificates.
    first.endpoint.set_peers(vec![]);
    second.down(1).await;
    introduce(&first, &second);
    first.up(2).await;
    second.up(1).await;
    // Identity never changes in a running node.
    assert!(first.endpoint.reload(node_credentials(&new, 3)).is_err());
}

#[tokio::test]
async fn denied_names_and_serials_are_refused_and_cut_off_at_reload() {
    let authority = authority();
    let (first, mut second) = pair(&authority).await;
    let address = second.endpoint.local_addr().to_string();
    let (mallory, good) = (
        client_credentials(&authority, "mallory"),
        client_credentials(&authority, "good"),
    );
    let mut connected = connect(&address, &mallory, None).await.unwrap();
    let _kept = client_stream(&mut second).await;
    let deny = DenyList::parse("# stolen\nmallory\nn1\n");
    second
        .endpoint
        .reload(second.endpoint.credentials().with_deny_list(deny))
        .unwrap();
    second.down(1).await;
    let cut = tokio::time::timeout(DEADLINE, connected.receiver.recv())
        .await
        .unwrap();
    assert!(cut.is_err_and(|error| error.to_string().contains("deny list")));
    let error = connect(&address, &mallory, None).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Rejected(reason) if reason.refusal == Some(Refusal::Denied)),
        "{error:?}"
    );
    connect(&address, &good, None).await.unwrap();
    drop(first);
}

/// Under load an address must prove itself first; honest ones notice nothing but a round trip.
#[tokio::test]
async fn address_validation_lets_honest_clients_and_peers_in() {
    let authority = authority();
    let mut careful = options(any_port());
    careful.retry_above_handshakes = 0;
    let mut first = Node::start_with(
        &node_credentials(&authority, 1),
        hello(1, 1),
        careful.clone(),
    );
    let mut second = Node::start_with(&node_credentials(&authority, 2), hello(2, 1), careful);
    introduce(&first, &second);
    first.up(2).await;
    second.up(1).await;
    let address = first.endpoint.local_addr().to_string();
    let ops = client_credentials(&authority, "ops");
    connect(&address, &ops, None).await.unwrap();
}

#[tokio::test]
async fn stranger_that_opens_nothing_is_dropped_after_the_handshake_timeout() {
    let authority = authority();
    let mut hasty = options(any_port());
    hasty.handshake_timeout = Duration::from_millis(200);
    let mut node = Node::start_with(&node_credentials(&authority, 1), hello(1, 1), hasty);
    let own = authority.issue_client("ops", 30).unwrap();
    let remote = node.endpoint.local_addr();
    let silent = Stranger::connect(remote, "node.kvd", CLIENT_ALPN, &authority, Some(&own))
        .await
        .unwrap();
    let told = tokio::time::timeout(DEADLINE, silent.connection.closed())
        .await
        .unwrap()
        .to_string();
    assert!(told.contains("no stream was opened in time"), "{told}");
    assert!(node.refused().await.contains("in time"));
}
