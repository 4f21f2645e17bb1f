//! Who may do what, in one table.

use serde::{Deserialize, Serialize};

/// What a certificate, or the door a request came through, makes of its bearer.
///
/// Replicated inside every envelope: append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Role {
    /// A client certificate: reads and writes data.
    Client,
    /// An administrator's certificate, or root and the service's own user on the admin socket: everything.
    Admin,
    /// Whoever can connect to the HTTP side door: reads and writes data.
    Http,
    /// The cluster itself: upkeep that no user asked for.
    Internal,
}

impl Role {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Admin => "administrator",
            Role::Http => "HTTP client",
            Role::Internal => "cluster",
        }
    }
}

/// The one on whose behalf a command is applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// What it is.
    pub role: Role,
    /// Its name in the certificate.
    pub name: String,
}

impl Principal {
    /// A principal of this role and name.
    pub fn new(role: Role, name: impl Into<String>) -> Principal {
        Principal {
            role,
            name: name.into(),
        }
    }

    /// The same without owning the name.
    pub fn borrowed(&self) -> PrincipalRef<'_> {
        PrincipalRef {
            role: self.role,
            name: &self.name,
        }
    }
}

/// A [`Principal`] whose name lies in someone else's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PrincipalRef<'a> {
    /// What it is.
    pub role: Role,
    /// Its name in the certificate.
    pub name: &'a str,
}

impl PrincipalRef<'_> {
    /// The same with a name of its own.
    pub fn to_owned(self) -> Principal {
        Principal {
            role: self.role,
            name: self.name.to_owned(),
        }
    }
}

/// The leaf operations that are told apart when a right is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Look at data.
    Read,
    /// Change data, and the upkeep of one's own session.
    Write,
    /// Look at the state of the cluster and its nodes.
    Status,
    /// Change how the cluster runs: leadership, log, members.
    Operate,
    /// Say what the state of a majority is. Leaders do it from what the voters report, and nobody else does.
    AgreeOnState,
    /// Change the replicated table of members. It must fit the configuration, so a leader does it on behalf of those who
    /// may operate, and nobody else does.
    EditMembers,
}

impl Operation {
    /// What users read after "may not".
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Status => "see the state of the cluster",
            Operation::Operate => "change how the cluster runs",
            Operation::AgreeOnState => "say what the state is",
            Operation::EditMembers => "edit the table of members",
        }
    }
}

/// Whether this principal may do this. Depends on nothing local, so every replica decides alike at apply time.
pub fn may(principal: PrincipalRef<'_>, operation: Operation) -> bool {
    match (principal.role, operation) {
        (Role::Internal, _) => true,
        (_, Operation::EditMembers | Operation::AgreeOnState) => false,
        (Role::Admin, _) => true,
        (Role::Client | Role::Http, Operation::Read | Operation::Write | Operation::Status) => true,
        (Role::Client | Role::Http, Operation::Operate) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_administrators_and_the_cluster_itself_operate() {
        use Operation::{AgreeOnState, EditMembers, Operate, Read, Status, Write};
        for (role, operates) in [
            (Role::Client, false),
            (Role::Http, false),
            (Role::Admin, true),
            (Role::Internal, true),
        ] {
            let who = PrincipalRef { role, name: "ops" };
            assert!(
                [Read, Write, Status]
                    .iter()
                    .all(|&operation| may(who, operation)),
                "{role:?}"
            );
            assert_eq!(may(who, Operate), operates, "{role:?}");
            for reserved in [EditMembers, AgreeOnState] {
                assert_eq!(may(who, reserved), role == Role::Internal, "{role:?}");
            }
        }
    }
}
