//! What a node says about itself.

use std::collections::BTreeMap;

use raft_core::{NodeId, Role};

use super::{Driver, TICK_MS};
use crate::wire::status::{NodeRole, NodeStatus, StateHash, StorageState, StorageStatus};

/// What the shell knows and the driver does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Median time of a sync, in microseconds.
    pub sync_p50_us: u64,
    /// 99th percentile of the time of a sync, in microseconds.
    pub sync_p99_us: u64,
    /// Free bytes on the file system of the log.
    pub disk_free_bytes: u64,
    /// When the certificate ends, RFC 3339.
    pub certificate_expires: String,
    /// The longest turn of the loop in the last seconds, in microseconds.
    pub longest_turn_us: u64,
}

impl Driver {
    /// The node's own part of `kvctl status`.
    pub fn status(&self) -> NodeStatus {
        let core = self.node.status();
        let configuration = self.node.configuration();
        let names = |ids: &std::collections::BTreeSet<NodeId>| {
            ids.iter().map(|id| self.name_of(*id)).collect()
        };
        let progress = |value: fn(&raft_core::PeerStatus) -> u64| -> BTreeMap<String, u64> {
            core.progress
                .iter()
                .map(|peer| (self.name_of(peer.id), value(peer)))
                .collect()
        };
        NodeStatus {
            name: self.options.name.clone(),
            id: hex(self.id),
            address: self
                .member(self.id)
                .map(|member| member.address)
                .unwrap_or_default(),
            reachable: true,
            role: self.role_word(),
            term: core.term.0,
            leader: core.leader.map(|id| self.name_of(id)),
            voted_for: core.vote.map(|id| self.name_of(id)),
            commit_index: core.commit.0,
            last_applied: self.store.applied_index(),
            first_index: core.first.0,
            last_index: core.last.index.0,
            snapshot_index: core.snapshot.map_or(0, |id| id.index.0),
            next_index: progress(|peer| peer.next.0),
            match_index: progress(|peer| peer.matched.0),
            voters: names(&configuration.voters),
            learners: names(&configuration.learners),
            storage: self.storage_status(),
            state_hash: StateHash {
                applied: self.store.applied_index(),
                hash: format!("{:016x}", self.store.hash()),
                agreed: self.positions.agreed(),
                alarm: self
                    .suspicion_text()
                    .or_else(|| self.positions.alarm().cloned()),
            },
            certificate_expires: self.facts.certificate_expires.clone(),
            uptime_s: self.now * TICK_MS / 1000,
            version: env!("CARGO_PKG_VERSION").into(),
            repair: self.repair_progress(),
            longest_turn_us: self.facts.longest_turn_us,
        }
    }

    fn storage_status(&self) -> StorageStatus {
        StorageStatus {
            state: if self.space.is_short() {
                StorageState::Full
            } else if self.node.status().repair.is_some() || self.suspicion.is_some() {
                StorageState::Repairing
            } else {
                StorageState::Ok
            },
            log_bytes: self.facts.log_bytes,
            sync_p50_us: self.facts.sync_p50_us,
            sync_p99_us: self.facts.sync_p99_us,
            disk_free_bytes: self.facts.disk_free_bytes,
        }
    }

    fn role_word(&self) -> NodeRole {
        match self.node.role() {
            _ if self.is_removed() => NodeRole::Removed,
            Role::Follower if self.node.configuration().learners.contains(&self.id) => {
                NodeRole::Learner
            }
            Role::Follower => NodeRole::Follower,
            Role::PreCandidate => NodeRole::PreCandidate,
            Role::Candidate => NodeRole::Candidate,
            Role::Leader => NodeRole::Leader,
        }
    }

    /// The name of a member, or of a former one.
    pub(super) fn name_of(&self, id: NodeId) -> String {
        if let Some(record) = self.store.members().get(id.0) {
            return record.name.clone();
        }
        let mut founders = self.options.members.iter();
        let founder = founders.find(|member| member.id == id.0);
        founder.map_or_else(|| hex(id), |member| member.name.clone())
    }
}

fn hex(id: NodeId) -> String {
    format!("{:016x}", id.0)
}
