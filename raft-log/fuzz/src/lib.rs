//! What the fuzz targets run lies in `raft-log/tests/fuzzing`, where the tests of raft-log run it too.
#![forbid(unsafe_code)]

#[path = "../../tests/fuzzing/mod.rs"]
pub mod fuzzing;
#[path = "../../tests/support/mod.rs"]
mod support;
