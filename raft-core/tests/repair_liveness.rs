//! What a review of the repair and simulations found: each of these stories once did not end, or flooded the network.

mod harness;

use harness::disk::Left;
use harness::{Cluster, id, index};
use raft_core::{ConfigurationChange, FaultyEntry, MemberChange, Message, Term};

/// Starts the nodes. n1 hears nothing while n2 is elected, and n2 and n3 purge their logs up to
/// `through`.
fn others_compact(cluster: &mut Cluster, through: u64) {
    cluster.start_all();
    cluster.isolated.insert(id(1));
    cluster.elect(id(2));
    cluster.run(5);
    cluster.compact(id(2), through);
    cluster.compact(id(3), through);
    cluster.isolated.clear();
}

/// How many snapshots are begun within so many ticks if none of them arrives.
fn snapshots_begun(cluster: &mut Cluster, ticks: usize) -> usize {
    let mut transfers = Vec::new();
    for _ in 0..ticks {
        cluster.run_without_snapshots(1, &mut transfers);
    }
    transfers.len()
}

/// The leader n1 keeps its log from an older snapshot on. n3 needs 3, which turns out to be
/// damaged when the core reads it; n1's newest snapshot covers it.
#[test]
fn a_follower_gets_the_snapshot_instead_of_damaged_entries_below_it() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.settle();
    cluster.isolated.insert(id(3));
    cluster.propose(id(1), &["a", "b", "c"]).unwrap();
    cluster.settle();
    let storage = cluster.node(id(1)).storage_mut();
    storage.take_snapshot(index(4));
    storage.damage(FaultyEntry {
        index: index(3),
        term: Some(Term(1)),
        kind: None,
    });
    cluster.isolated.clear();
    cluster.transcript.clear();
    cluster.run(300);
    assert_eq!(cluster.status(id(3)).last.index, index(4));
}

/// As before; the entry is not in memory, and its damage shows when the driver reads it.
#[test]
fn a_follower_gets_the_snapshot_instead_of_what_cannot_be_fetched() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.settle();
    cluster.isolated.insert(id(3));
    cluster.propose(id(1), &["a", "b", "c"]).unwrap();
    cluster.settle();
    let storage = cluster.node(id(1)).storage_mut();
    storage.take_snapshot(index(4));
    storage.evict_below(index(9));
    cluster.damage_silently(id(1), index(3));
    cluster.isolated.clear();
    cluster.run(50);
    assert_eq!(cluster.status(id(3)).last.index, index(4));
}

/// A cluster of one loses an entry that is applied: its own snapshot would do, and is not asked
/// for; meanwhile nothing is committed.
#[test]
fn a_single_voter_asks_for_its_own_snapshot() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a", "b"]).unwrap();
    cluster.settle();
    cluster.damage(id(1), index(2), Left::Header);
    cluster.run(300);
    cluster.propose(id(1), &["c"]).unwrap();
    cluster.run(300);
    let told = cluster
        .transcript
        .iter()
        .any(|line| line.contains("wants a snapshot"));
    let status = cluster.status(id(1));
    assert!(told || status.applied == index(4), "{status}");
}

/// {n1 n2}: the leader n1 loses a command that n2 never had, at run time.
#[test]
fn two_voters_give_up_what_only_one_had() {
    let mut cluster = Cluster::new(2);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.settle();
    cluster.isolated.insert(id(2));
    cluster.propose(id(1), &["a"]).unwrap();
    cluster.sync_all_of(id(1));
    cluster.damage(id(1), index(2), Left::Header);
    cluster.isolated.clear();
    cluster.bag.clear();
    cluster.run(500);
    let (one, two) = (cluster.status(id(1)), cluster.status(id(2)));
    assert_eq!(cluster.leaders().len(), 1, "{one}\n{two}");
}

/// {n1 n2 n3}: n3 goes, and is never heard of again; n1 loses a command that n2 never had.
#[test]
fn a_removed_voter_is_not_waited_for() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.settle();
    let removal = ConfigurationChange::new([MemberChange::Remove(id(3))]);
    cluster.change(id(1), &removal).unwrap(); // 2
    cluster.settle();
    assert_eq!(cluster.status(id(1)).commit, index(2));
    cluster.isolated = [id(2), id(3)].into();
    cluster.propose(id(1), &["a"]).unwrap(); // 3
    cluster.sync_all_of(id(1));
    cluster.damage(id(1), index(3), Left::Term);
    cluster.isolated.remove(&id(2));
    cluster.bag.clear();
    cluster.run(500);
    let (one, two) = (cluster.status(id(1)), cluster.status(id(2)));
    assert_eq!(cluster.leaders().len(), 1, "{one}\n{two}");
}

