//! `kvctl member`: who the members are, and how they change.

mod new_node;

use std::collections::BTreeSet;
use std::path::PathBuf;

use kvd::client::{Client, MemberTable};
use kvd::wire::client::{MemberChange, MemberLine, Quorum};
use serde_json::{Value, json};

use self::new_node::NewNode;
use super::{Answer, context};
use crate::cli::{Global, MemberVerb, NewNodeArgs};
use crate::connect::Session;
use crate::fault::Fault;
use crate::output::{View, record};

pub(super) async fn run(
    verb: MemberVerb,
    global: &Global,
    session: &Session,
) -> Result<Answer, Fault> {
    let client = session.client();
    let answer = match verb {
        MemberVerb::List => client
            .member_table()
            .await
            .map(|table| Answer::done(List(table)))
            .map_err(Fault::from),
        MemberVerb::Add { nodes, new } => join(&client, global, &nodes, None, &new).await,
        MemberVerb::Replace { old, node, new } => {
            join(&client, global, &[node], Some(old), &new).await
        }
        MemberVerb::Promote { nodes, dry_run } => {
            let changes = nodes.iter().cloned();
            let changes = changes.map(|name| MemberChange::Promote { name }).collect();
            let done = format!("{} may vote", nodes.join(", "));
            change(&client, changes, dry_run, done).await
        }
        MemberVerb::Remove {
            nodes,
            confirm,
            dry_run,
        } => remove(&client, global, &nodes, &confirm, dry_run).await,
        MemberVerb::Update { nodes, dry_run } => update(&client, &nodes, dry_run).await,
    };
    client.close().await;
    answer
}

/// A change without files of its own.
async fn change(
    client: &Client,
    changes: Vec<MemberChange>,
    dry_run: bool,
    done: String,
) -> Result<Answer, Fault> {
    let (before, after) = client.change_members(changes, dry_run).await?;
    Ok(Answer::done(Changed {
        done,
        dry_run,
        before,
        after,
        bundles: Vec::new(),
    }))
}

async fn remove(
    client: &Client,
    global: &Global,
    nodes: &[String],
    confirmed: &[String],
    dry_run: bool,
) -> Result<Answer, Fault> {
    let names: BTreeSet<&String> = nodes.iter().collect();
    let changes = || {
        let names = nodes.iter().cloned();
        names.map(|name| MemberChange::Remove { name }).collect()
    };
    let done = format!("{} left for good", nodes.join(", "));
    if dry_run {
        return change(client, changes(), true, done).await;
    }
    if confirmed.is_empty() {
        let (before, after) = client.change_members(changes(), true).await?;
        let question = format!(
            "{} will leave for good and can never come back.\n  before  {}\n  after   {}\nRemove?",
            nodes.join(", "),
            before,
            after,
        );
        context::confirm(&question, global)?;
    } else if confirmed.iter().collect::<BTreeSet<_>>() != names {
        return Err(
            Fault::usage(format!("--confirm does not name {}", nodes.join(", ")))
                .with_known("nothing was changed"),
        );
    }
    change(client, changes(), false, done).await
}

async fn update(client: &Client, nodes: &[String], dry_run: bool) -> Result<Answer, Fault> {
    let mut changes = Vec::new();
    for text in nodes {
        let (name, address) = new_node::address_of(text).await?;
        changes.push(MemberChange::Update { name, address });
    }
    let done = format!("{} is where the members are reached", nodes.join(", "));
    change(client, changes, dry_run, done).await
}

/// New nodes: as such, or in the place of a member.
async fn join(
    client: &Client,
    global: &Global,
    nodes: &[String],
    replaces: Option<String>,
    args: &NewNodeArgs,
) -> Result<Answer, Fault> {
    let table = client.member_table().await?;
    let new = new_node::plan(nodes, args, &table).await?;
    let changes = || -> Vec<MemberChange> {
        let member = |node: &NewNode| match &replaces {
            None => MemberChange::Add(node.member()),
            Some(old) => MemberChange::Replace {
                old: old.clone(),
                new: node.member(),
            },
        };
        new.iter().map(member).collect()
    };
    // A refusal is better heard before a key is written.
    let (before, after) = client.change_members(changes(), true).await?;
    let names: Vec<&str> = new.iter().map(|new| new.node.name.as_str()).collect();
    let mut changed = Changed {
        done: format!(
            "{}: known to the cluster; learns first, and {} by itself once it has caught up",
            names.join(", "),
            match &replaces {
                None => "votes".to_owned(),
                Some(old) => format!("takes the place of {old}"),
            }
        ),
        dry_run: args.dry_run,
        before,
        after,
        bundles: Vec::new(),
    };
    if args.dry_run {
        return Ok(Answer::done(changed));
    }
    let greeting = client.connect().await?;
    new_node::write_bundles(&new, args, global, &greeting, &table)?;
    match client.change_members(changes(), false).await {
        Ok((_, after)) => changed.after = after,
        Err(error) => {
            let fault = Fault::from(error);
            return Err(new_node::take_back(&new, fault));
        }
    }
    changed.bundles = new.into_iter().filter_map(|node| node.bundle).collect();
    Ok(Answer::done(changed))
}

fn quorum_json(quorum: &Quorum) -> Value {
    json!({
        "voters": quorum.voters,
        "quorum": quorum.quorum,
        "reachable": quorum.reachable,
        "learners": quorum.learners,
    })
}

