#![no_main]

use libfuzzer_sys::fuzz_target;
use raft_log_fuzz::fuzzing::MUTATE;

fuzz_target!(|input: &[u8]| (MUTATE.run)(input));
