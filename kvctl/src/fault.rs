//! Errors in three parts: what happened, what is known, what to do next.

use std::fmt::{self, Write as _};
use std::time::Duration;

use kvd::client::{ClientError, Evidence};
use kvd::wire::client::Refusal;

use crate::exit::ExitCode;

/// Why a command ends without doing what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The exit code.
    pub(crate) code: ExitCode,
    /// What happened.
    pub(crate) what: String,
    /// What is known, one line each.
    pub(crate) known: Vec<String>,
    /// What to do next.
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: ExitCode, what: impl fmt::Display) -> Fault {
        Fault {
            code,
            what: what.to_string(),
            known: Vec::new(),
            help: None,
        }
    }

    pub(crate) fn usage(what: impl fmt::Display) -> Fault {
        Fault::new(ExitCode::Usage, what)
    }

    /// A clear no.
    pub(crate) fn no(what: impl fmt::Display) -> Fault {
        Fault::new(ExitCode::No, what)
    }

    pub(crate) fn with_known(mut self, known: impl fmt::Display) -> Fault {
        self.known.push(known.to_string());
        self
    }

    pub(crate) fn with_help(mut self, help: impl fmt::Display) -> Fault {
        self.help = Some(help.to_string());
        self
    }

    /// The three parts as they are printed.
    pub(crate) fn render(&self, colour: bool) -> String {
        let (red, cyan, off) = if colour {
            ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut text = format!("{red}error:{off} {}\n", self.what);
        for line in &self.known {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {line}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "{cyan}help:{off} {help}");
        }
        text
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        let code = ExitCode::from(&error);
        match error {
            ClientError::Unreachable(evidence) => {
                Fault::new(code, "nobody could be reached").about(&evidence).with_help(
                    "check the addresses (kvctl context show, --endpoints) and that kvd runs there (journalctl -u kvd)",
                )
            }
            ClientError::NoQuorum { detail, evidence } => no_quorum(code, &detail, &evidence),
            ClientError::Unknown { why, evidence } => {
                Fault::new(code, format!("outcome unknown: {why}"))
                    .with_known("the write may have taken effect, or may still take effect")
                    .about(&evidence)
                    .with_help("read the key before you repeat the command; with --request-id a repetition is always safe")
            }
            ClientError::NotAuthorised { why, evidence } => {
                Fault::new(code, format!("not authorised: {why}")).about(&evidence).with_help(
                    "check which certificate is used (kvctl context show, --cert) and until when it is valid",
                )
            }
            ClientError::Refused(refusal) => refused(code, &refusal),
            ClientError::Closed => Fault::new(code, "the client was closed before it had an answer"),
            other => Fault::new(code, other),
        }
    }
}

impl Fault {
    fn about(mut self, evidence: &Evidence) -> Fault {
        if let Some(line) = asked(evidence) {
            self.known.push(line);
        }
        self.known.extend(arithmetic(evidence));
        self
    }
}

/// Who was asked, for how long, and what came of it.
fn asked(evidence: &Evidence) -> Option<String> {
    if evidence.findings.is_empty() {
        return None;
    }
    let names: Vec<&str> = evidence
        .findings
        .iter()
        .map(|finding| finding.node.as_deref().unwrap_or(&finding.endpoint))
        .collect();
    let found: Vec<String> = evidence.findings.iter().map(ToString::to_string).collect();
    Some(format!(
        "asked {} for {}: {}",
        names.join(", "),
        seconds(evidence.waited),
        found.join(", ")
    ))
}

fn arithmetic(evidence: &Evidence) -> Option<String> {
    let (voters, quorum) = (evidence.voters?, evidence.quorum()?);
    let reachable = evidence.answered();
    let verb = if reachable == 1 { "is" } else { "are" };
    Some(format!(
        "quorum is {quorum} of {voters}; {reachable} {verb} reachable"
    ))
}

/// Whole seconds, or milliseconds below one.
fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        millis => format!("{} s", (millis + 500) / 1000),
    }
}

fn no_quorum(code: ExitCode, detail: &str, evidence: &Evidence) -> Fault {
    let quorum_lost = evidence
        .quorum()
        .is_some_and(|quorum| evidence.answered() < quorum);
    let missing: Vec<&str> = evidence
        .findings
        .iter()
        .filter(|finding| !finding.found.is_answer())
        .map(|finding| finding.node.as_deref().unwrap_or(&finding.endpoint))
        .collect();
    if quorum_lost {
        let help = format!(
            "start kvd on {} (journalctl -u kvd shows why it stopped); read old data with --consistency local",
            missing.join(" or ")
        );
        return Fault::new(code, "no quorum: the cluster cannot accept writes now")
            .about(evidence)
            .with_help(help);
    }
    Fault::new(code, format!("no leader within the timeout: {detail}"))
        .about(evidence)
        .with_help("try again, or give it more time with --timeout; kvctl status shows who leads")
}

