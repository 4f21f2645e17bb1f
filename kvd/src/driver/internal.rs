//! Entries that a leader proposes on the cluster's own behalf.

use raft_core::{EntryId, Proposal, ProposeError};

use super::Driver;
use super::space::ENTRY_OVERHEAD_BYTES;
use crate::kv::auth::{Principal, Role};
use crate::kv::command::{Command, command_crc};
use crate::kv::envelope::{Envelope, SessionRef};

/// What such an entry takes in the log at most, unless it is a change of the members.
const SMALL_ENTRY_BYTES: u64 = 4 * ENTRY_OVERHEAD_BYTES;

impl Driver {
    /// Proposes a command that no client asked for.
    ///
    /// # Errors
    /// Definite: it will never take effect.
    pub(super) fn propose_internal(&mut self, command: &Command) -> Result<EntryId, ProposeError> {
        let command = command.encode();
        let principal = Principal::new(Role::Internal, self.options.name.clone());
        let payload = Envelope {
            principal: principal.borrowed(),
            session: SessionRef::None,
            sequence: 0,
            done_below: 0,
            log_time_ms: self.log_time_ms(),
            command_crc: command_crc(&command),
            command: &command,
        }
        .encode();
        let proposal = self.sealed(payload);
        self.node.propose(vec![proposal])
    }

    /// A payload with its checksum; its bytes count as proposed.
    pub(super) fn sealed(&mut self, payload: bytes::Bytes) -> Proposal {
        self.space
            .propose(payload.len() as u64 + ENTRY_OVERHEAD_BYTES);
        let checksum = raft_log::record::payload_checksum(self.options.cluster, &payload);
        Proposal { payload, checksum }
    }

    /// Whether the log has room for a small entry that nobody waits for.
    pub(super) fn has_room_for_internal(&self) -> bool {
        !self.space.is_full() && self.space.left() >= SMALL_ENTRY_BYTES
    }
}
