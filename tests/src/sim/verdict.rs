//! What must hold at the end of a run.

use super::world::World;
use crate::watch::Violation;

/// Compares the nodes with each other, and what clients were told with what became of it.
pub(super) fn check(world: &World) -> Result<(), Violation> {
    check_stores(world)
}

/// All nodes hold the same, sessions included, and it is what a replay of all committed entries gives.
fn check_stores(world: &World) -> Result<(), Violation> {
    let expected = world.replayed();
    for place in 0..world.nodes() {
        let store = world.store(place).expect("all nodes run at the end");
        if store.hash() != expected.hash() {
            return Err(Violation {
                rule: "same state",
                text: format!("n{} differs from a replay", place + 1),
            });
        }
    }
    Ok(())
}
