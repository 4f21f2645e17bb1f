//! Files that are stored twice.

use super::{
    BlockError, Check, Fault, TWIN_VERSION, check_numbers, check_preamble, put_preamble, put_u32,
    put_u64, u32_at, u64_at,
};
use crate::options::Binding;

/// Bytes in front of the content in one copy of a file that is stored twice.
pub(crate) const TWIN_HEADER_BYTES: usize = 48;
/// Distance of the two copies; each has pages of its own.
pub(crate) const TWIN_STRIDE: u64 = 8192;
/// Length of a file that is stored twice.
pub(crate) const TWIN_FILE_BYTES: u64 = 2 * TWIN_STRIDE;
/// Longest content of a file that is stored twice.
pub(crate) const TWIN_CONTENT_BYTES_MAX: usize = TWIN_STRIDE as usize - TWIN_HEADER_BYTES;

/// Encodes one copy; the content is at most [`TWIN_CONTENT_BYTES_MAX`] long.
pub(crate) fn encode_twin(
    magic: [u8; 8],
    binding: Binding,
    sequence: u64,
    content: &[u8],
) -> Vec<u8> {
    assert!(
        content.len() <= TWIN_CONTENT_BYTES_MAX,
        "{} bytes in a copy",
        content.len()
    );
    let mut bytes = vec![0; TWIN_HEADER_BYTES + content.len()];
    put_preamble(&mut bytes, magic, TWIN_VERSION);
    put_u64(&mut bytes, 16, sequence);
    put_u64(&mut bytes, 24, binding.node);
    put_u32(&mut bytes, 32, binding.cluster);
    put_u32(
        &mut bytes,
        36,
        u32::try_from(content.len()).expect("the length was checked above"),
    );
    bytes[TWIN_HEADER_BYTES..].copy_from_slice(content);
    let crc = twin_checksum(&bytes);
    put_u32(&mut bytes, 40, crc);
    bytes
}

/// One copy, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TwinCopy {
    pub(crate) binding: Binding,
    pub(crate) sequence: u64,
    pub(crate) checksum: u32,
    pub(crate) content: Vec<u8>,
}

/// Decodes one copy; the caller compares the binding.
pub(crate) fn decode_twin(bytes: &[u8], magic: [u8; 8]) -> Result<TwinCopy, BlockError> {
    check_preamble(bytes, magic, TWIN_VERSION)?;
    if bytes.len() < TWIN_HEADER_BYTES {
        return Err(Fault::new(Check::Length, TWIN_HEADER_BYTES as u64, bytes.len() as u64).into());
    }
    let content_bytes = u32_at(bytes, 36) as usize;
    let room = bytes.len() - TWIN_HEADER_BYTES;
    if content_bytes > room {
        return Err(Fault::new(Check::Length, room as u64, content_bytes as u64).into());
    }
    let bytes = &bytes[..TWIN_HEADER_BYTES + content_bytes];
    let (expected, found) = (twin_checksum(bytes), u32_at(bytes, 40));
    if expected != found {
        return Err(Fault::new(Check::BlockChecksum, expected, found).into());
    }
    check_numbers(bytes, [16])?;
    Ok(TwinCopy {
        binding: Binding {
            cluster: u32_at(bytes, 32),
            node: u64_at(bytes, 24),
        },
        sequence: u64_at(bytes, 16),
        checksum: found,
        content: bytes[TWIN_HEADER_BYTES..].to_vec(),
    })
}

/// Over everything but the checksum itself.
fn twin_checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..40]);
    hasher.update(&bytes[44..]);
    hasher.finalize()
}
