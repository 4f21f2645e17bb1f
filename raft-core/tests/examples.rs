//! The examples run, and what they assert holds.

#![allow(
    clippy::duplicate_mod,
    reason = "each example includes the driver, as it does when it is run alone"
)]

#[path = "../examples/changing_members.rs"]
mod changing_members;
#[path = "../examples/replicated_counter.rs"]
mod replicated_counter;
#[path = "../examples/three_nodes.rs"]
mod three_nodes;

#[test]
fn three_nodes_runs() {
    three_nodes::main();
}

#[test]
fn replicated_counter_runs() {
    replicated_counter::main();
}

#[test]
fn changing_members_runs() {
    changing_members::main();
}
