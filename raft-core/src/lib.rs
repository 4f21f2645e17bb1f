//! The Raft consensus algorithm as a pure state machine: no I/O, no clock, no threads.
//!
//! Inputs are calls on a [`Node`]: [`tick`](Node::tick), [`step`](Node::step) for a message,
//! [`propose`](Node::propose), [`read_index`](Node::read_index), and reports of what the caller has
//! done ([`on_persisted`](Node::on_persisted), [`on_applied`](Node::on_applied) and others). The
//! output is one [`Ready`] batch: what to write, what to send, what to apply, which reads to
//! answer. The same calls give the same output on every machine; chance comes from a seed in
//! [`Config`].
//!
//! What is here: pre-vote and check-quorum, priorities, leader transfer, learners and joint quorums,
//! pipelined replication with a window in appends and bytes, fast back-off on conflicts,
//! linearizable reads without a log entry, by a round of messages or by lease, snapshots for
//! followers that lag, bounded proposals, storage that completes later, and leaders that give way
//! when their disk is slow ([`Node::report_sync_age`]).
//!
//! Entries that a disk lost come back from the other nodes ([`InitialState::faulty`],
//! [`Node::on_faulty`], [`Status::repair`]), and until then the node takes part only as far as it can
//! without promising what it cannot read.
//!
//! Members change by [`Node::plan_configuration`] and [`Node::propose_configuration`] (thesis
//! chapter 4): one entry if at most one voter comes or goes, else a joint configuration, which ends
//! by a second entry that the driver proposes when [`Node::pending_leave`] says so.
//!
//! What is not: the log on disk, the network, time. A caller keeps the log behind [`Storage`],
//! carries [`Envelope`]s, and calls `tick`. Messages may be lost, repeated, delayed and reordered;
//! they must not be altered, which is what an authenticated transport is for.
//!
//! # What holds
//!
//! * At most one leader per term, logs that match, committed entries that never change: as long as
//!   the disk keeps what was synced, and the caller keeps the order that [`Ready`] describes. No
//!   clock is part of that; only reads with [`Config::lease_reads`] depend on clocks.
//! * No message that promises durable state is handed out to be sent before that state was handed
//!   out to be written, and the two are told apart: [`Ready::messages`] may leave at once,
//!   [`Ready::messages_after_sync`] may not.
//! * What a peer sends is refused with a typed error ([`Rejected`]) if it makes no sense. Our own
//!   state is asserted, also in release builds: a contradiction there is a panic, because going on
//!   could lose data.
//!
//! # Example
//!
//! A cluster of one, which shows the loop that every caller has:
//!
//! ```
//! use raft_core::{Config, MemoryStorage, Node, NodeId, Proposal};
//!
//! let me = NodeId(1);
//! let mut node = Node::new(Config::new(me, 42), MemoryStorage::new([me]))?;
//! let mut applied = Vec::new();
//! node.campaign();
//! for round in 0.. {
//!     while node.has_ready() {
//!         let ready = node.ready();
//!         for _message in ready.messages {
//!             // Send it.
//!         }
//!         if let Some(persist) = ready.persist {
//!             let id = persist.id;
//!             node.storage_mut().persist(persist); // Write and sync.
//!             node.on_persisted(id);
//!         }
//!         for _message in ready.messages_after_sync {
//!             // Send it now that `ready.after_sync` is on disk.
//!         }
//!         if let Some(last) = ready.committed.last().map(|entry| entry.index) {
//!             applied.extend(ready.committed.into_iter().map(|entry| entry.payload));
//!             node.on_applied(last);
//!         }
//!     }
//!     if round == 0 {
//!         node.propose(vec![Proposal { payload: "hello".into(), checksum: 0x3610_a686 }])?;
//!     } else {
//!         break;
//!     }
//! }
//! // The no-op with which the term began, and the command.
//! assert_eq!(applied, ["", "hello"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! More is in the examples: `three_nodes` is the same with messages between three nodes,
//! `replicated_counter` has a state machine with commands of its own, reads at a follower and a
//! snapshot, and in `changing_members` servers come and go. `examples/driver/server.rs` is a loop
//! that does everything a [`Ready`] asks for.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ballot;
mod config;
mod core;
mod disk_health;
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
mod repair;
mod rng;
mod role;
mod status;
mod storage;
mod types;

#[doc = include_str!("../docs/rules.md")]
pub mod rules {}

pub use config::Config;
pub use error::{
    ChangeError, ConfigError, ConfigurationError, MalformedAppend, ProposeError, ReadError,
    Rejected, TransferError,
};
pub use event::{Event, Reason, VoteRefusal};
pub use membership::{Configuration, ConfigurationChange, MemberChange};
pub use message::{
    Append, AppendResponse, Commit, Envelope, Heartbeat, HeartbeatResponse, InstallSnapshot,
    Message, ReadIndex, ReadIndexResponse, RepairAnswer, RepairAsk, RepairOutcome, Repairing,
    SnapshotAsk, SnapshotResponse, VoteRequest, VoteResponse,
};
pub use node::Node;
pub use ready::{Fetch, FetchPurpose, Persist, Proposal, ReadState, Ready, SnapshotOutcome};
pub use status::{PeerState, PeerStatus, RepairStatus, Role, Status};
pub use storage::{FaultyEntry, InitialState, MemoryStorage, SnapshotMeta, Storage, StorageError};
pub use types::{
    Entry, EntryId, EntryKind, HardState, LogIndex, NodeId, PersistId, ReadId, RepairId, Term,
    UnknownEntryKind,
};
