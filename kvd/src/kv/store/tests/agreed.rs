//! What a majority found their state to be, as an entry of the log.

use super::super::super::command::HashAt;
use super::*;

fn agreed(role: Role, session: SessionRef) -> Write {
    let agreed = HashAt {
        index: 1,
        algorithm: 1,
        hash: 5,
    };
    let sequence = u64::from(session != SessionRef::None);
    let mut write = Write::new(session, sequence, Command::StateHash(agreed));
    write.principal = Principal::new(role, "n1");
    write
}

#[test]
fn agreed_hash_is_remembered_and_changes_nothing_that_users_see() {
    let mut cluster = Cluster::new();
    cluster.run(put("k", "v"));
    let (session, result) = done(cluster.send(&agreed(Role::Internal, SessionRef::None)));
    assert_eq!((session, result.revision, result.results.len()), (0, 1, 0));
    for store in &cluster.replicas {
        assert_eq!(store.agreed().map(|agreed| agreed.hash), Some(5));
        assert_eq!(store.revision(), 1);
    }
}

/// A client that could say what the state is could take replicas out of service.
#[test]
fn only_the_cluster_itself_says_what_the_state_is() {
    let mut cluster = Cluster::new();
    for role in [Role::Client, Role::Http, Role::Admin] {
        let refusal = refused(cluster.send(&agreed(role, SessionRef::None)));
        assert_eq!(refusal, ApplyRefusal::NotAuthorised, "{role:?}");
    }
    let in_session = agreed(Role::Internal, SessionRef::Named(7));
    assert_eq!(refused(cluster.send(&in_session)), ApplyRefusal::Malformed);
    assert_eq!(cluster.replicas[0].agreed(), None);
}
