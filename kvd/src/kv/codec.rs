//! One version byte, then postcard: the shape of everything this crate sends or replicates.

use serde::de::Deserialize;
use serde::ser::Serialize;

/// Why bytes are not what they should be.
///
/// Decoding is total: any input ends in a value or in one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not even a version byte.
    #[error("empty input")]
    Empty,
    /// Written by a newer program.
    #[error("format version {found}, this program knows {known}")]
    NewerVersion {
        /// The version in the input.
        found: u8,
        /// The newest version that this program reads.
        known: u8,
    },
    /// Cut short, an unknown variant, a length beyond the input or beyond its limit.
    #[error("malformed input")]
    Malformed,
    /// Complete, but something follows.
    #[error("{bytes} bytes after the end")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// Encodes behind a version byte.
pub(crate) fn encode<T: Serialize + ?Sized>(version: u8, value: &T) -> Vec<u8> {
    extend(vec![version], value)
}

/// Appends the encoding of `value`.
pub(crate) fn extend<T: Serialize + ?Sized>(buffer: Vec<u8>, value: &T) -> Vec<u8> {
    postcard::to_extend(value, buffer)
        .expect("a Vec takes any length, and our types have no fallible serialiser")
}

/// Decodes what [`encode`] wrote; the input must end with the value.
pub(crate) fn decode<'a, T: Deserialize<'a>>(
    version: u8,
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    let (value, rest) = decode_prefix(version, bytes)?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::TrailingBytes { bytes: rest.len() })
    }
}

/// Decodes a value at the start of the input, and hands back what follows it.
pub(crate) fn decode_prefix<'a, T: Deserialize<'a>>(
    version: u8,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), DecodeError> {
    let (&found, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if found > version {
        return Err(DecodeError::NewerVersion {
            found,
            known: version,
        });
    }
    if found == 0 {
        return Err(DecodeError::Malformed);
    }
    postcard::take_from_bytes(rest).map_err(|_| DecodeError::Malformed)
}
