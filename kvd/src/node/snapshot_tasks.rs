//! Snapshots on their way to and from the disk and the peers, on threads and tasks of their own: the loop never waits for one.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{EntryId, Envelope, NodeId, SnapshotOutcome};
use raft_log::fs::OsFs;
use raft_net::{Endpoint, IncomingSnapshot};
use tokio::sync::mpsc;

use super::log_thread::FromLog;
use crate::driver::{Event, SnapshotOrder, StagedSnapshot};
use crate::exit::Failure;
use crate::log_worker::LogFailure;
use crate::snapshots::{SnapshotDir, SnapshotDirError, Suspect};
use crate::wire::peer::{self, PeerMessage};

/// Chunks read ahead of the network, or received ahead of the disk.
const CHUNKS_AHEAD: usize = 4;

/// What every snapshot task needs.
#[derive(Clone)]
pub(super) struct SnapshotTasks {
    pub(super) dir: SnapshotDir<OsFs>,
    pub(super) inbox: mpsc::Sender<Event>,
    /// Where a failure goes after which the process must end.
    pub(super) failures: mpsc::UnboundedSender<FromLog>,
    pub(super) cluster: u32,
}

impl SnapshotTasks {
    /// Writes a snapshot on a thread, drops the ones that are no longer needed, and reports.
    pub(super) fn write(&self, order: SnapshotOrder) {
        let tasks = self.clone();
        tokio::spawn(async move {
            let dir = tasks.dir.clone();
            let written = tokio::task::spawn_blocking(move || dir.carry_out(&order)).await;
            let written = match written.expect("snapshot writing does not panic") {
                Ok(written) => Some(written),
                Err(error) => {
                    tracing::error!(%error, "snapshot not written");
                    tasks.end_if_fatal(&error);
                    None
                }
            };
            let _ = tasks.inbox.send(Event::SnapshotWritten(written)).await;
        });
    }

    /// Marks all snapshots as suspect, and reports.
    pub(super) fn distrust(&self, suspect: Suspect) {
        self.change(Event::Distrusted, move |dir| dir.distrust(&suspect));
    }

    /// Relies on the snapshots again, from this one on, and reports.
    pub(super) fn trust(&self, id: EntryId) {
        self.change(Event::Trusted, move |dir| dir.trust_from(id));
    }

    fn change(
        &self,
        report: fn(bool) -> Event,
        change: impl FnOnce(&SnapshotDir<OsFs>) -> Result<(), SnapshotDirError> + Send + 'static,
    ) {
        let tasks = self.clone();
        tokio::spawn(async move {
            let dir = tasks.dir.clone();
            let changed = tokio::task::spawn_blocking(move || change(&dir)).await;
            let changed = changed.expect("changing the directory does not panic");
            if let Err(error) = &changed {
                tracing::error!(%error, "the snapshot directory is as it was");
                tasks.end_if_fatal(error);
            }
            // A loop that is gone has nothing left to do.
            let _ = tasks.inbox.send(report(changed.is_ok())).await;
        });
    }

    /// After a failed write or sync nobody knows what the disk holds, whichever file it was.
    fn end_if_fatal(&self, error: &SnapshotDirError) {
        if error.is_fatal() {
            // A loop that is gone has nothing left to end.
            let _ = self
                .failures
                .send(FromLog::Failed(LogFailure(Failure::from(error))));
        }
    }

    /// Streams the newest snapshot to a peer.
    pub(super) fn send(&self, endpoint: Arc<Endpoint>, to: NodeId, envelope: Envelope) {
        let tasks = self.clone();
        tokio::spawn(async move {
            let id = envelope.message.snapshot().map(|meta| meta.id);
            let outcome = match tasks.stream(&endpoint, to, envelope).await {
                Ok(()) => SnapshotOutcome::Delivered,
                Err(error) => {
                    tracing::warn!(%to, %error, "snapshot not delivered");
                    if let Some(id) = id.filter(|_| is_rotten(&error)) {
                        let _ = tasks.inbox.send(Event::SnapshotRotten(id)).await;
                    }
                    SnapshotOutcome::Failed
                }
            };
            let _ = tasks.inbox.send(Event::SnapshotSent { to, outcome }).await;
        });
    }

