//! Keys as the data map holds them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

/// Longest key that lies in the node itself; with it a [`Key`] takes 40 bytes.
const INLINE_BYTES: usize = 38;

/// A key. Short ones lie in the node: a search compares some twenty keys, and following a pointer for each would cost
/// more than all else that a write does.
#[derive(Clone)]
pub(crate) enum Key {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Heap(Bytes),
}

const _: () = assert!(size_of::<Key>() == 40);

impl Key {
    /// A key of at most [`INLINE_BYTES`].
    fn inline(key: &[u8]) -> Key {
        let mut bytes = [0; INLINE_BYTES];
        bytes[..key.len()].copy_from_slice(key);
        let len = u8::try_from(key.len()).expect("INLINE_BYTES is less than 256");
        Key::Inline { len, bytes }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Key::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Key::Heap(bytes) => bytes,
        }
    }

    /// The key as users get it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match self {
            Key::Inline { .. } => Bytes::copy_from_slice(self.as_slice()),
            Key::Heap(bytes) => bytes.clone(),
        }
    }

    /// Its length.
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }
}

impl From<Bytes> for Key {
    fn from(key: Bytes) -> Key {
        match key.len() <= INLINE_BYTES {
            true => Key::inline(&key),
            false => Key::Heap(key),
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Key {
        match key.len() <= INLINE_BYTES {
            true => Key::inline(key),
            false => Key::Heap(Bytes::copy_from_slice(key)),
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_compare_as_their_bytes() {
        let lengths = [
            0,
            1,
            INLINE_BYTES - 1,
            INLINE_BYTES,
            INLINE_BYTES + 1,
            255,
            256,
            5000,
        ];
        let keys: Vec<Bytes> = lengths
            .into_iter()
            .flat_map(|len| [vec![0; len], vec![0xff; len], vec![b'k'; len]])
            .map(Bytes::from)
            .collect();
        for a in &keys {
            let key = Key::from(a.clone());
            assert_eq!(key.to_bytes(), a);
            assert_eq!(Key::from(&a[..]), key);
            assert_eq!(key.len(), a.len());
            assert!(
                keys.iter()
                    .all(|b| key.cmp(&Key::from(b.clone())) == a.cmp(b))
            );
        }
    }
}
