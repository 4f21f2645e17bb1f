//! Which incarnation of a peer may talk to this node.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};

use raft_log::fs::OsFs;
use raft_net::{Admission, Hello, Refusal};
use tokio::sync::{Mutex, mpsc};

use super::log_thread::FromLog;
use crate::exit::Failure;
use crate::identity::{Identity, InitialMember, Seen};
use crate::log_worker::LogFailure;

/// Admits members whose incarnation is not older than the highest one seen, and remembers that on disk before it answers.
///
/// Without the memory a directory restored from a backup would be let in after a restart of its peers, vote a second time in
/// a term it has forgotten, and could help to elect a leader that lacks committed entries.
pub(super) struct Durable {
    identity: Arc<Mutex<Identity<OsFs>>>,
    /// Those that were members once: known at once, while the file waits for a disk.
    removed: std::sync::Mutex<BTreeSet<u64>>,
}

impl Durable {
    pub(super) fn new(identity: Identity<OsFs>) -> Durable {
        Durable {
            removed: std::sync::Mutex::new(identity.removed_members()),
            identity: Arc::new(Mutex::new(identity)),
        }
    }
}

impl Durable {
    fn removed(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // A panic elsewhere leaves it whole: each change is a single step.
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers who the members are from now on, on a thread of its own. A failure ends the process: nobody knows what the
    /// disk holds.
    pub(super) fn record_members(
        &self,
        members: Vec<InitialMember>,
        removed: BTreeSet<u64>,
        failures: mpsc::UnboundedSender<FromLog>,
    ) {
        self.removed().clone_from(&removed);
        let identity = self.identity.clone();
        tokio::spawn(async move {
            let mut identity = identity.lock_owned().await;
            let recorded =
                tokio::task::spawn_blocking(move || identity.record_members(members, removed));
            if let Err(error) = recorded.await.expect("recording members does not panic") {
                // A loop that is gone has nothing left to end.
                let _ = failures.send(FromLog::Failed(LogFailure(Failure::from(error))));
            }
        });
    }
}

impl Admission for Durable {
    fn refuse_stranger(&self, node: u64) -> Refusal {
        match self.removed().contains(&node) {
            true => Refusal::Removed,
            false => Refusal::UnknownMember,
        }
    }

    fn admit<'a>(
        &'a self,
        hello: &'a Hello,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>> {
        let identity = self.identity.clone();
        let (node, counter, boot) = (hello.node, hello.boot_counter, hello.boot_id);
        Box::pin(async move {
            // Waited for here and not on the other thread: while a disk hangs, peers dial again and again, and each attempt
            // would keep one more thread, until none is left to read the log and snapshots.
            let mut identity = identity.lock_owned().await;
            // It may sync, so it runs elsewhere than on the network's thread.
            let seen =
                tokio::task::spawn_blocking(move || identity.record_seen(node, counter, boot));
            match seen.await.expect("recording an incarnation does not panic") {
                Ok(Seen::Admitted) => Ok(()),
                Ok(Seen::Stale { counter, boot_id }) => Err(Refusal::StaleIncarnation {
                    seen: (counter, boot_id),
                }),
                Ok(Seen::Unknown) => Err(Refusal::UnknownMember),
                Ok(Seen::Removed) => Err(Refusal::Removed),
                Err(error) => {
                    tracing::error!(%error, "the peer's incarnation could not be recorded, so it is not let in");
                    Err(Refusal::UnknownMember)
                }
            }
        })
    }
}
