//! Servers that die and wake all the time, and elections that do not end, under load.

use std::time::{Duration, Instant};

use kvd::kv::command::KeyValue;
use kvd_sim::process::{Cluster, Load, PATIENCE, dump, long, seeded_rng, wait_for};
use rand::RngExt as _;
use rand::rngs::StdRng;

const COUNTER: &str = "~counter";

/// Time between two deaths or awakenings, in milliseconds.
const STEP_MS: std::ops::Range<u64> = 50..500;

/// What users get.
const ORDINARY: [(&str, &str, &str); 2] = [
    ("raft", "heartbeat", "50ms"),
    ("raft", "election_timeout", "300ms"),
];

/// Two ticks, and up to four by chance: half of all elections have two candidates at the same tick, and every delay of the
/// machine begins one.
const HASTY: [(&str, &str, &str); 2] = [
    ("raft", "heartbeat", "2ms"),
    ("raft", "election_timeout", "20ms"),
];

#[derive(Debug, Default)]
struct Done {
    restarts: u64,
    pauses: u64,
}

/// Servers die by `kill -9` and wake every 50 to 500 ms, one or all of them; leaders are stopped for longer than an election
/// timeout and go on; at last the timeouts are so short that elections come one after the other. Nothing acknowledged is missing, nothing
/// happened twice, nothing that failed is there, and each node's own export says the same.
#[test]
fn nothing_is_lost_while_servers_die_and_wake_and_elections_are_many() {
    let duration = Duration::from_secs(if long() { 600 } else { 20 });
    let mut rng = seeded_rng();
    let mut cluster = Cluster::builder().not_started().build();
    restart_all(&mut cluster, &ORDINARY);
    cluster.leader();
    let writers = Load::writing(&cluster, 8, "stress");
    let counters = Load::counting(&cluster, 4, COUNTER);
    writers.wait_for_more(10);
    let first_term = newest_term(&cluster);

    let done = die_and_wake(&mut cluster, &mut rng, duration * 4 / 5);
    writers.wait_for_more(50);
    counters.wait_for_more(50);
    let term = newest_term(&cluster);
    assert!(term > first_term, "no leader died: {done:?}");

    restart_all(&mut cluster, &HASTY);
    std::thread::sleep(duration / 5);
    let forced = newest_term(&cluster) - term;
    restart_all(&mut cluster, &ORDINARY);
    writers.wait_for_more(50);
    counters.wait_for_more(50);

    let mut told = writers.finish();
    told.merge(counters.finish());
    let held = dump(&cluster);
    println!(
        "{} restarts, {} pauses of the leader, {} elections; {forced} elections with timeouts of two to four ticks; {} writes acknowledged, \
         {} unknown, {} failed, {} missing",
        done.restarts,
        done.pauses,
        term - first_term,
        told.written.len() as u64 + told.counted,
        told.unknown.len() as u64 + told.counted_unknown,
        told.failed.len(),
        told.missing(&held).len()
    );
    told.check(&held);
    told.check_counter(COUNTER, &held);
    cluster.wait_converged();
    let expected = as_tsv(&held);
    for node in 0..cluster.nodes.len() {
        assert!(
            cluster.local_export(node) == expected,
            "n{} holds something else",
            node + 1
        );
    }
}

/// One death or pause after another, each followed by its end, until time is over. All nodes run afterwards.
fn die_and_wake(cluster: &mut Cluster, rng: &mut StdRng, duration: Duration) -> Done {
    let mut done = Done::default();
    let start = Instant::now();
    while start.elapsed() < duration {
        step(rng);
        match rng.random_range(0..10) {
            0 => {
                cluster.nodes.iter_mut().for_each(|node| node.kill());
                step(rng);
                cluster.start_all();
                done.restarts += cluster.nodes.len() as u64;
            }
            1..4 => {
                let Some(leader) = some_leader(cluster) else {
                    continue;
                };
                cluster.nodes[leader].pause();
                // Longer than an election timeout, as often as not longer than the longest one.
                std::thread::sleep(Duration::from_millis(rng.random_range(300..900)));
                cluster.nodes[leader].resume();
                done.pauses += 1;
            }
            _ => {
                let node = rng.random_range(0..cluster.nodes.len());
                cluster.nodes[node].kill();
                step(rng);
                cluster.nodes[node].start();
                done.restarts += 1;
            }
        }
    }
    done
}

/// A node that says that it leads.
fn some_leader(cluster: &Cluster) -> Option<usize> {
    let mut nodes = 0..cluster.nodes.len();
    nodes.find(|node| {
        cluster
            .view(*node)
            .is_some_and(|view| view.role == "leader")
    })
}

fn step(rng: &mut StdRng) {
    std::thread::sleep(Duration::from_millis(rng.random_range(STEP_MS)));
}

fn restart_all(cluster: &mut Cluster, settings: &[(&str, &str, &str)]) {
    let settings: Vec<_> = settings
        .iter()
        .map(|(section, key, value)| (*section, *key, toml::Value::from(*value)))
        .collect();
    for node in &mut cluster.nodes {
        if node.is_started() {
            node.kill();
        }
        node.configure(&settings);
    }
    cluster.start_all();
}

/// The newest term that any node knows; each election that came to a vote has one.
fn newest_term(cluster: &Cluster) -> u64 {
    let nodes = 0..cluster.nodes.len();
    let terms = nodes.map(|node| {
        let view = wait_for("the status of a node", PATIENCE, || cluster.view(node));
        view.term
    });
    terms.max().unwrap_or_default()
}

/// What an export of this is; neither keys nor values need escapes.
fn as_tsv(held: &[KeyValue]) -> Vec<u8> {
    let mut text = Vec::new();
    for item in held {
        text.extend_from_slice(&item.key);
        text.push(b'\t');
        text.extend_from_slice(&item.value);
        text.push(b'\n');
    }
    text
}
