//! One direction of one lane: what waits to be sent, and the two loops at its ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use crate::error::CloseReason;
use crate::limits::CHAIN_BYTES_MIN;
use crate::wire::frame::{FrameError, PREFIX_BYTES, prefix_of};

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full { queued: usize },
    TooLarge { bytes: u64 },
}

/// Messages that wait for the stream, already framed. Everything in it leaves in one write.
#[derive(Debug)]
pub(crate) struct LaneQueue {
    pending: Mutex<Pending>,
    filled: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Pending {
    chunks: Vec<Bytes>,
    /// Short parts are copied together here: a stream made of many tiny chunks is slow to send and to resend.
    tail: BytesMut,
    /// Bytes here and in the batch being written.
    bytes: usize,
}

impl Pending {
    fn push_frame(&mut self, prefix: [u8; PREFIX_BYTES], parts: Vec<Bytes>) {
        self.tail.put_slice(&prefix);
        for part in parts {
            if part.len() < CHAIN_BYTES_MIN {
                self.tail.put_slice(&part);
            } else {
                self.seal_tail();
                self.chunks.push(part);
            }
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }
}

impl LaneQueue {
    pub(crate) fn new(bytes_max: usize) -> LaneQueue {
        LaneQueue {
            pending: Mutex::default(),
            filled: Notify::new(),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // The critical sections cannot panic half-way: they only move bytes.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues one message made of `parts`. Never waits.
    pub(crate) fn push(&self, parts: Vec<Bytes>, frame_bytes_max: usize) -> Result<(), PushError> {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let prefix = prefix_of(&parts, frame_bytes_max).map_err(|_| PushError::TooLarge {
            bytes: bytes as u64,
        })?;
        let mut pending = self.lock();
        if pending.bytes > 0 && pending.bytes + bytes + PREFIX_BYTES > self.bytes_max {
            return Err(PushError::Full {
                queued: pending.bytes,
            });
        }
        pending.bytes += bytes + PREFIX_BYTES;
        pending.push_frame(prefix, parts);
        drop(pending);
        self.filled.notify_one();
        Ok(())
    }

    /// Bytes that wait.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Everything queued; waits while there is nothing.
    async fn next_batch(&self) -> Vec<Bytes> {
        loop {
            {
                let mut pending = self.lock();
                pending.seal_tail();
                if !pending.chunks.is_empty() {
                    return std::mem::take(&mut pending.chunks);
                }
            }
            self.filled.notified().await;
        }
    }

    /// Writes whatever is queued, until the connection ends.
    pub(crate) async fn write_to(&self, mut stream: quinn::SendStream) -> CloseReason {
        loop {
            let mut batch = self.next_batch().await;
            let bytes: usize = batch.iter().map(Bytes::len).sum();
            if let Err(error) = stream.write_all_chunks(&mut batch).await {
                return error.into();
            }
            self.lock().bytes -= bytes;
        }
    }
}

/// Why a stream of a peer was no lane.
pub(crate) fn stream_error(error: &FrameError) -> Option<String> {
    match error {
        // The connection has its own words for its end.
        FrameError::Closed { .. } => None,
        FrameError::TooLarge { .. } | FrameError::Truncated { .. } | FrameError::Io { .. } => {
            Some(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    #[tokio::test]
    async fn everything_queued_leaves_as_one_batch_with_small_parts_joined() {
        let queue = LaneQueue::new(1 << 20);
        for _ in 0..10 {
            queue.push(vec![bytes(3), bytes(5)], 1 << 20).unwrap();
        }
        let batch = queue.next_batch().await;
        assert_eq!(batch.len(), 1);
        assert_eq!(&batch[0][..5], b"\x08\0\0\0\x07");
        assert_eq!(batch[0].len(), 10 * 12);
    }

    #[tokio::test]
    async fn large_parts_are_chained_without_a_copy() {
        let queue = LaneQueue::new(1 << 20);
        let large = bytes(CHAIN_BYTES_MIN);
        queue
            .push(vec![bytes(3), large.clone(), bytes(5)], 1 << 20)
            .unwrap();
        let batch = queue.next_batch().await;
        assert_eq!(batch.len(), 3);
        assert_eq!(batch[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn queue_is_bounded_in_bytes_but_takes_at_least_one_message() {
        let queue = LaneQueue::new(100);
        queue.push(vec![bytes(150)], 200).unwrap();
        assert_eq!(
            queue.push(vec![bytes(1)], 200),
            Err(PushError::Full { queued: 154 })
        );
        assert_eq!(
            queue.push(vec![bytes(201)], 200),
            Err(PushError::TooLarge { bytes: 201 })
        );
    }
}
