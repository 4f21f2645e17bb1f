//! Processor time per committed entry of a Raft core: three nodes in one thread, logs in memory,
//! no disk and no network. raft-core beside raft-rs 0.7, in turns within one run.
//!
//! `corebench [SECONDS [ROUNDS [BATCH [NAME-OR-PART-OF-IT]]]]`

mod deck;
mod measure;
mod ours;
mod raft_rs;

use bytes::Bytes;
use measure::{Sample, measure, measure_reads, median, sorted};
use ours::RaftCore;
use raft_rs::RaftRs;

/// How the commands of one batch are handed to the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Propose {
    /// One call for each command.
    Each,
    /// One call for the whole batch.
    Together,
}

/// How messages go from node to node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// As values, moved from one node to the next.
    Moved,
    /// Encoded to bytes and decoded again.
    Encoded,
}

/// Three nodes, the first of them leading.
pub trait Cluster {
    /// Proposes `count` commands at the leader and delivers messages until nothing is left to do.
    /// Then all nodes have committed and applied them. Returns the number of messages.
    fn commit(&mut self, payload: &Bytes, count: usize) -> u64;
    /// Answers `count` linearizable reads at the leader, with a round to the others.
    fn read(&mut self, count: usize);
    /// The least that any node has applied.
    fn applied(&self) -> u64;
    /// Bytes that crossed the wire; 0 if messages are moved.
    fn wire_bytes(&self) -> u64;
}

/// A core in one of its uses.
struct Variant {
    name: &'static str,
    make: fn() -> Box<dyn Cluster>,
}

const PAYLOAD_BYTES: usize = 256;
const BATCHES: [usize; 3] = [1, 64, 256];
const READ_BATCHES: [usize; 2] = [1, 64];

const RS: &str = "raft-rs";
const RS_BATCHED: &str = "raft-rs, batch_append";
const RS_SAME_LOG: &str = "raft-rs, batch_append, same log";
const RS_BEST: &str = "raft-rs, batch_append, together, same log";
const RS_WIRE: &str = "raft-rs, batch_append, protobuf";
const CORE: &str = "raft-core";
const CORE_EACH: &str = "raft-core, each";
const CORE_SAME_LOG: &str = "raft-core, same log";
const CORE_WIRE: &str = "raft-core, postcard";

const VARIANTS: [Variant; 9] = [
    Variant {
        name: RS,
        make: || RaftRs::shipped_log(false, Propose::Each, Carry::Moved),
    },
    Variant {
        name: RS_BATCHED,
        make: || RaftRs::shipped_log(true, Propose::Each, Carry::Moved),
    },
    Variant {
        name: RS_SAME_LOG,
        make: || RaftRs::same_log(true, Propose::Each, Carry::Moved),
    },
    Variant {
        name: RS_BEST,
        make: || RaftRs::same_log(true, Propose::Together, Carry::Moved),
    },
    Variant {
        name: RS_WIRE,
        make: || RaftRs::shipped_log(true, Propose::Each, Carry::Encoded),
    },
    Variant {
        name: CORE,
        make: || RaftCore::shipped_log(Propose::Together, Carry::Moved),
    },
    Variant {
        name: CORE_EACH,
        make: || RaftCore::shipped_log(Propose::Each, Carry::Moved),
    },
    Variant {
        name: CORE_SAME_LOG,
        make: || RaftCore::same_log(Propose::Together, Carry::Moved),
    },
    Variant {
        name: CORE_WIRE,
        make: || RaftCore::shipped_log(Propose::Together, Carry::Encoded),
    },
];

/// Who is compared with whom: ours, the peer.
const PAIRS: [(&str, &str); 6] = [
    (CORE, RS),
    (CORE, RS_BATCHED),
    (CORE_EACH, RS_BATCHED),
    (CORE_SAME_LOG, RS_SAME_LOG),
    (CORE_SAME_LOG, RS_BEST),
    (CORE_WIRE, RS_WIRE),
];

/// What the command line asks for.
struct Plan {
    seconds: f64,
    rounds: usize,
    batch: Option<usize>,
    name: String,
}

