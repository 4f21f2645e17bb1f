use super::*;
use crate::kv::auth::{Principal, Role};
use crate::kv::command::{Command, command_crc};
use crate::kv::envelope::{Envelope, SessionRef};
use crate::kv::limits::StoreLimits;
use crate::kv::store::{Applied, ApplyRefusal, Store};

fn member(id: u64) -> MemberAddress {
    MemberAddress {
        name: format!("n{id}"),
        id,
        address: format!("10.0.0.{id}:7400"),
    }
}

fn founding() -> Vec<MemberAddress> {
    (1..=3).map(member).collect()
}

fn join(id: u64) -> MemberEdit {
    MemberEdit::Join {
        member: member(id),
        replaces: None,
    }
}

fn state(id: u64, state: MemberState) -> MemberEdit {
    MemberEdit::State { id, state }
}

fn update(edits: Vec<MemberEdit>) -> MemberUpdate {
    MemberUpdate {
        founding: founding(),
        edits,
    }
}

fn payload(role: Role, update: MemberUpdate) -> bytes::Bytes {
    let command = Command::Members(update).encode();
    Envelope {
        principal: Principal::new(role, "n1").borrowed(),
        session: SessionRef::None,
        sequence: 0,
        done_below: 0,
        log_time_ms: 0,
        command_crc: command_crc(&command),
        command: &command,
    }
    .encode()
}

fn apply(store: &mut Store, edits: Vec<MemberEdit>) -> Applied {
    let index = store.applied_index() + 1;
    store.apply(index, &payload(Role::Internal, update(edits)))
}

fn applied(store: &mut Store, edits: Vec<MemberEdit>) {
    let applied = apply(store, edits);
    assert!(
        matches!(applied, Applied::Done { session: 0, .. }),
        "{applied:?}"
    );
}

fn refused(store: &mut Store, edits: Vec<MemberEdit>) -> MemberRefusal {
    let before = store.members().addresses();
    match apply(store, edits) {
        Applied::Refused(ApplyRefusal::Members(refusal)) => {
            assert_eq!(store.members().addresses(), before);
            refusal
        }
        other @ (Applied::Done { .. } | Applied::Refused(_)) => {
            panic!("not refused, but {other:?}")
        }
    }
}

#[test]
fn founders_are_taken_over_once() {
    let mut store = Store::new(StoreLimits::default());
    assert!(store.members().is_empty());
    applied(&mut store, vec![join(4)]);
    assert_eq!(store.members().addresses().len(), 4);
    applied(&mut store, vec![state(1, MemberState::Removed)]);
    assert_eq!(store.members().changed_at(), 2);
    let names: Vec<&str> = store.members().present().map(|(_, m)| &*m.name).collect();
    assert_eq!(
        names,
        ["n2", "n3", "n4"],
        "n1 does not come back with the founders"
    );
}

/// Case 30: the id of a removed member never comes back, and no step leads back from anywhere.
#[test]
fn removed_members_never_come_back() {
    let mut store = Store::new(StoreLimits::default());
    applied(&mut store, vec![join(4), state(4, MemberState::Removed)]);
    for edits in [vec![join(4)], vec![state(4, MemberState::Voter), join(4)]] {
        let refusal = refused(&mut store, edits);
        assert!(
            matches!(refusal, MemberRefusal::WasRemoved { id: 4, .. }),
            "{refusal}"
        );
    }
    applied(
        &mut store,
        vec![state(4, MemberState::Voter), state(1, MemberState::Learner)],
    );
    assert!(store.members().is_removed(4));
    assert_eq!(store.members().get(1).unwrap().state, MemberState::Voter);
    // Its name is free again, for a node with another id.
    let again = MemberEdit::Join {
        member: MemberAddress { id: 5, ..member(4) },
        replaces: None,
    };
    applied(&mut store, vec![again]);
    assert_eq!(store.members().named("n4").unwrap().0, 5);
}

