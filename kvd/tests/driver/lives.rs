//! What the driver makes of the lives of its peers.

use raft_core::{LogIndex, NodeId};

use crate::world::{World, peer_up};

/// How far the leader n1 knows the log of n2 to reach.
fn matched_of_n2(world: &World) -> LogIndex {
    let status = world.node(1).driver.node().status();
    let n2 = status.progress.iter().find(|peer| peer.id == NodeId(2));
    n2.expect("n2 is a member").matched
}

/// The link to n2 stands again, with the process that says so.
fn link_to_n2(world: &mut World, boot_counter: u64) {
    world.handle(1, peer_up(2, boot_counter));
}

/// What a peer acknowledged in its last life is not counted until it says so again; a link that only broke changes nothing.
#[test]
fn acknowledgements_belong_to_one_life_of_the_peer() {
    let mut world = World::led_by_n1(3);
    assert_eq!(matched_of_n2(&world), LogIndex(1));
    link_to_n2(&mut world, 1);
    assert_eq!(matched_of_n2(&world), LogIndex(1), "the same life");
    link_to_n2(&mut world, 2);
    assert_eq!(matched_of_n2(&world), LogIndex(0), "the next life");
    world.turn(1);
    world.settle();
    assert_eq!(matched_of_n2(&world), LogIndex(1), "it said so again");
}
