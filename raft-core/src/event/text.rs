//! What happened, in a line.

use core::fmt;

use super::Event;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::RoleChanged {
                from,
                to,
                term,
                reason,
            } => write!(f, "{from} -> {to}, term {term}: {reason}"),
            Event::LeaderChanged {
                term,
                leader: Some(leader),
            } => write!(f, "leader of term {term} is {leader}"),
            Event::LeaderChanged { term, leader: None } => write!(f, "no leader in term {term}"),
            Event::TimerStarted { timeout_ticks } => {
                write!(f, "waits {timeout_ticks} ticks for a leader")
            }
            Event::PreVotesAsked { term } => write!(f, "asks who would vote in term {term}"),
            Event::VotesAsked { term } => write!(f, "asks for votes in term {term}"),
            Event::PreVoteGranted { term, to } => write!(f, "would vote for {to} in term {term}"),
            Event::VoteGranted { term, to } => write!(f, "votes for {to} in term {term}"),
            Event::VoteRefused { term, to, why } => write!(f, "refuses {to} in term {term}: {why}"),
            Event::Appended { first, last } => write!(f, "appended {first}..={last}"),
            Event::Committed { index } => write!(f, "committed {index}"),
            Event::AppendRefused { leader, prev, hint } => {
                write!(f, "refuses what {leader} sent after {prev}, ends at {hint}")
            }
            Event::Conflict { peer, prev, next } => {
                write!(f, "{peer} differs at {prev}, tries {next}")
            }
            Event::Truncated { from } => write!(f, "truncates from {from}"),
            Event::ConfigurationChanged {
                index,
                configuration,
            } => write!(f, "{configuration} of {index}"),
            Event::ConfigurationCommitted { index } => {
                write!(f, "committed the configuration of {index}")
            }
            Event::PeerStateChanged { peer, state } => write!(f, "{peer} is at {state}"),
            Event::SnapshotSent { peer, id } => write!(f, "sends snapshot {id} to {peer}"),
            Event::SnapshotInstalled { id } => write!(f, "installed snapshot {id}"),
            Event::SnapshotUnavailable { peer } => write!(f, "no snapshot for {peer}"),
            Event::DamageFound { first, count } => {
                write!(f, "{count} damaged from {first} on")
            }
            Event::SnapshotWanted { index } => write!(f, "wants a snapshot beyond {index}"),
            Event::Repaired { count, left } => write!(f, "repaired {count}, {left} left"),
            Event::DamagedTailDropped { from, last } => {
                write!(f, "gives up {from}..={last}, which nobody else ever had")
            }
            Event::PeerRepairing { peer, count } => write!(f, "{peer} repairs {count} entries"),
            Event::SnapshotAccepted { meta } => write!(f, "installs {meta}"),
            Event::AcknowledgementLost {
                peer,
                matched,
                last,
            } => {
                write!(f, "{peer} acknowledged {matched} and ends at {last}")
            }
            Event::TransferStarted { to } => write!(f, "hands over to {to}"),
            Event::TransferAborted { to } => write!(f, "gives up handing over to {to}"),
            Event::OwnTermCommitted { id } => write!(f, "committed {id} of its own term"),
            Event::SlowDisk {
                age_ticks,
                successor: Some(successor),
            } => write!(f, "no sync for {age_ticks} ticks, {successor} should lead"),
            Event::SlowDisk {
                age_ticks,
                successor: None,
            } => write!(f, "no sync for {age_ticks} ticks, but nobody is better off"),
            Event::Unfit {
                successor: Some(successor),
            } => write!(f, "is not fit to lead, {successor} should"),
            Event::Unfit { successor: None } => {
                f.write_str("is not fit to lead, but nobody else can")
            }
            Event::SilenceEnded {
                disk_is_healthy: true,
            } => f.write_str("stands for election again, the disk is healthy"),
            Event::SilenceEnded {
                disk_is_healthy: false,
            } => f.write_str("stands for election again, nobody leads"),
        }
    }
}
