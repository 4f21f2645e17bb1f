//! Scenarios out of thin air: each seed draws which faults there are at all, how often, and the weather.
//!
//! With all faults at once at the same rates, every run would be the same soup, and a state that needs a quiet disk and a
//! bad network for a while would never come up. So each seed leaves most kinds of fault out (swarm testing).

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Place;
use super::fault::Fault;
use super::scenario::Scenario;

/// How long the clients of a drawn world work.
const MS: std::ops::Range<u64> = 5_000..60_000;
/// Mean time between two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 150..3_000;
/// Longest single fault, in milliseconds; an election timeout is 200.
const LONGEST_MS: u64 = 4_000;
/// Kinds of fault that there are.
const KINDS: u32 = 25;
/// Those from here on change the members.
const MEMBER_KINDS: u32 = 22;

/// The scenario of this seed.
pub fn swarm(seed: u64) -> Scenario {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut scenario = weather(seed, &mut rng);
    let kinds: Vec<u32> = (0..KINDS).filter(|_| rng.random_ratio(1, 3)).collect();
    if kinds.is_empty() {
        return scenario;
    }
    if kinds.iter().any(|kind| *kind >= MEMBER_KINDS) {
        scenario.spares = rng.random_range(1..=3);
    }
    let pause_ms = rng.random_range(PAUSE_MS);
    let mut at = rng.random_range(0..=pause_ms);
    while at < scenario.ms {
        let kind = kinds[rng.random_range(0..kinds.len())];
        let fault = draw(kind, &scenario, &mut rng);
        scenario.faults.push((at, fault));
        at += rng.random_range(1..=2 * pause_ms);
    }
    scenario
}

fn weather(seed: u64, rng: &mut StdRng) -> Scenario {
    let mut rare = |most: u32| {
        if rng.random_ratio(1, 3) {
            rng.random_range(1..=most)
        } else {
            0
        }
    };
    let (loss, duplicate, reorder) = (rare(300), rare(500), rare(500));
    Scenario {
        nodes: [1, 3, 3, 3, 3, 3, 5, 5][rng.random_range(0..8)],
        ms: rng.random_range(MS),
        clients: rng.random_range(1..=6),
        rest_ms: [0, 50, 200, 600][rng.random_range(0..4)],
        keys: rng.random_range(1..=8),
        loss_permille: loss,
        duplicate_permille: duplicate,
        reorder_permille: reorder,
        delay_ms: [1, 5, 5, 30, 100][rng.random_range(0..5)],
        sync_ms: [1, 10, 10, 60][rng.random_range(0..4)],
        snapshot_bytes: [6, 12, 24, 1_000][rng.random_range(0..4)] << 10,
        snapshot_piece_ms: [1, 5, 60][rng.random_range(0..3)],
        ..Scenario::new(seed)
    }
}

fn draw(kind: u32, scenario: &Scenario, rng: &mut StdRng) -> Fault {
    let machines = scenario.machines();
    let node: Place = rng.random_range(0..machines);
    let other: Place = rng.random_range(0..machines);
    // Short ones are as likely as long ones of ten times the length.
    let ms = 10_u64.pow(rng.random_range(1..=3)) * rng.random_range(1..10);
    let ms = ms.min(LONGEST_MS);
    match kind {
        0 => Fault::PowerCut { node, down_ms: ms },
        1 | 2 => Fault::PowerCutAtCall {
            node,
            calls: rng.random_range(1..40),
            down_ms: ms,
        },
        3 => Fault::Blackout { down_ms: ms },
        4 => Fault::BlackoutAtCall {
            node,
            calls: rng.random_range(1..40),
            down_ms: ms,
        },
        5 => Fault::Kill { node, down_ms: ms },
        6 => Fault::Pause { node, ms },
        7 => Fault::Cut {
            from: node,
            to: other,
            ms,
        },
        8 => Fault::Isolate { node, ms },
        9 => Fault::Split {
            side: rng.random_range(0..1 << machines),
            ms,
        },
        10 => Fault::Clog { node, ms },
        11 => Fault::SlowLink {
            from: node,
            to: other,
            delay_ms: rng.random_range(1..400),
            ms,
        },
        12 => Fault::Loss {
            permille: rng.random_range(50..900),
            ms,
        },
        13 => Fault::SlowDisk {
            node,
            sync_ms: rng.random_range(50..2_000),
            ms,
        },
        14 => Fault::SyncError { node, down_ms: ms },
        15 => Fault::Full { node, ms },
        16 => Fault::ClockRate {
            node,
            percent: rng.random_range(50..=200),
            ms: ms * 4,
        },
        17 => Fault::ClockJump { node, ms },
        18 => Fault::Transfer { to: node },
        19 if rng.random() => Fault::DiscardLog { node },
        20 | 21 => Fault::Rot {
            node,
            records: rng.random_range(1..5),
            down_ms: ms,
        },
        22 => Fault::Add { node },
        23 => Fault::Remove { node },
        24 => Fault::Replace {
            old: node,
            new: other,
        },
        _ => Fault::LoseAnswers { ms },
    }
}
