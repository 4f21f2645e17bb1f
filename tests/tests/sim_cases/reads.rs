//! Reads: of followers, of a leader that is none any more, and with clocks that are wrong.

use kvd::wire::client::{Consistency, Response};
use kvd_sim::sim::{Fault, Place, Scenario, Us, World};
use rand::RngExt;

use crate::shared::{
    ET_MS, Played, draws, follower, is_long, leader, pass, play, read_all, seeds, wait,
};

/// A read made by hand: what must be seen by it, and how it went.
struct Probe {
    place: Place,
    number: u64,
    asked_us: Us,
    /// Entries that were committed when it was asked, wherever that was known.
    committed: u64,
    /// Entries that the asked node had applied at that time.
    applied: u64,
}

/// How a read ended.
struct Seen {
    applied: u64,
    local: bool,
    answered_us: Us,
}

fn probe(world: &mut World, place: Place, consistency: Consistency) -> Played<Option<Probe>> {
    let committed = world.committed().len() as u64;
    let applied = world.store(place).map_or(0, |store| store.applied_index());
    let asked_us = world.now();
    let number = world.probe(place, read_all(consistency))?;
    Ok(number.map(|number| Probe {
        place,
        number,
        asked_us,
        committed,
        applied,
    }))
}

impl Probe {
    /// What it saw; none if it was refused or is not answered.
    fn seen(&self, world: &World) -> Option<Seen> {
        match world.probed(self.number)? {
            (at, Response::Range { applied, local, .. }) => Some(Seen {
                applied: *applied,
                local: *local,
                answered_us: *at,
            }),
            (_, Response::Refused(_)) => None,
            (_, other) => panic!("a read was answered with {other:?}"),
        }
    }

    /// It saw everything that was committed when it was asked, or nothing.
    fn check_fresh(&self, world: &World) {
        if let Some(seen) = self.seen(world) {
            let committed = self.committed;
            assert!(!seen.local, "a linearizable read is marked as local");
            assert!(
                seen.applied >= committed,
                "n{} answered at {} a read of {} with the state at {}, though {committed} were committed",
                self.place + 1,
                seen.answered_us,
                self.asked_us,
                seen.applied,
            );
        }
    }
}

/// Writers without a rest.
fn busy(seed: u64) -> Scenario {
    Scenario {
        rest_ms: 20,
        ..Scenario::new(seed)
    }
}

/// Linearizable reads at all nodes, every `step_ms` for so long.
fn probe_all(world: &mut World, ms: u64, step_ms: u64) -> Played<Vec<Probe>> {
    let mut probes = Vec::new();
    for _ in 0..ms / step_ms {
        for place in 0..world.nodes() {
            probes.extend(probe(world, place, Consistency::Linearizable)?);
        }
        pass(world, step_ms)?;
    }
    Ok(probes)
}

/// Case 40: a follower that is behind answers a linearizable read only once it has applied what was committed.
#[test]
fn follower_read_waits_for_what_was_committed_before_it() {
    let mut waited = 0;
    for seed in seeds(3) {
        let (probes, _) = play(&busy(seed), |world| {
            let to = follower(world)?;
            let from = leader(world)?;
            let (delay_ms, ms) = (80, 4_000);
            world.hit(Fault::SlowLink {
                from,
                to,
                delay_ms,
                ms,
            })?;
            let probes = probe_all(world, ms, 37)?;
            pass(world, 2 * ET_MS)?;
            probes.iter().for_each(|it| it.check_fresh(world));
            let behind = probes
                .iter()
                .filter(|it| it.place == to && it.applied < it.committed);
            Ok(behind.filter(|it| it.seen(world).is_some()).count())
        });
        waited += probes;
    }
    println!("{waited} reads had to wait");
    assert!(waited > 20, "only {waited} reads had to wait");
}

/// Case 40: a local read is answered at once, from whatever is there, and says so.
#[test]
fn local_read_is_answered_at_once_and_marked() {
    let mut stale = 0;
    for seed in seeds(4) {
        let (found, _) = play(&busy(seed), |world| {
            let node = follower(world)?;
            world.hit(Fault::Isolate { node, ms: 3_000 })?;
            let mut stale = 0;
            for _ in 0..50 {
                pass(world, 50)?;
                let asked = probe(world, node, Consistency::Local)?.expect("its process runs");
                let seen = asked.seen(world).expect("a local read needs nobody else");
                assert!(seen.local, "a local read is not marked");
                assert_eq!(
                    (seen.answered_us, seen.applied),
                    (asked.asked_us, asked.applied)
                );
                stale += usize::from(seen.applied < asked.committed);
            }
            Ok(stale)
        });
        stale += found;
    }
    assert!(
        stale > 50,
        "only {stale} reads were stale, so the mark was not put to the test"
    );
}

