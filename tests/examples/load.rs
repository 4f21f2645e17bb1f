//! Acknowledged 256-byte writes per second: `cargo run --release -p kvd-sim --example load [-- SECONDS]`
//!
//! A cluster of three processes on this machine, with the load beside it: one client with one write in flight, one client
//! with 64 in flight on its one connection, and 64 clients with one each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvd::client::{Client, ClientOptions};
use kvd::kv::command::{Command, Op};
use kvd_sim::process::{Cluster, client_options, machine_facts, open_runtime};
use tokio::task::JoinSet;

const SECONDS: u64 = 10;
const VALUE_BYTES: usize = 256;
const KEYS: u64 = 10_000;
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    let seconds = std::env::args()
        .nth(1)
        .map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    print!("{}", machine_facts());
    let cluster = Cluster::builder().as_shipped().build();
    let mut options = client_options(&cluster, Duration::from_secs(30));
    options.prefer_leader = true;
    for (clients, in_flight) in [(1, 1), (1, 64), (64, 1)] {
        let options = options.clone();
        let duration = Duration::from_secs(seconds);
        let taken = open_runtime()
            .block_on(async move { measure(options, clients, in_flight, duration).await });
        report(clients, in_flight, duration, taken);
    }
}

/// Runs the clients, and gives the time that each write took that was answered within the measured span.
async fn measure(
    options: ClientOptions,
    clients: usize,
    in_flight: usize,
    duration: Duration,
) -> Vec<Duration> {
    let from = Instant::now() + WARM_UP;
    let until = from + duration;
    let mut tasks = JoinSet::new();
    for client_number in 0..clients {
        let client = Client::new(options.clone());
        for lane in 0..in_flight {
            let client = client.clone();
            let number = (client_number * in_flight + lane) as u64;
            tasks.spawn(async move { write_until(client, number, from, until).await });
        }
    }
    let mut taken = Vec::new();
    while let Some(one) = tasks.join_next().await {
        taken.extend(one.expect("no client panics"));
    }
    taken
}

async fn write_until(client: Client, lane: u64, from: Instant, until: Instant) -> Vec<Duration> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut taken = Vec::new();
    let mut number = lane;
    loop {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let key = format!("load/{:06}", (number >> 33) % KEYS).into();
        let op = Op::Put {
            key,
            value: value.clone(),
            want_previous: false,
        };
        let began = Instant::now();
        client
            .write(Command::Op(op))
            .await
            .expect("a healthy cluster takes writes");
        let end = Instant::now();
        if end > until {
            return taken;
        }
        if began >= from {
            taken.push(end - began);
        }
    }
}

fn report(clients: usize, in_flight: usize, duration: Duration, mut taken: Vec<Duration>) {
    taken.sort();
    let at = |share: f64| {
        let place = (taken.len() as f64 * share) as usize;
        taken
            .get(place.min(taken.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{clients:3} clients x {in_flight:3} in flight: {:8.0} writes/s, p50 {:?}, p99 {:?}, largest {:?}",
        taken.len() as f64 / duration.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
