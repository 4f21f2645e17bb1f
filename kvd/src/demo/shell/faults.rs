//! Nodes that stop, links that lose, disks that are slow.

use std::time::Duration;

use super::Shell;

impl Shell {
    pub(super) fn crash(&mut self, node: &str) -> Result<(), String> {
        self.cluster.crash(node)?;
        println!("{node} crashed");
        Ok(())
    }

    pub(super) fn restart(&mut self, node: &str) -> Result<(), String> {
        self.cluster.restart(node)?;
        println!("{node} started");
        Ok(())
    }

    pub(super) fn pause(&mut self, node: &str) -> Result<(), String> {
        self.cluster.pause(node)?;
        println!("{node} stands still");
        Ok(())
    }

    pub(super) fn resume(&mut self, node: &str) -> Result<(), String> {
        self.cluster.resume(node)?;
        println!("{node} goes on");
        Ok(())
    }

    pub(super) fn shutdown(&mut self, node: &str) -> Result<(), String> {
        self.cluster.shutdown(node)?;
        println!("{node} stopped");
        Ok(())
    }

    pub(super) fn disconnect(&mut self, node: &str, other: Option<&str>) -> Result<(), String> {
        self.cluster.node(node)?;
        match other {
            Some(other) => {
                self.check_pair(node, other)?;
                self.cluster.change_faults(|faults| faults.cut(node, other));
                println!("{node} and {other} are cut off from each other");
            }
            None => {
                self.cluster.change_faults(|faults| faults.isolate(node));
                println!("{node} is cut off from all others");
            }
        }
        Ok(())
    }

    pub(super) fn reconnect(&mut self, node: &str) -> Result<(), String> {
        self.cluster.node(node)?;
        self.cluster.change_faults(|faults| faults.reconnect(node));
        println!("{node} reconnected");
        Ok(())
    }

    pub(super) fn partition(&mut self, one: &[String], other: &[String]) -> Result<(), String> {
        for (a, b) in pairs(one, other) {
            self.check_pair(a, b)?;
        }
        self.cluster.change_faults(|faults| {
            pairs(one, other).for_each(|(a, b)| faults.cut(a, b));
        });
        println!(
            "{} are cut off from {}",
            one.join(" and "),
            other.join(" and ")
        );
        Ok(())
    }

    pub(super) fn heal(&mut self) {
        self.cluster
            .change_faults(super::super::faults::Faults::heal);
        println!("all links are sound");
    }

    pub(super) fn delay(&mut self, node: &str, other: &str, delay: Duration) -> Result<(), String> {
        self.check_pair(node, other)?;
        self.cluster
            .change_faults(|faults| faults.delay(node, other, delay));
        let delay = humantime::format_duration(delay);
        println!("between {node} and {other} everything takes {delay} longer each way");
        Ok(())
    }

    pub(super) fn lose(&mut self, node: &str, other: &str, share: f64) -> Result<(), String> {
        self.check_pair(node, other)?;
        self.cluster
            .change_faults(|faults| faults.lose(node, other, share));
        let percent = share * 100.0;
        println!("between {node} and {other} {percent}% of the datagrams are lost");
        Ok(())
    }

    pub(super) fn slow_disk(&mut self, node: &str, delay: Duration) -> Result<(), String> {
        self.cluster.node(node)?;
        self.cluster
            .change_faults(|faults| faults.slow_disk(node, delay));
        let delay = humantime::format_duration(delay);
        println!("the log of {node} waits {delay} before each sync");
        Ok(())
    }

    /// Two different nodes that there are.
    fn check_pair(&self, a: &str, b: &str) -> Result<(), String> {
        self.cluster.node(a)?;
        self.cluster.node(b)?;
        match a == b {
            true => Err(format!("{a} has no link to itself")),
            false => Ok(()),
        }
    }
}

/// Each of one group with each of the other.
fn pairs<'a>(
    one: &'a [String],
    other: &'a [String],
) -> impl Iterator<Item = (&'a String, &'a String)> {
    one.iter()
        .flat_map(move |a| other.iter().map(move |b| (a, b)))
}
