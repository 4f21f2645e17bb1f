//! Votes and candidates: tables, and messages made by hand.

mod harness;

use harness::{Cluster, answers, append, command, configuration_entry, entry_id, envelope, id};
use raft_core::{
    Configuration, EntryId, Envelope, HardState, Message, NodeId, Rejected, Role, Term,
    VoteRequest, VoteResponse,
};

/// Case 3: a vote goes only to a candidate whose log is not behind: later last term first, then the
/// longer log.
#[test]
fn vote_goes_only_to_a_log_that_is_not_behind() {
    // The voter's log ends at 3@2.
    let table = [
        (entry_id(2, 1), false),
        (entry_id(3, 1), false),
        (entry_id(9, 1), false),
        (entry_id(2, 2), false),
        (entry_id(3, 2), true),
        (entry_id(4, 2), true),
        (entry_id(1, 3), true),
        (entry_id(3, 3), true),
        (entry_id(4, 3), true),
    ];
    for (last, granted) in table {
        let mut cluster = Cluster::new(3);
        let state = HardState {
            term: Term(3),
            vote: None,
        };
        cluster.set_log(id(1), &[1, 2, 2], state);
        cluster.start(id(1));
        let request = VoteRequest {
            last,
            transfer: false,
            priority: 0,
        };
        cluster
            .deliver(envelope(2, 1, 4, Message::PreVote(request)))
            .unwrap();
        cluster
            .deliver(envelope(2, 1, 4, Message::Vote(request)))
            .unwrap();
        cluster.sync_all_of(id(1));
        let response = VoteResponse { granted };
        let expected = [
            Message::PreVoteResponse(response),
            Message::VoteResponse(response),
        ];
        assert_eq!(answers(&mut cluster, 1), expected, "candidate with {last}");
    }
}

/// Case 2: a candidate counts its own vote only when that is on disk, and not when an earlier write is.
#[test]
fn candidate_counts_itself_only_when_its_vote_is_on_disk() {
    let mut cluster = Cluster::new(3);
    cluster.configure(|config| config.pre_vote = false);
    cluster.start(id(3));
    let entries = vec![command(1, 1, "a")];
    cluster
        .deliver(envelope(1, 3, 1, append(EntryId::default(), entries, 0)))
        .unwrap();
    cluster.campaign(id(3));
    assert_eq!(
        cluster.member(id(3)).writes.len(),
        2,
        "the entry, then the vote"
    );
    cluster.sync(id(3));
    let grant = Message::VoteResponse(VoteResponse { granted: true });
    cluster.deliver(envelope(2, 3, 2, grant)).unwrap();
    assert_eq!(cluster.status(id(3)).role, Role::Candidate);
    cluster.sync(id(3));
    assert_eq!(cluster.status(id(3)).role, Role::Leader);
}

/// Case 6: a node that is stranded at a higher term, under mixed settings of pre-vote, does not
/// keep the cluster from a stable leader.
#[test]
fn stranded_higher_term_is_absorbed_under_mixed_pre_vote_settings() {
    for without_pre_vote in 1..8_u64 {
        let mut cluster = Cluster::new(3);
        for (node, member) in &mut cluster.members {
            member.config.pre_vote = without_pre_vote & (1 << (node.0 - 1)) == 0;
        }
        cluster.start_all();
        cluster.elect(id(1));
        cluster.isolated.insert(id(3));
        cluster.run(300);
        cluster.isolated.clear();
        cluster.run(100);
        let leaders = cluster.leaders();
        assert_eq!(leaders.len(), 1, "settings {without_pre_vote}: {leaders:?}");
        let before = cluster.status(leaders[0]).term;
        cluster.run(100);
        assert_eq!(cluster.leaders(), leaders, "settings {without_pre_vote}");
        assert_eq!(
            cluster.status(leaders[0]).term,
            before,
            "settings {without_pre_vote}"
        );
    }
}

