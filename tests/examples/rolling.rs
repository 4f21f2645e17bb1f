//! How long clients wait while an operator restarts and replaces the nodes of a cluster:
//! `cargo run --release -p kvd-sim --example rolling [-- TRIALS [CLIENTS]] [stop|kill|replace ...]`
//!
//! Three processes with the default timeouts; clients write and read without a pause, spread over the nodes. One trial is all three
//! nodes, one after the other: stopped with SIGTERM and started; killed with `kill -9` and started; replaced by a new one.
//! For each trial: the longest time that any client went without an answer.

use std::time::Duration;

use kvd_sim::process::{Cluster, Load, dump, eventually, machine_facts};

const TRIALS: usize = 10;
const CLIENTS: usize = 6;
/// Requests that each client completes between two steps, so that each step meets all of them at work.
const SETTLED: u64 = 50;
/// The cluster settles between two steps.
const PAUSE: Duration = Duration::from_secs(2);

/// What is done to a node.
#[derive(Clone, Copy, Debug)]
enum Step {
    Stop,
    Kill,
    Replace,
}

impl Step {
    /// How it is asked for.
    fn word(self) -> &'static str {
        match self {
            Step::Stop => "stop",
            Step::Kill => "kill",
            Step::Replace => "replace",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Step::Stop => "restart with SIGTERM",
            Step::Kill => "restart with kill -9",
            Step::Replace => "replacement",
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = arguments.iter().filter_map(|text| text.parse().ok());
    let named = |step: &Step| arguments.iter().any(|text| text == step.word());
    let all = [Step::Stop, Step::Kill, Step::Replace];
    let none_is_named = !all.iter().any(named);
    let trials = numbers.next().unwrap_or(TRIALS);
    let clients = numbers.next().unwrap_or(CLIENTS);
    print!("{}", machine_facts());
    println!("clients  {clients}, each with one request in flight, a write and then its read");
    let mut failures = 0;
    for step in all {
        if !none_is_named && !named(&step) {
            continue;
        }
        failures += measure(step, trials, clients);
    }
    println!("{failures} failed requests in all");
    std::process::exit(i32::from(failures > 0));
}

/// The trials of one kind; gives the number of failed requests.
fn measure(step: Step, trials: usize, clients: usize) -> usize {
    let mut cluster = Cluster::builder().as_shipped().build();
    let load = Load::writing_and_reading(&cluster, clients, "rolling");
    let mut later = 3;
    let mut gaps: Vec<Duration> = (1..=trials)
        .map(|trial| {
            let gap = one_trial(&mut cluster, &load, step, &mut later);
            println!(
                "{}, trial {trial}: {gap:?}, load average {}",
                step.name(),
                load_average()
            );
            gap
        })
        .collect();
    gaps.sort();
    let told = load.finish();
    let failures = told.failures();
    for failure in failures.iter().take(10) {
        println!("failed: {failure}");
    }
    told.check(&dump(&cluster));
    println!(
        "{}: longest gap of any client, median {:?}, largest {:?}; {} writes and their reads, {} failed requests",
        step.name(),
        gaps.get(gaps.len() / 2).copied().unwrap_or_default(),
        gaps.last().copied().unwrap_or_default(),
        told.written.len(),
        failures.len()
    );
    failures.len()
}

/// Takes each node in turn; gives the longest gap.
fn one_trial(cluster: &mut Cluster, load: &Load, step: Step, later: &mut usize) -> Duration {
    let mut longest = Duration::ZERO;
    for place in 0..3 {
        std::thread::sleep(PAUSE);
        let leader = cluster.leader();
        load.wait_for_each(SETTLED);
        load.begin_span();
        // A replaced node leaves the list, and the next one moves up.
        let node = if let Step::Replace = step { 0 } else { place };
        let name = cluster.nodes[node].name.clone();
        let led = if leader == node {
            "the leader"
        } else {
            "a follower"
        };
        match step {
            Step::Stop => cluster.nodes[node].stop(),
            Step::Kill => cluster.nodes[node].kill(),
            Step::Replace => {
                *later += 1;
                replace(cluster, &format!("n{later}"));
            }
        }
        load.wait_for_each(SETTLED);
        if !matches!(step, Step::Replace) {
            cluster.nodes[node].start();
            cluster.nodes[node].wait_listening();
            caught_up(cluster);
            load.wait_for_each(SETTLED);
        }
        let gap = load.longest_gap();
        println!("  {name}, {led}: {gap:?}");
        longest = longest.max(gap);
    }
    longest
}

/// A new node takes the place of the first one of the list, which is stopped when it has left.
fn replace(cluster: &mut Cluster, name: &str) {
    let old = cluster.nodes[0].name.clone();
    cluster.add_node(name, &["replace", &old]);
    eventually("the new node to vote", || {
        // Neither the one that leaves nor the one that comes.
        let table = cluster
            .kvctl_at(1, &["member", "list", "-o", "json"])
            .json();
        let members = table["members"].as_array().cloned().unwrap_or_default();
        let is_voter =
            |member: &serde_json::Value| member["name"] == name && member["state"] == "voter";
        members.iter().any(is_voter) && !members.iter().any(|member| member["name"] == *old)
    });
    cluster.nodes.remove(0).stop();
}

/// Waits until every node is within reach of the newest commit.
fn caught_up(cluster: &Cluster) {
    let nodes = 0..cluster.nodes.len();
    let newest = nodes.clone().filter_map(|node| cluster.view(node));
    let newest = newest
        .map(|view| view.commit_index)
        .max()
        .unwrap_or_default();
    nodes.for_each(|node| cluster.wait_applied(node, newest));
}

/// Of the last minute, as the system says it.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
