//! The mark that a state is not to be trusted: it outlives every crash until the state is another one.

use kvd::kv::command::HashAt;
use kvd::snapshots::{SnapshotDir, SnapshotDirError, Suspect};
use raft_log::fs::SimFs;

use crate::crash::rng;
use crate::support::{
    at_each_call, done, fresh, id, meta, open_snapshots, receive, snapshot_bytes, start, store_at,
};

const SUSPECT: Suspect = Suspect {
    agreed: HashAt {
        index: 35,
        algorithm: 1,
        hash: 1,
    },
    own: 2,
};

fn in_term_one(_: u64) -> u64 {
    1
}

/// Two snapshots of a state that is wrong: that of another entry under their names.
fn wrong() -> SimFs {
    let fs = fresh(7);
    let dir = open_snapshots(&fs);
    for index in [20, 40] {
        let mut view = store_at(index, in_term_one);
        assert!(view.rot(b"key-07"));
        dir.write(&view, &meta(index, 1)).unwrap();
    }
    fs
}

/// A peer that agreed sends its snapshot.
fn receive_right(dir: &SnapshotDir<SimFs>, index: u64) -> Result<(), SnapshotDirError> {
    let meta = meta(index, 1);
    let bytes = snapshot_bytes(&store_at(index, in_term_one), &meta);
    receive(dir, &bytes, &meta).map(drop)
}

fn indexes(dir: &SnapshotDir<SimFs>) -> Vec<u64> {
    let list = dir.list().unwrap();
    list.iter().map(|info| info.id.index.0).collect()
}

/// Whether the newest snapshot holds the right state.
fn is_right(dir: &SnapshotDir<SimFs>) -> bool {
    let newest = dir.load_newest().unwrap().newest;
    let (header, store) = newest.expect("there is one");
    store.state_hash() == store_at(header.index, in_term_one).state_hash()
}

#[test]
fn mark_is_found_by_the_next_start_and_says_why() {
    let fs = wrong();
    let dir = open_snapshots(&fs);
    assert_eq!(dir.suspect().unwrap(), None);
    dir.distrust(&SUSPECT).unwrap();
    fs.power_cut(&mut rng(1));
    assert_eq!(open_snapshots(&fs).suspect().unwrap(), Some(SUSPECT));
    let recovered = start(&fs).unwrap();
    assert_eq!(recovered.suspect, Some(SUSPECT));
    assert_eq!(
        recovered.opened.snapshot,
        Some(id(40, 1)),
        "it starts all the same"
    );
}

/// That there is a mark is what counts.
#[test]
fn mark_that_cannot_be_read_is_a_mark() {
    let fs = wrong();
    let dir = open_snapshots(&fs);
    dir.distrust(&SUSPECT).unwrap();
    let file = kvd::identity::snapshot_dir(&crate::support::data()).join("suspect");
    fs.flip_bit(&file, 9);
    assert_eq!(dir.suspect().unwrap(), Some(Suspect::default()));
}

/// A peer must not get a state that is wrong, not even if it has most of it already.
#[test]
fn suspect_snapshots_are_not_sent_to_the_end() {
    let dir = open_snapshots(&wrong());
    let mut outgoing = dir.open_send(40).unwrap();
    dir.distrust(&SUSPECT).unwrap();
    let refused = outgoing.find_map(Result::err);
    assert!(
        matches!(refused, Some(SnapshotDirError::Suspect { .. })),
        "{refused:?}"
    );
}

#[test]
fn trust_begins_with_the_snapshot_that_came_from_a_peer() {
    let fs = wrong();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    dir.distrust(&SUSPECT).unwrap();
    receive_right(&dir, 60).unwrap();
    assert_eq!(indexes(&dir), [20, 40, 60]);
    dir.trust_from(id(60, 1)).unwrap();
    assert_eq!(indexes(&dir), [60]);
    assert_eq!(dir.suspect().unwrap(), None);
    assert!(is_right(&open_snapshots(&fs)));
    let sent: Result<Vec<_>, _> = dir.open_send(60).unwrap().collect();
    assert!(sent.is_ok(), "it is sent again");
}

/// It may end with the same entry as the newest own one, and takes its name.
#[test]
fn snapshot_of_the_same_entry_replaces_the_own_one() {
    let fs = wrong();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    dir.distrust(&SUSPECT).unwrap();
    receive_right(&dir, 40).unwrap();
    dir.trust_from(id(40, 1)).unwrap();
    assert_eq!(indexes(&dir), [40]);
    assert!(is_right(&open_snapshots(&fs)));
}

/// A snapshot that has rotted meanwhile ends no suspicion, and nothing is removed.
#[test]
fn rotten_snapshot_is_not_relied_on() {
    let fs = wrong();
    let dir = open_snapshots(&fs);
    dir.load_newest().unwrap();
    dir.distrust(&SUSPECT).unwrap();
    receive_right(&dir, 60).unwrap();
    let list = dir.list().unwrap();
    fs.flip_bit(&list[2].file, 4242);
    dir.trust_from(id(60, 1)).unwrap_err();
    assert_eq!(indexes(&dir), [20, 40, 60]);
    assert_eq!(dir.suspect().unwrap(), Some(SUSPECT));
}

/// Stopped at any storage call the directory is marked, or holds the right state and no other.
#[test]
fn stopped_at_any_call_a_state_is_marked_or_right() {
    let base = wrong();
    let marked = open_snapshots(&base);
    marked.distrust(&SUSPECT).unwrap();
    drop(marked);
    at_each_call(
        &base,
        |dir| done(receive_right(dir, 60).and_then(|_| dir.trust_from(id(60, 1)))),
        |fs| {
            let dir = open_snapshots(fs);
            let is_marked = dir.suspect().unwrap().is_some();
            assert!(is_marked || indexes(&dir) == [60]);
            assert!(is_marked || is_right(&dir));
        },
    );
}
