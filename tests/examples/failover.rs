//! How long writes wait when the leader dies: `cargo run --release -p kvd-sim --example failover [-- TRIALS]`
//!
//! Three processes with the default timeouts, one client that writes without a pause. Each trial kills the leader with
//! `kill -9` and takes the time until a write that began after that is answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kvd::client::{Client, ClientOptions};
use kvd::kv::command::{Command, Op};
use kvd_sim::process::{Cluster, client_options, machine_facts, open_runtime, wait_for};

const TRIALS: usize = 10;
/// The cluster settles between two trials: the restarted node has caught up, and clients are where the leader is.
const PAUSE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// Beginning and end of each answered write.
type Answered = Arc<Mutex<Vec<(Instant, Instant)>>>;

fn main() {
    let trials = std::env::args()
        .nth(1)
        .map_or(TRIALS, |text| text.parse().expect("a number of trials"));
    print!("{}", machine_facts());
    let mut cluster = Cluster::builder().as_shipped().build();
    let answered = Answered::default();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (answered, stop, options) = (
            answered.clone(),
            stop.clone(),
            client_options(&cluster, PATIENCE),
        );
        std::thread::spawn(move || write(options, &answered, &stop))
    };
    let mut taken: Vec<Duration> = (1..=trials)
        .map(|number| trial(&mut cluster, &answered, number))
        .collect();
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    taken.sort();
    println!(
        "median {:?}, largest {:?}",
        median(&taken),
        taken.last().copied().unwrap_or_default()
    );
}

fn write(options: ClientOptions, answered: &Answered, stop: &AtomicBool) {
    open_runtime().block_on(async {
        let client = Client::new(options);
        while !stop.load(Ordering::Relaxed) {
            let op = Op::Put {
                key: "failover".into(),
                value: "x".into(),
                want_previous: false,
            };
            let began = Instant::now();
            client
                .write(Command::Op(op))
                .await
                .expect("two of three nodes take writes");
            answered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((began, Instant::now()));
        }
        client.close().await;
    });
}

fn trial(cluster: &mut Cluster, answered: &Answered, number: usize) -> Duration {
    std::thread::sleep(PAUSE);
    let leader = cluster.leader();
    let killed = Instant::now();
    cluster.nodes[leader].kill();
    let took = wait_for("a write", PATIENCE, || {
        let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, end) = answered.iter().find(|(began, _)| *began > killed)?;
        Some(end.duration_since(killed))
    });
    println!(
        "trial {number}: n{} killed, next write answered after {took:?}",
        leader + 1
    );
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_listening();
    took
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
