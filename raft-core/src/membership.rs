//! Configurations: who votes, who only learns, and since which entry.

mod change;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

pub use self::change::{ConfigurationChange, MemberChange};

use crate::quorum::JointQuorum;
use crate::types::write_spaced;
use crate::{ConfigurationError, LogIndex, NodeId};

/// The members of a cluster and their parts.
///
/// During a change of members both halves are set, and every decision needs a majority of each
/// (joint consensus, thesis 4.3). A configuration is in force from the moment its entry is
/// appended, committed or not, and out of force again when that entry is truncated: a leader that
/// used it must be answered by the same rules.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Configuration {
    /// Members that vote and count for commits.
    pub voters: BTreeSet<NodeId>,
    /// The voters before the change under way; empty outside of one.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Members that receive the log and do not vote.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters that become learners when the change is over.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader ends the change by itself as soon as the joint configuration is
    /// committed.
    pub auto_leave: bool,
}

/// First byte of the binary form.
const FORMAT_VERSION: u8 = 1;
/// Version, flags, and four counts.
const HEADER_BYTES: usize = 2 + 4 * COUNT_BYTES;
const COUNT_BYTES: usize = 2;
const ID_BYTES: usize = 8;
const FLAG_AUTO_LEAVE: u8 = 1;

impl Configuration {
    /// A configuration of voters only.
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> Configuration {
        Configuration {
            voters: voters.into_iter().collect(),
            ..Configuration::default()
        }
    }

    /// Whether a change of members is under way.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether the node votes in either half.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.voters_outgoing.contains(&node)
    }

    /// Whether the node has any part.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// All members, each once, ascending.
    pub fn members(&self) -> BTreeSet<NodeId> {
        let halves = self.voters.union(&self.voters_outgoing);
        halves.chain(&self.learners).copied().collect()
    }

    /// All members that vote in either half, ascending.
    pub fn all_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.union(&self.voters_outgoing).copied()
    }

    /// Whether each half that there is has so many voters.
    pub(crate) fn has_voters_in_each_half(&self, least: usize) -> bool {
        let outgoing = self.voters_outgoing.len();
        self.voters.len() >= least && (outgoing == 0 || outgoing >= least)
    }

    /// Refuses a configuration in which the cluster could not work.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        if self.voters.is_empty() {
            return Err(ConfigurationError::NoVoter);
        }
        if self.members().contains(&NodeId(0)) {
            return Err(ConfigurationError::NotAscending);
        }
        if let Some(both) = self
            .learners
            .iter()
            .find(|learner| self.is_voter(**learner))
        {
            return Err(ConfigurationError::VoterAndLearner(*both));
        }
        if let Some(stray) = self
            .learners_next
            .iter()
            .find(|next| !self.voters_outgoing.contains(next))
        {
            return Err(ConfigurationError::NotOutgoing(*stray));
        }
        if let Some(both) = self
            .learners_next
            .iter()
            .find(|next| self.voters.contains(next))
        {
            return Err(ConfigurationError::VoterAndLearner(*both));
        }
        if self.auto_leave && !self.is_joint() {
            return Err(ConfigurationError::NotJoint);
        }
        Ok(())
    }

    /// The binary form: version, flags, four counts, then the ids of the four sets in the order of
    /// the fields, each set ascending; all numbers little-endian.
    ///
    /// # Panics
    /// If a set has more than 65,535 members.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.members().len() * ID_BYTES);
        bytes.push(FORMAT_VERSION);
        bytes.push(if self.auto_leave { FLAG_AUTO_LEAVE } else { 0 });
        for set in self.sets() {
            let count = u16::try_from(set.len()).expect("no cluster has that many members");
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        for set in self.sets() {
            bytes.extend(set.iter().flat_map(|id| id.0.to_le_bytes()));
        }
        bytes
    }

    /// Reads the binary form, and checks the configuration.
    ///
    /// # Errors
    /// Names what is wrong; arbitrary bytes never panic, and nothing is allocated beyond the size
    /// of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Configuration, ConfigurationError> {
        let (&version, _) = bytes.split_first().ok_or(ConfigurationError::WrongLength)?;
        if version != FORMAT_VERSION {
            return Err(ConfigurationError::UnknownVersion(version));
        }
        let (header, mut ids) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or(ConfigurationError::WrongLength)?;
        let flags = header[1];
        if flags & !FLAG_AUTO_LEAVE != 0 {
            return Err(ConfigurationError::UnknownFlags(flags));
        }
        let mut counts = header[2..]
            .chunks_exact(COUNT_BYTES)
            .map(|count| u16::from_le_bytes([count[0], count[1]]));
        let mut next_set = || decode_set(&mut ids, usize::from(counts.next().unwrap_or(0)));
        let configuration = Configuration {
            voters: next_set()?,
            voters_outgoing: next_set()?,
            learners: next_set()?,
            learners_next: next_set()?,
            auto_leave: flags & FLAG_AUTO_LEAVE != 0,
        };
        if !ids.is_empty() {
            return Err(ConfigurationError::WrongLength);
        }
        configuration.check()?;
        Ok(configuration)
    }

    fn sets(&self) -> [&BTreeSet<NodeId>; 4] {
        [
            &self.voters,
            &self.voters_outgoing,
            &self.learners,
            &self.learners_next,
        ]
    }
}