fn refused(code: ExitCode, refusal: &Refusal) -> Fault {
    let fault = Fault::new(code, format!("refused: {refusal}")).with_known("nothing was written");
    match refusal {
        Refusal::TooLarge { .. } => {
            fault.with_help("the limits are [limits] in the nodes' configuration (kvd config show)")
        }
        Refusal::Overloaded { .. } => {
            fault.with_help("try again later, or with less at the same time")
        }
        Refusal::NoSpace => {
            fault.with_help("free disk space on the nodes; writes go on by themselves then")
        }
        Refusal::Unsupported => {
            fault.with_help("kvctl and kvd are of different versions (kvctl version, kvctl status)")
        }
        Refusal::SequenceReused => {
            fault.with_help("this --request-id was used for another command; take a new one")
        }
        Refusal::MembersRefused { .. } => {
            fault.with_help("kvctl member list shows who is a member and what each is called")
        }
        Refusal::MembersBusy { .. } => {
            fault.with_help("try again in a moment; kvctl member list shows what is under way")
        }
        Refusal::QuorumAtRisk { .. } => fault.with_help(
            "start the nodes that are missing first, or remove those that will never come back",
        ),
        Refusal::NotLeader { .. }
        | Refusal::NoLeader { .. }
        | Refusal::NoQuorum { .. }
        | Refusal::NotAuthorised { .. }
        | Refusal::BadRequest { .. }
        | Refusal::SessionExpired
        | Refusal::SequenceGap
        | Refusal::CommandCorrupt
        | Refusal::Stopping
        | Refusal::OutcomeUnknown { .. }
        | Refusal::SequenceDone
        | _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use kvd::client::{Finding, Found};
    use kvd::wire::status::NodeRole;

    use super::*;

    fn finding(node: &str, found: Found) -> Finding {
        Finding {
            endpoint: format!("{node}:7400"),
            node: Some(node.to_owned()),
            found,
        }
    }

    #[test]
    fn a_lost_quorum_says_who_answered_and_what_quorum_needs() {
        let answered = Found::Answered {
            role: NodeRole::Follower,
            term: 7,
            leader: None,
        };
        let error = ClientError::NoQuorum {
            detail: "no leader".to_owned(),
            evidence: Evidence {
                findings: vec![
                    finding("n1", answered),
                    finding("n2", Found::ConnectionRefused),
                    finding("n3", Found::TimedOut),
                ],
                waited: Duration::from_millis(4998),
                voters: Some(3),
            },
        };
        assert_eq!(
            Fault::from(error).render(false),
            "\
error: no quorum: the cluster cannot accept writes now
  asked n1, n2, n3 for 5 s: n1 answered (follower, term 7), n2 connection refused, n3 timed out
  quorum is 2 of 3; 1 is reachable
help: start kvd on n2 or n3 (journalctl -u kvd shows why it stopped); read old data with --consistency local
"
        );
    }

    #[test]
    fn an_unknown_outcome_says_so_and_how_to_find_out() {
        let error = ClientError::Unknown {
            why: "no answer came".to_owned(),
            evidence: Evidence::default(),
        };
        let text = Fault::from(error).render(false);
        assert!(
            text.starts_with("error: outcome unknown: no answer came\n"),
            "{text}"
        );
        assert!(text.contains("may have taken effect"), "{text}");
        assert!(text.contains("help: read the key"), "{text}");
    }

    #[test]
    fn a_refusal_says_that_nothing_was_written() {
        let refusal = Refusal::TooLarge {
            what: "value".to_owned(),
            bytes: 9,
            limit: 8,
        };
        let text = Fault::from(ClientError::Refused(refusal)).render(false);
        assert!(
            text.contains("refused: value of 9 is beyond the limit of 8\n  nothing was written\n"),
            "{text}"
        );
    }

    #[test]
    fn colours_are_only_around_the_first_words() {
        let fault = Fault::usage("x").with_help("y");
        assert_eq!(
            fault.render(true),
            "\x1b[1;31merror:\x1b[0m x\n\x1b[1;36mhelp:\x1b[0m y\n"
        );
    }
}
