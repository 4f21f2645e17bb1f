//! Named simulations: one promise each, over a whole simulated cluster, with many seeds.
//!
//! Every world also has to keep the general promises (`kvd_sim::watch`, and those of its end): these tests say what must hold
//! beyond them. A failure prints the scenario, and with it the seed. `KVD_TEST_LONG=1` gives the long forms.

mod disks;
mod elections;
mod hashes;
mod kept;
mod members;
mod networks;
mod reads;
mod repair;
mod scenarios;
mod sessions;
mod shared;
mod snapshots;
