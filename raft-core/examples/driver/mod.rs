//! The loop around a node, which every program has that uses one: do what [`Ready`] says, in the
//! order of its contract. All examples share it.
//!
//! A real server has disks, connections and a clock where this one has memory, a vector and a
//! counter; [`server`] is what it would keep, [`cluster`] what would be the world.

#![allow(dead_code, unused_imports, reason = "each example uses its own part")]

mod cluster;
mod server;

pub(crate) use cluster::Cluster;
pub(crate) use server::{Outcome, Server};

/// What has a binary form: commands, because the core carries bytes, and the state they lead to,
/// because a snapshot of it is sent as bytes.
pub(crate) trait Encoded: Sized {
    fn encode(&self) -> Vec<u8>;

    /// None if the bytes say nothing that this program knows.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// What the commands of the log lead to.
///
/// All servers apply the same commands in the same order, and must come to the same state. So a
/// state machine looks at nothing else: no clock, no chance, nothing of the server it runs on.
pub(crate) trait StateMachine: Encoded + Default {
    /// What clients ask for.
    type Command: Encoded;
    /// What they are told when it is done.
    type Answer;

    fn apply(&mut self, command: Self::Command) -> Self::Answer;
}

/// The simplest state machine: a list of lines, to which each command adds one. The answer is
/// where.
impl StateMachine for Vec<String> {
    type Command = String;
    type Answer = usize;

    fn apply(&mut self, line: String) -> usize {
        self.push(line);
        self.len() - 1
    }
}

impl Encoded for Vec<String> {
    fn encode(&self) -> Vec<u8> {
        self.join("\n").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Vec<String>> {
        let text = String::decode(bytes)?;
        Some(text.lines().map(str::to_owned).collect())
    }
}

impl Encoded for String {
    fn encode(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}
