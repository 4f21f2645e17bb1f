//! Sequences out of untrusted bytes: memory grows with what was really read, never with what a length claims.

#[cfg(feature = "server")]
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// Reads a sequence of at most `MAX` elements.
///
/// Serde's own `Vec` takes up to 1 MiB on the word of a length prefix. An element of ours is far larger in memory than
/// its shortest encoding, so a few bytes could claim a lot; this one starts empty and grows by what was decoded.
pub(crate) fn vec_at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct AtMost<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a sequence of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if elements.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(AtMost::<T, MAX>(PhantomData))
}

/// [`vec_at_most`] for a queue.
#[cfg(feature = "server")]
pub(crate) fn deque_at_most<'de, D, T, const MAX: usize>(
    deserializer: D,
) -> Result<VecDeque<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    vec_at_most::<D, T, MAX>(deserializer).map(VecDeque::from)
}
