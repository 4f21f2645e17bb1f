//! The examples run, and what they assert holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "the examples' own main functions")]

#[path = "../examples/plain_log.rs"]
mod plain_log;

#[test]
fn plain_log_runs() {
    let temporary = tempfile::tempdir().unwrap();
    plain_log::run(&temporary.path().join("log")).unwrap();
}
