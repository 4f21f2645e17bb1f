//! What the nodes say of themselves.

use std::time::Instant;

use super::{PAUSE, Shell, TIMEOUT};
use crate::demo::cluster::DemoNode;
use crate::wire::status::{NodeRole, NodeStatus};

impl Shell {
    /// What stands before the cursor: leader and term, as one of the nodes sees them.
    pub(in crate::demo) fn prompt(&mut self) -> String {
        let known = self
            .statuses()
            .into_iter()
            .filter(|status| status.leader.is_some());
        match known.max_by_key(|status| status.term) {
            Some(status) => format!(
                "{} term {}>",
                status.leader.unwrap_or_default(),
                status.term
            ),
            None => "no leader>".into(),
        }
    }

    /// The leader of the highest term by its own word: one that was deposed may not know it yet.
    pub(super) fn leader(&self) -> Option<NodeStatus> {
        self.statuses()
            .into_iter()
            .filter(|status| status.role == NodeRole::Leader)
            .max_by_key(|status| status.term)
    }

    /// Waits for a leader that lives, because after a crash there is none for a moment.
    pub(super) fn show_leader(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(leader) = self.leader() {
                println!("{} leads term {}", leader.name, leader.term);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err("no node leads".into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(super) fn show_nodes(&self) {
        let statuses = self.statuses();
        for node in self.cluster.nodes() {
            match statuses.iter().find(|status| status.name == node.name) {
                Some(status) => println!("{}", positions(status)),
                None => println!("{}  {}", node.name, why_silent(node)),
            }
        }
    }

    pub(super) fn show_status(&self) {
        match self.leader() {
            Some(leader) => {
                println!("{} leads term {}", leader.name, leader.term);
                match self.quorum() {
                    Ok(quorum) => println!("{quorum}"),
                    Err(why) => println!("{why}"),
                }
            }
            None => println!("no node leads"),
        }
        let statuses = self.statuses();
        for node in self.cluster.nodes() {
            match statuses.iter().find(|status| status.name == node.name) {
                Some(status) => println!("{}  {}", positions(status), machine(status)),
                None => println!("{}  {}", node.name, why_silent(node)),
            }
        }
    }
}

fn why_silent(node: &DemoNode) -> &'static str {
    match node.is_paused() {
        true => "paused",
        false => "stopped",
    }
}

fn positions(status: &NodeStatus) -> String {
    format!(
        "{}  {:<9}  term {}  commit {}  applied {}  log {}..{}  snapshot {}",
        status.name,
        status.role.as_str(),
        status.term,
        status.commit_index,
        status.last_applied,
        status.first_index,
        status.last_index,
        status.snapshot_index
    )
}

fn machine(status: &NodeStatus) -> String {
    format!(
        "storage {}  log {} bytes  sync {} us, p99 {} us  longest turn {} us",
        status.storage.state.as_str(),
        status.storage.log_bytes,
        status.storage.sync_p50_us,
        status.storage.sync_p99_us,
        status.longest_turn_us
    )
}