impl Plan {
    fn from_args() -> Plan {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let number = |at: usize| {
            let parse = |arg: &String| {
                arg.parse::<f64>()
                    .unwrap_or_else(|_| panic!("{arg:?} is no number"))
            };
            args.get(at).map(parse)
        };
        Plan {
            seconds: number(0).unwrap_or(0.4),
            rounds: number(1).unwrap_or(9.0) as usize,
            batch: number(2).map(|batch| batch as usize),
            name: args.get(3).cloned().unwrap_or_default(),
        }
    }

    /// The variant of that name, or else all that have it as a part of theirs.
    fn variants(&self) -> Vec<&'static Variant> {
        let is_whole = VARIANTS.iter().any(|variant| variant.name == self.name);
        let wanted = |variant: &&Variant| {
            variant.name == self.name || (!is_whole && variant.name.contains(&self.name))
        };
        VARIANTS.iter().filter(wanted).collect()
    }

    /// The samples of each variant, taken in turns: a slow moment of the machine then meets all of
    /// them, and no variant always follows the same other one.
    fn take_turns<T>(&self, sample: impl Fn(&Variant) -> T) -> Vec<(&'static str, Vec<T>)> {
        let variants = self.variants();
        let mut samples: Vec<_> = variants
            .iter()
            .map(|variant| (variant.name, Vec::new()))
            .collect();
        for round in 0..self.rounds {
            for turn in 0..variants.len() {
                let at = (round + turn) % variants.len();
                samples[at].1.push(sample(variants[at]));
            }
        }
        samples
    }
}

fn main() {
    let plan = Plan::from_args();
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    println!(
        "payload {PAYLOAD_BYTES} bytes, {} rounds of {} s each",
        plan.rounds, plan.seconds
    );
    for batch in BATCHES
        .into_iter()
        .filter(|batch| plan.batch.is_none_or(|only| only == *batch))
    {
        println!("\nbatch {batch}");
        let samples = plan
            .take_turns(|variant| measure(&mut *(variant.make)(), &payload, batch, plan.seconds));
        for (name, samples) in &samples {
            print_samples(name, samples);
        }
        print_ratios(&samples, |sample| sample.cpu_us);
    }
    if plan.batch.is_none() {
        for batch in READ_BATCHES {
            println!("\nreads, batch {batch}");
            let samples = plan
                .take_turns(|variant| measure_reads(&mut *(variant.make)(), batch, plan.seconds));
            for (name, samples) in &samples {
                println!(
                    "{name:<42} {:>7.3} us/read",
                    median(samples.iter().copied())
                );
            }
            print_ratios(&samples, |cpu_us| *cpu_us);
        }
    }
}

fn print_samples(name: &str, samples: &[Sample]) {
    let cpu = sorted(samples.iter().map(|sample| sample.cpu_us));
    println!(
        "{name:<42} {:>7.3} us/commit ({:.3}-{:.3}) {:>9.0} commits/s {:>6.3} messages/commit {:>4.0} wire bytes/commit",
        median(cpu.iter().copied()),
        cpu[0],
        cpu[cpu.len() - 1],
        median(samples.iter().map(|sample| sample.per_second)),
        samples[0].messages,
        samples[0].wire_bytes,
    );
}

/// Prints by how much the peer's processor time exceeds ours: the median over the rounds of the
/// ratio within a round.
fn print_ratios<T>(samples: &[(&str, Vec<T>)], cpu_us: impl Fn(&T) -> f64) {
    let find = |name| {
        samples
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, samples)| samples)
    };
    for (ours, peer) in PAIRS {
        if let (Some(our_samples), Some(peer_samples)) = (find(ours), find(peer)) {
            let ratios = sorted(
                our_samples
                    .iter()
                    .zip(peer_samples)
                    .map(|(our, peer)| cpu_us(peer) / cpu_us(our)),
            );
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            println!(
                "  {:.2}x ({least:.2}-{most:.2})  [{ours}] over [{peer}]",
                median(ratios)
            );
        }
    }
}
