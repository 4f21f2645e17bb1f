#![no_main]

use libfuzzer_sys::fuzz_target;
use raft_log_fuzz::fuzzing::RECORD;

fuzz_target!(|input: &[u8]| (RECORD.run)(input));
