//! The Raft consensus algorithm as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod core;
mod error;
mod event;
mod gate;
mod inflights;
mod invariants;
mod log;
mod membership;
mod message;
mod node;
mod outbox;
mod persistence;
mod progress;
mod quorum;
mod read_index;
mod ready;
mod rng;
mod role;
mod status;
mod storage;
mod types;

pub use config::Config;
pub use error::{
    ConfigError, ConfigurationError, MalformedAppend, ProposeError, ReadError, Rejected,
    TransferError,
};
pub use event::{Event, Reason, VoteRefusal};
pub use membership::Configuration;
pub use message::{
    Append, AppendResponse, Envelope, Heartbeat, HeartbeatResponse, InstallSnapshot, Message,
    ReadIndex, ReadIndexResponse, RepairAnswer, RepairAsk, Repairing, SnapshotResponse,
    VoteRequest, VoteResponse,
};
pub use node::Node;
pub use ready::{Fetch, FetchPurpose, Persist, Proposal, ReadState, Ready, SnapshotOutcome};
pub use status::{PeerState, PeerStatus, Role, Status};
pub use storage::{InitialState, MemoryStorage, SnapshotMeta, Storage, StorageError};
pub use types::{
    Entry, EntryId, EntryKind, HardState, LogIndex, NodeId, PersistId, ReadId, Term,
    UnknownEntryKind,
};
