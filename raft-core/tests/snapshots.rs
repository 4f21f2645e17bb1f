//! Snapshots that come late, or take the place of damaged entries only.

mod harness;

use harness::{Cluster, answers, append, command, entry_id, envelope, id, index};
use raft_core::{
    Config, Configuration, EntryKind, FaultyEntry, HardState, InstallSnapshot, MemoryStorage,
    Message, Node, NodeId, SnapshotMeta, SnapshotResponse, Term,
};

fn members(count: u64) -> Configuration {
    Configuration::new((1..=count).map(NodeId))
}

/// n1 with four entries of term 1, of which the third is damaged; `kind` is what is left of it.
fn node_without_3(kind: Option<EntryKind>) -> Node<MemoryStorage> {
    let mut disk = MemoryStorage::with_configuration(members(3));
    disk.append((1..=4).map(|at| command(at, 1, "x")).collect());
    disk.set_hard_state(HardState {
        term: Term(1),
        vote: None,
    });
    disk.damage(FaultyEntry {
        index: index(3),
        term: kind.map(|_| Term(1)),
        kind,
    });
    Node::new(Config::new(id(1), 7), disk).expect("a sound disk")
}

/// A snapshot up to `at`, with so many members since `since`.
fn repair_snapshot(at: u64, since: u64, count: u64) -> Message {
    let meta = SnapshotMeta {
        id: entry_id(at, 1),
        configuration: members(count),
        configuration_index: index(since),
    };
    Message::RepairSnapshot(InstallSnapshot { meta: meta.into() })
}

/// A snapshot that comes late, and ends below what this node has compacted, is answered and not
/// installed.
#[test]
fn late_snapshot_below_the_beginning_of_the_log_changes_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.start(id(3));
    for at in [4, 2] {
        let meta = SnapshotMeta {
            id: entry_id(at, 1),
            configuration: members(3),
            configuration_index: index(0),
        };
        let install = Message::InstallSnapshot(InstallSnapshot { meta: meta.into() });
        cluster.deliver(envelope(1, 3, 1, install)).unwrap();
        cluster.sync_all_of(id(3));
        let matched = index(4);
        assert_eq!(
            answers(&mut cluster, 3),
            [Message::SnapshotResponse(SnapshotResponse { matched })],
            "snapshot of {at}"
        );
        let status = cluster.status(id(3));
        assert_eq!((status.first, status.commit), (index(5), index(4)));
    }
}

/// A snapshot covers the damaged 3 and ends at 5, which is not on disk yet. Written before 5 it would
/// leave a gap behind it after a crash; but 5 may wait for the room that the snapshot makes. Nothing
/// from 5 on is acknowledged, so it replaces the log, and 6 is written once more.
#[test]
fn a_covering_snapshot_beyond_the_disk_replaces_the_log() {
    let mut node = node_without_3(Some(EntryKind::Command));
    let entries = vec![command(5, 1, "x"), command(6, 1, "x")];
    node.step(envelope(2, 1, 1, append(entry_id(4, 1), entries, 6)))
        .unwrap();
    let waiting = node.ready().persist.unwrap();
    assert_eq!(waiting.entries.len(), 2);
    node.step(envelope(3, 1, 1, repair_snapshot(5, 0, 3)))
        .unwrap();
    let part = node.ready().persist.unwrap();
    assert!(part.snapshot.is_some());
    assert!(!part.snapshot_keeps_log);
    assert_eq!(part.entries, [command(6, 1, "x")]);
    // What waited is skipped, and proves nothing about the new log.
    node.on_persisted(waiting.id);
    assert_eq!(node.status().persisted, index(4));
    node.storage_mut().persist(part.clone());
    node.on_persisted(part.id);
    let status = node.status();
    assert_eq!((status.first, status.persisted), (index(6), index(6)));
    assert_eq!((status.commit, status.repair), (index(6), None));
    node.check_invariants();
}

/// n1 lost the entry that took n4 in, and knows nothing of it. The snapshot that covers the entry
/// does.
#[test]
fn a_covering_snapshot_brings_the_members_of_a_damaged_change() {
    let mut node = node_without_3(None);
    node.step(envelope(3, 1, 1, repair_snapshot(4, 3, 4)))
        .unwrap();
    assert!(node.ready().persist.unwrap().snapshot_keeps_log);
    assert_eq!(node.configuration(), &members(4));
}
