//! The members of the cluster as every replica knows them: names, addresses, and what has become of each.
//!
//! A configuration entry of the log holds ids only. What people and sockets need beside it is this table, changed by
//! [`Command::Members`](super::command::Command::Members), which nobody but the cluster itself may issue. It is empty until
//! the members change for the first time: until then they are those that the cluster was founded with, and the first change
//! carries them.
//!
//! ```text
//!   Joining --> Learner --> Voter --> Removed
//! ```
//!
//! A record only moves to the right, and is never forgotten: an id that was removed can never come back. Its disk may hold
//! votes and acknowledgements that the cluster no longer counts on.

use serde::{Deserialize, Serialize};

use super::bounded::vec_at_most;
use crate::wire::client::{MEMBERS_CEILING, MemberAddress};

#[cfg(feature = "server")]
mod table;
#[cfg(test)]
mod tests;

#[cfg(feature = "server")]
pub use table::MemberTable;

/// The most steps of one update.
pub const MEMBER_EDITS_CEILING: usize = 256;

/// Longest name and longest address, in bytes. What else a name may be is checked where it comes in.
const TEXT_BYTES_MAX: usize = 255;

/// What has become of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// Its address is known, and the leader is about to add it as a learner.
    Joining,
    /// It receives the log, and becomes a voter as soon as it has caught up.
    Learner,
    /// It votes.
    Voter,
    /// It is no member any more, and never will be again.
    Removed,
}

impl MemberState {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::Joining => "joining",
            MemberState::Learner => "learner",
            MemberState::Voter => "voter",
            MemberState::Removed => "removed",
        }
    }
}

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name.
    pub name: String,
    /// Host and port. A hint: identity is the certificate.
    pub address: String,
    /// What has become of it.
    pub state: MemberState,
    /// The member whose place it takes in the same step in which it becomes a voter.
    pub replaces: Option<u64>,
}

/// One step of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MemberEdit {
    /// A node that never was a member is to join.
    Join {
        /// Who and where.
        member: MemberAddress,
        /// Whose place it takes.
        replaces: Option<u64>,
    },
    /// A member is found elsewhere.
    Address {
        /// Its id.
        id: u64,
        /// Where.
        address: String,
    },
    /// The configuration in force has made this of a member. Never a step back.
    State {
        /// Its id.
        id: u64,
        /// What it is now.
        state: MemberState,
    },
}

/// All steps take effect together, or none does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberUpdate {
    /// Those that the cluster was founded with. They are taken over if the table is empty.
    #[serde(deserialize_with = "vec_at_most::<_, _, MEMBERS_CEILING>")]
    pub founding: Vec<MemberAddress>,
    /// What changes.
    #[serde(deserialize_with = "vec_at_most::<_, _, MEMBER_EDITS_CEILING>")]
    pub edits: Vec<MemberEdit>,
}

/// Why the members stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberRefusal {
    /// Ids of removed nodes are never used again.
    #[error(
        "node {id:016x} was removed as {name} and can never come back: a new node needs a new bundle"
    )]
    WasRemoved {
        /// Its id.
        id: u64,
        /// What it was called.
        name: String,
    },
    /// The id is in use.
    #[error("node {id:016x} is a member already, as {name}")]
    IsMember {
        /// Its id.
        id: u64,
        /// What it is called.
        name: String,
    },
    /// The name is in use.
    #[error("another member is called {name}")]
    NameInUse {
        /// The name.
        name: String,
    },
    /// The address is in use.
    #[error("{address} is the address of {name}")]
    AddressInUse {
        /// The address.
        address: String,
        /// Whose it is.
        name: String,
    },
    /// No such member.
    #[error("no member has the id {id:016x}")]
    Unknown {
        /// The id.
        id: u64,
    },
    /// A name or an address that is empty or too long, or the id 0.
    #[error("the id is 0, or a name or address has no or more than {TEXT_BYTES_MAX} bytes")]
    Malformed,
    /// There are as many members as there may be.
    #[error("there are {MEMBERS_CEILING} members, and no more can join")]
    TooMany,
}
