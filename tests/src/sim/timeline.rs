//! What happened when, for people: a line for each thing, and a lane for each node.

mod svg;

use std::fmt;

use kvd::wire::peer::PeerMessage;
use raft_core::Event;

use super::fault::Fault;
use super::{Place, Us, node};

/// Most lines that are kept; of a longer story the end is what tells why it failed.
const LINES_MAX: usize = 20_000;

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Something happened to the world.
    World,
    /// Something happened in a node.
    Node(Place),
    /// A message from one node to another, and when it arrives; none if it is lost.
    Message(Place, Place, Option<Us>),
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) at: Us,
    pub(super) what: What,
    pub(super) text: String,
}

/// The story of a world, or nothing if it is not to be told.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    is_kept: bool,
    has_messages: bool,
    lines: std::collections::VecDeque<Line>,
}

impl Timeline {
    /// Keeps nothing: most runs are never looked at.
    pub fn off() -> Timeline {
        Timeline::default()
    }

    /// Keeps what happens in the nodes.
    pub fn of_events() -> Timeline {
        Timeline {
            is_kept: true,
            ..Timeline::default()
        }
    }

    /// Keeps what happens in the nodes and between them.
    pub fn with_messages() -> Timeline {
        Timeline {
            is_kept: true,
            has_messages: true,
            ..Timeline::default()
        }
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    fn push(&mut self, at: Us, what: What, text: impl FnOnce() -> String) {
        if !self.is_kept {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        let text = text();
        self.lines.push_back(Line { at, what, text });
    }

    pub(super) fn note(&mut self, at: Us, place: Place, text: &str) {
        self.push(at, What::Node(place), || text.into());
    }

    pub(super) fn event(&mut self, at: Us, place: Place, event: &Event) {
        self.push(at, What::Node(place), || event.to_string());
    }

    pub(super) fn fault(&mut self, at: Us, fault: &Fault) {
        self.push(at, What::World, || fault.to_string());
    }

    pub(super) fn heal(&mut self, at: Us) {
        self.push(at, What::World, || "all is healed".into());
    }

    pub(super) fn message(
        &mut self,
        at: Us,
        from: Place,
        to: Place,
        arrives: Option<Us>,
        message: &PeerMessage,
    ) {
        if self.has_messages {
            self.push(at, What::Message(from, to, arrives), || match message {
                PeerMessage::Raft(envelope) => envelope.to_string(),
                PeerMessage::Forward { request, .. } => format!("forward {request}"),
                PeerMessage::ForwardReply { request, .. } => format!("answer to {request}"),
                PeerMessage::StateHash(hash) => format!("state at {}", hash.index),
                PeerMessage::StateAsk { covering, .. } => {
                    format!("wants a state from {covering} on")
                }
                other => format!("{other:?}"),
            });
        }
    }

    /// The story as a picture: a lane for each of so many nodes, time downwards.
    pub fn to_svg(&self, nodes: usize) -> String {
        svg::draw(self, nodes)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let ms = line.at as f64 / 1_000.0;
            write!(f, "{ms:>11.1} ms  ")?;
            match line.what {
                What::World => writeln!(f, "==  {}", line.text)?,
                What::Node(place) => writeln!(f, "{}  {}", node::name(place), line.text)?,
                What::Message(_, _, None) => writeln!(f, "    {} (lost)", line.text)?,
                What::Message(_, _, Some(at)) => {
                    let way = (at - line.at) as f64 / 1_000.0;
                    writeln!(f, "    {} ({way:.1} ms)", line.text)?;
                }
            }
        }
        Ok(())
    }
}
