//! A segmented write-ahead log with checksums that tells a torn write from corruption.
#![deny(unsafe_code)]

mod dir;
mod error;
mod format;
pub mod fs;
mod mmap;
mod options;
pub mod record;
pub mod twin;

pub use error::{Corruption, CreateError, IoFault, OpenError, ReadError, TwinError, WalError};
pub use format::Check;
pub use fs::{Fs, OsFs};
pub use options::{Binding, Options, OptionsError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use twin::{Report, TwinFile};
