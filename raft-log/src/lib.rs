//! A segmented write-ahead log with checksums that tells a torn write from corruption.
#![deny(unsafe_code)]

mod control;
mod dir;
mod error;
mod format;
pub mod fs;
mod hard_state;
mod mmap;
mod options;
mod pending;
mod reader;
pub mod record;
mod recovery;
mod segment;
mod terms;
pub mod twin;
mod view;
mod wal;

pub use error::{Corruption, CreateError, IoFault, OpenError, ReadError, TwinError, WalError};
pub use format::Check;
pub use fs::{Fs, OsFs};
pub use options::{Binding, Options, OptionsError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use reader::{Held, Reader, StoredEntry};
pub use segment::Preparer;
pub use twin::{Report, TwinFile};
pub use wal::{EntryRef, Opened, Tail, Wal};
