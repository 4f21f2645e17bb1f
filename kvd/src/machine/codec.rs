//! Values of users as bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a value of a user is not bytes, or bytes are no such value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// The type's own `Serialize` failed, or asked for something that the encoding cannot do.
    #[error("it cannot be encoded: {0}")]
    Encode(String),
    /// The bytes are no such value.
    #[error("it cannot be decoded: {0}")]
    Decode(String),
    /// Something follows the value.
    #[error("it cannot be decoded: {0} bytes after its end")]
    Trailing(usize),
}

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(value, Vec::new()).map_err(|error| CodecError::Encode(error.to_string()))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| CodecError::Decode(error.to_string()))?;
    match rest.len() {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}
