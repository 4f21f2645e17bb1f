//! What is compared: logs behind one trait.

use std::path::Path;

use crate::ours::{RaftLog, RaftLogGroup};
use crate::peer::RaftEngine;
use crate::reference::RefPwrite;

/// How a log is to be opened.
#[derive(Clone, Copy)]
pub struct Setup {
    /// Segments that are prepared before the clock starts, for the engines that can.
    pub pool_segments: usize,
}

/// Bytes of a segment, the same for all engines that have a choice.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// A log. A failure of any call ends the program: nothing measured afterwards would count.
pub trait Log: Send + Sync {
    /// Appends the payloads; they are durable on return. `writer` is the number of the calling thread.
    fn append(&self, writer: usize, payloads: &[Vec<u8>]);

    /// Appends for writer 0; durable when the log is closed, so that a log is filled quickly.
    fn append_lazily(&self, payloads: &[Vec<u8>]);

    /// Length of the payload of an entry of writer 0, after its checksum was verified.
    fn read(&self, index: u64) -> usize;

    /// Last entry of writer 0.
    fn last_index(&self) -> u64;

    /// Makes everything durable and closes the log.
    fn close(self: Box<Self>);
}

/// An engine in one of its uses.
pub struct Engine {
    pub name: &'static str,
    /// Opens the log in a directory, creating it if there is none.
    pub open: fn(&Path, Setup) -> Box<dyn Log>,
}

pub const REF_PWRITE: Engine = Engine {
    name: "ref-pwrite",
    open: |dir, setup| Box::new(RefPwrite::open(dir, setup)),
};

pub const RAFT_ENGINE: Engine = Engine {
    name: "raft-engine",
    open: |dir, _| Box::new(RaftEngine::open(dir, None)),
};

/// Its own way to have blocks ready before they are needed.
pub const RAFT_ENGINE_PREFILLED: Engine = Engine {
    name: "raft-engine, prefilled",
    open: |dir, setup| {
        let prefill = setup.pool_segments as u64 * SEGMENT_BYTES;
        Box::new(RaftEngine::open(dir, Some(prefill)))
    },
};

/// One thread that owns the log, as a replica's log thread does.
pub const RAFT_LOG: Engine = Engine {
    name: "raft-log",
    open: |dir, setup| Box::new(RaftLog::open(dir, setup)),
};

pub const RAFT_LOG_GROUP: Engine = Engine {
    name: "raft-log, Group",
    open: |dir, setup| Box::new(RaftLogGroup::open(dir, setup)),
};
