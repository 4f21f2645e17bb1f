//! A small cluster of transports in one runtime.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_net::pki::{Authority, IssuedCertificate};
use raft_net::{
    AdmitAll, ClusterId, Credentials, Endpoint, EndpointOptions, Hello, Lane, NetEvent, PeerAddress,
};
use tokio::sync::mpsc;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc0ff_ee42);

/// Far more than anything here takes; only a hang reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn authority() -> Authority {
    Authority::create(CLUSTER, "test", 30).unwrap()
}

pub(crate) fn credentials(authority: &Authority, issued: &IssuedCertificate) -> Credentials {
    let (ca, cert, key) = (authority.ca_pem(), &issued.cert_pem, &issued.key_pem);
    Credentials::from_pem(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
}

pub(crate) fn node_credentials(authority: &Authority, id: u64) -> Credentials {
    credentials(
        authority,
        &authority.issue_node(&name(id), id, 30, &[]).unwrap(),
    )
}

pub(crate) fn name(id: u64) -> String {
    format!("n{id}")
}

pub(crate) fn hello(id: u64, boot_counter: u64) -> Hello {
    Hello {
        cluster: CLUSTER,
        node: id,
        boot_counter,
        boot_id: boot_counter.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        cluster_epoch: 0,
        version: 1,
    }
}

pub(crate) fn options(listen: SocketAddr) -> EndpointOptions {
    EndpointOptions::new(listen)
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// One transport and its events.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) events: mpsc::Receiver<NetEvent>,
}

impl Node {
    pub(crate) fn start(
        credentials: &Credentials,
        id: u64,
        boot_counter: u64,
        listen: SocketAddr,
    ) -> Node {
        Node::start_with(credentials, hello(id, boot_counter), options(listen))
    }

    pub(crate) fn start_with(
        credentials: &Credentials,
        hello: Hello,
        options: EndpointOptions,
    ) -> Node {
        let id = hello.node;
        let (endpoint, events) =
            Endpoint::bind(options, credentials.clone(), hello, Arc::new(AdmitAll)).unwrap();
        Node {
            id,
            endpoint,
            events,
        }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        PeerAddress {
            id: self.id,
            name: name(self.id),
            address: self.endpoint.local_addr().to_string(),
        }
    }

    /// The next event for which `wanted` has an answer; the others are dropped, and named if it does not come.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(NetEvent) -> Option<T>) -> T {
        let mut skipped = Vec::new();
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the endpoint lives");
                let text = format!("{event:.0?}");
                if let Some(found) = wanted(event) {
                    return found;
                }
                skipped.push(text);
            }
        };
        match tokio::time::timeout(DEADLINE, search).await {
            Ok(found) => found,
            Err(_) => panic!("node {}: the event did not come, but {skipped:#?}", self.id),
        }
    }

    pub(crate) async fn up(&mut self, peer: u64) -> Hello {
        self.until(|event| match event {
            NetEvent::PeerUp { id, hello } if id == peer => Some(hello),
            _ => None,
        })
        .await
    }

    pub(crate) async fn down(&mut self, peer: u64) -> String {
        self.until(|event| match event {
            NetEvent::PeerDown { id, reason } if id == peer => Some(reason),
            _ => None,
        })
        .await
    }

    pub(crate) async fn message(&mut self) -> (u64, Lane, Bytes) {
        self.until(|event| match event {
            NetEvent::Message {
                from,
                lane,
                payload,
                ..
            } => Some((from, lane, payload)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn refused(&mut self) -> String {
        self.until(|event| match event {
            NetEvent::Refused { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }

    pub(crate) fn send(
        &self,
        peer: u64,
        lane: Lane,
        text: &str,
    ) -> Result<(), raft_net::SendError> {
        self.endpoint
            .send(peer, lane, vec![Bytes::copy_from_slice(text.as_bytes())])
    }
}

/// Nodes 1 and 2, linked.
pub(crate) async fn pair(authority: &Authority) -> (Node, Node) {
    let mut first = Node::start(&node_credentials(authority, 1), 1, 1, any_port());
    let mut second = Node::start(&node_credentials(authority, 2), 2, 1, any_port());
    introduce(&first, &second);
    first.up(2).await;
    second.up(1).await;
    (first, second)
}

pub(crate) fn introduce(first: &Node, second: &Node) {
    let both = vec![first.address(), second.address()];
    first.endpoint.set_peers(both.clone());
    second.endpoint.set_peers(both);
}
