//! What a state machine sees of its state.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use crate::kv::command::KeyRange;

/// Keys and values in the order of the keys, borrowed from the state.
pub(crate) type Items<'a> = Box<dyn Iterator<Item = (&'a [u8], &'a Bytes)> + 'a>;

/// Reading, whatever holds the data.
pub(crate) trait Read {
    fn get(&self, key: &[u8]) -> Option<&Bytes>;
    fn range(&self, range: &KeyRange) -> Items<'_>;
    fn count(&self, range: &KeyRange) -> u64;
}

/// Writing, so that all of it can be undone.
pub(crate) trait Write: Read {
    fn put(&mut self, key: Bytes, value: Bytes);
    fn delete(&mut self, key: &[u8]) -> bool;
}

/// Where in the log a machine runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) index: u64,
    pub(crate) log_time_ms: u64,
    pub(crate) version: u32,
}

/// The state of a machine, to be changed by one command.
///
/// An ordered map of bytes that belongs to this machine alone: no client and no other machine can touch it. Keys have at
/// least one byte and at most 64 KiB, values at most 8 MiB; a command that goes beyond is undone as a whole, and whoever submitted
/// it is told so.
pub struct State<'a> {
    tree: &'a mut dyn Write,
    context: Context,
}

/// The state of a machine as it is between two commands.
#[derive(Clone, Copy)]
pub struct View<'a> {
    tree: &'a dyn Read,
    context: Context,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("State").field(&self.context).finish()
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("View").field(&self.context).finish()
    }
}

impl<'a> View<'a> {
    #[cfg(feature = "server")]
    pub(crate) fn new(tree: &'a dyn Read, context: Context) -> View<'a> {
        View { tree, context }
    }

    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&'a Bytes> {
        self.tree.get(key.as_ref())
    }

    /// The value of a key, as [`State::store`] wrote it.
    ///
    /// # Panics
    /// The machine stored something else there.
    pub fn load<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        let key = key.as_ref();
        self.get(key).map(|value| decoded(key, value))
    }

    /// The keys of a range with their values, in order.
    pub fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&'a [u8], &'a Bytes)> + use<'a> {
        self.tree.range(range)
    }

    /// The keys that start with these bytes, in order, with values that [`State::store`] wrote.
    ///
    /// # Panics
    /// While it is walked through: the machine stored something else there.
    pub fn load_prefix<T: DeserializeOwned>(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = (&'a [u8], T)> + use<'a, T> {
        self.range(&prefix_of(prefix))
            .map(|(key, value)| (key, decoded(key, value)))
    }

    /// How many keys a range holds. Does not walk through them.
    #[must_use]
    pub fn count(&self, range: &KeyRange) -> u64 {
        self.tree.count(range)
    }

    /// Index of the last entry of the log that was applied.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.context.index
    }

    /// Time of the log in milliseconds, see [`State::log_time_ms`].
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.context.log_time_ms
    }
}

impl<'a> State<'a> {
    #[cfg(feature = "server")]
    pub(crate) fn new(tree: &'a mut dyn Write, context: Context) -> State<'a> {
        State { tree, context }
    }

    /// The same for reading only; it sees what this command has written.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            tree: &*self.tree,
            context: self.context,
        }
    }

    /// The value of a key; what this command has written is seen.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Bytes> {
        self.view().get(key)
    }

    /// The value of a key, as [`State::store`] wrote it.
    ///
    /// # Panics
    /// The machine stored something else there.
    pub fn load<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        self.view().load(key)
    }

    /// The keys of a range with their values, in order.
    pub fn range<'s>(
        &'s self,
        range: &KeyRange,
    ) -> impl Iterator<Item = (&'s [u8], &'s Bytes)> + use<'s, 'a> {
        self.view().range(range)
    }

    /// The keys that start with these bytes, in order, with values that [`State::store`] wrote.
    ///
    /// # Panics
    /// While it is walked through: the machine stored something else there.
    pub fn load_prefix<'s, T: DeserializeOwned>(
        &'s self,
        prefix: &[u8],
    ) -> impl Iterator<Item = (&'s [u8], T)> + use<'s, 'a, T> {
        self.view().load_prefix(prefix)
    }

    /// How many keys a range holds. Does not walk through them.
    #[must_use]
    pub fn count(&self, range: &KeyRange) -> u64 {
        self.tree.count(range)
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        let key = Bytes::copy_from_slice(key.as_ref());
        self.tree.put(key, value.into());
    }

    /// Sets a key to the encoding of a value.
    ///
    /// # Panics
    /// The value's own `Serialize` fails, or asks for something that postcard cannot do.
    pub fn store<T: Serialize + ?Sized>(&mut self, key: impl AsRef<[u8]>, value: &T) {
        let key = key.as_ref();
        match codec::encode(value) {
            Ok(bytes) => self.put(key, bytes),
            Err(error) => panic!("the value for {}: {error}", key.escape_ascii()),
        }
    }

    /// Removes a key; whether there was one.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> bool {
        self.tree.delete(key.as_ref())
    }

    /// Index of the entry of this command: larger than that of every command before it.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.context.index
    }

    /// Time of the log in milliseconds: it never falls, goes on while the cluster has a leader, and is the same in every
    /// replica. It is no time of day.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.context.log_time_ms
    }

    /// Version of this command.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.context.version
    }
}

fn prefix_of(prefix: &[u8]) -> KeyRange {
    KeyRange::Prefix(Bytes::copy_from_slice(prefix))
}

fn decoded<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> T {
    match codec::decode(value) {
        Ok(value) => value,
        Err(error) => panic!("the value of {}: {error}", key.escape_ascii()),
    }
}
