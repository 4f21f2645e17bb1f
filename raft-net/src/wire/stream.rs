//! Frames over anything that reads or writes bytes: a QUIC stream, a Unix socket, a pipe in a test.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::frame::{FrameBuffer, FrameError, PREFIX_BYTES, encode_frames};
use crate::error::{CloseReason, frame_error};

/// Scratch memory a sender keeps between calls; a larger batch gives its memory back.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// Reads frames.
#[derive(Debug)]
pub struct FrameReceiver<R = StreamReader> {
    reader: R,
    buffer: FrameBuffer,
}

impl<R: AsyncRead + Unpin> FrameReceiver<R> {
    /// Reads frames of at most `frame_bytes_max` bytes from `reader`.
    pub fn new(reader: R, frame_bytes_max: usize) -> FrameReceiver<R> {
        FrameReceiver {
            reader,
            buffer: FrameBuffer::new(frame_bytes_max),
        }
    }

    /// The next frame; `None` when the stream ended between two frames.
    ///
    /// Cancel-safe: what was read stays in the receiver. Each read takes everything that has arrived, so after one
    /// frame the others that came with it are to be had from [`try_recv`](FrameReceiver::try_recv) at once.
    ///
    /// # Errors
    ///
    /// A frame is too large or cut, or the stream failed. No frame comes after an error.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                self.buffer.check_end()?;
                return Ok(None);
            }
        }
    }

    /// The next frame, if it has already been read from the stream.
    ///
    /// # Errors
    ///
    /// As for [`recv`](FrameReceiver::recv).
    pub fn try_recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.buffer.next_frame()
    }

    /// Reads once, everything that is there, and appends its complete frames to `frames`. False at the end of the
    /// stream. After an error, `frames` still holds what came before it.
    pub(crate) async fn drain(&mut self, frames: &mut Vec<Bytes>) -> Result<bool, FrameError> {
        let more = self.fill().await?;
        while let Some(frame) = self.buffer.next_frame()? {
            frames.push(frame);
        }
        if !more {
            self.buffer.check_end()?;
        }
        Ok(more)
    }

    /// Reads once, everything that is there; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        let read = self.reader.read_buf(self.buffer.space()).await;
        Ok(read.map_err(frame_error)? > 0)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameSender<W = StreamWriter> {
    writer: W,
    scratch: BytesMut,
    limit: usize,
}

impl<W: AsyncWrite + Unpin> FrameSender<W> {
    /// Writes frames of at most `frame_bytes_max` bytes to `writer`.
    pub fn new(writer: W, frame_bytes_max: usize) -> FrameSender<W> {
        FrameSender {
            writer,
            scratch: BytesMut::new(),
            limit: frame_bytes_max,
        }
    }

    /// Sends all of `frames` with one write. Waits while the other side's window is full.
    ///
    /// Not cancel-safe: a future that is dropped half-way leaves a cut frame on the stream.
    ///
    /// # Errors
    ///
    /// A frame is too large (then none was sent), or the stream failed.
    pub async fn send_all(&mut self, frames: &[Bytes]) -> Result<(), FrameError> {
        self.scratch.clear();
        encode_frames(frames, self.limit, &mut self.scratch)?;
        let written = self.writer.write_all(&self.scratch).await;
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = BytesMut::new();
        }
        written.map_err(frame_error)?;
        self.writer.flush().await.map_err(frame_error)
    }

    /// Bytes that `frames` take on the stream.
    #[must_use]
    pub fn wire_bytes(frames: &[Bytes]) -> usize {
        frames.iter().map(|frame| frame.len() + PREFIX_BYTES).sum()
    }

    /// Ends the stream: the other side's `recv` answers `None` after the frames sent so far.
    ///
    /// # Errors
    ///
    /// The stream failed before.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.writer.shutdown().await.map_err(frame_error)
    }
}

/// Kept by both halves of a client stream; the connection may end when the last one is gone.
pub(crate) type Guard = Arc<tokio::sync::oneshot::Sender<std::convert::Infallible>>;

/// The receiving half of a QUIC stream.
#[derive(Debug)]
pub struct StreamReader {
    pub(crate) stream: quinn::RecvStream,
    pub(crate) _guard: Option<Guard>,
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream
            .poll_read_buf(cx, buf)
            .map_err(|error| CloseReason::from(error).into())
    }
}

/// The sending half of a QUIC stream.
#[derive(Debug)]
pub struct StreamWriter {
    pub(crate) stream: quinn::SendStream,
    pub(crate) _guard: Option<Guard>,
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream)
            .poll_write(cx, buf)
            .map_err(|error| CloseReason::from(error).into())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(
            self.stream
                .finish()
                .map_err(|_| io::ErrorKind::NotConnected.into()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_sent_together_arrive_with_one_read() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut sender, mut receiver) =
            (FrameSender::new(near, 100), FrameReceiver::new(far, 100));
        sender
            .send_all(&[Bytes::from_static(b"one"), Bytes::from_static(b"two")])
            .await
            .unwrap();
        assert_eq!(receiver.try_recv(), Ok(None));
        assert_eq!(receiver.recv().await, Ok(Some(Bytes::from_static(b"one"))));
        assert_eq!(receiver.try_recv(), Ok(Some(Bytes::from_static(b"two"))));
        sender.finish().await.unwrap();
        assert_eq!(receiver.recv().await, Ok(None));
    }

    #[tokio::test]
    async fn recv_that_is_cancelled_loses_nothing() {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        let mut receiver = FrameReceiver::new(far, 100);
        for byte in b"\x03\0\0\0one" {
            let cancelled =
                tokio::time::timeout(std::time::Duration::from_millis(1), receiver.recv()).await;
            assert!(cancelled.is_err());
            near.write_all(&[*byte]).await.unwrap();
        }
        assert_eq!(receiver.recv().await, Ok(Some(Bytes::from_static(b"one"))));
    }
}
