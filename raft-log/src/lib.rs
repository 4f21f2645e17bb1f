//! A segmented write-ahead log that tells a torn write from corruption.
//!
//! A log of numbered entries, each with a term, for a consensus protocol such as Raft; term and vote; and
//! nothing else. It knows no network and no state machine, and starts a thread only for a [`PreparerThread`].
//!
//! # A segment
//!
//! ```text
//! segment-0000000000000002                                     fixed size, allocated and written through before use
//! |0           |4096                                                                                        |end
//! | header     | record | record | record | record | ....... zeros, or old ....... | index, when full | footer |
//! | nonce,     |                          ^        ^                                                   | copy   |
//! | first index|                          |        end, published to readers                           | of the |
//! | generation |                          |                                                            | header |
//!              |                          watermark: covered by a completed sync, says `control`
//!              |
//!              | synced_to | bind | generation |  length kind term index checksums | payload ...  |
//!              | local prefix: this place, here  | the entry record: travels and is stored as it is |
//! ```
//!
//! Records are written with `pwrite` and `fdatasync` into blocks that were written before, so that a sync
//! writes no metadata, and read through a read-only mapping. Next to the segments lie `control` (watermark,
//! generation, cut and floor in two slots), `hard-state` (term and vote, stored twice), `lock`, and
//! `repair-N` if damaged entries were put back.
//!
//! # What is durable
//!
//! - Entries: when [`Wal::sync`] returns. [`Wal::append`] alone promises nothing.
//! - Term and vote: when [`Wal::set_hard_state`] returns, in two copies.
//! - A truncation, purge, reset or repair: when the call returns.
//! - What [`Wal::open`] reports: all of it. It writes again what might be in memory only.
//!
//! # What is never dropped silently
//!
//! Only bytes that no completed sync covered may be dropped, as a torn tail, and [`Opened::tail`] says so.
//! Anything else that does not check is listed in [`Opened::faulty`], entry by entry, with file, offset and
//! both values; the rest of the log stays readable, and [`Wal::repair`] puts an entry back that a peer
//! has. Segments that have their index are not read by an open: what rots there is told by the read that
//! meets it, or by [`Reader::scrub`], which walks through the log at the caller's pace.
//! One combination cannot be told: a power cut within 50 ms of the last append (before
//! [`Wal::flush_control`]) *together with* rot of exactly the last group written before it.
//!
//! After the first failed write or sync every call answers [`WalError::Poisoned`]. A full disk is
//! [`WalError::NoSpace`], definite and harmless, and so is a directory that has reached
//! [`Options::max_bytes`].
//!
//! # Example
//!
//! ```
//! use raft_log::{record::payload_checksum, Binding, EntryRef, Options, OsFs, Wal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let dir = temporary.path().join("log");
//! let binding = Binding { cluster: 0x00c0_ffee, node: 1 };
//! let options = Options { segment_bytes: 1 << 20, max_bytes: 16 << 20, ..Options::default() };
//! Wal::create(&OsFs, &dir, binding, &options)?;
//!
//! let (mut wal, _) = Wal::open(&OsFs, &dir, binding, options.clone())?;
//! wal.set_hard_state(1, Some(1))?;
//! let payload = b"set x 1";
//! let payload_crc = payload_checksum(binding.cluster, payload);
//! wal.append(&[EntryRef { index: 1, term: 1, kind: 2, payload, payload_crc }])?;
//! wal.sync()?; // from here on entry 1 may be acknowledged
//! wal.close()?;
//!
//! let (wal, opened) = Wal::open(&OsFs, &dir, binding, options)?;
//! assert_eq!((opened.term, opened.vote, opened.last_index), (1, Some(1), 1));
//! let entries = wal.reader().entries(1..2, u64::MAX)?;
//! assert_eq!(&entries[0].payload[..], payload);
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! [`Wal`] belongs to one thread, which may block in a sync. [`Reader`] is cloned to any other. A
//! [`Preparer`] on a third thread, or the ready-made [`PreparerThread`], keeps a spare segment ready, so that
//! no append waits for allocation, and gives full segments their index; [`Wal::prepared_bytes`] says how
//! much can be started without a new one.
//!
//! A [`Group`] shares the log between many threads: each appends and returns when that is durable, and those
//! that come at the same time share one sync.
//!
//! # Unsafe code
//!
//! One file, `mmap.rs`: copying bytes out of a mapping, and the handler for the case that this fails. If the
//! medium fails under a mapped page, the kernel sends SIGBUS; a program that calls
//! [`exit_on_unreadable_pages`] then ends with exit code 74 and the name of the file.
//! Recovery reads with `pread`, where the same failure is an error.
#![deny(unsafe_code)]

mod control;
mod crc;
mod dir;
mod error;
mod format;
pub mod fs;
mod group;
mod hard_state;
mod mmap;
mod options;
mod pending;
mod pieces;
mod preparer_thread;
pub mod print;
mod reader;
pub mod record;
mod recovery;
mod repairs;
mod scrub;
mod seal;
mod segment;
mod terms;
pub mod twin;
mod view;
mod wal;

pub use error::{Corruption, CreateError, IoFault, OpenError, ReadError, TwinError, WalError};
pub use format::Check;
pub use fs::{Fs, OsFs};
pub use group::{Group, GroupError, GroupOptions};
pub use mmap::exit_on_unreadable_pages;
pub use options::{Binding, Options, OptionsError, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use preparer_thread::PreparerThread;
pub use reader::{Held, Reader, StoredEntry};
pub use scrub::{Scrub, Scrubbed};
pub use segment::Preparer;
pub use twin::{Report, TwinFile};
pub use wal::{Depth, EntryRef, FaultyEntry, Inspection, Opened, SegmentInfo, Tail, Wal, inspect};
