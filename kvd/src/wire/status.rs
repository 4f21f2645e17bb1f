//! What a node says about itself: one element of `nodes` in `kvctl status -o json`.
//!
//! The same structs travel in postcard, which writes fields by position: nothing may be skipped, flattened or untagged.
//! Node ids are 16 hexadecimal digits in text, because a 64-bit number does not survive every JSON reader.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::MEMBERS_CEILING;
use crate::kv::bounded::vec_at_most;

/// The part a node plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log but has no vote.
    Learner,
    /// Was a member once, and never will be again.
    Removed,
}

impl NodeRole {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeRole::Follower => "follower",
            NodeRole::PreCandidate => "pre-candidate",
            NodeRole::Candidate => "candidate",
            NodeRole::Leader => "leader",
            NodeRole::Learner => "learner",
            NodeRole::Removed => "removed",
        }
    }
}

/// How a node's storage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageState {
    /// Sound.
    #[default]
    Ok,
    /// Damaged entries are being fetched from peers, or a state that is not that of the majority is being rebuilt.
    Repairing,
    /// No space left: writes are refused.
    Full,
    /// A sync failed; the node stops.
    Failed,
}

impl StorageState {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            StorageState::Ok => "ok",
            StorageState::Repairing => "repairing",
            StorageState::Full => "full",
            StorageState::Failed => "failed",
        }
    }
}

/// The storage of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StorageStatus {
    /// How it does.
    pub state: StorageState,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Median time of a sync, in microseconds.
    pub sync_p50_us: u64,
    /// 99th percentile of the time of a sync, in microseconds.
    pub sync_p99_us: u64,
    /// Free bytes on the file system of the log.
    pub disk_free_bytes: u64,
}

/// How the repair of a damaged log stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairProgress {
    /// Entries that are damaged and not back yet.
    pub damaged: u64,
    /// The oldest of them.
    pub first: u64,
    /// Names of the other voters that have not said that they never had it. One of them may have it: if it is down, this node
    /// waits for it. Empty if none of them ever had it: then only a leader or a snapshot decides.
    #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
    pub waiting_for: Vec<String>,
}

impl fmt::Display for RepairProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RepairProgress {
            damaged,
            first,
            waiting_for,
        } = self;
        write!(f, "{damaged} damaged entries, the oldest {first}, ")?;
        if waiting_for.is_empty() {
            f.write_str("waiting for a leader or a snapshot")
        } else {
            write!(f, "waiting for {}", waiting_for.join(", "))
        }
    }
}

/// The rolling hash over everything applied, equal on equal replicas at the same index; and how replicas compare.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StateHash {
    /// Index of the last entry in it.
    pub applied: u64,
    /// 16 hexadecimal digits.
    pub hash: String,
    /// The newest position of the log at which this node is known to have had the state of a majority of the voters; 0 if none
    /// since it started.
    pub agreed: u64,
    /// What is wrong: on a node whose state is not that of the majority, from whom it is being rebuilt; on a leader, that no
    /// majority has the same state.
    pub alarm: Option<String>,
}

/// One node, as it sees itself.
///
/// `leader`, `voted_for`, `voters`, `learners` and the keys of the two maps are node names; an id in 16 hexadecimal digits
/// where no name is known. `Default` is a node that could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// Where it listens, host and port.
    pub address: String,
    /// It answered. `false` is written by the one who asked in vain; all that follows is then empty.
    pub reachable: bool,
    /// The part it plays.
    pub role: NodeRole,
    /// Its current term.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<String>,
    /// Whom it voted for in this term.
    pub voted_for: Option<String>,
    /// Entries up to here are committed.
    pub commit_index: u64,
    /// Entries up to here are applied.
    pub last_applied: u64,
    /// Oldest entry in its log.
    pub first_index: u64,
    /// Newest entry in its log.
    pub last_index: u64,
    /// Last entry in its newest snapshot; 0 without one.
    pub snapshot_index: u64,
    /// On a leader: the next entry for each other node.
    pub next_index: BTreeMap<String, u64>,
    /// On a leader: the newest entry each other node is known to hold.
    pub match_index: BTreeMap<String, u64>,
    /// Voters of the configuration in force.
    #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
    pub voters: Vec<String>,
    /// Learners of the configuration in force.
    #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
    pub learners: Vec<String>,
    /// Its storage.
    pub storage: StorageStatus,
    /// Its state.
    pub state_hash: StateHash,
    /// When its certificate ends, RFC 3339, UTC; empty if unknown.
    pub certificate_expires: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Version of the program.
    pub version: String,
    /// How the repair of its log stands; `None` unless entries are damaged.
    pub repair: Option<RepairProgress>,
    /// For how long its loop was busy with one turn at most in the last ten seconds, in microseconds: nothing is applied or
    /// answered meanwhile.
    pub longest_turn_us: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_shapes_are_those_that_users_were_promised() {
        let status = crate::wire::client::tests::status();
        let expected = json!({
            "name": "n1", "id": "00000000c0ffee42", "address": "10.0.0.1:7400", "reachable": true,
            "role": "pre-candidate", "term": 7, "leader": null, "voted_for": "n1",
            "commit_index": 10, "last_applied": 9, "first_index": 2, "last_index": 11, "snapshot_index": 1,
            "next_index": {"n2": 12}, "match_index": {"n2": 11},
            "voters": ["n1", "n2"], "learners": [],
            "storage": {
                "state": "full", "log_bytes": 1, "sync_p50_us": 2, "sync_p99_us": 3, "disk_free_bytes": 4,
            },
            "state_hash": {"applied": 9, "hash": "0123456789abcdef", "agreed": 8, "alarm": "no majority"},
            "certificate_expires": "2027-11-21T00:00:00Z", "uptime_s": 5, "version": "0.1.0",
            "repair": {"damaged": 3, "first": 17, "waiting_for": ["n2", "n3"]},
            "longest_turn_us": 6,
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        assert_eq!(
            serde_json::from_value::<NodeStatus>(expected).unwrap(),
            status
        );
    }

    #[test]
    fn the_words_are_the_same_in_text_and_in_json() {
        use NodeRole::{Candidate, Follower, Leader, Learner, PreCandidate, Removed};
        for role in [Follower, PreCandidate, Candidate, Leader, Learner, Removed] {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        for state in [
            StorageState::Ok,
            StorageState::Repairing,
            StorageState::Full,
            StorageState::Failed,
        ] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