    async fn stream(
        &self,
        endpoint: &Endpoint,
        to: NodeId,
        envelope: Envelope,
    ) -> anyhow::Result<()> {
        let Some(meta) = envelope.message.snapshot() else {
            anyhow::bail!("not a snapshot message");
        };
        let index = meta.id.index;
        let (chunks, mut ready) = mpsc::channel(CHUNKS_AHEAD);
        let dir = self.dir.clone();
        let reading = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            for chunk in dir.open_send(index.0)? {
                if chunks.blocking_send(chunk?).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let header = peer::encode(self.cluster, &PeerMessage::Raft(envelope)).concat();
        let mut sender = endpoint.send_snapshot(to.0, Bytes::from(header)).await?;
        while let Some(chunk) = ready.recv().await {
            sender.write(chunk).await?;
        }
        // A file that turned out rotten half-way must not be ended as if it were whole.
        reading.await??;
        sender.finish().await?;
        Ok(())
    }

    /// Receives a snapshot into the directory and offers it to the driver; the sender is told once the driver has taken it.
    pub(super) fn receive(
        &self,
        ticket: u64,
        mut incoming: IncomingSnapshot,
        taken: tokio::sync::oneshot::Receiver<()>,
    ) {
        let tasks = self.clone();
        tokio::spawn(async move {
            match tasks.stage(ticket, &mut incoming).await {
                Ok(staged) => {
                    let _ = tasks
                        .inbox
                        .send(Event::SnapshotStaged(Box::new(staged)))
                        .await;
                    if taken.await.is_ok()
                        && let Err(error) = incoming.accept().await
                    {
                        tracing::info!(%error, "the sender does not know that its snapshot arrived");
                    }
                }
                Err(error) => {
                    let from = incoming.from();
                    tracing::warn!(from, %error, "snapshot not received");
                    if let Err(error) = incoming.refuse(&error.to_string()).await {
                        tracing::debug!(from, %error, "the sender is gone");
                    }
                }
            }
        });
    }

    async fn stage(
        &self,
        ticket: u64,
        incoming: &mut IncomingSnapshot,
    ) -> anyhow::Result<StagedSnapshot> {
        let PeerMessage::Raft(envelope) = peer::decode(self.cluster, incoming.header().clone())?
        else {
            anyhow::bail!("the stream does not begin with a snapshot message");
        };
        anyhow::ensure!(
            envelope.from.0 == incoming.from(),
            "the stream claims to come from node {}",
            envelope.from
        );
        let Some(meta) = envelope.message.snapshot().cloned() else {
            anyhow::bail!("not a snapshot message");
        };
        let (chunks, mut waiting) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
        let dir = self.dir.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = dir.begin_receive(&meta)?;
            while let Some(chunk) = waiting.blocking_recv() {
                file.write(&chunk)?;
            }
            Ok::<_, SnapshotDirError>(file)
        });
        while let Some(chunk) = incoming.chunk().await? {
            if chunks.send(chunk).await.is_err() {
                break;
            }
        }
        drop(chunks);
        let file = writing
            .await?
            .inspect_err(|error| self.end_if_fatal(error))?;
        let finished = tokio::task::spawn_blocking(move || file.finish()).await?;
        let (header, store) = finished.inspect_err(|error| self.end_if_fatal(error))?;
        Ok(StagedSnapshot {
            ticket,
            envelope,
            header,
            store,
        })
    }
}

/// Whether the own snapshot is why it could not be sent: it is damaged, or gone.
fn is_rotten(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<SnapshotDirError>();
    matches!(
        error,
        Some(SnapshotDirError::Damaged { .. } | SnapshotDirError::NotFound { .. })
    )
}