/// n1 lost 8, of unknown term; all others are compacted up to exactly 8. What a snapshot holds
/// is committed, and n1 knows that 9 behind it is: 8 is the same.
#[test]
fn a_snapshot_of_committed_state_is_taken_below_the_commit_index() {
    let mut cluster = Cluster::with_log(3, &[2, 2, 2, 2, 2, 2, 2, 3, 4]);
    cluster.damage(id(1), index(8), Left::Nothing);
    others_compact(&mut cluster, 8);
    cluster.transcript.clear();
    cluster.run(1000);
    let status = cluster.status(id(1));
    assert!(status.repair.is_none(), "{status}");
}

/// As before, and the entry at which the snapshot ends is of unknown term and so is another
/// before it: the snapshot is of no use, and is sent again and again.
#[test]
fn a_snapshot_of_no_use_is_not_sent_again_and_again() {
    let mut cluster = Cluster::with_log(3, &[2, 2, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 5, 6]);
    cluster.damage(id(1), index(8), Left::Nothing);
    cluster.damage(id(1), index(13), Left::Nothing);
    others_compact(&mut cluster, 13);
    cluster.transcript.clear();
    cluster.run(1000);
    let of_no_use = cluster
        .transcript
        .iter()
        .filter(|line| line.contains("cannot be told"))
        .count();
    let status = cluster.status(id(1));
    assert!(status.repair.is_none(), "{status}, {of_no_use} x");
}

/// A repairing node that waits is to write what the leader sends (rule E3), all of it.
#[test]
fn a_repairing_node_gets_more_than_one_append() {
    let mut cluster = Cluster::with_log(3, &[2, 2, 2, 2, 2, 2, 2, 3, 4]);
    cluster.configure(|config| config.max_append_bytes = 1);
    cluster.damage(id(1), index(8), Left::Nothing);
    others_compact(&mut cluster, 8);
    cluster.propose(id(2), &["a", "b", "c", "d"]).unwrap();
    cluster.run(100);
    let status = cluster.status(id(1));
    assert_eq!(status.last.index, index(14), "{status}");
}

/// A repairing node asks for a snapshot that takes long. How many are on their way at once?
#[test]
fn few_snapshots_are_on_their_way_at_once() {
    let mut cluster = Cluster::with_log(3, &[1; 9]);
    cluster.damage(id(1), index(8), Left::Header);
    others_compact(&mut cluster, 9);
    let transfers = snapshots_begun(&mut cluster, 1000);
    assert!(
        transfers <= 2,
        "{transfers} transfers of the same snapshot at once in 1000 ticks"
    );
}

/// Entries come back one by one, and each time a snapshot is asked for anew.
#[test]
fn progress_elsewhere_does_not_repeat_a_snapshot() {
    let mut cluster = Cluster::with_log(3, &[1; 60]);
    cluster.configure(|config| config.max_append_bytes = 1);
    cluster.damage(id(1), index(8), Left::Header);
    for at in 20..60 {
        cluster.damage(id(1), index(at), Left::Header);
    }
    others_compact(&mut cluster, 9);
    let transfers = snapshots_begun(&mut cluster, 45);
    assert!(
        transfers <= 2,
        "{transfers} transfers of the same snapshot in 45 ticks"
    );
}

/// Answers are large and a link is slow: how much is asked for before the first one has come?
#[test]
fn what_is_asked_for_is_bounded_while_answers_are_on_their_way() {
    let mut cluster = Cluster::with_log(3, &[1; 60]);
    for at in (2..60).step_by(3) {
        cluster.damage(id(1), index(at), Left::Header);
    }
    cluster.start_all();
    cluster.bag.clear();
    for _ in 0..100 {
        cluster.tick(id(1));
        cluster.deliver_matching(|it| matches!(it.message, Message::RepairAsk(_)));
    }
    let answers = cluster
        .bag
        .iter()
        .filter(|it| matches!(it.message, Message::RepairAnswer(_)))
        .count();
    assert!(
        answers <= 2 * 16 * 2,
        "{answers} answers of up to max_append_bytes on their way after 100 ticks"
    );
}

/// The log of n3 has no room: what the leader sent waits, and the copy of a damaged entry behind it. Room is made by a
/// snapshot, which waits for the damaged entry; so the copy is written alone, and n3 is whole before the rest is durable.
#[test]
fn copies_end_a_repair_while_entries_before_them_wait_for_room() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.propose(id(1), &["a", "b"]).unwrap();
    cluster.settle();
    cluster.member(id(3)).watch.is_held = true;
    cluster.propose(id(1), &["c"]).unwrap();
    cluster.settle();
    cluster.damage(id(3), index(2), Left::Header);
    cluster.run(20);
    assert!(cluster.status(id(3)).repair.is_some(), "the copy waits");
    cluster.repair_ahead(id(3));
    let status = cluster.status(id(3));
    assert_eq!(status.repair, None);
    assert_eq!((status.persisted, status.last.index), (index(3), index(4)));
}
