//! Members that come, go and lead.

use std::time::{Duration, Instant};

use super::{PAUSE, Shell};
use crate::client::{ClientError, MemberTable};
use crate::kv::members::MemberState;
use crate::wire::client::{MemberAddress, MemberChange, Quorum, Refusal, Request, Response};

/// How long a new node may take until it votes: it may get a snapshot first.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

impl Shell {
    /// As `kvctl member add` and `kvd join` for each, and waits until they vote.
    pub(super) fn add(&mut self, names: &[String]) -> Result<(), String> {
        let members = self.cluster.new_members(names)?;
        let changes: Vec<MemberChange> = members
            .iter()
            .map(|member| MemberChange::Add(member.member()))
            .collect();
        // A refusal is better heard before a key is written.
        let (before, _) = self.change_members(&changes, true)?;
        println!("before  {before}");
        let present: Vec<MemberAddress> = self
            .member_table()?
            .members
            .into_iter()
            .map(|member| member.address)
            .collect();
        let newcomers = self.cluster.prepare(members, &present)?;
        if let Err(why) = self.change_members(&changes, false) {
            self.cluster.take_back(&newcomers)?;
            return Err(why);
        }
        let ids: Vec<u64> = newcomers.members().iter().map(|member| member.id).collect();
        self.cluster.admit(newcomers)?;
        println!("{} learn, and vote once they have caught up", shown(names));
        self.wait_for_votes(&ids)?;
        println!("{} vote", shown(names));
        // The leader reached them to bring them the log.
        let after = self.quorum()?;
        println!("after   {after}");
        self.warn_if_even(&after);
        Ok(())
    }

    /// As `kvctl member remove`, and stops the nodes when the change is committed.
    pub(super) fn remove(&mut self, names: &[String]) -> Result<(), String> {
        for name in names {
            self.cluster.node(name)?;
        }
        let changes: Vec<MemberChange> = names
            .iter()
            .map(|name| MemberChange::Remove { name: name.clone() })
            .collect();
        let (before, _) = self.change_members(&changes, true)?;
        println!("before  {before}");
        let (_, after) = self.change_members(&changes, false)?;
        for name in names {
            self.cluster.retire(name)?;
        }
        println!("{} left for good", shown(names));
        println!("after   {after}");
        self.warn_if_even(&after);
        Ok(())
    }

    fn warn_if_even(&self, quorum: &Quorum) {
        if quorum.voters.is_multiple_of(2) {
            println!("note: an even number of voters bears no more failures than one voter less");
        }
    }

    /// Changes the members, again and again while something that goes by is in the way. The same change may be asked for
    /// twice: what has happened already is found done.
    fn change_members(
        &self,
        changes: &[MemberChange],
        dry_run: bool,
    ) -> Result<(Quorum, Quorum), String> {
        let deadline = Instant::now() + super::TIMEOUT;
        loop {
            let changed = self
                .runtime
                .block_on(self.client.change_members(changes.to_vec(), dry_run));
            match changed {
                Ok(quorums) => return Ok(quorums),
                Err(error) if passes_by(&error) && Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn member_table(&self) -> Result<MemberTable, String> {
        let table = self.runtime.block_on(self.client.member_table());
        table.map_err(|error| error.to_string())
    }

    fn wait_for_votes(&self, ids: &[u64]) -> Result<(), String> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        loop {
            let table = self.member_table()?;
            let votes = |id: &u64| {
                let mut members = table.members.iter();
                members.any(|line| line.address.id == *id && line.state == MemberState::Voter)
            };
            if ids.iter().all(votes) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err("the new nodes do not catch up".into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What decisions take, as the leader sees it.
    pub(super) fn quorum(&self) -> Result<Quorum, String> {
        let leader = self.leader().ok_or("no node leads")?;
        let answer = self.ask(&leader.name, Request::MemberTable)?;
        let Response::MemberTable { quorum, .. } = answer else {
            return Err(format!("{} answered {answer:?}", leader.name));
        };
        Ok(quorum)
    }

    /// Hands leadership over, and waits until the node leads.
    pub(super) fn transfer(&mut self, node: String) -> Result<(), String> {
        self.cluster.node(&node)?;
        if self.leader().is_some_and(|leader| leader.name == node) {
            println!("{node} leads");
            return Ok(());
        }
        let moved = self
            .runtime
            .block_on(self.client.transfer_leader(Some(node.clone())));
        moved.map_err(|error| error.to_string())?;
        let deadline = Instant::now() + super::TIMEOUT;
        while self.leader().is_none_or(|leader| leader.name != node) {
            if Instant::now() >= deadline {
                return Err(format!("{node} does not lead"));
            }
            std::thread::sleep(PAUSE);
        }
        println!("{node} leads");
        Ok(())
    }
}

/// Another change is under way, or leadership moved meanwhile.
fn passes_by(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unknown { .. } | ClientError::Refused(Refusal::MembersBusy { .. })
    )
}

fn shown(names: &[String]) -> String {
    names.join(" and ")
}
