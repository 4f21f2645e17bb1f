//! What a world is to go through: everything that a run depends on, as a value and as a text.
//!
//! ```text
//! # A leader that loses power in the middle of a sync.
//! seed 7
//! nodes 3
//! at 1200 power-cut-at-call n1 5 400
//! at 3000 isolate n2 900
//! ```
//!
//! Lines that are left out have the values of [`Scenario::new`].

use std::fmt;
use std::str::FromStr;

use super::fault::Fault;

/// A run: the world's make, its weather, its clients, and what happens when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is about; lines that begin with `#`.
    pub story: String,
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Machines beside them that can become members.
    pub spares: usize,
    /// How long clients work and faults happen, in milliseconds of the world.
    pub ms: u64,
    /// Clients, each with one request in flight.
    pub clients: usize,
    /// Longest rest of a client between two requests, in milliseconds.
    pub rest_ms: u64,
    /// How many keys the clients share; few keys are many conflicts.
    pub keys: u64,
    /// Of a thousand packets so many are lost.
    pub loss_permille: u32,
    /// Of a thousand packets so many arrive twice.
    pub duplicate_permille: u32,
    /// Of a thousand packets so many may be overtaken.
    pub reorder_permille: u32,
    /// Longest way of a packet, in milliseconds.
    pub delay_ms: u64,
    /// Longest time of a sync, in milliseconds.
    pub sync_ms: u64,
    /// Bytes applied between two snapshots.
    pub snapshot_bytes: u64,
    /// Time that each piece of a snapshot takes on its way, in milliseconds.
    pub snapshot_piece_ms: u64,
    /// Nodes that start before this time, in milliseconds, draw the same numbers: their election timeouts are equal.
    pub same_draws_ms: u64,
    /// What happens, by its time in milliseconds; ascending.
    pub faults: Vec<(u64, Fault)>,
}

impl Scenario {
    /// Three nodes and four clients on a good day.
    pub fn new(seed: u64) -> Scenario {
        Scenario {
            story: String::new(),
            seed,
            nodes: 3,
            spares: 0,
            ms: 10_000,
            clients: 4,
            rest_ms: 200,
            keys: 5,
            loss_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            delay_ms: 5,
            sync_ms: 10,
            snapshot_bytes: 24 << 10,
            snapshot_piece_ms: 5,
            same_draws_ms: 0,
            faults: Vec::new(),
        }
    }

    /// All machines.
    pub fn machines(&self) -> usize {
        self.nodes + self.spares
    }

    /// The same with one more fault, kept in order.
    #[must_use]
    pub fn with(mut self, at_ms: u64, fault: Fault) -> Scenario {
        let place = self.faults.partition_point(|(at, _)| *at <= at_ms);
        self.faults.insert(place, (at_ms, fault));
        self
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.story.lines() {
            writeln!(f, "# {line}")?;
        }
        let usual = Scenario::new(self.seed);
        writeln!(f, "seed {}", self.seed)?;
        for ((name, value), (_, usual)) in self.numbers().into_iter().zip(usual.numbers()) {
            if value != usual {
                writeln!(f, "{name} {value}")?;
            }
        }
        for (at, fault) in &self.faults {
            writeln!(f, "at {at} {fault}")?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Its numbers with their names, without the seed.
    fn numbers(&self) -> [(&'static str, u64); 14] {
        [
            ("nodes", self.nodes as u64),
            ("spares", self.spares as u64),
            ("ms", self.ms),
            ("clients", self.clients as u64),
            ("rest-ms", self.rest_ms),
            ("keys", self.keys),
            ("loss-permille", self.loss_permille.into()),
            ("duplicate-permille", self.duplicate_permille.into()),
            ("reorder-permille", self.reorder_permille.into()),
            ("delay-ms", self.delay_ms),
            ("sync-ms", self.sync_ms),
            ("snapshot-bytes", self.snapshot_bytes),
            ("snapshot-piece-ms", self.snapshot_piece_ms),
            ("same-draws-ms", self.same_draws_ms),
        ]
    }

    fn set(&mut self, name: &str, value: u64) -> Option<()> {
        match name {
            "seed" => self.seed = value,
            "nodes" => self.nodes = usize::try_from(value).ok()?,
            "spares" => self.spares = usize::try_from(value).ok()?,
            "ms" => self.ms = value,
            "clients" => self.clients = usize::try_from(value).ok()?,
            "rest-ms" => self.rest_ms = value,
            "keys" => self.keys = value,
            "loss-permille" => self.loss_permille = value.try_into().ok()?,
            "duplicate-permille" => self.duplicate_permille = value.try_into().ok()?,
            "reorder-permille" => self.reorder_permille = value.try_into().ok()?,
            "delay-ms" => self.delay_ms = value,
            "sync-ms" => self.sync_ms = value,
            "snapshot-bytes" => self.snapshot_bytes = value,
            "snapshot-piece-ms" => self.snapshot_piece_ms = value,
            "same-draws-ms" => self.same_draws_ms = value,
            _ => return None,
        }
        Some(())
    }
}

/// A text that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text:?} is not understood")]
pub struct NotAScenario {
    /// Counted from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl FromStr for Scenario {
    type Err = NotAScenario;

    fn from_str(text: &str) -> Result<Scenario, NotAScenario> {
        let mut scenario = Scenario::new(0);
        let mut story: Vec<&str> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(line) = line.strip_prefix('#') {
                story.push(line.trim());
                continue;
            }
            scenario = take_line(scenario, line.trim()).ok_or_else(|| NotAScenario {
                line: number + 1,
                text: line.into(),
            })?;
        }
        scenario.story = story.join("\n");
        Ok(scenario)
    }
}

fn take_line(mut scenario: Scenario, line: &str) -> Option<Scenario> {
    if line.is_empty() {
        return Some(scenario);
    }
    let (name, rest) = line.split_once(' ')?;
    if name == "at" {
        let (at, fault) = rest.split_once(' ')?;
        return Some(scenario.with(at.parse().ok()?, fault.parse().ok()?));
    }
    scenario.set(name, rest.trim().parse().ok()?)?;
    Some(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::swarm;

    #[test]
    fn scenario_comes_back_from_its_text() {
        for seed in 0..200 {
            let mut scenario = swarm(seed);
            scenario.story = "first line\nsecond line".into();
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
    }

    #[test]
    fn line_that_is_not_understood_is_named() {
        let error = "seed 1\nat 5 melt n1".parse::<Scenario>().unwrap_err();
        assert_eq!((error.line, error.text.as_str()), (2, "at 5 melt n1"));
    }
}
