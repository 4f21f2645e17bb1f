//! What a driver asks of a node, and when it is refused.

mod harness;

use harness::{Cluster, command, entry_id, id, index};
use raft_core::{
    Config, ConfigError, Configuration, ConfigurationError, MemoryStorage, Node, NodeId, Proposal,
    ProposeError, ReadError, Ready, Term, TransferError,
};

/// A transfer without a target goes to the voter in reach that has the most of the log, never to a
/// learner or to one that has not been heard lately.
#[test]
fn successor_is_the_best_voter_in_reach() {
    let voters = Configuration::new((1..=4).map(NodeId));
    let configuration = Configuration {
        learners: [id(5)].into(),
        ..voters
    };
    let mut cluster = Cluster::with_configuration(configuration);
    cluster.start_all();
    cluster.elect(id(1));
    cluster.run(25);
    cluster.propose(id(1), &["a"]).unwrap();
    cluster.settle();
    cluster.crash(id(4), 0);
    cluster.run(25);
    cluster.isolated.insert(id(2));
    cluster.propose(id(1), &["b"]).unwrap();
    cluster.settle();
    assert_eq!(cluster.node(id(1)).transfer_leader(None), Ok(id(3)));
    let mut alone = Cluster::new(3);
    alone.start_all();
    alone.elect(id(1));
    alone.run(25);
    alone.isolated.insert(id(1));
    (0..19).for_each(|_| alone.tick(id(1)));
    let refused = alone.node(id(1)).transfer_leader(Some(id(1)));
    assert!(refused.is_err(), "{refused:?}");
}

/// What a driver asks for and cannot have.
#[test]
fn impossible_requests_are_refused() {
    let mut cluster = Cluster::new(3);
    cluster.configure(|config| config.max_pending_reads = 2);
    cluster.start_all();
    let term = Term(0);
    let refused = cluster.propose(id(1), &["a"]);
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None, term }));
    assert_eq!(cluster.read(id(1), 1), Err(ReadError::NoLeader { term }));
    cluster.elect(id(1));
    assert_eq!(cluster.propose(id(1), &[]), Err(ProposeError::Malformed));
    let odd = Proposal {
        payload: bytes::Bytes::new(),
        checksum: 1,
    };
    assert_eq!(
        cluster.node(id(1)).propose(vec![odd]),
        Err(ProposeError::Malformed)
    );
    let to_self = cluster.node(id(1)).transfer_leader(Some(id(1)));
    assert_eq!(to_self, Err(TransferError::NotVoter { to: id(1) }));
    let elsewhere = cluster.node(id(2)).transfer_leader(None);
    assert_eq!(
        elsewhere,
        Err(TransferError::NotLeader {
            leader: Some(id(1))
        })
    );
    for reader in [id(1), id(2)] {
        cluster.ask_to_read(reader, 1).unwrap();
        cluster.ask_to_read(reader, 2).unwrap();
        let refused = cluster.ask_to_read(reader, 3);
        assert_eq!(
            refused,
            Err(ReadError::Overloaded {
                pending: 2,
                limit: 2
            })
        );
    }
}

/// A start on options or a disk that contradict themselves is refused by kind. Case 42: lease reads
/// need check-quorum.
#[test]
fn contradictory_starts_are_refused() {
    let start = |change: fn(&mut Config), storage: MemoryStorage| {
        let mut config = Config::new(id(1), 1);
        change(&mut config);
        Node::new(config, storage).map(drop)
    };
    let fresh = || MemoryStorage::new([id(1)]);
    assert_eq!(start(|_| {}, fresh()), Ok(()));
    assert_eq!(
        start(|config| config.id = id(0), fresh()),
        Err(ConfigError::NodeIdZero)
    );
    let refused = start(|config| config.election_timeout_ticks = 1, fresh());
    assert_eq!(
        refused,
        Err(ConfigError::Timeouts {
            election: 1,
            heartbeat: 1
        })
    );
    let refused = start(|config| config.max_append_bytes = 0, fresh());
    assert_eq!(
        refused,
        Err(ConfigError::ZeroLimit {
            option: "max_append_bytes"
        })
    );
    let lease_reads = |config: &mut Config| config.lease_reads = true;
    assert_eq!(start(lease_reads, fresh()), Ok(()));
    let without_check_quorum = |config: &mut Config| {
        config.lease_reads = true;
        config.check_quorum = false;
    };
    assert_eq!(
        start(without_check_quorum, fresh()),
        Err(ConfigError::LeaseWithoutCheckQuorum)
    );
    let mut ahead = fresh();
    ahead.append(vec![command(1, 2, "a")]);
    let error = ConfigError::LogAheadOfTerm {
        last: entry_id(1, 2),
        term: Term(0),
    };
    assert_eq!(start(|_| {}, ahead), Err(error));
    let refused = start(
        |_| {},
        MemoryStorage::with_configuration(Configuration::default()),
    );
    let error = ConfigurationError::NoVoter;
    assert_eq!(
        refused,
        Err(ConfigError::Configuration {
            index: index(0),
            error
        })
    );
}

/// What an earlier batch still holds does not get into the next one.
#[test]
fn used_batch_is_filled_as_a_new_one() {
    let start = || {
        let mut node = Node::new(Config::new(id(1), 7), MemoryStorage::new([id(1)])).unwrap();
        node.campaign();
        node
    };
    let (mut with_new, mut with_used, mut used) = (start(), start(), Ready::default());
    let mut batches = 0;
    while with_new.has_ready() {
        let ready = with_new.ready();
        with_used.ready_into(&mut used);
        assert_eq!(used, ready);
        for node in [&mut with_new, &mut with_used] {
            if let Some(persist) = ready.persist.clone() {
                let id = persist.id;
                node.storage_mut().persist(persist);
                node.on_persisted(id);
            }
            if let Some(last) = ready.committed.last() {
                node.on_applied(last.index);
            }
        }
        batches += 1;
    }
    assert!(!with_used.has_ready());
    assert!(batches > 2, "{batches} batches say little");
}
