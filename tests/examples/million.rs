//! A large store: memory, pauses, snapshots, restarts, a new node. `cargo run --release -p kvd-sim --example million [-- KEYS]`
//!
//! A cluster of three processes as it is shipped, on the disk that holds the build directory, with the load beside it on the same
//! machine: a million keys of 16 bytes with values of 256 bytes. What is measured is printed as it comes:
//!
//! - memory of every node: what it has now and what it had at most, from `/proc/PID/status`, and as a multiple of the data;
//! - writes without and during snapshots: the longest that one took, the longest time in which none was answered, and the longest
//!   turn of each node's loop, by its own word;
//! - time and size of a snapshot, of each node alone and of all at once;
//! - from `exec` to the answer of `/livez` and to the first local read, with a snapshot and a tail of log; then `kill -9` of all,
//!   to the first answered write;
//! - a new node under load, until it votes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvd::client::{Client, ClientOptions};
use kvd::kv::command::{Command, Op};
use kvd_sim::process::{
    Cluster, NodeProcess, client_options, http_request, machine_facts, open_runtime, wait_for,
};
use tokio::task::JoinSet;

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;
const KEY_BYTES: usize = 16;
/// Writes in flight while the keys are loaded.
const LOAD_LANES: u64 = 512;
/// Writes in flight while pauses are measured: few, so that the processors have room and a pause shows.
const PROBE_LANES: u64 = 4;
/// How long writes are measured without a snapshot: longer than a node remembers its longest turn.
const QUIET: Duration = Duration::from_secs(12);
/// Writes behind the last snapshot when nodes are restarted.
const TAIL: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(300);
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let keys = std::env::args()
        .nth(1)
        .map_or(KEYS, |text| text.parse().expect("a number of keys"));
    print!("{}", machine_facts());
    println!("load     {}", load_average());
    let mut cluster = Cluster::builder().as_shipped().build();
    fill(&cluster, keys);
    cluster.wait_converged();
    memory(&cluster, keys, "loaded");
    pauses(&mut cluster, keys);
    restarts(&mut cluster, keys);
    newcomer(&mut cluster, keys);
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.trim().to_owned()
}

fn options(cluster: &Cluster) -> ClientOptions {
    ClientOptions {
        prefer_leader: true,
        retry_overloaded: true,
        ..client_options(cluster, Duration::from_secs(30))
    }
}

/// The key of a number; neighbours in number are not neighbours in order.
fn key(number: u64) -> Bytes {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into()
}

fn put(number: u64) -> Command {
    let value = format!("{number:016x}").repeat(VALUE_BYTES / KEY_BYTES);
    Command::Op(Op::Put {
        key: key(number),
        value: value.into(),
        want_previous: false,
    })
}

