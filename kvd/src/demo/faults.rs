//! What is wrong with the links and disks of a demo, on purpose. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft_net::Path;

/// Two nodes, whichever was named first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair(String, String);

impl Pair {
    fn of(a: &str, b: &str) -> Pair {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Pair(first.to_owned(), second.to_owned())
    }

    fn has(&self, node: &str) -> bool {
        self.0 == node || self.1 == node
    }
}

/// All faults. They outlast the nodes' lives: a node that is started again finds the same links and the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Cut off from everybody, also from nodes that come later.
    isolated: BTreeSet<String>,
    cuts: BTreeSet<Pair>,
    delays: BTreeMap<Pair, Duration>,
    losses: BTreeMap<Pair, f64>,
    disks: BTreeMap<String, Duration>,
}

impl Faults {
    /// Cuts a node off from all others.
    pub(super) fn isolate(&mut self, node: &str) {
        self.isolated.insert(node.to_owned());
    }

    /// Cuts two nodes off from each other.
    pub(super) fn cut(&mut self, a: &str, b: &str) {
        self.cuts.insert(Pair::of(a, b));
    }

    /// Undoes every cut of a node.
    pub(super) fn reconnect(&mut self, node: &str) {
        self.isolated.remove(node);
        self.cuts.retain(|pair| !pair.has(node));
    }

    /// What is sent between two nodes arrives this much later, in either direction.
    pub(super) fn delay(&mut self, a: &str, b: &str, delay: Duration) {
        match delay {
            Duration::ZERO => self.delays.remove(&Pair::of(a, b)),
            _ => self.delays.insert(Pair::of(a, b), delay),
        };
    }

    /// This share of the datagrams between two nodes is lost, in either direction.
    pub(super) fn lose(&mut self, a: &str, b: &str, share: f64) {
        match share > 0.0 {
            true => self.losses.insert(Pair::of(a, b), share),
            false => self.losses.remove(&Pair::of(a, b)),
        };
    }

    /// The log of a node waits this long before each sync.
    pub(super) fn slow_disk(&mut self, node: &str, delay: Duration) {
        self.disks.insert(node.to_owned(), delay);
    }

    /// All links are sound again.
    pub(super) fn heal(&mut self) {
        *self = Faults {
            disks: std::mem::take(&mut self.disks),
            ..Faults::default()
        };
    }

    /// A node is gone for good; another one may get its name.
    pub(super) fn forget(&mut self, node: &str) {
        self.reconnect(node);
        self.delays.retain(|pair, _| !pair.has(node));
        self.losses.retain(|pair, _| !pair.has(node));
        self.disks.remove(node);
    }

    /// The way from one node to another.
    pub(super) fn path(&self, from: &str, to: &str) -> Path {
        let pair = Pair::of(from, to);
        Path {
            cut: self.isolated.contains(from)
                || self.isolated.contains(to)
                || self.cuts.contains(&pair),
            loss: self.losses.get(&pair).copied().unwrap_or(0.0),
            delay: self.delays.get(&pair).copied().unwrap_or_default(),
        }
    }

    /// How long the log of a node waits before each sync.
    pub(super) fn disk_delay(&self, node: &str) -> Duration {
        self.disks.get(node).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolated_node_is_cut_off_from_everybody_until_it_is_reconnected() {
        let mut faults = Faults::default();
        faults.isolate("n3");
        faults.cut("n1", "n2");
        assert!(faults.path("n3", "n9").cut);
        assert!(faults.path("n2", "n1").cut);
        faults.reconnect("n3");
        assert!(!faults.path("n9", "n3").cut);
        faults.reconnect("n1");
        assert_eq!(faults.path("n1", "n2"), Path::default());
    }

    #[test]
    fn delays_and_losses_are_of_both_directions_and_end_with_zero_or_heal() {
        let ms = Duration::from_millis;
        let mut faults = Faults::default();
        faults.delay("n2", "n1", ms(50));
        faults.lose("n1", "n2", 0.1);
        faults.slow_disk("n1", ms(7));
        let path = faults.path("n1", "n2");
        assert_eq!((path.cut, path.loss, path.delay), (false, 0.1, ms(50)));
        assert_eq!(faults.path("n1", "n3"), Path::default());
        faults.delay("n1", "n2", Duration::ZERO);
        assert_eq!(faults.path("n2", "n1").delay, Duration::ZERO);
        faults.heal();
        assert_eq!(faults.path("n2", "n1"), Path::default());
        assert_eq!(faults.disk_delay("n1"), ms(7), "a disk is no link");
    }

    #[test]
    fn a_node_that_is_gone_leaves_no_fault_to_the_next_of_its_name() {
        let mut faults = Faults::default();
        faults.isolate("n4");
        faults.cut("n1", "n4");
        faults.lose("n4", "n2", 1.0);
        faults.slow_disk("n4", Duration::from_secs(1));
        faults.forget("n4");
        assert_eq!(faults.path("n4", "n1"), Path::default());
        assert_eq!(faults.path("n4", "n2"), Path::default());
        assert_eq!(faults.disk_delay("n4"), Duration::ZERO);
    }
}
