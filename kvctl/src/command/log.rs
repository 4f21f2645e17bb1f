//! `kvctl log`

use std::time::Duration;

use kvd::client::{Client, ClientOptions, NodeReport, Survey};
use kvd::wire::status::NodeStatus;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Answer;
use super::nodes::{self, check_heard};
use crate::cli::LogVerb;
use crate::connect::Session;
use crate::exit::ExitCode;
use crate::fault::Fault;
use crate::output::{View, record};

/// Longest single look at all nodes; one that needs more counts as unreachable.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks at nodes that write their snapshots.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(verb: LogVerb, session: &Session) -> Result<Answer, Fault> {
    let LogVerb::Discard { nodes } = verb;
    discard(&nodes, session).await
}

/// Orders a snapshot of each node, and waits until they have them and have let go of the log that they need no more.
async fn discard(names: &[String], session: &Session) -> Result<Answer, Fault> {
    let deadline = Instant::now() + session.options.timeout;
    let look_max = session.options.timeout.min(LOOK_MAX);
    let look = Client::new(ClientOptions {
        timeout: look_max,
        ..session.options.clone()
    });
    let survey = look.survey().await;
    check_heard(&survey, look_max)?;
    let mut nodes = chosen(&survey, names)?;
    for node in nodes.iter().filter(|node| node.state == State::Ordered) {
        order(&node.name, session).await?;
    }
    while nodes.iter().any(|node| node.state == State::Ordered) && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
        let survey = look.survey().await;
        for status in survey.answers() {
            nodes.iter_mut().for_each(|node| node.look(status));
        }
    }
    look.close().await;
    let discarded = Discarded(nodes);
    Ok(Answer {
        code: discarded.code(),
        view: Some(Box::new(discarded)),
    })
}

async fn order(name: &str, session: &Session) -> Result<(), Fault> {
    let client = session.reader(Some(name)).await?;
    let ordered = client.discard_log().await;
    client.close().await;
    Ok(ordered?)
}

/// The members of these names, or all.
fn chosen(survey: &Survey, names: &[String]) -> Result<Vec<Node>, Fault> {
    let chosen = nodes::chosen(survey, names)?;
    Ok(chosen.into_iter().map(Node::of).collect())
}

/// How far a node has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// A snapshot is ordered, and not there yet.
    Ordered,
    /// It has a snapshot of all that it had applied.
    Done,
    /// It was not asked, and this is why.
    Unreachable(String),
}

impl State {
    fn as_str(&self) -> &str {
        match self {
            State::Ordered => "ordered, not done yet",
            State::Done => "done",
            State::Unreachable(why) => why,
        }
    }
}

/// A member and its log.
struct Node {
    name: String,
    before: NodeStatus,
    now: NodeStatus,
    state: State,
}

impl Node {
    fn of((name, report): (&str, &NodeReport)) -> Node {
        let (status, state) = match &report.status {
            Ok(status) => (status.clone(), State::Ordered),
            Err(found) => (NodeStatus::default(), State::Unreachable(found.to_string())),
        };
        Node {
            name: name.to_owned(),
            before: status.clone(),
            now: status,
            state,
        }
    }

    /// Takes in what a node says of itself, if it is this one.
    fn look(&mut self, status: &NodeStatus) {
        if status.name != self.name || self.state != State::Ordered {
            return;
        }
        self.now = status.clone();
        if status.snapshot_index >= self.before.last_applied {
            self.state = State::Done;
        }
    }

    /// First index before and now, snapshot index, bytes of the log before and now.
    fn numbers(&self) -> [u64; 5] {
        [
            self.before.first_index,
            self.now.first_index,
            self.now.snapshot_index,
            self.before.storage.log_bytes,
            self.now.storage.log_bytes,
        ]
    }
}

struct Discarded(Vec<Node>);

impl Discarded {
    fn code(&self) -> ExitCode {
        if self.0.iter().any(|node| node.state == State::Ordered) {
            return ExitCode::Unknown;
        }
        match self.0.iter().all(|node| node.state == State::Done) {
            true => ExitCode::Done,
            false => ExitCode::No,
        }
    }
}

