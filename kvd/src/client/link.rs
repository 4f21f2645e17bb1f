//! One stream to one node as two channels of frames.

use bytes::Bytes;
use raft_net::{FrameReceiver, FrameSender};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of frames that wait for the engine; the stream's own window does the rest.
const INCOMING_MAX: usize = 64;

/// Something to be done when the link is closed on purpose, such as telling the server.
pub(crate) type Farewell = Box<dyn FnOnce() -> super::dial::Pending<()> + Send>;

/// A stream that carries frames both ways. Dropping it ends both directions.
pub(crate) struct Link {
    outgoing: mpsc::UnboundedSender<Bytes>,
    incoming: mpsc::Receiver<Result<Vec<Bytes>, String>>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.writer.abort();
        self.reader.abort();
    }
}

impl Link {
    /// Carries frames over a reader and a writer from now on. Must be called within a tokio runtime.
    pub(crate) fn over<R, W>(
        receiver: FrameReceiver<R>,
        sender: FrameSender<W>,
        farewell: Option<Farewell>,
    ) -> Link
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (outgoing, orders) = mpsc::unbounded_channel();
        let (arrived, incoming) = mpsc::channel(INCOMING_MAX);
        Link {
            outgoing,
            incoming,
            writer: tokio::spawn(write(orders, sender, farewell)),
            reader: tokio::spawn(read(receiver, arrived)),
        }
    }

    /// Queues a frame. What is queued together leaves in one write. A broken link drops it; the reader says why.
    pub(crate) fn send(&self, frame: Bytes) {
        // The only error is that the writer has ended, and then `recv` reports the end of the link.
        let _ = self.outgoing.send(frame);
    }

    /// The frames that have arrived, at least one; or why no more will come.
    pub(crate) async fn recv(&mut self) -> Result<Vec<Bytes>, String> {
        match self.incoming.recv().await {
            Some(frames) => frames,
            None => Err("the connection was closed".to_owned()),
        }
    }

    /// Ends the link and lets the other side know.
    pub(crate) async fn close(mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        drop(std::mem::replace(&mut self.outgoing, closed));
        // The writer may have ended with the stream before; then there is nobody to tell.
        let _ = (&mut self.writer).await;
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut orders: mpsc::UnboundedReceiver<Bytes>,
    mut sender: FrameSender<W>,
    farewell: Option<Farewell>,
) {
    let mut batch = Vec::new();
    while let Some(frame) = orders.recv().await {
        batch.push(frame);
        while let Ok(frame) = orders.try_recv() {
            batch.push(frame);
        }
        if sender.send_all(&batch).await.is_err() {
            // The reader sees the same end, with its reason.
            return;
        }
        batch.clear();
    }
    if let Some(farewell) = farewell {
        farewell().await;
    }
}

async fn read<R: AsyncRead + Unpin>(
    mut receiver: FrameReceiver<R>,
    arrived: mpsc::Sender<Result<Vec<Bytes>, String>>,
) {
    loop {
        let batch = match receiver.recv().await {
            Ok(Some(frame)) => take_rest(&mut receiver, frame),
            Ok(None) => Err("the node closed the connection".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let ended = batch.is_err();
        if arrived.send(batch).await.is_err() || ended {
            return;
        }
    }
}

/// Everything that came with the first frame.
fn take_rest<R: AsyncRead + Unpin>(
    receiver: &mut FrameReceiver<R>,
    first: Bytes,
) -> Result<Vec<Bytes>, String> {
    let mut batch = vec![first];
    while let Some(frame) = receiver.try_recv().map_err(|error| error.to_string())? {
        batch.push(frame);
    }
    Ok(batch)
}
