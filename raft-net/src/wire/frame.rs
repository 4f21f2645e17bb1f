//! The frame codec: a little-endian `u32` length, then that many bytes. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::{READ_BYTES, SPARE_BYTES_MIN};

/// Bytes in front of each frame.
pub const PREFIX_BYTES: usize = 4;

/// Why no further frame can be read from or written to a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The other side declared a frame longer than allowed, or we were asked to send one.
    #[error("frame of {bytes} bytes, limit {limit}")]
    TooLarge {
        /// Declared length.
        bytes: u64,
        /// The limit on this stream.
        limit: u64,
    },
    /// The stream ended inside a frame.
    #[error("stream ended {missing} bytes before the end of a frame")]
    Truncated {
        /// Bytes that did not come.
        missing: u64,
    },
    /// The connection is gone.
    #[error("connection closed: {reason}")]
    Closed {
        /// Close code of the other side's application, if it closed on purpose.
        code: Option<u64>,
        /// What it or the transport said.
        reason: String,
    },
    /// The underlying reader or writer failed.
    #[error("{reason}")]
    Io {
        /// Kind of the error.
        kind: std::io::ErrorKind,
        /// Its text.
        reason: String,
    },
}

/// Bytes received, taken apart into frames.
///
/// Memory is taken as bytes arrive, never because a length was declared: a prefix that promises 4 GiB is an error,
/// and one that promises the allowed maximum costs nothing until the bytes are there.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    limit: usize,
}

impl FrameBuffer {
    /// An empty buffer for frames of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> FrameBuffer {
        FrameBuffer {
            bytes: BytesMut::new(),
            limit,
        }
    }

    /// Where received bytes are appended. Has room, but may have little when frames still use the memory behind it:
    /// taking fresh memory for each small read would let every small frame keep a whole block alive.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.bytes.capacity() - self.bytes.len() < SPARE_BYTES_MIN {
            let have = self.bytes.len();
            self.bytes.reserve(READ_BYTES.max(self.missing().min(have)));
        }
        &mut self.bytes
    }

    /// Bytes that the first frame still lacks, as far as its prefix is here.
    fn missing(&self) -> usize {
        match self.bytes.first_chunk::<PREFIX_BYTES>() {
            Some(prefix) => (u32::from_le_bytes(*prefix) as usize)
                .saturating_add(PREFIX_BYTES)
                .saturating_sub(self.bytes.len()),
            None => PREFIX_BYTES - self.bytes.len(),
        }
    }

    /// Takes the next complete frame, if there is one.
    ///
    /// The frame shares its memory with its neighbours: copy what is kept for long.
    ///
    /// # Errors
    ///
    /// The declared length is beyond the limit; the stream is then of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let declared = u32::from_le_bytes(*prefix);
        let length = declared as usize;
        if length > self.limit {
            return Err(FrameError::TooLarge {
                bytes: u64::from(declared),
                limit: self.limit as u64,
            });
        }
        if self.bytes.len() - PREFIX_BYTES < length {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// To be called when the stream ended.
    ///
    /// # Errors
    ///
    /// The end cuts a frame.
    pub fn check_end(&self) -> Result<(), FrameError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(FrameError::Truncated {
            missing: self.missing() as u64,
        })
    }

    /// Bytes received and not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The prefix of a frame made of `parts`.
///
/// # Errors
///
/// Together they exceed `limit`, or what a prefix can say.
pub(crate) fn prefix_of(parts: &[Bytes], limit: usize) -> Result<[u8; PREFIX_BYTES], FrameError> {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    match u32::try_from(bytes) {
        Ok(length) if bytes <= limit => Ok(length.to_le_bytes()),
        _ => Err(FrameError::TooLarge {
            bytes: bytes as u64,
            limit: limit as u64,
        }),
    }
}

/// Appends each of `frames`, behind its prefix, to `out`.
///
/// # Errors
///
/// One of them exceeds `limit`; nothing was appended then.
pub fn encode_frames(frames: &[Bytes], limit: usize, out: &mut BytesMut) -> Result<(), FrameError> {
    for frame in frames {
        prefix_of(std::slice::from_ref(frame), limit)?;
    }
    out.reserve(frames.iter().map(|frame| frame.len() + PREFIX_BYTES).sum());
    for frame in frames {
        out.put_slice(&prefix_of(std::slice::from_ref(frame), limit)?);
        out.put_slice(frame);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1000;

    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Bytes>, FrameError> {
        let (mut buffer, mut frames) = (FrameBuffer::new(LIMIT), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.space().extend_from_slice(piece);
            while let Some(frame) = buffer.next_frame()? {
                frames.push(frame);
            }
        }
        buffer.check_end()?;
        Ok(frames)
    }

    #[test]
    fn frames_have_these_bytes_forever() {
        let mut out = BytesMut::new();
        encode_frames(&[Bytes::from_static(b"ab"), Bytes::new()], LIMIT, &mut out).unwrap();
        assert_eq!(&out[..], b"\x02\0\0\0ab\0\0\0\0");
    }

    /// Case 61: a declared length of 2^32-1 is refused before memory is taken.
    #[test]
    fn declared_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let mut buffer = FrameBuffer::new(LIMIT);
        buffer.space().extend_from_slice(&u32::MAX.to_le_bytes());
        let capacity = buffer.bytes.capacity();
        assert_eq!(
            buffer.next_frame(),
            Err(FrameError::TooLarge {
                bytes: u64::from(u32::MAX),
                limit: 1000
            })
        );
        assert_eq!(buffer.bytes.capacity(), capacity);
    }

    #[test]
    fn frame_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
        let mut out = BytesMut::new();
        encode_frames(&[Bytes::from(vec![7; LIMIT])], LIMIT, &mut out).unwrap();
        assert_eq!(decode(&out, 100).unwrap().len(), 1);
        let error = encode_frames(&[Bytes::from(vec![7; LIMIT + 1])], LIMIT, &mut out).unwrap_err();
        assert_eq!(
            error,
            FrameError::TooLarge {
                bytes: 1001,
                limit: 1000
            }
        );
    }

    #[test]
    fn end_inside_a_prefix_or_a_frame_is_truncation() {
        assert_eq!(
            decode(b"\x02\0", 9),
            Err(FrameError::Truncated { missing: 2 })
        );
        assert_eq!(
            decode(b"\x02\0\0\0a", 9),
            Err(FrameError::Truncated { missing: 1 })
        );
        assert_eq!(decode(b"", 9), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            step in 1_usize..300,
        ) {
            let frames: Vec<Bytes> = frames.into_iter().map(Bytes::from).collect();
            let mut out = BytesMut::new();
            encode_frames(&frames, LIMIT, &mut out).unwrap();
            prop_assert_eq!(decode(&out, step), Ok(frames));
        }

        /// Case 62: arbitrary bytes never panic and never make the buffer larger than the input allows.
        #[test]
        fn decoder_is_total_and_frugal(bytes in proptest::collection::vec(any::<u8>(), 0..2000), step in 1_usize..100) {
            let mut buffer = FrameBuffer::new(usize::MAX);
            for piece in bytes.chunks(step) {
                buffer.space().extend_from_slice(piece);
                while let Ok(Some(_)) = buffer.next_frame() {}
            }
            prop_assert!(buffer.bytes.capacity() <= 8 * bytes.len() + (64 << 10));
        }
    }
}