#[test]
fn ids_names_and_addresses_are_used_once() {
    let mut store = Store::new(StoreLimits::default());
    applied(&mut store, vec![]);
    let new = |member: MemberAddress| MemberEdit::Join {
        member,
        replaces: None,
    };
    let same_name = MemberAddress {
        name: "n2".into(),
        ..member(4)
    };
    let same_address = MemberAddress {
        address: member(2).address,
        ..member(4)
    };
    let moved = MemberEdit::Address {
        id: 1,
        address: member(2).address,
    };
    let stranger = MemberEdit::Address {
        id: 9,
        address: "a:1".into(),
    };
    let replaces = MemberEdit::Join {
        member: member(4),
        replaces: Some(9),
    };
    let nameless = MemberAddress {
        name: String::new(),
        ..member(4)
    };
    let is = |edit: MemberEdit, store: &mut Store| refused(store, vec![join(7), edit]);
    assert!(matches!(
        is(join(2), &mut store),
        MemberRefusal::IsMember { id: 2, .. }
    ));
    assert!(matches!(
        is(new(same_name), &mut store),
        MemberRefusal::NameInUse { .. }
    ));
    assert!(matches!(
        is(new(same_address), &mut store),
        MemberRefusal::AddressInUse { .. }
    ));
    assert!(matches!(
        is(moved, &mut store),
        MemberRefusal::AddressInUse { .. }
    ));
    assert_eq!(is(stranger, &mut store), MemberRefusal::Unknown { id: 9 });
    assert_eq!(is(replaces, &mut store), MemberRefusal::Unknown { id: 9 });
    assert_eq!(is(new(nameless), &mut store), MemberRefusal::Malformed);
    assert_eq!(
        is(new(MemberAddress { id: 0, ..member(4) }), &mut store),
        MemberRefusal::Malformed
    );
    // All steps or none: n7 was in each of them.
    assert_eq!(store.members().get(7), None);
    let to = MemberEdit::Address {
        id: 1,
        address: "a:1".into(),
    };
    applied(&mut store, vec![to]);
    assert_eq!(store.members().get(1).unwrap().address, "a:1");
}

/// Whoever may write to the log as an administrator still may not edit the table: it must fit the configuration.
#[test]
fn only_the_cluster_itself_edits_the_table() {
    for role in [Role::Client, Role::Http, Role::Admin] {
        let mut store = Store::new(StoreLimits::default());
        let applied = store.apply(1, &payload(role, update(vec![join(4)])));
        assert_eq!(
            applied,
            Applied::Refused(ApplyRefusal::NotAuthorised),
            "{role:?}"
        );
        assert!(store.members().is_empty());
    }
}

#[test]
fn an_update_has_no_place_in_a_session() {
    let command = Command::Members(update(vec![])).encode();
    let payload = Envelope {
        principal: Principal::new(Role::Internal, "n1").borrowed(),
        session: SessionRef::Named(7),
        sequence: 1,
        done_below: 1,
        log_time_ms: 0,
        command_crc: command_crc(&command),
        command: &command,
    }
    .encode();
    let mut store = Store::new(StoreLimits::default());
    assert_eq!(
        store.apply(1, &payload),
        Applied::Refused(ApplyRefusal::Malformed)
    );
}

/// Two replicas whose tables differ for any reason differ in the next hash, whatever entry that is of.
#[test]
fn the_table_is_part_of_the_state_hash() {
    let mut ours = Store::new(StoreLimits::default());
    applied(&mut ours, vec![join(4)]);
    let mut theirs = ours.clone();
    let moved = MemberUpdate {
        founding: vec![],
        edits: vec![MemberEdit::Address {
            id: 2,
            address: "elsewhere:1".into(),
        }],
    };
    theirs.members.apply(1, &moved).unwrap();
    assert_eq!(ours.hash(), theirs.hash());
    for store in [&mut ours, &mut theirs] {
        applied(store, vec![]);
    }
    assert_ne!(ours.hash(), theirs.hash());
}

/// The digest is kept up step by step; it must be that of the records that are there.
#[test]
fn the_digest_depends_on_nothing_but_the_records() {
    let mut one = MemberTable::default();
    let mut other = MemberTable::default();
    for edits in [
        vec![join(4)],
        vec![state(4, MemberState::Voter)],
        vec![join(5)],
    ] {
        one.apply(1, &update(edits)).unwrap();
    }
    let edits = vec![join(5), join(4), state(4, MemberState::Voter)];
    other.apply(9, &update(edits)).unwrap();
    assert_eq!(one.digest(), other.digest());
    assert_eq!(one.digest(), one.recount());
    other
        .apply(10, &update(vec![state(4, MemberState::Removed)]))
        .unwrap();
    assert_ne!(one.digest(), other.digest());
}