/// Writes the keys of these numbers, many at a time.
async fn write_all(client: &Client, numbers: std::ops::Range<u64>) {
    let mut tasks = JoinSet::new();
    for lane in 0..LOAD_LANES {
        let client = client.clone();
        let own = numbers
            .clone()
            .skip(lane as usize)
            .step_by(LOAD_LANES as usize);
        tasks.spawn(async move {
            for number in own {
                let written = client.write(put(number)).await;
                written.expect("a healthy cluster takes writes");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no client panics");
    }
}

fn fill(cluster: &Cluster, keys: u64) {
    let began = Instant::now();
    open_runtime().block_on(async {
        let client = Client::new(options(cluster));
        write_all(&client, 0..keys).await;
        client.close().await;
    });
    let took = began.elapsed().as_secs_f64();
    println!(
        "filled   {keys} keys in {took:.1} s, {:.0} writes/s",
        keys as f64 / took
    );
}

/// Memory of every running node, and its directory.
fn memory(cluster: &Cluster, keys: u64, when: &str) {
    let data = keys as f64 * (KEY_BYTES + VALUE_BYTES) as f64 / MIB;
    for node in &cluster.nodes {
        let Some(pid) = node.pid() else { continue };
        let now = status_field(pid, "VmRSS");
        let most = status_field(pid, "VmHWM");
        println!(
            "memory   {when}: {} {now:.0} MiB ({:.2} of {data:.0} MiB of data), at most {most:.0} MiB ({:.2}); directory {:.0} MiB",
            node.name,
            now / data,
            most / data,
            node.data_bytes() as f64 / MIB
        );
    }
}

/// A size in `/proc/PID/status`, in MiB.
fn status_field(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the node runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .expect("the kernel tells it");
    let kib: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number of KiB");
    kib / 1024.0
}

/// Writers at work in a thread of their own.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Duration)>>,
}

impl Probe {
    /// Overwrites keys with [`PROBE_LANES`] writes in flight.
    fn start(cluster: &Cluster, keys: u64) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let (options, told) = (options(cluster), stop.clone());
        let thread =
            std::thread::spawn(move || open_runtime().block_on(probe(options, keys, told)));
        Probe { stop, thread }
    }

    /// When each write was answered, and how long it took.
    fn finish(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = self.thread.join().expect("no client panics");
        answered.sort_unstable();
        let gaps = answered.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let gap = gaps.max().unwrap_or_default();
        let span = match answered.as_slice() {
            [first, .., last] => (last.0 - first.0).as_secs_f64(),
            [] | [_] => f64::NAN,
        };
        let mut taken: Vec<Duration> = answered.iter().map(|(_, took)| *took).collect();
        taken.sort_unstable();
        let at = |share: f64| {
            let place = (taken.len() as f64 * share) as usize;
            ms(taken[place.min(taken.len() - 1)])
        };
        println!(
            "writes   {what}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms, longest time without an answer {:.2} ms",
            taken.len() as f64 / span,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            ms(gap)
        );
    }
}

async fn probe(
    options: ClientOptions,
    keys: u64,
    stop: Arc<AtomicBool>,
) -> Vec<(Instant, Duration)> {
    let client = Client::new(options);
    let mut tasks = JoinSet::new();
    for lane in 0..PROBE_LANES {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            let mut answered = Vec::new();
            let mut number = lane;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let written = client.write(put(number % keys)).await;
                written.expect("a healthy cluster takes writes");
                answered.push((Instant::now(), began.elapsed()));
                number += PROBE_LANES;
            }
            answered
        });
    }
    let mut all = Vec::new();
    while let Some(one) = tasks.join_next().await {
        all.extend(one.expect("no client panics"));
    }
    client.close().await;
    all
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Writes go on: alone, then while each node writes its snapshot, then while all do.
fn pauses(cluster: &mut Cluster, keys: u64) {
    let leader = cluster.leader();
    let followers: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let probe = Probe::start(cluster, keys);
    std::thread::sleep(QUIET);
    probe.finish("no snapshot");
    turns(cluster, "no snapshot");
    let rounds = [
        ("snapshot of the leader", vec![leader]),
        ("snapshot of a follower", vec![followers[0]]),
        ("snapshots of all", vec![0, 1, 2]),
    ];
    for (what, nodes) in rounds {
        // So that the nodes have forgotten the turns before.
        std::thread::sleep(QUIET);
        let probe = Probe::start(cluster, keys);
        snapshots(cluster, &nodes);
        probe.finish(what);
        // The facts of a node are a second old at most.
        std::thread::sleep(Duration::from_millis(1200));
        turns(cluster, what);
    }
    memory(cluster, keys, "after snapshots");
}

/// Orders snapshots of these nodes and waits for all.
fn snapshots(cluster: &Cluster, nodes: &[usize]) {
    let wanted: Vec<(usize, u64)> = nodes
        .iter()
        .map(|node| (*node, number(&cluster.nodes[*node], "last_applied")))
        .collect();
    let began = Instant::now();
    open_runtime().block_on(async {
        for node in nodes {
            let client = Client::new(ClientOptions {
                endpoints: vec![cluster.nodes[*node].address.to_string()],
                pinned: true,
                ..options(cluster)
            });
            client.discard_log().await.expect("an operator may do so");
            client.close().await;
        }
    });
    for (node, applied) in wanted {
        let node = &cluster.nodes[node];
        let what = format!("the snapshot of {}", node.name);
        wait_for(&what, PATIENCE, || {
            (number(node, "snapshot_index") >= applied).then_some(())
        });
        println!(
            "snapshot {}: {:.2} s after it was ordered; snapshots now take {:.0} MiB",
            node.name,
            began.elapsed().as_secs_f64(),
            snapshot_bytes(node) as f64 / MIB
        );
    }
}

