//! Client connections: one task that reads requests, one that writes answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_net::{FrameReceiver, FrameSender};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::driver::{ClientId, Event};
use crate::kv::auth::Principal;
use crate::wire::client::{RequestFrame, ResponseFrame};

/// Requests of one connection that may be unanswered; beyond it the connection is not read, which is back-pressure that the
/// client feels through the stream's window.
const IN_FLIGHT_MAX: usize = 4096;

/// Where the answers of each client go.
#[derive(Default)]
pub(super) struct Clients {
    outlets: HashMap<ClientId, mpsc::UnboundedSender<ResponseFrame>>,
    writers: JoinSet<()>,
    last: u64,
}

impl Clients {
    /// A number that no client has had.
    pub(super) fn number(&mut self) -> ClientId {
        self.last += 1;
        ClientId(self.last)
    }

    /// Serves a client: one task reads its requests, one writes its answers, until either side ends the stream.
    ///
    /// Each request is answered once, so what waits for the writer is bounded by what the client may have in flight.
    pub(super) fn serve<R, W>(&mut self, newcomer: NewClient<R, W>, inbox: mpsc::Sender<Event>)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let id = self.number();
        let (outlet, answers) = mpsc::unbounded_channel();
        self.outlets.insert(id, outlet);
        while self.writers.try_join_next().is_some() {}
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        self.writers
            .spawn(write_answers(newcomer.sender, answers, permits.clone()));
        let (principal, receiver) = (newcomer.principal, newcomer.receiver);
        tokio::spawn(async move {
            read_requests(id, principal, receiver, &inbox, &permits).await;
            // Closed only when the node stops, and then nobody keeps account of clients.
            let _ = inbox.send(Event::ClientGone(id)).await;
        });
    }

    /// Hands an answer to the client's writer; an answer to a client that is gone is dropped.
    pub(super) fn answer(&mut self, client: ClientId, frame: ResponseFrame) {
        if let Some(outlet) = self.outlets.get(&client)
            && outlet.send(frame).is_err()
        {
            self.outlets.remove(&client);
        }
    }

    pub(super) fn forget(&mut self, client: ClientId) {
        self.outlets.remove(&client);
    }

    /// Ends all streams once their answers have reached the clients, or after `patience`.
    pub(super) async fn drain(&mut self, patience: Duration) {
        self.outlets.clear();
        let all = async { while self.writers.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::debug!("clients left without their last answers");
        }
    }
}

/// A stream of requests and who is at its other end.
pub(super) struct NewClient<R, W> {
    pub(super) principal: Principal,
    pub(super) receiver: FrameReceiver<R>,
    pub(super) sender: FrameSender<W>,
}

async fn read_requests<R: AsyncRead + Unpin>(
    id: ClientId,
    principal: Principal,
    mut receiver: FrameReceiver<R>,
    inbox: &mpsc::Sender<Event>,
    permits: &Semaphore,
) {
    loop {
        let frame = match receiver.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "client stream ended");
                return;
            }
        };
        let frame = match RequestFrame::decode(&frame) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, client = %principal.name, "client stream closed: not a request");
                return;
            }
        };
        let Ok(permit) = permits.acquire().await else {
            return;
        };
        permit.forget();
        if inbox
            .send(Event::Request {
                client: id,
                principal: principal.clone(),
                frame,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn write_answers<W: AsyncWrite + Unpin>(
    mut sender: FrameSender<W>,
    mut answers: mpsc::UnboundedReceiver<ResponseFrame>,
    permits: Arc<Semaphore>,
) {
    let mut batch: Vec<Bytes> = Vec::new();
    while let Some(first) = answers.recv().await {
        batch.push(first.encode());
        while let Ok(next) = answers.try_recv() {
            batch.push(next.encode());
        }
        permits.add_permits(batch.len());
        if let Err(error) = sender.send_all(&batch).await {
            tracing::debug!(%error, "client went away before its answers");
            return;
        }
        batch.clear();
    }
    // The node lets go of the client: what was written must arrive before the connection closes.
    if let Err(error) = sender.finish().await {
        tracing::debug!(%error, "client went away before its answers");
    }
}
