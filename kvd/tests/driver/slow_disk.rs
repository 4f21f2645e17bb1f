//! Disks that hang under a leader.

use crate::requests::{Write, put};
use crate::world::{ET, World};

/// Case 54: a leader whose disk hangs hands over to a node with a better one, without a break for clients: what was
/// written before is written, and writing goes on at the new leader.
#[test]
fn leader_with_a_hanging_disk_hands_over() {
    let mut world = World::led_by_n1(3);
    world.run(2);
    world.hold_disk(1);
    let before = world.write(1, Write::bare(put("k", "before")));
    world.run(ET);
    world.written(before);
    assert!(world.is_leader(1), "an election timeout is not over");
    world.run(2);
    assert!(!world.is_leader(1), "the disk hangs for too long");
    let leader = [2, 3].into_iter().find(|id| world.is_leader(*id));
    let leader = leader.expect("another node took over");
    let after = world.write(leader, Write::bare(put("k", "after")));
    world.run(2);
    world.written(after);
    world.free_disk(1);
    world.run(2);
    assert_eq!(world.value(1, "k").as_deref(), Some(&b"after"[..]));
    assert!(world.is_leader(leader), "nobody disturbs the new leader");
}

/// A disk that is slow, but finishes each sync within an election timeout, keeps the leadership: the age is that of the
/// oldest unfinished part, not the time since the disk was last idle.
#[test]
fn leader_with_a_busy_disk_stays() {
    let mut world = World::led_by_n1(3);
    world.run(2);
    world.hold_disk(1);
    for round in 0..4 * ET {
        let write = world.write(1, Write::bare(put("k", "v")));
        world.run(1);
        world.written(write);
        if round >= ET / 2 {
            world.sync_some(1, 1);
        }
    }
    assert!(
        world.is_leader(1),
        "each sync took half an election timeout"
    );
}