impl View for Discarded {
    fn human(&self) -> Vec<u8> {
        let line = |node: &Node| {
            let [first_before, first, snapshot, bytes_before, bytes] = node.numbers();
            let (name, state) = (&node.name, node.state.as_str());
            match node.state {
                State::Unreachable(_) => format!("{name}: {state}\n"),
                State::Ordered | State::Done => format!(
                    "{name}: {state}; snapshot of entry {snapshot}, log from {first} on (was {first_before}), {bytes} bytes (were {bytes_before})\n"
                ),
            }
        };
        self.0.iter().map(line).collect::<String>().into_bytes()
    }

    fn plain(&self) -> Vec<u8> {
        let line = |node: &Node| {
            let numbers = node.numbers().map(|number| number.to_string());
            let fields = [node.name.as_str(), node.state.as_str()];
            let fields = fields.into_iter().chain(numbers.iter().map(String::as_str));
            record(fields.map(str::as_bytes))
        };
        self.0.iter().flat_map(line).collect()
    }

    fn json(&self) -> Value {
        let node = |node: &Node| {
            let [first_before, first, snapshot, bytes_before, bytes] = node.numbers();
            json!({
                "name": node.name,
                "done": node.state == State::Done,
                "state": node.state.as_str(),
                "first_index": { "before": first_before, "after": first },
                "snapshot_index": snapshot,
                "log_bytes": { "before": bytes_before, "after": bytes },
            })
        };
        json!({ "nodes": self.0.iter().map(node).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use kvd::client::Found;

    use super::*;

    fn report(name: &str, applied: u64, snapshot: u64) -> NodeReport {
        NodeReport {
            name: Some(name.to_owned()),
            id: Some(1),
            address: format!("{name}:7400"),
            status: Ok(status(name, applied, snapshot)),
        }
    }

    fn status(name: &str, applied: u64, snapshot: u64) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            last_applied: applied,
            snapshot_index: snapshot,
            first_index: snapshot + 1,
            ..NodeStatus::default()
        }
    }

    fn three() -> Survey {
        let mut dead = report("n3", 0, 0);
        dead.status = Err(Found::ConnectionRefused);
        Survey {
            cluster: None,
            nodes: vec![report("n1", 10, 0), report("n2", 10, 4), dead],
        }
    }

    #[test]
    fn a_node_is_done_with_a_snapshot_of_what_it_had_applied_when_asked() {
        let mut nodes = chosen(&three(), &["n1".to_owned()]).unwrap();
        nodes[0].look(&status("n2", 12, 12));
        nodes[0].look(&status("n1", 12, 9));
        assert_eq!(nodes[0].state, State::Ordered);
        assert_eq!(Discarded(nodes).code(), ExitCode::Unknown);
        let mut nodes = chosen(&three(), &["n1".to_owned()]).unwrap();
        nodes[0].look(&status("n1", 12, 10));
        let discarded = Discarded(nodes);
        assert_eq!(discarded.code(), ExitCode::Done);
        assert_eq!(
            String::from_utf8(discarded.plain()).unwrap(),
            "n1\tdone\t1\t11\t10\t0\t0\n"
        );
        assert_eq!(discarded.json()["nodes"][0]["first_index"]["after"], 11);
    }

    #[test]
    fn a_member_that_does_not_answer_is_named_and_the_exit_code_says_no() {
        let mut nodes = chosen(&three(), &[]).unwrap();
        for name in ["n1", "n2"] {
            let status = status(name, 10, 10);
            nodes.iter_mut().for_each(|node| node.look(&status));
        }
        let discarded = Discarded(nodes);
        assert_eq!(discarded.code(), ExitCode::No);
        let human = String::from_utf8(discarded.human()).unwrap();
        assert!(human.contains("n3: connection refused"), "{human}");
    }

    #[test]
    fn a_node_that_is_no_member_is_a_wrong_command_line() {
        let fault = chosen(&three(), &["n9".to_owned()]).err().unwrap();
        assert_eq!(fault.code, ExitCode::Usage);
    }
}
