//! kvd as its users have it: real processes on loopback, made and driven with `kvctl`.
//!
//! One program holds all these tests, so that two cores run two clusters at a time and not twelve. `KVD_TEST_LONG=1` gives
//! the long forms.

mod bad_starts;
mod catch_up;
mod certificates;
mod damage;
mod demo;
mod discard;
mod diverge;
mod kill;
mod member;
mod quorum;
mod restart_loop;
mod rolling;
mod scenarios;
mod shared;
mod slow_disk;
mod small_log;
mod stress;
