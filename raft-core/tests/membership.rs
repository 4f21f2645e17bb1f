//! Changes of members, where several nodes and several turns matter.

mod harness;

use bytes::Bytes;
use harness::{Cluster, configuration_proposal, entry_id, id};
use raft_core::{
    ChangeError, Configuration, ConfigurationChange, ConfigurationError, MemberChange, Message,
    NodeId, Proposal, Role,
};

fn change(changes: &[MemberChange]) -> ConfigurationChange {
    ConfigurationChange::new(changes.iter().copied())
}

/// The flaw that the thesis's changes of single servers had: n1 leads four nodes, appends a change
/// that reaches n5 at most, and falls silent; n2 leads and makes another change, which commits
/// without n4; n1 returns and asks n4 and n5. Their configurations have disjoint majorities.
fn stale_change_never_wins(stale: MemberChange, later: MemberChange) {
    let mut cluster = Cluster::new(4);
    cluster.configure(|config| {
        config.pre_vote = false;
        config.check_quorum = false;
    });
    cluster.start_all();
    cluster.elect(id(1));
    cluster.join(id(5));
    cluster.join(id(6));
    cluster.isolated = [2, 3, 4, 6].map(NodeId).into();
    cluster
        .change(id(1), &change(&[stale]))
        .expect("the first change is taken");
    cluster.settle();

    cluster.isolated = [1, 5].map(NodeId).into();
    cluster.campaign(id(2));
    cluster.sync_all_of(id(2));
    cluster.deliver_matching(|envelope| matches!(envelope.message, Message::Vote(_)));
    cluster.sync_all_of(id(3));
    cluster.sync_all_of(id(4));
    cluster.deliver_matching(|envelope| matches!(envelope.message, Message::VoteResponse(_)));
    assert_eq!(cluster.status(id(2)).role, Role::Leader);
    let first = entry_id(2, 2);
    let early = cluster.change(id(2), &change(&[later]));
    assert_eq!(early, Err(ChangeError::OwnTermUncommitted { first }));
    cluster.settle();
    cluster.isolated.insert(id(4));
    let made = cluster
        .change(id(2), &change(&[later]))
        .expect("the first of the term is committed");
    cluster.settle();
    assert_eq!(cluster.status(id(2)).commit, made.index);
    let agreed = cluster.status(id(2)).configuration;

    cluster.isolated = [2, 3, 6].map(NodeId).into();
    cluster.crash(id(1), 0);
    cluster.start(id(1));
    for _ in 0..3 {
        cluster.campaign(id(1));
        cluster.settle();
        assert_ne!(cluster.status(id(1)).role, Role::Leader);
    }
    cluster.isolated.clear();
    cluster.run(40);
    assert_eq!(cluster.status(id(2)).configuration, agreed);
    assert_eq!(cluster.status(id(4)).configuration, agreed);
}

/// Case 25: one leader adds, the next removes.
#[test]
fn cut_off_addition_does_not_undo_a_removal() {
    stale_change_never_wins(MemberChange::AddVoter(id(5)), MemberChange::Remove(id(1)));
}

/// Case 25: two leaders add.
#[test]
fn cut_off_addition_does_not_undo_an_addition() {
    stale_change_never_wins(MemberChange::AddVoter(id(5)), MemberChange::AddVoter(id(6)));
}

/// Case 25: two leaders remove.
#[test]
fn cut_off_removal_does_not_undo_a_removal() {
    stale_change_never_wins(MemberChange::Remove(id(2)), MemberChange::Remove(id(1)));
}

/// Case 26: what was not planned from the configuration in force is refused, whoever encoded it.
#[test]
fn foreign_configurations_are_refused() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    let node = cluster.node(id(1));
    let two_more = Configuration::new((1..=5).map(NodeId));
    let refused = node.propose_configuration(configuration_proposal(&two_more));
    assert_eq!(refused, Err(ChangeError::NotSuccessor));
    let no_voter = Configuration::default();
    let refused = node.propose_configuration(configuration_proposal(&no_voter));
    let why = ConfigurationError::NoVoter;
    assert_eq!(refused, Err(ChangeError::Configuration(why)));
    let empty = Proposal {
        payload: Bytes::new(),
        checksum: 0,
    };
    let why = ConfigurationError::WrongLength;
    let refused = node.propose_configuration(empty);
    assert_eq!(refused, Err(ChangeError::Configuration(why)));
    assert_eq!(cluster.status(id(1)).last, entry_id(1, 1));
}

/// A joint configuration whose leader died is left by the next one.
#[test]
fn next_leader_leaves_the_joint_configuration() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.join(id(4));
    let both = [MemberChange::AddVoter(id(4)), MemberChange::Remove(id(3))];
    // The others write the entry, but n1 hears no answer.
    cluster.change(id(1), &change(&both)).unwrap();
    cluster.deliver_matching(|_| true);
    for peer in [2, 3, 4] {
        cluster.sync_all_of(id(peer));
    }
    cluster.crash(id(1), 1);
    cluster.settle();
    assert!(cluster.status(id(2)).configuration.is_joint());
    cluster.run(60);
    let expected = Configuration::new([1, 2, 4].map(NodeId));
    assert_eq!(cluster.status(id(2)).configuration, expected);
    assert_eq!(cluster.status(id(4)).configuration, expected);
}

/// A follower that was cut off while members changed gets the right configuration by a snapshot.
#[test]
fn snapshot_brings_the_configuration() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.join(id(4));
    cluster.isolated.insert(id(3));
    let added = [MemberChange::AddVoter(id(4))];
    let made = cluster.change(id(1), &change(&added)).unwrap();
    cluster.settle();
    cluster.compact(id(1), made.index.0);
    cluster.node(id(1)).on_unreachable(id(3));
    cluster.isolated.clear();
    cluster.run(5);
    let status = cluster.status(id(3));
    assert_eq!(
        status.configuration,
        Configuration::new((1..=4).map(NodeId))
    );
    assert_eq!(status.configuration_index, made.index);
}
