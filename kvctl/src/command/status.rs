//! `kvctl status`

use kvd::client::{ClientError, NodeReport, Survey};
use kvd::wire::status::{NodeRole, NodeStatus, StorageState};
use serde_json::{Value, json};

use super::Answer;
use crate::connect::Session;
use crate::fault::Fault;
use crate::output::{View, record};

pub(super) async fn run(session: &Session) -> Result<Answer, Fault> {
    let client = session.client();
    let began = std::time::Instant::now();
    let survey = client.survey().await;
    client.close().await;
    if survey.answers().next().is_none() {
        let evidence = survey.evidence(began.elapsed());
        let rejected = evidence
            .findings
            .iter()
            .find(|finding| matches!(finding.found, kvd::client::Found::CertificateRejected(_)));
        return Err(match rejected.map(ToString::to_string) {
            Some(why) => ClientError::NotAuthorised { why, evidence }.into(),
            None => ClientError::Unreachable(evidence).into(),
        });
    }
    Ok(Answer::done(Status {
        summary: Summary::of(&survey),
        survey,
    }))
}

/// What the states of all nodes say about the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) leader: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) voters: usize,
    pub(super) voters_reachable: usize,
}

impl Summary {
    pub(super) fn of(survey: &Survey) -> Summary {
        let voters = survey.voters();
        let reachable = |name: &&String| survey.answers().any(|status| status.name == **name);
        // A leader that was deposed and does not know it yet has a lower term than its successor.
        let leader = survey
            .answers()
            .filter(|status| status.role == NodeRole::Leader)
            .max_by_key(|status| status.term);
        Summary {
            leader: leader.map(|status| status.name.clone()),
            term: survey.answers().map(|status| status.term).max(),
            voters_reachable: voters.iter().filter(reachable).count(),
            voters: voters.len(),
        }
    }

    pub(super) fn quorum(&self) -> usize {
        self.voters / 2 + 1
    }

    /// There is a leader, and enough voters to follow it.
    pub(super) fn is_healthy(&self) -> bool {
        self.leader.is_some() && self.voters > 0 && self.voters_reachable >= self.quorum()
    }

    /// `healthy: 3 of 3 voters, leader n2, term 1`
    pub(super) fn sentence(&self) -> String {
        let word = if self.is_healthy() {
            "healthy"
        } else {
            "unhealthy"
        };
        let leader = match &self.leader {
            Some(leader) => format!("leader {leader}"),
            None => "no leader".to_owned(),
        };
        let term = self.term.unwrap_or(0);
        format!(
            "{word}: {} of {} voters, {leader}, term {term}",
            self.voters_reachable, self.voters
        )
    }
}

struct Status {
    summary: Summary,
    survey: Survey,
}

const COLUMNS: [&str; 10] = [
    "NODE", "ADDRESS", "STATE", "TERM", "COMMIT", "APPLIED", "LOG", "SNAPSHOT", "STORAGE",
    "VERSION",
];

impl Status {
    fn cluster(&self) -> (String, String) {
        self.survey
            .cluster
            .as_ref()
            .map_or_else(Default::default, |(id, name)| {
                (format!("{id:08x}"), name.clone())
            })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.survey.nodes.iter().map(row).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for node in &self.survey.nodes {
            let name = node.name.as_deref().unwrap_or(&node.address);
            match &node.status {
                Err(found) => warnings.push(format!(
                    "warning: {name}: {found}; journalctl -u kvd on that machine says why"
                )),
                Ok(status) => {
                    warnings.extend(storage_warning(name, status));
                    warnings.extend(state_warning(name, status));
                }
            }
        }
        if self.summary.leader.is_none() {
            let (reachable, quorum) = (self.summary.voters_reachable, self.summary.quorum());
            warnings.push(format!(
                "warning: no leader: {reachable} voters answer, {quorum} are needed"
            ));
        }
        warnings
    }
}

fn storage_warning(name: &str, status: &NodeStatus) -> Option<String> {
    let state = status.storage.state;
    if state == StorageState::Ok {
        return None;
    }
    let repair = status.repair.as_ref();
    let how = repair.map_or_else(String::new, |repair| format!(": {repair}"));
    Some(format!(
        "warning: {name}: storage is {}{how}",
        state.as_str()
    ))
}

fn state_warning(name: &str, status: &NodeStatus) -> Option<String> {
    let alarm = status.state_hash.alarm.as_ref()?;
    Some(format!("warning: {name}: {alarm}"))
}

fn row(node: &NodeReport) -> Vec<String> {
    let name = node.name.clone().unwrap_or_else(|| "?".to_owned());
    match &node.status {
        Err(found) => {
            let mut row = vec![name, node.address.clone(), found.to_string()];
            row.resize(COLUMNS.len(), "-".to_owned());
            row
        }
        Ok(status) => vec![
            name,
            node.address.clone(),
            status.role.as_str().to_owned(),
            status.term.to_string(),
            status.commit_index.to_string(),
            status.last_applied.to_string(),
            format!("{}..{}", status.first_index, status.last_index),
            status.snapshot_index.to_string(),
            status.storage.state.as_str().to_owned(),
            status.version.clone(),
        ],
    }
}