/// A candidate needs both halves of the joint configuration that its log ends in.
#[test]
fn candidate_asks_both_halves_of_an_inherited_configuration() {
    let joint = Configuration {
        voters: [id(3), id(4), id(5)].into(),
        voters_outgoing: [id(1), id(2), id(3)].into(),
        learners: [id(6)].into(),
        ..Configuration::default()
    };
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let entries = vec![configuration_entry(1, 1, &joint)];
    cluster
        .deliver(envelope(1, 3, 1, append(EntryId::default(), entries, 0)))
        .unwrap();
    cluster.sync_all_of(id(3));
    cluster.take(|_| true);
    cluster.campaign(id(3));
    let asked: Vec<NodeId> = cluster
        .take(|_| true)
        .iter()
        .map(|envelope| envelope.to)
        .collect();
    assert_eq!(
        asked,
        [id(1), id(2), id(4), id(5)],
        "the learner is not asked"
    );
    let grant = |from| {
        envelope(
            from,
            3,
            2,
            Message::PreVoteResponse(VoteResponse { granted: true }),
        )
    };
    cluster.deliver(grant(4)).unwrap();
    cluster.deliver(grant(5)).unwrap();
    assert_eq!(
        cluster.status(id(3)).role,
        Role::PreCandidate,
        "one half is not enough"
    );
    assert_eq!(
        cluster.deliver(grant(6)),
        Err(Rejected::UnknownSender { from: id(6) })
    );
    cluster.deliver(grant(1)).unwrap();
    assert_eq!(cluster.status(id(3)).role, Role::Candidate);
}

/// Case 28: a learner does not campaign; but asked for its vote it answers, because a newer
/// configuration may count on it.
#[test]
fn learner_answers_a_candidate_and_does_not_campaign() {
    let configuration = Configuration {
        learners: [id(3)].into(),
        ..Configuration::new([id(1), id(2)])
    };
    let mut cluster = Cluster::with_configuration(configuration);
    cluster.start(id(3));
    cluster.campaign(id(3));
    (0..50).for_each(|_| cluster.tick(id(3)));
    assert_eq!(cluster.status(id(3)).role, Role::Follower);
    let refused = cluster.deliver(envelope(1, 3, 1, Message::TimeoutNow));
    assert_eq!(refused, Err(Rejected::NotVoter));
    // A node that is no member by this node's configuration asks.
    let request = VoteRequest {
        last: EntryId::default(),
        transfer: false,
        priority: 0,
    };
    (0..20).for_each(|_| cluster.tick(id(3)));
    cluster
        .deliver(envelope(4, 3, 2, Message::Vote(request)))
        .unwrap();
    cluster.sync_all_of(id(3));
    assert_eq!(
        answers(&mut cluster, 3),
        [Message::VoteResponse(VoteResponse { granted: true })]
    );
}

/// Whether n1, with priority 5, votes for a candidate with this priority and an equal log.
fn votes_for_priority(cluster: &mut Cluster, term: u64, priority: u32) -> bool {
    let request = VoteRequest {
        last: EntryId::default(),
        transfer: false,
        priority,
    };
    cluster
        .deliver(envelope(2, 1, term, Message::Vote(request)))
        .expect("the term is not over");
    cluster.sync_all_of(id(1));
    answers(cluster, 1) == [Message::VoteResponse(VoteResponse { granted: true })]
}

/// Only lower priorities are refused, and only by a node that could lead: a learner could not.
#[test]
fn preference_is_for_voters_and_against_lower_priorities() {
    let voter = Configuration::new([id(1), id(2), id(3)]);
    let learner = Configuration {
        learners: [id(1)].into(),
        ..Configuration::new([id(2), id(3)])
    };
    for (configuration, helps_lower) in [(voter, false), (learner, true)] {
        let mut cluster = Cluster::with_configuration(configuration);
        cluster.configure(|config| config.priority = 5);
        cluster.start(id(1));
        assert_eq!(votes_for_priority(&mut cluster, 1, 4), helps_lower);
        assert!(votes_for_priority(&mut cluster, 2, 5), "equal priority");
        assert!(votes_for_priority(&mut cluster, 3, 6), "higher priority");
    }
}

