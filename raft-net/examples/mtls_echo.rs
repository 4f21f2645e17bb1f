//! One server, one client, mutual TLS: the client's frames come back in upper case.
//!
//! `cargo run -p raft-net --example mtls_echo`

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use raft_net::pki::{Authority, IssuedCertificate};
use raft_net::{
    AdmitAll, ClientOptions, ClientStream, ClusterId, Credentials, Endpoint, EndpointOptions,
    FrameError, Hello, NetEvent, connect_client,
};

fn load(authority: &Authority, own: &IssuedCertificate) -> Result<Credentials, Box<dyn Error>> {
    let ca = authority.ca_pem().as_bytes();
    Ok(Credentials::from_pem(
        ca,
        own.cert_pem.as_bytes(),
        own.key_pem.as_bytes(),
    )?)
}

/// Answers everything that arrived together with one write.
async fn shout(mut client: ClientStream) -> Result<(), FrameError> {
    while let Some(first) = client.receiver.recv().await? {
        let mut answers = vec![Bytes::from(first.to_ascii_uppercase())];
        while let Some(more) = client.receiver.try_recv()? {
            answers.push(Bytes::from(more.to_ascii_uppercase()));
        }
        client.sender.send_all(&answers).await?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cluster = ClusterId(0xc0ff_ee42);
    let authority = Authority::create(cluster, "example", 1)?;
    let server = load(&authority, &authority.issue_node("n1", 1, 1, &[])?)?;
    let client = load(&authority, &authority.issue_client("ops", 1)?)?;

    let hello = Hello {
        cluster,
        node: 1,
        boot_counter: 1,
        boot_id: 42,
        cluster_epoch: 0,
        version: 1,
    };
    let options = EndpointOptions::new("127.0.0.1:0".parse()?);
    let (endpoint, mut events) = Endpoint::bind(options, server, hello, Arc::new(AdmitAll))?;
    let address = endpoint.local_addr().to_string();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let NetEvent::Client(client) = event else {
                println!("server: {event:?}");
                continue;
            };
            println!("server: {} from {}", client.identity, client.remote);
            tokio::spawn(async move {
                if let Err(error) = shout(client).await {
                    println!("server: the client left: {error}");
                }
            });
        }
    });

    let mut connection =
        connect_client(&address, &client, Some("n1"), &ClientOptions::default()).await?;
    println!("client: connected to {}", connection.server);
    connection
        .sender
        .send_all(&[Bytes::from_static(b"hello"), Bytes::from_static(b"world")])
        .await?;
    for _ in 0..2 {
        let answer = connection.receiver.recv().await?.ok_or("the server left")?;
        println!("client: {}", String::from_utf8_lossy(&answer));
    }
    connection.handle.close().await;

    // A node's certificate opens no door for a client.
    let node = load(&authority, &authority.issue_node("n2", 2, 1, &[])?)?;
    match connect_client(&address, &node, None, &ClientOptions::default()).await {
        Ok(_) => return Err("served with the wrong role".into()),
        Err(error) => println!("client: {error}"),
    }
    endpoint.close("done").await;
    Ok(())
}
