//! One scenario from its beginning to its end.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scenario::Scenario;
use super::timeline::Timeline;
use super::world::{Counts, World};
use super::{Told, Us};
use crate::watch::Violation;

/// One election timeout, in microseconds of the world.
pub const ELECTION_TIMEOUT_US: Us =
    super::node::ELECTION_TIMEOUT_TICKS as Us * kvd::driver::TICK_MS * 1_000;
/// Once all is healed there is a leader within so many election timeouts.
const LEADER_TIMEOUTS: u64 = 10;
/// Once all is healed and asked all nodes are equal within so many election timeouts.
const LEVEL_TIMEOUTS: u64 = 20;
/// Within so many a client has its answer, or has given up.
const CLIENT_TIMEOUTS: u64 = 40;

/// What a run that kept every promise came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Time of the world at the end.
    pub us: Us,
    /// Requests by what their clients were told: done, failed, unknown.
    pub calls: [u64; 3],
    /// Committed entries.
    pub entries: u64,
    /// What happened to the nodes.
    pub counts: Counts,
}

impl Figures {
    /// Adds those of another run.
    pub(super) fn add(&mut self, other: &Figures) {
        self.us += other.us;
        self.entries += other.entries;
        for (sum, more) in self.calls.iter_mut().zip(other.calls) {
            *sum += more;
        }
        self.counts.add(&other.counts);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [done, failed, unknown] = self.calls;
        let Counts {
            deaths,
            stops,
            power_cuts,
            elections,
            transfers,
            rotted,
            repaired,
            configurations,
        } = self.counts;
        write!(
            f,
            "{done} requests answered, {failed} failed, {unknown} unknown; {} entries committed; {elections} elections, \
             {deaths} deaths, {stops} of them in good order, {power_cuts} power cuts, {transfers} snapshots sent, {rotted} records rotted, {repaired} repaired, \
             {configurations} configurations committed",
            self.entries
        )
    }
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which; runs that break the same one are taken for the same bug.
    pub rule: String,
    /// Who, where, what.
    pub text: String,
    /// The nodes at that moment.
    pub picture: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n{}", self.rule, self.text, self.picture)
    }
}

/// How a run ended, and its story as far as it was kept.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it came to, or what went wrong.
    pub result: Result<Figures, Failure>,
    /// The story.
    pub timeline: Timeline,
}

/// Plays a scenario: clients and faults for its time, then everything is healed, and all must be as promised.
///
/// A panic anywhere in the nodes is a broken promise like any other.
pub fn run(scenario: &Scenario, timeline: Timeline) -> Outcome {
    let mut world = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(scenario, timeline));
        play(world, scenario)
    }));
    let world = world.expect("a world of any scenario can be made");
    let failed = |violation: Violation| Failure {
        rule: violation.rule.into(),
        text: violation.text,
        picture: world.picture(),
    };
    let result = match played {
        Ok(played) => played.map_err(failed),
        Err(panic) => Err(failed(Violation {
            rule: "no panic",
            text: text_of(panic.as_ref()),
        })),
    };
    Outcome {
        result,
        timeline: world.timeline().clone(),
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
    text.unwrap_or_else(|| "a panic without a word".into())
}

fn play(world: &mut World, scenario: &Scenario) -> Result<Figures, Violation> {
    world.run_to(scenario.ms * 1_000)?;
    finish(world)
}

/// Heals everything, waits until nothing is left to do, and checks what is promised of a world that has come to rest.
///
/// # Errors
/// What is broken, or does not come about in time.
pub fn finish(world: &mut World) -> Result<Figures, Violation> {
    settle(world)?;
    super::verdict::check(world)?;
    Ok(figures(world))
}

/// Heals everything and waits until nothing is left to do.
///
/// # Errors
/// What is broken, or does not come about in time.
pub(super) fn settle(world: &mut World) -> Result<(), Violation> {
    world.heal()?;
    let us = LEADER_TIMEOUTS * ELECTION_TIMEOUT_US;
    expect(world, us, "a leader after healing", |world| {
        world.leader().is_some()
    })?;
    world.stop_clients();
    let us = CLIENT_TIMEOUTS * ELECTION_TIMEOUT_US;
    expect(
        world,
        us,
        "clients are answered after healing",
        World::clients_are_idle,
    )?;
    let us = LEVEL_TIMEOUTS * ELECTION_TIMEOUT_US;
    expect(
        world,
        us,
        "all nodes are level after healing",
        World::is_level,
    )
}

fn expect(
    world: &mut World,
    us: Us,
    what: &'static str,
    done: impl Fn(&World) -> bool,
) -> Result<(), Violation> {
    if world.run_until(us, done)? {
        return Ok(());
    }
    Err(Violation {
        rule: what,
        text: format!("not within {} ms", us / 1_000),
    })
}

fn figures(world: &World) -> Figures {
    let mut calls = [0; 3];
    for call in world.calls() {
        let kind = match call.told {
            Told::Written(_) | Told::Read(_) => 0,
            Told::Failed => 1,
            Told::Unknown => 2,
        };
        calls[kind] += 1;
    }
    Figures {
        us: world.now(),
        calls,
        entries: world.committed().len() as u64,
        counts: world.counts(),
    }
}