fn quorum_record(name: &str, quorum: &Quorum) -> Vec<u8> {
    let Quorum {
        voters,
        quorum,
        reachable,
        learners,
    } = quorum;
    let numbers = [voters, quorum, reachable, learners].map(ToString::to_string);
    let fields = std::iter::once(name).chain(numbers.iter().map(String::as_str));
    record(fields.map(str::as_bytes))
}

/// What a change has come to.
struct Changed {
    done: String,
    dry_run: bool,
    before: Quorum,
    after: Quorum,
    bundles: Vec<PathBuf>,
}

impl View for Changed {
    fn human(&self) -> Vec<u8> {
        let head = match self.dry_run {
            true => "Nothing was changed. This would be possible:",
            false => "Done:",
        };
        let mut lines = vec![
            format!("{head} {}", self.done),
            format!("  before  {}", self.before),
            format!("  after   {}", self.after),
        ];
        for bundle in &self.bundles {
            let bundle = bundle.display();
            lines.push(format!(
                "Next, on the new server with its secret bundle:  kvd join {bundle} --start"
            ));
        }
        if self.after.voters.is_multiple_of(2) {
            lines.push(
                "note: an even number of voters bears no more failures than one voter less".into(),
            );
        }
        lines.push(String::new());
        lines.join("\n").into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        let mut lines = quorum_record("before", &self.before);
        lines.extend(quorum_record("after", &self.after));
        for bundle in &self.bundles {
            let path = bundle.to_string_lossy();
            lines.extend(record([b"bundle".as_slice(), path.as_bytes()]));
        }
        lines
    }

    fn json(&self) -> Value {
        json!({
            "ok": true,
            "dry_run": self.dry_run,
            "before": quorum_json(&self.before),
            "after": quorum_json(&self.after),
            "bundles": self.bundles,
        })
    }
}

struct List(MemberTable);

impl List {
    fn is_leader(&self, member: &MemberLine) -> bool {
        self.0.leader == Some(member.address.id)
    }

    fn fields(&self, member: &MemberLine) -> [String; 7] {
        let address = &member.address;
        [
            address.name.clone(),
            format!("{:016x}", address.id),
            address.address.clone(),
            member.state.as_str().to_owned(),
            member.replaces.clone().unwrap_or_default(),
            match member.reachable {
                true => "reachable".to_owned(),
                false => "unreachable".to_owned(),
            },
            match self.is_leader(member) {
                true => "leader".to_owned(),
                false => String::new(),
            },
        ]
    }
}

impl View for List {
    fn human(&self) -> Vec<u8> {
        let header = ["NAME", "ID", "ADDRESS", "STATE", "REPLACES", "LINK", ""].map(str::to_owned);
        let rows: Vec<[String; 7]> = std::iter::once(header)
            .chain(self.0.members.iter().map(|member| self.fields(member)))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..7).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text.push_str(&self.0.quorum.to_string());
        text.push('\n');
        text.into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        let rows = self.0.members.iter().map(|member| self.fields(member));
        rows.flat_map(|fields| record(fields.iter().map(String::as_bytes)))
            .collect()
    }

    fn json(&self) -> Value {
        let member = |member: &MemberLine| {
            json!({
                "name": member.address.name,
                "id": format!("{:016x}", member.address.id),
                "address": member.address.address,
                "state": member.state.as_str(),
                "replaces": member.replaces,
                "reachable": member.reachable,
                "leader": self.is_leader(member),
            })
        };
        json!({
            "members": self.0.members.iter().map(member).collect::<Vec<_>>(),
            "quorum": quorum_json(&self.0.quorum),
        })
    }
}

#[cfg(test)]
mod tests {
    use kvd::kv::members::MemberState;
    use kvd::wire::client::MemberAddress;

    use super::*;

    const THREE: Quorum = Quorum {
        voters: 3,
        quorum: 2,
        reachable: 3,
        learners: 0,
    };

    #[test]
    fn a_change_is_told_in_every_format() {
        let changed = Changed {
            done: "n4".to_owned(),
            dry_run: false,
            before: THREE,
            after: Quorum {
                voters: 4,
                quorum: 3,
                ..THREE
            },
            bundles: vec![PathBuf::from("n4.kvd")],
        };
        assert_eq!(
            String::from_utf8(changed.plain()).unwrap(),
            "before\t3\t2\t3\t0\nafter\t4\t3\t3\t0\nbundle\tn4.kvd\n"
        );
        assert_eq!(changed.json()["after"]["quorum"], 3);
        let human = String::from_utf8(changed.human()).unwrap();
        assert!(human.contains("kvd join n4.kvd --start"), "{human}");
        assert!(human.contains("even number"), "{human}");
    }

    #[test]
    fn a_member_is_one_record() {
        let list = List(MemberTable {
            members: vec![MemberLine {
                address: MemberAddress {
                    name: "n4".into(),
                    id: 255,
                    address: "a:1".into(),
                },
                state: MemberState::Learner,
                replaces: Some("n3".into()),
                reachable: true,
            }],
            leader: Some(255),
            quorum: THREE,
        });
        assert_eq!(
            String::from_utf8(list.plain()).unwrap(),
            "n4\t00000000000000ff\ta:1\tlearner\tn3\treachable\tleader\n"
        );
        assert_eq!(list.json()["members"][0]["state"], "learner");
        let human = String::from_utf8(list.human()).unwrap();
        assert!(human.ends_with("1 more may fail\n"), "{human}");
    }
}
