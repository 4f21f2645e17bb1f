//! State machines of users on real nodes in this process: over the network, real files, and nodes that die.

mod examples;
mod nodes;
mod stops;
mod support;
