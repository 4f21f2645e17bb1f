//! Client connections: one task that reads requests, one that writes answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_net::{FrameError, FrameReceiver, FrameSender};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::driver::{ClientId, Event};
use crate::kv::auth::Principal;
use crate::wire::client::{RequestFrame, ResponseFrame};

/// Requests of one connection that may be unanswered; beyond it the connection is not read, which is back-pressure that the
/// client feels through the stream's window.
const IN_FLIGHT_MAX: usize = 4096;

/// Bytes of answers that are encoded before they are written. A client that asks for much and reads nothing costs this and
/// one answer more; what waits behind shares its bytes with the store.
const WRITE_BYTES: usize = 1 << 20;

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
pub(crate) struct NewClient<R, W> {
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

/// Writes answers until the node lets go of the client or the client cannot be reached.
async fn write_answers<W: AsyncWrite + Unpin>(
    mut sender: FrameSender<W>,
    mut answers: mpsc::UnboundedReceiver<ResponseFrame>,
    permits: Arc<Semaphore>,
) {
    if let Err(error) = write_all(&mut sender, &mut answers, &permits).await {
        tracing::debug!(%error, "client went away before its answers");
    }
    // The reader may wait for a permit, and none comes back any more: it would wait for ever, and the node never hear that
    // the client is gone.
    permits.close();
}

async fn write_all<W: AsyncWrite + Unpin>(
    sender: &mut FrameSender<W>,
    answers: &mut mpsc::UnboundedReceiver<ResponseFrame>,
    permits: &Semaphore,
) -> Result<(), FrameError> {
    let mut batch: Vec<Bytes> = Vec::new();
    while let Some(first) = answers.recv().await {
        let mut next = Some(first);
        let mut bytes = 0;
        while let Some(answer) = next {
            let frame = answer.encode();
            bytes += frame.len();
            batch.push(frame);
            next = (bytes < WRITE_BYTES)
                .then(|| answers.try_recv().ok())
                .flatten();
        }
        sender.send_all(&batch).await?;
        permits.add_permits(batch.len());
        batch.clear();
    }
    // The node lets go of the client: what was written must arrive before the connection closes.
    sender.finish().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::auth::Role;
    use crate::wire::client::{Request, Response};

    const FRAME_BYTES: usize = 1 << 20;

    #[tokio::test]
    async fn client_with_a_full_window_is_let_go_when_its_answers_cannot_be_written() {
        let (theirs, requests) = tokio::io::duplex(FRAME_BYTES);
        let (answers, nobody) = tokio::io::duplex(64);
        drop(nobody);
        let (inbox, mut events) = mpsc::channel(2 * IN_FLIGHT_MAX);
        let mut clients = Clients::default();
        let newcomer = NewClient {
            principal: Principal::new(Role::Client, "app"),
            receiver: FrameReceiver::new(requests, FRAME_BYTES),
            sender: FrameSender::new(answers, FRAME_BYTES),
        };
        clients.serve(newcomer, inbox);
        let frame = |id| {
            let body = Request::Status;
            RequestFrame { id, body }.encode()
        };
        let frames: Vec<Bytes> = (0..=IN_FLIGHT_MAX as u64).map(frame).collect();
        let mut theirs = FrameSender::new(theirs, FRAME_BYTES);
        theirs.send_all(&frames).await.unwrap();
        let mut last = None;
        for _ in 0..IN_FLIGHT_MAX {
            match events.recv().await {
                Some(Event::Request { client, .. }) => last = Some(client),
                other => panic!("{other:?}"),
            }
        }
        let body = Response::Done;
        clients.answer(last.unwrap(), ResponseFrame { id: 0, body });
        let gone = tokio::time::timeout(Duration::from_secs(30), events.recv()).await;
        assert!(matches!(gone, Ok(Some(Event::ClientGone(_)))), "{gone:?}");
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_not_encoded_ahead() {
        let (answers, _unread) = tokio::io::duplex(64);
        let (outlet, mut waiting) = mpsc::unbounded_channel();
        let why = "x".repeat(WRITE_BYTES / 4);
        for id in 0..100 {
            let why = why.clone();
            let body = Response::Refused(crate::wire::client::Refusal::BadRequest { why });
            outlet.send(ResponseFrame { id, body }).unwrap();
        }
        let permits = Semaphore::new(0);
        let mut sender = FrameSender::new(answers, FRAME_BYTES);
        let writing = write_all(&mut sender, &mut waiting, &permits);
        let stuck = tokio::time::timeout(Duration::from_millis(50), writing).await;
        assert!(stuck.is_err(), "{stuck:?}");
        assert!(waiting.len() >= 95, "{} are left", waiting.len());
        assert_eq!(permits.available_permits(), 0, "nothing was delivered");
    }
}
