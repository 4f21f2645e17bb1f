//! How much of what is committed one turn applies.

use kvd::driver::TURN_APPLY_BYTES;

use crate::world::{World, Write, put};

const VALUE_BYTES: u64 = 64 << 10;

/// Much is committed at once: a turn applies its share and comes back to the loop, and the rest follows without any event.
#[test]
fn turn_applies_its_share_and_the_rest_follows() {
    let mut world = World::led(World::with(1, |options| {
        options.waiting_bytes = 64 * TURN_APPLY_BYTES;
    }));
    world.hold_disk(1);
    let value = "v".repeat(usize::try_from(VALUE_BYTES).unwrap());
    let share = TURN_APPLY_BYTES / VALUE_BYTES;
    let requests: Vec<u64> = (0..6 * share)
        .map(|_| world.write(1, Write::bare(put("k", &value))))
        .collect();
    world.turn(1);
    let applied = |world: &World| world.node(1).driver.store().applied_index();
    let before = applied(&world);
    let mut last = before;
    // The one event: it commits everything.
    world.sync(1);
    let mut turns = 1;
    loop {
        let now = applied(&world);
        assert!(
            now <= last + 2 * share,
            "{} entries in a turn, a share is {share}",
            now - last
        );
        last = now;
        if !world.node(1).driver.has_more() {
            break;
        }
        world.turn(1);
        turns += 1;
    }
    assert_eq!(last, before + 6 * share);
    assert!(turns > 2, "{turns} turns");
    for request in requests {
        world.written(request);
    }
}