/// Takes `count` ids off the front.
fn decode_set(ids: &mut &[u8], count: usize) -> Result<BTreeSet<NodeId>, ConfigurationError> {
    let (set_bytes, rest) = ids
        .split_at_checked(count * ID_BYTES)
        .ok_or(ConfigurationError::WrongLength)?;
    *ids = rest;
    let mut set = BTreeSet::new();
    for bytes in set_bytes.chunks_exact(ID_BYTES) {
        let id = NodeId(u64::from_le_bytes(
            bytes.try_into().expect("chunks have this size"),
        ));
        if id == NodeId(0) || set.last().is_some_and(|last| *last >= id) {
            return Err(ConfigurationError::NotAscending);
        }
        set.insert(id);
    }
    Ok(set)
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["voters", "outgoing", "learners", "learners next"];
        let shown = names
            .into_iter()
            .zip(self.sets())
            .filter(|(name, set)| *name == "voters" || !set.is_empty());
        for (position, (name, set)) in shown.enumerate() {
            write!(f, "{}{name} (", if position > 0 { " " } else { "" })?;
            write_spaced(f, set)?;
            f.write_str(")")?;
        }
        f.write_str(if self.auto_leave { " auto" } else { "" })
    }
}

/// All configurations of the log that may still matter: the one in force and those it would be
/// rolled back to.
///
/// Invariant: never empty, strictly ascending by index; `voters` are those of the last one.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    history: Vec<(LogIndex, Configuration)>,
    voters: Voters,
}

/// The voters of the configuration in force once more. They are asked for at each acknowledgement,
/// and are few: a walk over a vector is quicker than one over a tree.
#[derive(Clone, Debug)]
struct Voters {
    incoming: Vec<NodeId>,
    outgoing: Vec<NodeId>,
}

impl Voters {
    fn of(configuration: &Configuration) -> Voters {
        Voters {
            incoming: configuration.voters.iter().copied().collect(),
            outgoing: configuration.voters_outgoing.iter().copied().collect(),
        }
    }
}

impl Membership {
    pub(crate) fn new(index: LogIndex, configuration: Configuration) -> Membership {
        Membership {
            voters: Voters::of(&configuration),
            history: Vec::from([(index, configuration)]),
        }
    }

