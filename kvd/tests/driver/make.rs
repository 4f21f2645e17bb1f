//! Drivers as the tests begin with them.

use kvd::driver::{Driver, DriverOptions, Event, HASH_EVERY, TURN_APPLY_BYTES};
use kvd::kv::limits::{CommandLimits, StoreLimits};
use kvd::kv::store::Store;
use kvd::log_cache::LogCache;
use kvd::wire::client::MemberAddress;
use kvd::wire::peer::PEER_VERSION;
use raft_core::{Configuration, EntryId, InitialState, Node, NodeId};

use crate::disk::Disk;
use crate::world::{CLUSTER, ET};

/// A link to a peer of this program stands.
pub fn peer_up(peer: u64, boot_counter: u64) -> Event {
    Event::PeerUp {
        peer: NodeId(peer),
        boot_counter,
        protocol: u16::from(PEER_VERSION),
    }
}

pub fn options(id: u64, count: u64) -> DriverOptions {
    let members = (1..=count).map(|id| MemberAddress {
        name: format!("n{id}"),
        id,
        address: format!("n{id}:1"),
    });
    DriverOptions {
        boot_counter: 1,
        cluster: CLUSTER,
        cluster_name: "test".into(),
        name: format!("n{id}"),
        members: members.collect(),
        election_timeout_ticks: ET,
        waiting_bytes: 1 << 20,
        waiting_count: 1000,
        limits: CommandLimits::default(),
        snapshot_every_bytes: u64::MAX,
        hash_every: HASH_EVERY,
    }
}

/// A driver of a cluster that was founded with the first `count` nodes, whether it is one of them or not.
pub fn driver(id: u64, count: u64, options: DriverOptions, disk: &Disk) -> Driver {
    let mut config = raft_core::Config::new(NodeId(id), 0x5EED + id);
    config.election_timeout_ticks = u32::try_from(ET).unwrap();
    config.max_apply_bytes = TURN_APPLY_BYTES;
    let initial = InitialState {
        configuration: Configuration::new((1..=count).map(NodeId)),
        ..InitialState::default()
    };
    let log = LogCache::new(initial, EntryId::default(), None, 1 << 20);
    let node = Node::new(config, log).unwrap();
    Driver::new(
        options,
        node,
        Store::new(StoreLimits::default()),
        &disk.report(),
    )
}