/// A vote that was given is given again when the candidate asks again, even if this node would by now
/// prefer itself.
#[test]
fn preference_does_not_take_a_vote_back() {
    let mut cluster = Cluster::new(3);
    cluster.configure(|config| config.priority = 5);
    cluster.start(id(1));
    cluster.node(id(1)).report_sync_age(6);
    assert!(
        votes_for_priority(&mut cluster, 1, 4),
        "the disk is not healthy"
    );
    cluster.node(id(1)).report_sync_age(0);
    assert!(votes_for_priority(&mut cluster, 1, 4), "the vote is given");
}

fn pre_vote_grant(from: u64, to: u64, term: u64) -> Envelope {
    let response = VoteResponse { granted: true };
    envelope(from, to, term, Message::PreVoteResponse(response))
}

fn vote_answer(from: u64, to: u64, term: u64, granted: bool) -> Envelope {
    let response = VoteResponse { granted };
    envelope(from, to, term, Message::VoteResponse(response))
}

/// n1 asked for pre-votes of term 1, and asks for those of term 6 when the grant of term 1 comes.
/// Who granted the one might not grant the other: a leader may live by now.
#[test]
fn pre_vote_grant_of_another_term_is_not_counted() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.campaign(id(1));
    cluster.take(|_| true);
    cluster.deliver(vote_answer(3, 1, 5, false)).unwrap();
    cluster.campaign(id(1));
    for term in [1, 5, 7] {
        let refused = cluster.deliver(pre_vote_grant(2, 1, term));
        assert_eq!(refused, Err(Rejected::Unasked), "grant of term {term}");
    }
    assert_eq!(cluster.status(id(1)).role, Role::PreCandidate);
    cluster.deliver(pre_vote_grant(2, 1, 6)).unwrap();
    assert_eq!(cluster.status(id(1)).role, Role::Candidate);
}

/// A vote is given for good. n2 grants, finds damage in its log, and refuses when the request comes
/// again; n1 has its vote all the same.
#[test]
fn first_answer_of_a_voter_counts() {
    let mut cluster = Cluster::new(5);
    cluster.configure(|config| config.pre_vote = false);
    cluster.start_all();
    cluster.campaign(id(1));
    cluster.sync_all_of(id(1));
    cluster.deliver(vote_answer(2, 1, 1, true)).unwrap();
    cluster.deliver(vote_answer(2, 1, 1, false)).unwrap();
    cluster.deliver(vote_answer(4, 1, 1, false)).unwrap();
    cluster.deliver(vote_answer(5, 1, 1, false)).unwrap();
    assert_eq!(cluster.status(id(1)).role, Role::Candidate);
    cluster.deliver(vote_answer(3, 1, 1, true)).unwrap();
    assert_eq!(cluster.status(id(1)).role, Role::Leader);
}

/// Who follows a leader has not voted in its term, if the others were enough, and does not vote in
/// it any more: the election is over.
#[test]
fn follower_votes_for_nobody_else_in_the_term_of_its_leader() {
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    let entries = vec![command(1, 1, "a")];
    cluster
        .deliver(envelope(1, 3, 1, append(EntryId::default(), entries, 0)))
        .unwrap();
    cluster.sync_all_of(id(3));
    cluster.take(|_| true);
    let request = VoteRequest {
        last: entry_id(1, 1),
        transfer: false,
        priority: 0,
    };
    cluster
        .deliver(envelope(2, 3, 1, Message::Vote(request)))
        .unwrap();
    cluster.sync_all_of(id(3));
    let response = VoteResponse { granted: false };
    assert_eq!(answers(&mut cluster, 3), [Message::VoteResponse(response)]);
    assert_eq!(cluster.status(id(3)).vote, None);
}
