//! What users may rely on that no signature says: public types can be handed to other threads, and
//! errors are errors.

use core::error::Error;
use core::fmt::Debug;

use raft_core::*;

fn is_shared_between_threads<T: Send + Sync + Debug + 'static>() {}

fn is_error<T: Error + Send + Sync + 'static>() {}

/// True as soon as it compiles.
macro_rules! assert_all {
    ($holds:ident: $($name:ty),* $(,)?) => {
        $($holds::<$name>();)*
    };
}

/// A driver may run the node on one thread and the disk on another.
#[test]
fn node_and_its_output_are_shared_between_threads() {
    assert_all!(is_shared_between_threads: Node<MemoryStorage>, MemoryStorage, Config, Ready);
    assert_all!(is_shared_between_threads: Persist, Fetch, FetchPurpose, ReadState, Proposal);
    assert_all!(is_shared_between_threads: SnapshotOutcome, Event, Reason, VoteRefusal);
    assert_all!(is_shared_between_threads: Status, PeerStatus, PeerState, Role);
}

#[test]
fn messages_and_what_a_log_holds_are_shared_between_threads() {
    assert_all!(is_shared_between_threads: Envelope, Message, VoteRequest, VoteResponse, Append);
    assert_all!(is_shared_between_threads: AppendResponse, Heartbeat, HeartbeatResponse);
    assert_all!(is_shared_between_threads: InstallSnapshot, SnapshotResponse, ReadIndex);
    assert_all!(is_shared_between_threads: ReadIndexResponse, RepairAsk, RepairAnswer, Repairing);
    assert_all!(is_shared_between_threads: Entry, EntryId, EntryKind, HardState, InitialState);
    assert_all!(is_shared_between_threads: SnapshotMeta, Configuration, ConfigurationChange);
    assert_all!(is_shared_between_threads: MemberChange, LogIndex, NodeId, PersistId, ReadId, Term);
}

/// Callers pass them on by `?`, box them, and print them: `Error` includes `Display`.
#[test]
fn errors_are_errors() {
    assert_all!(is_error: ChangeError, ConfigError, ConfigurationError, MalformedAppend);
    assert_all!(is_error: ProposeError, ReadError, Rejected, StorageError, TransferError);
    assert_all!(is_error: UnknownEntryKind);
}