fn snapshot_bytes(node: &NodeProcess) -> u64 {
    let files = std::fs::read_dir(node.data_dir().join("snapshots")).expect("a data directory");
    files
        .filter_map(|file| file.ok()?.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// A number out of a node's own status.
fn number(node: &NodeProcess, field: &str) -> u64 {
    let answer = wait_for("an answer of a node", PATIENCE, || node.get("/status"));
    answer.json()[field].as_u64().expect("a number")
}

fn turns(cluster: &Cluster, what: &str) {
    let turns: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| {
            let longest = number(node, "longest_turn_us") as f64 / 1e3;
            format!("{} {longest:.2} ms", node.name)
        })
        .collect();
    println!("loop     {what}: longest turn {}", turns.join(", "));
}

/// One follower, and then all, are killed and started again, with a tail of log behind the snapshot.
fn restarts(cluster: &mut Cluster, keys: u64) {
    snapshots(cluster, &[0, 1, 2]);
    open_runtime().block_on(async {
        let client = Client::new(options(cluster));
        write_all(&client, 0..TAIL.min(keys)).await;
        client.close().await;
    });
    cluster.wait_converged();
    let follower = (cluster.leader() + 1) % 3;
    for round in 1..=3 {
        cluster.nodes[follower].kill();
        let began = Instant::now();
        cluster.nodes[follower].start();
        let http = cluster.nodes[follower].http;
        let served = until_answered(http, "/livez", began);
        let read = until_answered(http, &local_read(), began);
        println!(
            "restart  {} round {round}, {} entries behind its snapshot: serves after {served:.2} s, first local read after {read:.2} s",
            cluster.nodes[follower].name,
            TAIL.min(keys)
        );
        cluster.wait_converged();
    }
    memory(cluster, keys, "restarted");
    for node in &mut cluster.nodes {
        node.kill();
    }
    let began = Instant::now();
    cluster.start_all();
    open_runtime().block_on(async {
        let client = Client::new(options(cluster));
        client.write(put(0)).await.expect("the cluster comes back");
        client.close().await;
    });
    println!(
        "restart  all: first write answered after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    cluster.wait_converged();
    memory(cluster, keys, "all restarted");
}

fn local_read() -> String {
    let key = String::from_utf8(key(1).to_vec()).expect("hex digits");
    format!("/get/{key}?consistency=local")
}

/// Seconds since `began` until a path is answered with 200.
fn until_answered(http: SocketAddr, path: &str, began: Instant) -> f64 {
    while began.elapsed() < PATIENCE {
        match http_request(http, "GET", path, &[], b"") {
            Ok(answer) if answer.code == 200 => return began.elapsed().as_secs_f64(),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    panic!("{path} is never answered");
}

/// A fourth node joins while writes go on.
fn newcomer(cluster: &mut Cluster, keys: u64) {
    let probe = Probe::start(cluster, keys);
    let began = Instant::now();
    cluster.add_node("n4", &["add"]);
    println!(
        "new node added, joined and started after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    wait_for("n4 to vote", PATIENCE, || {
        let status = cluster.nodes[3].get("/status")?.json();
        let voters = status["voters"].as_array()?.clone();
        voters.iter().any(|name| name == "n4").then_some(())
    });
    println!(
        "new node votes after {:.2} s under load",
        began.elapsed().as_secs_f64()
    );
    probe.finish("a new node catches up");
    std::thread::sleep(Duration::from_millis(1200));
    turns(cluster, "a new node catches up");
    cluster.wait_converged();
    memory(cluster, keys, "with a new node");
}
