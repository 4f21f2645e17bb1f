//! Two nodes on loopback, each with one runtime of its own: round trips, small messages, bulk.
//!
//! `cargo run --release -p raft-net --example lane_bench`

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_net::pki::Authority;
use raft_net::{
    AdmitAll, ClusterId, Credentials, Endpoint, EndpointOptions, Hello, Lane, NetEvent,
    PeerAddress, SendError,
};
use tokio::sync::mpsc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const CLUSTER: ClusterId = ClusterId(1);

fn credentials(authority: &Authority, id: u64) -> Outcome<Credentials> {
    let issued = authority.issue_node(&format!("n{id}"), id, 1, &[])?;
    let (ca, cert, key) = (authority.ca_pem(), issued.cert_pem, issued.key_pem);
    Ok(Credentials::from_pem(
        ca.as_bytes(),
        cert.as_bytes(),
        key.as_bytes(),
    )?)
}

fn bind(credentials: Credentials, id: u64) -> Outcome<(Endpoint, mpsc::Receiver<NetEvent>)> {
    let hello = Hello {
        cluster: CLUSTER,
        node: id,
        boot_counter: 1,
        boot_id: 1,
        cluster_epoch: 0,
        version: 1,
    };
    let options = EndpointOptions::new("127.0.0.1:0".parse()?);
    Ok(Endpoint::bind(
        options,
        credentials,
        hello,
        Arc::new(AdmitAll),
    )?)
}

fn address(endpoint: &Endpoint, id: u64) -> PeerAddress {
    PeerAddress {
        id,
        name: format!("n{id}"),
        address: endpoint.local_addr().to_string(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Node 2 sends every urgent message back, and for each turn of bulk messages one count.
fn echo(
    credentials: Credentials,
    tell: &blocking::Sender<PeerAddress>,
    peer: &blocking::Receiver<PeerAddress>,
) -> Outcome<()> {
    runtime()?.block_on(async {
        let (endpoint, mut events) = bind(credentials, 2)?;
        tell.send(address(&endpoint, 2))?;
        endpoint.set_peers(vec![peer.recv()?]);
        let (mut batch, mut bulk) = (Vec::new(), 0_u64);
        while events.recv_many(&mut batch, 4096).await > 0 {
            let before = bulk;
            for event in batch.drain(..) {
                if let NetEvent::Message {
                    lane: Lane::Urgent,
                    payload,
                    ..
                } = event
                {
                    endpoint.send(1, Lane::Urgent, vec![payload])?;
                } else if matches!(event, NetEvent::Message { .. }) {
                    bulk += 1;
                } else if matches!(event, NetEvent::PeerDown { .. }) {
                    return Ok(());
                }
            }
            if bulk > before {
                endpoint.send(
                    1,
                    Lane::Bulk,
                    vec![Bytes::copy_from_slice(&bulk.to_le_bytes())],
                )?;
            }
        }
        Ok(())
    })
}

struct Bench {
    endpoint: Endpoint,
    events: mpsc::Receiver<NetEvent>,
    bulk_sent: u64,
}

impl Bench {
    async fn round_trips(&mut self, count: usize) -> Outcome<()> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begin = Instant::now();
            self.endpoint
                .send(2, Lane::Urgent, vec![Bytes::from_static(&[7; 64])])?;
            while !matches!(
                self.events.recv().await,
                Some(NetEvent::Message {
                    lane: Lane::Urgent,
                    ..
                })
            ) {}
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        let at = |share: f64| times[(share * (count - 1) as f64) as usize];
        println!(
            "round trip of 64 bytes: p50 {:?} p99 {:?}",
            at(0.5),
            at(0.99)
        );
        Ok(())
    }

    /// Keeps the lane filled for `time` and counts what the other side has taken.
    async fn bulk(&mut self, bytes: usize, time: Duration) -> Outcome<()> {
        let message = Bytes::from(vec![7; bytes]);
        let (first, begin, mut taken) = (self.bulk_sent, Instant::now(), self.bulk_sent);
        let before = self.endpoint.peer_stats(2).ok_or("no link")?;
        while begin.elapsed() < time || taken < self.bulk_sent {
            // Two windows of the consensus' size.
            while begin.elapsed() < time
                && (self.bulk_sent - taken) as usize * bytes < (8 << 20)
                && self.bulk_sent - taken < 2048
            {
                match self.endpoint.send(2, Lane::Bulk, vec![message.clone()]) {
                    Ok(()) => self.bulk_sent += 1,
                    Err(SendError::Full { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            if let Some(NetEvent::Message { payload, .. }) = self.events.recv().await {
                taken = u64::from_le_bytes(payload[..].try_into()?);
            }
        }
        let (count, seconds) = ((taken - first) as f64, begin.elapsed().as_secs_f64());
        let after = self.endpoint.peer_stats(2).ok_or("no link")?;
        println!(
            "bulk of {bytes} bytes: {:.0} messages/s, {:.0} MB/s, {:.3} send calls per message, {} packets lost",
            count / seconds,
            count * bytes as f64 / seconds / 1e6,
            (after.send_calls - before.send_calls) as f64 / count,
            after.lost_packets - before.lost_packets,
        );
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let authority = Authority::create(CLUSTER, "bench", 1)?;
    let (one, two) = (credentials(&authority, 1)?, credentials(&authority, 2)?);
    let (tell_one, hear_one) = blocking::channel();
    let (tell_two, hear_two) = blocking::channel();
    let other = std::thread::spawn(move || echo(two, &tell_two, &hear_one));
    runtime()?.block_on(async {
        let (endpoint, events) = bind(one, 1)?;
        tell_one.send(address(&endpoint, 1))?;
        endpoint.set_peers(vec![hear_two.recv()?]);
        let mut bench = Bench {
            endpoint,
            events,
            bulk_sent: 0,
        };
        while !matches!(bench.events.recv().await, Some(NetEvent::PeerUp { .. })) {}
        bench.round_trips(2000).await?;
        bench.round_trips(20_000).await?;
        for bytes in [64, 300, 4096, 64 << 10, 1 << 20] {
            bench.bulk(bytes, Duration::from_secs(2)).await?;
        }
        bench.endpoint.close("done").await;
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    })?;
    other.join().map_err(|_| "the other node panicked")?
}
