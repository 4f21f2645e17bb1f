//! `kvctl status -o json`, as far as tests look at it.

use serde_json::Value;

/// The whole cluster.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The nodes in the order of the answer.
    pub nodes: Vec<NodeView>,
    /// Everything.
    pub json: Value,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// It answered.
    pub reachable: bool,
    /// Its role.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<String>,
    /// Entries up to here are committed.
    pub commit_index: u64,
    /// Entries up to here are applied.
    pub last_applied: u64,
    /// Oldest entry in its log.
    pub first_index: u64,
    /// Last entry in its newest snapshot.
    pub snapshot_index: u64,
    /// Index and hash of its state.
    pub state_hash: (u64, String),
    /// How its storage does.
    pub storage: String,
    /// Damaged entries of its log.
    pub damaged: u64,
    /// For whom it waits to get them back.
    pub repair_waits_for: Vec<String>,
}

impl ClusterStatus {
    /// Reads what `kvctl status -o json` printed.
    ///
    /// # Panics
    /// A promised field is missing.
    #[must_use]
    pub fn parse(json: Value) -> ClusterStatus {
        assert_eq!(json["v"], 1, "{json}");
        let nodes = json["nodes"]
            .as_array()
            .expect("nodes is a list")
            .iter()
            .map(NodeView::parse)
            .collect();
        ClusterStatus { nodes, json }
    }

    /// The reachable leader of the highest term, if reachable nodes agree on it.
    #[must_use]
    pub fn leader(&self) -> Option<&NodeView> {
        let reachable = || self.nodes.iter().filter(|node| node.reachable);
        let leader = reachable()
            .filter(|node| node.role == "leader")
            .max_by_key(|node| node.term)?;
        let agreed = reachable()
            .filter(|node| node.leader.as_deref() == Some(&*leader.name))
            .count();
        (agreed * 2 > self.nodes.len()).then_some(leader)
    }
}

impl NodeView {
    /// Reads one element of `nodes`, or the answer of `GET /status`.
    ///
    /// # Panics
    /// A promised field is missing.
    #[must_use]
    pub fn parse(json: &Value) -> NodeView {
        let text = |field: &str| {
            json[field]
                .as_str()
                .unwrap_or_else(|| panic!("no {field} in {json}"))
                .to_owned()
        };
        let number = |field: &str| {
            json[field]
                .as_u64()
                .unwrap_or_else(|| panic!("no {field} in {json}"))
        };
        let hash = &json["state_hash"];
        NodeView {
            name: text("name"),
            reachable: json["reachable"]
                .as_bool()
                .unwrap_or_else(|| panic!("no reachable in {json}")),
            role: text("role"),
            term: number("term"),
            leader: json["leader"].as_str().map(str::to_owned),
            commit_index: number("commit_index"),
            last_applied: number("last_applied"),
            first_index: number("first_index"),
            snapshot_index: number("snapshot_index"),
            state_hash: (
                hash["applied"].as_u64().unwrap_or_default(),
                hash["hash"].as_str().unwrap_or_default().to_owned(),
            ),
            storage: json["storage"]["state"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            damaged: json["repair"]["damaged"].as_u64().unwrap_or_default(),
            repair_waits_for: json["repair"]["waiting_for"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
        }
    }
}
