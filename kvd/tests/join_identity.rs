//! The identity of a data directory on a disk that loses power at every call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::Path;

use kvd::exit::{ExitCode, Failure};
use kvd::identity::{self, Identity, InitialMember, NewIdentity, Seen};
use raft_log::Fs as _;
use raft_log::fs::SimFs;
use raft_net::ClusterId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const CLUSTER: ClusterId = ClusterId(0xc0ff_ee42);
const NODE: u64 = 7;
const PEER: u64 = 8;

fn member(id: u64) -> InitialMember {
    InitialMember {
        name: format!("n{id}"),
        id,
        address: format!("10.0.0.{id}:7400"),
    }
}

fn new_identity() -> NewIdentity {
    NewIdentity {
        cluster: CLUSTER,
        cluster_name: "prod".to_owned(),
        node: NODE,
        name: "n7".to_owned(),
        members: vec![member(NODE), member(PEER)],
    }
}

fn data() -> &'static Path {
    Path::new("/data")
}

/// A disk with a complete identity on it.
fn joined(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    fs.create_dir_all(data()).unwrap();
    identity::create(&fs, data(), &new_identity()).unwrap();
    fs
}

fn open(fs: &SimFs) -> Identity<SimFs> {
    Identity::open(fs, data(), CLUSTER, NODE).unwrap().0
}

#[test]
fn an_interrupted_creation_leaves_no_identity_or_the_complete_one() {
    for call in 0.. {
        let fs = SimFs::new(call);
        fs.create_dir_all(data()).unwrap();
        let first = fs.calls();
        fs.power_cut_at_call(first + call + 1);
        let created = identity::create(&fs, data(), &new_identity());
        fs.restart();
        fs.power_cut(&mut StdRng::seed_from_u64(call));
        if identity::exists(&fs, data()).unwrap() {
            assert_eq!(open(&fs).members(), new_identity().members);
        } else {
            assert!(created.is_err(), "acknowledged and lost at call {call}");
            identity::create(&fs, data(), &new_identity()).unwrap();
            assert_eq!(open(&fs).node(), NODE);
        }
        if created.is_ok() {
            return;
        }
    }
}

#[test]
fn no_boot_pair_is_ever_used_twice_whatever_call_loses_power() {
    for call in 0..64 {
        let fs = joined(call);
        let mut used = vec![open(&fs).begin_incarnation(&fs).unwrap()];
        fs.power_cut_at_call(fs.calls() + call + 1);
        if let Ok((mut identity, _)) = Identity::open(&fs, data(), CLUSTER, NODE)
            && let Ok(pair) = identity.begin_incarnation(&fs)
        {
            used.push(pair);
        }
        fs.restart();
        fs.power_cut(&mut StdRng::seed_from_u64(call));
        let next = open(&fs).begin_incarnation(&fs).unwrap();
        for pair in used {
            assert!(
                pair.0 < next.0,
                "{pair:?} then {next:?} after a cut at call {call}"
            );
        }
    }
}

#[test]
fn a_peer_that_was_admitted_is_remembered_after_a_power_cut() {
    for call in 0..64 {
        let fs = joined(call);
        let mut identity = open(&fs);
        assert_eq!(identity.record_seen(PEER, 1, 100).unwrap(), Seen::Admitted);
        fs.power_cut_at_call(fs.calls() + call + 1);
        let admitted = identity.record_seen(PEER, 2, 200);
        fs.restart();
        fs.power_cut(&mut StdRng::seed_from_u64(call));
        let mut after = open(&fs);
        if matches!(admitted, Ok(Seen::Admitted)) {
            let stale = Seen::Stale {
                counter: 2,
                boot_id: 200,
            };
            assert_eq!(after.record_seen(PEER, 1, 100).unwrap(), stale);
        }
        // Whether or not the second was recorded, it is not older than anything that was.
        assert_eq!(after.record_seen(PEER, 2, 200).unwrap(), Seen::Admitted);
    }
}

#[test]
fn a_directory_in_use_is_not_opened_a_second_time_and_nothing_in_it_changes() {
    let fs = joined(1);
    let mut identity = open(&fs);
    identity.begin_incarnation(&fs).unwrap();
    let before = fs.bytes(&data().join("identity"));
    let failure = Failure::from(Identity::open(&fs, data(), CLUSTER, NODE).unwrap_err());
    assert_eq!(failure.code, ExitCode::DirectoryInUse);
    assert_eq!(fs.bytes(&data().join("identity")), before);
    drop(identity);
    open(&fs);
}

