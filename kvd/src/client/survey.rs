//! Asking every node for its state, each over a stream of its own, all at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::dial::{Dial, Greeting, Target, ask, reach};
use super::error::{Evidence, Finding, Found};
use crate::wire::client::{MemberAddress, Request, Response};
use crate::wire::status::NodeStatus;

/// One node, as a survey found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its name, if any node told.
    pub name: Option<String>,
    /// Its id, if any node told.
    pub id: Option<u64>,
    /// Its address.
    pub address: String,
    /// Its state, or why there is none.
    pub status: Result<NodeStatus, Found>,
}

/// What a survey found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What the first node to answer said about the cluster.
    pub cluster: Option<(u32, String)>,
    /// One for each member, and for each endpoint that answered nothing and is no member; by name.
    pub nodes: Vec<NodeReport>,
}

impl Survey {
    /// The states that were told.
    pub fn answers(&self) -> impl Iterator<Item = &NodeStatus> {
        self.nodes
            .iter()
            .filter_map(|node| node.status.as_ref().ok())
    }

    /// The voters of the configuration in force, as the node in the highest term has it.
    #[must_use]
    pub fn voters(&self) -> Vec<String> {
        self.answers()
            .max_by_key(|status| (status.term, status.commit_index))
            .map(|status| status.voters.clone())
            .unwrap_or_default()
    }

    /// The same as evidence for an error.
    #[must_use]
    pub fn evidence(&self, waited: Duration) -> Evidence {
        let findings = self
            .nodes
            .iter()
            .map(|node| Finding {
                endpoint: node.address.clone(),
                node: node.name.clone(),
                found: match &node.status {
                    Ok(status) => Found::Answered {
                        role: status.role,
                        term: status.term,
                        leader: status.leader.clone(),
                    },
                    Err(found) => found.clone(),
                },
            })
            .collect();
        Evidence {
            findings,
            waited,
            voters: Some(self.voters().len()).filter(|voters| *voters > 0),
        }
    }
}

type Asked = (Target, Result<(Greeting, Box<NodeStatus>), Found>);

/// Asks the endpoints, and then every member that they named and that has not answered yet.
pub(crate) async fn survey(
    dial: Arc<dyn Dial>,
    endpoints: &[String],
    cluster: Option<u32>,
    budget: Duration,
) -> Survey {
    let deadline = tokio::time::Instant::now() + budget;
    let mut asked: Vec<Asked> = Vec::new();
    let mut tasks = JoinSet::new();
    let mut dialled: Vec<String> = Vec::new();
    let mut members: BTreeMap<u64, MemberAddress> = BTreeMap::new();
    for address in endpoints {
        let target = Target {
            address: address.clone(),
            node: None,
        };
        dialled.push(address.clone());
        tasks.spawn(ask_one(dial.clone(), target, cluster, deadline));
    }
    while let Some(joined) = tasks.join_next().await {
        let one: Asked = joined.expect("asking a node does not panic");
        if let Ok((greeting, _)) = &one.1 {
            for member in &greeting.members {
                members.insert(member.id, member.clone());
                let answered =
                    |asked: &Asked| asked.1.as_ref().is_ok_and(|(g, _)| g.node_id == member.id);
                if member.id != greeting.node_id
                    && !asked.iter().any(answered)
                    && !dialled.contains(&member.address)
                {
                    dialled.push(member.address.clone());
                    let target = Target {
                        address: member.address.clone(),
                        node: Some(member.name.clone()),
                    };
                    tasks.spawn(ask_one(dial.clone(), target, cluster, deadline));
                }
            }
        }
        asked.push(one);
    }
    summarise(asked, &members)
}

async fn ask_one(
    dial: Arc<dyn Dial>,
    target: Target,
    cluster: Option<u32>,
    deadline: tokio::time::Instant,
) -> Asked {
    let talk = async {
        let (mut link, greeting) = reach(&*dial, target.clone(), cluster).await?;
        let answer = ask(&mut link, Request::Status).await?;
        link.close().await;
        if let Response::Status(status) = answer {
            return Ok((greeting, status));
        }
        if let Response::Refused(refusal) = answer {
            return Err(Found::CertificateRejected(refusal.to_string()));
        }
        Err(Found::Lost(
            "the answer was something else than a state".to_owned(),
        ))
    };
    let refused = dial.refused(target.clone());
    let result = tokio::select! {
        result = tokio::time::timeout_at(deadline, talk) => result.unwrap_or(Err(Found::TimedOut)),
        () = refused => Err(Found::ConnectionRefused),
    };
    (target, result)
}

/// One report per node: an endpoint that answered speaks for its member, and so does a failed dial to a member's address.
fn summarise(asked: Vec<Asked>, members: &BTreeMap<u64, MemberAddress>) -> Survey {
    let mut survey = Survey::default();
    let mut by_id: BTreeMap<u64, NodeReport> = BTreeMap::new();
    let mut failed: Vec<(Target, Found)> = Vec::new();
    for (target, result) in asked {
        match result {
            Ok((greeting, status)) => {
                survey
                    .cluster
                    .get_or_insert((greeting.cluster, greeting.cluster_name.clone()));
                let report = NodeReport {
                    name: Some(greeting.node),
                    id: Some(greeting.node_id),
                    address: members
                        .get(&greeting.node_id)
                        .map_or(target.address, |member| member.address.clone()),
                    status: Ok(*status),
                };
                by_id.insert(greeting.node_id, report);
            }
            Err(found) => failed.push((target, found)),
        }
    }
    for member in members.values() {
        by_id.entry(member.id).or_insert_with(|| NodeReport {
            name: Some(member.name.clone()),
            id: Some(member.id),
            address: member.address.clone(),
            status: Err(take_found(&mut failed, member)),
        });
    }
    survey.nodes = by_id.into_values().collect();
    // With members known, an endpoint that answered nothing is a second address of one of them, or of nobody.
    let strangers = failed.into_iter().filter(|(target, _)| {
        target.node.is_none() && members.values().all(|m| m.address != target.address)
    });
    for (target, found) in strangers {
        survey.nodes.push(NodeReport {
            name: None,
            id: None,
            address: target.address,
            status: Err(found),
        });
    }
    survey
        .nodes
        .sort_by(|a, b| (&a.name, &a.address).cmp(&(&b.name, &b.address)));
    survey
}

fn take_found(failed: &mut Vec<(Target, Found)>, member: &MemberAddress) -> Found {
    let at = failed.iter().position(|(target, _)| {
        target.address == member.address || target.node.as_ref() == Some(&member.name)
    });
    at.map_or(Found::TimedOut, |at| failed.remove(at).1)
}
