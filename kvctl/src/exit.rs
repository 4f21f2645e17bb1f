//! Exit codes of `kvctl`.

use kvd::client::ClientError;

/// How a run of `kvctl` ends. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Done, found, healthy.
    Done = 0,
    /// A clear no: absent, comparison failed, unhealthy.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nobody could be reached.
    Unreachable = 3,
    /// No leader or quorum within the timeout; nothing was written.
    NoQuorum = 4,
    /// It may have happened.
    Unknown = 5,
    /// Not authorised.
    NotAuthorised = 6,
    /// Refused: too large, overloaded, no space.
    Refused = 7,
    /// A bug, or this machine failed (a file that cannot be written).
    Internal = 70,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}

impl From<&ClientError> for ExitCode {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable(_) => ExitCode::Unreachable,
            ClientError::NoQuorum { .. } => ExitCode::NoQuorum,
            ClientError::Unknown { .. } => ExitCode::Unknown,
            ClientError::NotAuthorised { .. } => ExitCode::NotAuthorised,
            ClientError::Refused(_) => ExitCode::Refused,
            ClientError::Closed | _ => ExitCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use kvd::client::Evidence;
    use kvd::wire::client::Refusal;

    use super::*;

    #[test]
    fn every_error_of_the_client_has_its_documented_exit_code() {
        let evidence = Evidence::default();
        let table = [
            (ClientError::Unreachable(evidence.clone()), 3),
            (
                ClientError::NoQuorum {
                    detail: String::new(),
                    evidence: evidence.clone(),
                },
                4,
            ),
            (
                ClientError::Unknown {
                    why: String::new(),
                    evidence: evidence.clone(),
                },
                5,
            ),
            (
                ClientError::NotAuthorised {
                    why: String::new(),
                    evidence,
                },
                6,
            ),
            (ClientError::Refused(Refusal::NoSpace), 7),
            (ClientError::Closed, 70),
        ];
        for (error, code) in table {
            assert_eq!(ExitCode::from(&error) as u8, code, "{error}");
        }
    }

    #[test]
    fn the_other_exit_codes_are_the_documented_numbers() {
        assert_eq!(
            [
                ExitCode::Done as u8,
                ExitCode::No as u8,
                ExitCode::Usage as u8
            ],
            [0, 1, 2]
        );
    }
}