#[test]
fn an_older_incarnation_and_a_twin_of_the_same_count_are_stale() {
    let fs = joined(1);
    let mut identity = open(&fs);
    assert_eq!(identity.record_seen(PEER, 5, 50).unwrap(), Seen::Admitted);
    assert_eq!(identity.record_seen(PEER, 5, 50).unwrap(), Seen::Admitted);
    let stale = Seen::Stale {
        counter: 5,
        boot_id: 50,
    };
    assert_eq!(identity.record_seen(PEER, 4, 40).unwrap(), stale);
    assert_eq!(identity.record_seen(PEER, 5, 51).unwrap(), stale);
    assert_eq!(identity.record_seen(PEER, 6, 60).unwrap(), Seen::Admitted);
    assert_eq!(identity.record_seen(99, 1, 1).unwrap(), Seen::Unknown);
    assert_eq!(identity.record_seen(NODE, 1, 1).unwrap(), Seen::Unknown);
}

#[test]
fn a_reconnect_of_a_known_incarnation_costs_no_sync() {
    let fs = joined(1);
    let mut identity = open(&fs);
    identity.record_seen(PEER, 5, 50).unwrap();
    let syncs = fs.syncs();
    identity.record_seen(PEER, 5, 50).unwrap();
    identity.record_seen(PEER, 4, 40).unwrap();
    assert_eq!(fs.syncs(), syncs);
}

/// Case 21: one damaged copy is reported and mended, two are refused; nothing is guessed.
#[test]
fn one_damaged_copy_is_mended_and_two_are_refused_as_damage() {
    let file = data().join("identity");
    let fs = joined(1);
    let pair = open(&fs).begin_incarnation(&fs).unwrap();
    let half = fs.bytes(&file).len() as u64 / 2;
    fs.flip_bit(&file, 8 * 40);
    let (identity, report) = Identity::open(&fs, data(), CLUSTER, NODE).unwrap();
    assert!(report.is_some());
    assert_eq!((identity.boot_counter(), identity.boot_id()), pair);
    drop(identity);
    assert!(
        Identity::open(&fs, data(), CLUSTER, NODE)
            .unwrap()
            .1
            .is_none()
    );
    fs.flip_bit(&file, 8 * 40);
    fs.flip_bit(&file, 8 * (half + 40));
    let failure = Failure::from(Identity::open(&fs, data(), CLUSTER, NODE).unwrap_err());
    assert_eq!(failure.code, ExitCode::DataDamaged);
    assert!(failure.file.is_some());
}

/// Case 51: after a failed sync nothing more is acknowledged.
#[test]
fn after_a_failed_sync_no_peer_is_admitted_any_more() {
    let fs = joined(1);
    let mut identity = open(&fs);
    fs.fail_sync(fs.syncs() + 1, 5);
    assert!(identity.record_seen(PEER, 1, 1).is_err());
    assert!(identity.record_seen(PEER, 1, 1).is_err());
    assert!(identity.begin_incarnation(&fs).is_err());
}

/// The next life must know whom to dial and whom to let in before it has applied the entries that say so.
#[test]
fn members_that_came_and_went_are_remembered_whatever_call_loses_power() {
    for call in 0..64 {
        let fs = joined(call);
        let mut identity = open(&fs);
        assert_eq!(identity.record_seen(9, 1, 100).unwrap(), Seen::Unknown);
        fs.power_cut_at_call(fs.calls() + call + 1);
        let now = vec![member(NODE), member(9)];
        let recorded = identity.record_members(now.clone(), BTreeSet::from([PEER]));
        drop(identity);
        fs.restart();
        fs.power_cut(&mut StdRng::seed_from_u64(call));
        let mut identity = open(&fs);
        assert_eq!(identity.members(), new_identity().members);
        let seen = [PEER, 9].map(|id| identity.record_seen(id, 1, 100).unwrap());
        if identity.known_members() == now {
            assert_eq!(seen, [Seen::Removed, Seen::Admitted]);
        } else {
            assert!(recorded.is_err(), "acknowledged and lost at call {call}");
            assert_eq!(seen, [Seen::Admitted, Seen::Unknown]);
        }
        if recorded.is_ok() {
            return;
        }
    }
    panic!("never recorded");
}