/// Columns as wide as their widest entry.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let entries = rows.iter().map(|row| row[at].chars().count());
        entries.chain([head[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: Vec<&str>| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(entry, width)| format!("{entry:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// The node's own words, or an empty state with what is known of it.
fn node_json(node: &NodeReport) -> Value {
    let status = match &node.status {
        Ok(status) => NodeStatus {
            reachable: true,
            ..status.clone()
        },
        Err(_) => NodeStatus {
            name: node.name.clone().unwrap_or_default(),
            id: node.id.map_or_else(String::new, |id| format!("{id:016x}")),
            address: node.address.clone(),
            ..NodeStatus::default()
        },
    };
    let mut value = json!(status);
    if let Err(found) = &node.status {
        value["error"] = json!(found.to_string());
    }
    value
}

impl View for Status {
    fn human(&self) -> Vec<u8> {
        let (id, name) = self.cluster();
        let mut text = format!("cluster {name} ({id}) {}\n\n", self.summary.sentence());
        text.push_str(&table(&COLUMNS, &self.rows()));
        for warning in self.warnings() {
            text.push_str(&warning);
            text.push('\n');
        }
        text.into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        let rows = self.rows();
        rows.iter()
            .flat_map(|row| record(row.iter().map(String::as_bytes)))
            .collect()
    }

    fn json(&self) -> Value {
        let (id, name) = self.cluster();
        let nodes: Vec<Value> = self.survey.nodes.iter().map(node_json).collect();
        json!({
            "cluster": {
                "id": id,
                "name": name,
                "healthy": self.summary.is_healthy(),
                "quorum": self.summary.quorum(),
                "leader": self.summary.leader,
            },
            "nodes": nodes,
        })
    }
}

#[cfg(test)]
mod tests {
    use kvd::client::Found;
    use kvd::wire::status::RepairProgress;

    use super::*;

    fn node(name: &str, role: NodeRole, term: u64) -> NodeReport {
        NodeReport {
            name: Some(name.to_owned()),
            id: Some(1),
            address: format!("{name}:7400"),
            status: Ok(NodeStatus {
                name: name.to_owned(),
                role,
                term,
                voters: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
                ..NodeStatus::default()
            }),
        }
    }

    fn dead(name: &str) -> NodeReport {
        NodeReport {
            status: Err(Found::ConnectionRefused),
            ..node(name, NodeRole::Follower, 0)
        }
    }

    fn status(nodes: Vec<NodeReport>) -> Status {
        let survey = Survey {
            cluster: Some((0xc0ff_ee42, "prod".to_owned())),
            nodes,
        };
        Status {
            summary: Summary::of(&survey),
            survey,
        }
    }

    #[test]
    fn two_of_three_with_a_leader_are_healthy_and_the_dead_one_is_named() {
        let status = status(vec![
            node("n1", NodeRole::Leader, 3),
            node("n2", NodeRole::Follower, 3),
            dead("n3"),
        ]);
        assert_eq!(
            status.summary.sentence(),
            "healthy: 2 of 3 voters, leader n1, term 3"
        );
        let human = String::from_utf8(status.human()).unwrap();
        assert!(human.contains("warning: n3: connection refused"), "{human}");
        let json = status.json();
        assert_eq!(json["cluster"]["healthy"], json!(true));
        assert_eq!(json["nodes"][2]["reachable"], json!(false));
        assert_eq!(json["nodes"][0]["reachable"], json!(true));
    }

    #[test]
    fn node_whose_state_differs_says_so() {
        let mut differs = node("n2", NodeRole::Follower, 3);
        let status = differs.status.as_mut().unwrap();
        status.state_hash.alarm = Some("the state of this node differs".to_owned());
        let status = self::status(vec![node("n1", NodeRole::Leader, 3), differs]);
        let human = String::from_utf8(status.human()).unwrap();
        let expected = "warning: n2: the state of this node differs";
        assert!(human.contains(expected), "{human}");
    }

    #[test]
    fn repairing_node_says_how_far_it_is_and_for_whom_it_waits() {
        let mut repairing = node("n2", NodeRole::Follower, 3);
        let status = repairing.status.as_mut().unwrap();
        status.storage.state = StorageState::Repairing;
        status.repair = Some(RepairProgress {
            damaged: 2,
            first: 17,
            waiting_for: vec!["n1".to_owned(), "n3".to_owned()],
        });
        let leader = node("n1", NodeRole::Leader, 3);
        let status = self::status(vec![leader, repairing, dead("n3")]);
        let human = String::from_utf8(status.human()).unwrap();
        let expected = "warning: n2: storage is repairing: 2 damaged entries, the oldest 17, waiting for n1, n3";
        assert!(human.contains(expected), "{human}");
        let json = status.json();
        assert_eq!(json["nodes"][1]["storage"]["state"], json!("repairing"));
        assert_eq!(
            json["nodes"][1]["repair"],
            json!({"damaged": 2, "first": 17, "waiting_for": ["n1", "n3"]})
        );
    }

    #[test]
    fn one_of_three_is_unhealthy_even_if_it_still_thinks_that_it_leads() {
        let status = status(vec![
            node("n1", NodeRole::Leader, 3),
            dead("n2"),
            dead("n3"),
        ]);
        assert_eq!(
            status.summary.sentence(),
            "unhealthy: 1 of 3 voters, leader n1, term 3"
        );
        assert!(!status.summary.is_healthy());
    }

    #[test]
    fn of_two_leaders_the_one_in_the_higher_term_counts() {
        let status = status(vec![
            node("n1", NodeRole::Leader, 3),
            node("n2", NodeRole::Leader, 4),
            node("n3", NodeRole::Follower, 4),
        ]);
        assert_eq!(status.summary.leader.as_deref(), Some("n2"));
    }
}