/// Case 41: a leader that is cut off with its clients answers none of their reads with a stale value.
#[test]
fn leader_that_is_cut_off_answers_no_stale_read() {
    for seed in seeds(4) {
        let scenario = Scenario {
            nodes: if seed.is_multiple_of(2) { 3 } else { 5 },
            ..busy(seed)
        };
        play(&scenario, |world| {
            let old = leader(world)?;
            pass(world, draws(seed).random_range(0..ET_MS))?;
            let ms = 20 * ET_MS;
            world.hit(Fault::Isolate { node: old, ms })?;
            let (cut_us, before) = (world.now(), world.committed().len());
            let mut probes = Vec::new();
            for _ in 0..ms * 3 / 4 / 10 {
                probes.extend(probe(world, old, Consistency::Linearizable)?);
                pass(world, 10)?;
            }
            let after = world.committed().len();
            assert!(
                after > before + 10,
                "the others did not go on: {before}, {after}"
            );
            let late = probes.iter().filter(|it| it.asked_us > cut_us + 20_000);
            for probe in late {
                let is_answered = world.probed(probe.number).is_some();
                let seen = probe.seen(world);
                assert!(seen.is_none(), "a read was confirmed without a quorum");
                let is_over = probe.asked_us + 2_100_000 < world.now();
                assert!(is_answered || !is_over, "a read was left without an answer");
            }
            pass(world, ms)?;
            probes.iter().for_each(|it| it.check_fresh(world));
            Ok(())
        });
    }
}

/// Every clock at its own speed, and some leap.
fn wrong_clocks(seed: u64, ms: u64) -> Scenario {
    let mut rng = draws(seed);
    let mut scenario = Scenario { ms, ..busy(seed) };
    for node in 0..scenario.nodes {
        // The extremes are as likely as all between them.
        let percent = [50, 200, rng.random_range(50..=200)][rng.random_range(0..3)];
        let clock = Fault::ClockRate { node, percent, ms };
        scenario = scenario.with(0, clock);
    }
    for _ in 0..ms / 500 {
        let node = rng.random_range(0..scenario.nodes);
        let jump = 10_u64.pow(rng.random_range(1..=4));
        let at = rng.random_range(0..ms);
        scenario = scenario.with(at, Fault::ClockJump { node, ms: jump });
    }
    scenario
}

/// Case 42: clocks that run at half and double speed and leap make no read stale, and do not stop the cluster.
#[test]
fn wrong_clocks_make_no_read_stale() {
    let ms = if is_long() { 60_000 } else { 6_000 };
    for seed in seeds(2) {
        let (probes, figures) = play(&wrong_clocks(seed, ms), |world| {
            let probes = probe_all(world, ms, 43)?;
            pass(world, 3_000)?;
            probes.iter().for_each(|it| it.check_fresh(world));
            Ok(probes.iter().filter(|it| it.seen(world).is_some()).count())
        });
        assert!(probes > 50, "only {probes} reads were answered");
        assert!(figures.calls[0] > 50, "{figures}");
    }
}

/// Case 42: the leader's clock leaps by an hour: it takes itself for cut off, which is the safe error, and the cluster goes on.
#[test]
fn an_hour_that_the_leader_believes_lost_costs_an_election_at_most() {
    let (_, figures) = play(&busy(7), |world| {
        let node = leader(world)?;
        let ms = 3_600_000;
        let before = probe_all(world, 300, 50)?;
        world.hit(Fault::ClockJump { node, ms })?;
        let after = probe_all(world, 300, 50)?;
        wait(world, 10 * ET_MS, "a leader after the leap", |it| {
            it.leader().is_some()
        })?;
        pass(world, 3_000)?;
        before
            .iter()
            .chain(&after)
            .for_each(|it| it.check_fresh(world));
        Ok(())
    });
    assert!(figures.calls[0] > 20, "{figures}");
}
