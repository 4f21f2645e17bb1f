//! Bounds that hold whatever the input: memory and time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Bytes that may be taken for each byte that is there to be read.
const TIMES_INPUT: u64 = 8;
/// Bytes that may be taken in any case: a few of the smallest segments, which the simulated disk holds twice.
const FIXED_BYTES: u64 = 160 << 10;
/// Of this thread on a processor, so that a busy machine does not count.
const TIME_MAX: Duration = Duration::from_secs(1);

/// Runs `run`, which has `input_bytes` to read, and checks what it took. All memory that is held at one time
/// counts, so no single allocation is larger either.
pub fn within_bounds<T>(input_bytes: u64, what: &str, run: impl FnOnce() -> T) -> T {
    let begin = thread_time();
    let mut result = None;
    let taken = allocation_counter::measure(|| result = Some(run()));
    let (bytes, limit) = (taken.bytes_max, TIMES_INPUT * input_bytes + FIXED_BYTES);
    assert!(
        bytes <= limit,
        "{what} held {bytes} bytes of memory for {input_bytes} bytes of input, limit {limit}"
    );
    let time = thread_time() - begin;
    assert!(time < TIME_MAX, "{what} took {time:?}");
    result.expect("it was run")
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("begins at 0"),
        u32::try_from(time.tv_nsec).expect("below a second"),
    )
}