    /// The voters of the configuration in force.
    pub(crate) fn quorum(&self) -> JointQuorum<'_> {
        JointQuorum {
            incoming: &self.voters.incoming,
            outgoing: &self.voters.outgoing,
        }
    }

    fn on_changed(&mut self) {
        self.voters = Voters::of(self.current());
    }

    /// The configuration in force.
    pub(crate) fn current(&self) -> &Configuration {
        &self.newest().1
    }

    pub(crate) fn current_index(&self) -> LogIndex {
        self.newest().0
    }

    fn newest(&self) -> &(LogIndex, Configuration) {
        self.history.last().expect("the history is never empty")
    }

    /// The configuration that was in force when the entry at `index` was appended.
    pub(crate) fn at(&self, index: LogIndex) -> Option<&(LogIndex, Configuration)> {
        self.history.iter().rev().find(|(since, _)| *since <= index)
    }

    /// The configurations appended at or above `index`.
    pub(crate) fn since(&self, index: LogIndex) -> impl Iterator<Item = &Configuration> {
        let newer = self.history.iter().filter(move |(at, _)| *at >= index);
        newer.map(|(_, configuration)| configuration)
    }

    /// All members of the configurations that may still matter.
    pub(crate) fn members_ever(&self) -> BTreeSet<NodeId> {
        let configurations = self.history.iter();
        configurations.flat_map(|(_, it)| it.members()).collect()
    }

    /// All voters, in either half, of the configuration in force at `index` and of those after it.
    pub(crate) fn voters_since(&self, index: LogIndex) -> BTreeSet<NodeId> {
        let configurations = self.history[self.position_at(index)..].iter();
        configurations.flat_map(|(_, it)| it.all_voters()).collect()
    }

    /// Where in the history the configuration in force at `index` is, or the oldest one known.
    fn position_at(&self, index: LogIndex) -> usize {
        let position = self.history.iter().rposition(|(since, _)| *since <= index);
        position.unwrap_or(0)
    }

    /// Takes in a configuration whose entry was damaged. Returns whether it was not known.
    pub(crate) fn learn(&mut self, index: LogIndex, configuration: Configuration) -> bool {
        let position = self.history.partition_point(|(since, _)| *since < index);
        let is_known = self
            .history
            .get(position)
            .is_some_and(|(at, _)| *at == index);
        if is_known || position == 0 {
            return false; // Older than what matters, if it is not known.
        }
        self.history.insert(position, (index, configuration));
        self.on_changed();
        true
    }

    pub(crate) fn append(&mut self, index: LogIndex, configuration: Configuration) {
        assert!(
            index > self.current_index(),
            "configuration of {index} after that of {}",
            self.current_index()
        );
        self.history.push((index, configuration));
        self.on_changed();
    }

    /// Rolls back to what was in force before `from`. Returns whether anything changed.
    pub(crate) fn truncate(&mut self, from: LogIndex) -> bool {
        let before = self.history.len();
        let base = self.history[0].0;
        assert!(
            from > base,
            "truncation from {from} takes the base configuration of {base}"
        );
        self.history.retain(|(index, _)| *index < from);
        self.on_changed();
        self.history.len() != before
    }

    /// Forgets what lies before the configuration in force at `index`, which will never be
    /// truncated.
    pub(crate) fn forget_before(&mut self, index: LogIndex) {
        if self.history.len() > 1 {
            self.history.drain(..self.position_at(index));
        }
    }

    pub(crate) fn replace(&mut self, index: LogIndex, configuration: Configuration) {
        *self = Membership::new(index, configuration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn joint() -> Configuration {
        Configuration {
            voters: ids(&[1, 2, 4]),
            voters_outgoing: ids(&[1, 2, 3]),
            learners: ids(&[5]),
            learners_next: ids(&[3]),
            auto_leave: true,
        }
    }

    #[test]
    fn configuration_survives_encoding() {
        for configuration in [Configuration::new([NodeId(7)]), joint()] {
            assert_eq!(
                Configuration::decode(&configuration.encode()),
                Ok(configuration)
            );
        }
    }

    #[test]
    fn configuration_encoding_is_stable() {
        let bytes = Configuration::new([NodeId(1), NodeId(2)]).encode();
        let golden = [
            1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes, golden);
    }

    #[test]
    fn configuration_bytes_cut_anywhere_are_refused() {
        let bytes = joint().encode();
        for cut in 0..bytes.len() {
            assert!(
                Configuration::decode(&bytes[..cut]).is_err(),
                "cut at {cut}"
            );
        }
    }

    /// Case 26: configurations without a voter are rejected, as are contradictory ones.
    #[test]
    fn contradictory_configurations_are_refused() {
        let no_voter = Configuration::default();
        assert_eq!(no_voter.check(), Err(ConfigurationError::NoVoter));
        let zero = Configuration::new([NodeId(0)]);
        assert_eq!(zero.check(), Err(ConfigurationError::NotAscending));
        let both = Configuration {
            learners: ids(&[1]),
            ..Configuration::new([NodeId(1)])
        };
        assert_eq!(
            both.check(),
            Err(ConfigurationError::VoterAndLearner(NodeId(1)))
        );
        let stray = Configuration {
            learners_next: ids(&[9]),
            ..joint()
        };
        assert_eq!(
            stray.check(),
            Err(ConfigurationError::NotOutgoing(NodeId(9)))
        );
        let simple = Configuration {
            auto_leave: true,
            ..Configuration::new([NodeId(1)])
        };
        assert_eq!(simple.check(), Err(ConfigurationError::NotJoint));
        assert_eq!(
            Configuration::decode(&simple.encode()),
            Err(ConfigurationError::NotJoint)
        );
    }

    #[test]
    fn truncated_configurations_are_rolled_back() {
        let mut membership = Membership::new(LogIndex(0), Configuration::new([NodeId(1)]));
        membership.append(LogIndex(5), joint());
        membership.append(LogIndex(8), Configuration::new([NodeId(4)]));
        assert!(!membership.truncate(LogIndex(9)));
        assert!(membership.truncate(LogIndex(8)));
        assert_eq!(membership.current(), &joint());
        assert!(membership.truncate(LogIndex(3)));
        assert_eq!(membership.current(), &Configuration::new([NodeId(1)]));
    }
}
