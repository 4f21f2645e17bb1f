//! How followers learn what is committed when there is nothing else to send.

mod harness;

use harness::{Cluster, answers, entry_id, envelope, id, index};
use raft_core::{Commit, Envelope, HardState, Message, Term};

/// News of what is committed counts only if the log holds that very entry, and is not answered.
#[test]
fn news_of_a_commit_counts_only_for_an_entry_that_is_held() {
    let mut cluster = Cluster::new(3);
    let state = HardState {
        term: Term(3),
        vote: None,
    };
    cluster.set_log(id(3), &[1, 2, 2], state);
    cluster.start(id(3));
    for (told, commit) in [((3, 3), 0), ((4, 3), 0), ((2, 2), 2), ((1, 1), 2)] {
        let id_told = entry_id(told.0, told.1);
        let news = Message::Commit(Commit { id: id_told });
        cluster.deliver(envelope(1, 3, 3, news)).unwrap();
        assert_eq!(cluster.status(id(3)).commit, index(commit), "{id_told}");
    }
    assert_eq!(answers(&mut cluster, 3), []);
}

/// The news got lost: the next heartbeat brings it.
#[test]
fn lost_news_of_a_commit_comes_with_a_heartbeat() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a"]).unwrap();
    let is_news = |envelope: &Envelope| matches!(envelope.message, Message::Commit(_));
    let mut lost = 0;
    for _ in 0..4 {
        (1..=3).for_each(|node| cluster.sync_all_of(id(node)));
        lost += cluster.take(is_news).len();
        cluster.deliver_matching(|_| true);
    }
    assert_eq!((lost, cluster.status(id(3)).commit), (2, index(1)));
    cluster.run(2);
    assert_eq!(cluster.status(id(3)).commit, index(2));
}
