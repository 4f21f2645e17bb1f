//! `kvctl scrub`

use kvd::wire::client::ScrubReport;
use serde_json::{Value, json};

use super::Answer;
use super::nodes::{check_heard, chosen};
use crate::connect::Session;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::{View, record};

/// Lets each node read its log through, one after the other, so that the disks of a majority stay free for writes.
pub(super) async fn run(names: &[String], session: &Session) -> Result<Answer, Fault> {
    let client = session.client();
    let survey = client.survey().await;
    client.close().await;
    check_heard(&survey, session.options.timeout)?;
    let mut scrubbed = Vec::new();
    for (name, member) in chosen(&survey, names)? {
        let found = match &member.status {
            Ok(_) => scrub(name, session).await.map_err(|fault| fault.what),
            Err(why) => Err(why.to_string()),
        };
        let name = name.to_owned();
        scrubbed.push(Node { name, found });
    }
    let scrubbed = Scrubbed(scrubbed);
    Ok(Answer {
        code: scrubbed.code(),
        view: Some(Box::new(scrubbed)),
    })
}

async fn scrub(name: &str, session: &Session) -> Result<ScrubReport, Fault> {
    let client = session.reader(Some(name)).await?;
    let report = client.scrub().await;
    client.close().await;
    Ok(report?)
}

/// A member, and what its log was found to be or why that is not known.
struct Node {
    name: String,
    found: Result<ScrubReport, String>,
}

impl Node {
    fn passes(&self) -> bool {
        self.found.as_ref().is_ok_and(|report| report.damaged == 0)
    }

    fn verdict(&self) -> &'static str {
        match self.passes() {
            true => "PASS",
            false => "FAIL",
        }
    }

    fn numbers(&self) -> String {
        match &self.found {
            Err(why) => why.clone(),
            Ok(report) => {
                let read = format!("{} entries, {} bytes read", report.entries, report.bytes);
                match (report.damaged, report.first_damaged) {
                    (0, _) => read,
                    (damaged, None) => format!("{read}, {damaged} damaged"),
                    (damaged, Some(first)) => {
                        format!("{read}, {damaged} damaged, the first is entry {first}")
                    }
                }
            }
        }
    }
}

struct Scrubbed(Vec<Node>);

impl Scrubbed {
    fn code(&self) -> ExitCode {
        match self.0.iter().all(Node::passes) {
            true => ExitCode::Done,
            false => ExitCode::No,
        }
    }
}

impl View for Scrubbed {
    fn human(&self) -> Vec<u8> {
        let line = |node: &Node| format!("{}: {}  {}\n", node.name, node.verdict(), node.numbers());
        self.0.iter().map(line).collect::<String>().into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        let line = |node: &Node| {
            let fields = [&node.name, node.verdict(), &node.numbers()];
            record(fields.map(str::as_bytes))
        };
        self.0.iter().flat_map(line).collect()
    }

    fn json(&self) -> Value {
        let node = |node: &Node| {
            let report = node.found.as_ref().ok();
            json!({
                "name": node.name,
                "pass": node.passes(),
                "error": node.found.as_ref().err(),
                "entries": report.map(|it| it.entries),
                "bytes": report.map(|it| it.bytes),
                "damaged": report.map(|it| it.damaged),
                "first_damaged": report.and_then(|it| it.first_damaged),
            })
        };
        json!({ "nodes": self.0.iter().map(node).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, damaged: u64) -> Node {
        let found = Ok(ScrubReport {
            entries: 10,
            bytes: 500,
            damaged,
            first_damaged: (damaged > 0).then_some(3),
        });
        let name = name.to_owned();
        Node { name, found }
    }

    #[test]
    fn one_damaged_log_or_silent_node_fails_all() {
        let sound = Scrubbed(vec![node("n1", 0), node("n2", 0)]);
        assert_eq!(sound.code(), ExitCode::Done);
        let damaged = Scrubbed(vec![node("n1", 0), node("n2", 2)]);
        assert_eq!(damaged.code(), ExitCode::No);
        assert_eq!(
            String::from_utf8(damaged.human()).unwrap(),
            "n1: PASS  10 entries, 500 bytes read\n\
             n2: FAIL  10 entries, 500 bytes read, 2 damaged, the first is entry 3\n"
        );
        let silent = Node {
            name: "n3".into(),
            found: Err("connection refused".into()),
        };
        let silent = Scrubbed(vec![node("n1", 0), silent]);
        assert_eq!(silent.code(), ExitCode::No);
        assert_eq!(silent.json()["nodes"][1]["error"], "connection refused");
    }
}
