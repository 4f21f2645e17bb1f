#![no_main]

use libfuzzer_sys::fuzz_target;
use raft_log_fuzz::fuzzing::OPEN;

fuzz_target!(|input: &[u8]| (OPEN.run)(input));
