//! One snapshot transfer: a stream of its own, with back-pressure and a final acknowledgement.
//!
//! The sender opens the stream: tag, header frame, chunk frames, an empty frame as the end. The receiver answers on
//! the stream's other direction with one frame: empty for accepted, else the reason of the refusal. Flow control of
//! the stream holds the sender back while the receiver writes to its disk; other streams have windows of their own.

use bytes::Bytes;

use crate::error::TransferError;
use crate::limits::SNAPSHOT_HEADER_BYTES_MAX;
use crate::wire::{FrameError, FrameReceiver, FrameSender, StreamReader, StreamWriter};

/// The byte that opens a snapshot stream.
pub(crate) const SNAPSHOT_TAG: u8 = 3;

/// Bytes of a chunk that a receiver accepts. Senders cut larger ones.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Bytes of a refusal's reason that a sender accepts.
const REASON_BYTES_MAX: usize = 4096;

/// The sending side of a snapshot transfer.
#[derive(Debug)]
pub struct SnapshotSender {
    sender: FrameSender,
    answer: FrameReceiver,
}

impl SnapshotSender {
    pub(crate) async fn open(
        connection: &quinn::Connection,
        header: Bytes,
    ) -> Result<SnapshotSender, TransferError> {
        let lost = |error: quinn::ConnectionError| TransferError::Lost(error.into());
        let (mut send, recv) = connection.open_bi().await.map_err(lost)?;
        send.write_all(&[SNAPSHOT_TAG])
            .await
            .map_err(|error| TransferError::Lost(error.into()))?;
        let limit = SNAPSHOT_HEADER_BYTES_MAX.max(CHUNK_BYTES_MAX);
        let mut transfer = SnapshotSender {
            sender: FrameSender::new(
                StreamWriter {
                    stream: send,
                    _guard: None,
                },
                limit,
            ),
            answer: FrameReceiver::new(
                StreamReader {
                    stream: recv,
                    _guard: None,
                },
                REASON_BYTES_MAX,
            ),
        };
        transfer.send(&[header]).await?;
        Ok(transfer)
    }

    /// Sends the next bytes of the snapshot. Waits while the receiver is slower than we are.
    ///
    /// # Errors
    ///
    /// The link is lost, or the receiver refused. The transfer is over then.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), TransferError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            self.send(&[piece]).await?;
        }
        Ok(())
    }

    /// Ends the snapshot and waits until the receiver has accepted it, which it does once it is durable there.
    ///
    /// # Errors
    ///
    /// The link is lost, or the receiver refused.
    pub async fn finish(mut self) -> Result<(), TransferError> {
        self.send(&[Bytes::new()]).await?;
        self.wait_answer().await
    }

    /// A receiver that refuses stops the stream first; its reason is worth more than the failed write.
    async fn send(&mut self, frames: &[Bytes]) -> Result<(), TransferError> {
        match self.sender.send_all(frames).await {
            Ok(()) => Ok(()),
            Err(error @ FrameError::TooLarge { .. }) => Err(error.into()),
            Err(error) => match self.wait_answer().await {
                Err(refused @ TransferError::Refused { .. }) => Err(refused),
                Ok(()) | Err(_) => Err(error.into()),
            },
        }
    }

    async fn wait_answer(&mut self) -> Result<(), TransferError> {
        match self.answer.recv().await? {
            Some(reason) if reason.is_empty() => Ok(()),
            Some(reason) => Err(TransferError::Refused {
                reason: String::from_utf8_lossy(&reason).into_owned(),
            }),
            None => Err(TransferError::Refused {
                reason: "the receiver gave up".to_owned(),
            }),
        }
    }
}

/// The receiving side of a snapshot transfer. Dropped without [`accept`](IncomingSnapshot::accept), it is refused.
#[derive(Debug)]
pub struct IncomingSnapshot {
    from: u64,
    boot_counter: u64,
    header: Bytes,
    halves: Box<(FrameReceiver, FrameSender)>,
    ended: bool,
}

impl IncomingSnapshot {
    /// Reads the header; the tag has been read.
    pub(crate) async fn open(
        from: u64,
        boot_counter: u64,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> Result<IncomingSnapshot, TransferError> {
        let limit = SNAPSHOT_HEADER_BYTES_MAX.max(CHUNK_BYTES_MAX);
        let mut receiver = FrameReceiver::new(
            StreamReader {
                stream: recv,
                _guard: None,
            },
            limit,
        );
        let sender = FrameSender::new(
            StreamWriter {
                stream: send,
                _guard: None,
            },
            REASON_BYTES_MAX,
        );
        let header = receiver.recv().await?.ok_or(TransferError::Abandoned)?;
        Ok(IncomingSnapshot {
            from,
            boot_counter,
            header,
            halves: Box::new((receiver, sender)),
            ended: false,
        })
    }

    /// The peer that sends it, by its certificate.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The boot counter of that peer's hello.
    #[must_use]
    pub fn boot_counter(&self) -> u64 {
        self.boot_counter
    }

    /// What the sender gave as header.
    #[must_use]
    pub fn header(&self) -> &Bytes {
        &self.header
    }

    /// The next bytes; `None` at the end, when every byte has arrived.
    ///
    /// # Errors
    ///
    /// The link is lost, or the sender gave up: what came so far is not a snapshot.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.ended {
            return Ok(None);
        }
        match self.halves.0.recv().await? {
            Some(chunk) if chunk.is_empty() => {
                self.ended = true;
                Ok(None)
            }
            Some(chunk) => Ok(Some(chunk)),
            None => Err(TransferError::Abandoned),
        }
    }

    /// Acknowledges the snapshot. To be called when it is durable here.
    ///
    /// # Errors
    ///
    /// The link is lost; the sender does not know that it arrived.
    pub async fn accept(mut self) -> Result<(), TransferError> {
        self.answer(Bytes::new()).await
    }

    /// Refuses the snapshot, at any moment.
    ///
    /// # Errors
    ///
    /// The link is lost.
    pub async fn refuse(mut self, reason: &str) -> Result<(), TransferError> {
        let end = reason.floor_char_boundary_at(REASON_BYTES_MAX);
        let reason = if end == 0 { "refused" } else { &reason[..end] };
        self.answer(Bytes::copy_from_slice(reason.as_bytes())).await
    }

    async fn answer(&mut self, frame: Bytes) -> Result<(), TransferError> {
        self.halves.1.send_all(&[frame]).await?;
        self.halves.1.finish().await?;
        Ok(())
    }
}

/// `str::floor_char_boundary` is younger than our minimum compiler.
trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        (0..=index.min(self.len()))
            .rev()
            .find(|at| self.is_char_boundary(*at))
            .unwrap_or(0)
    }
}
