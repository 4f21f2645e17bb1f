//! The hash by which replicas compare themselves at fixed positions of the log.
//!
//! The rolling hash of a store says what was applied and what came of it. It does not see a value that has rotted in memory, or
//! that a faulty machine stored otherwise than it answered, until some result depends on it. So this hash also takes in a slice
//! of what the store really holds: from a place that the position and the whole history choose, on to a bound in keys and
//! bytes, and from the end on at the beginning. A small store is taken in whole each time, a large one in the course of time.
//!
//! The cost of one hash is bounded by the constants below and does not depend on the size of the store, so it is computed
//! in the loop; see `docs/design/009`.

use std::borrow::Borrow;

use super::codec;
use super::hash::Hasher;
use super::map::CowMap;
use super::session::Session;
use super::store::Store;
use super::transaction::{Data, Record};

/// Names this algorithm, so that hashes of another one are never compared with it. Numbered apart from
/// [`HASH_ALGORITHM`](super::HASH_ALGORITHM), which this one contains: another one there needs another one here.
pub const STATE_HASH_ALGORITHM: u8 = 1;

/// Most keys in one slice.
const SLICE_KEYS: usize = 1024;
/// Most sessions in one slice.
const SLICE_SESSIONS: usize = 64;
/// A slice ends with the element that reaches this size: so at most with one largest value.
const SLICE_BYTES: usize = 1 << 20;

/// What an element takes beside its variable part, about.
const ELEMENT_BYTES: usize = 64;

impl Store {
    /// Hash of the state after the entry that was applied last: of all that was applied and what came of it, and of a slice
    /// of the contents. Equal on equal replicas, whether they applied all entries or began from a snapshot.
    pub fn state_hash(&self) -> u64 {
        let mut hasher = Hasher::new(self.hash);
        for word in [self.applied, self.revision, self.log_time_ms] {
            hasher.word(word);
        }
        hasher.word(self.members.recount());
        let chosen = hasher.finish();
        note_data(&mut hasher, &self.data, chosen);
        hasher.word(self.sessions.len() as u64);
        slice(
            self.sessions.by_id(),
            chosen,
            SLICE_SESSIONS,
            |id, session| note_session(&mut hasher, *id, session),
        );
        hasher.word(self.machines.len() as u64);
        for (name, machine) in self.machines.iter() {
            hasher.bytes(name.as_bytes());
            hasher.word(u64::from(machine.version));
            note_data(&mut hasher, &machine.data, chosen);
        }
        hasher.finish()
    }
}

fn note_data(hasher: &mut Hasher, data: &Data, chosen: u64) {
    hasher.word(data.len() as u64);
    slice(data, chosen, SLICE_KEYS, |key, record| {
        note_record(hasher, key.borrow(), record)
    });
}

/// Hands the elements of a slice to `take`, which says how large each of them is.
fn slice<K: Ord + Clone, V: Clone>(
    map: &CowMap<K, V>,
    chosen: u64,
    count: usize,
    mut take: impl FnMut(&K, &V) -> usize,
) {
    let len = map.len();
    if len == 0 {
        return;
    }
    let first = usize::try_from(chosen % len as u64).expect("less than a length");
    let elements = map.iter_at(first).chain(map.iter());
    let mut bytes = 0;
    for (key, value) in elements.take(count.min(len)) {
        bytes += take(key, value);
        if bytes >= SLICE_BYTES {
            return;
        }
    }
}

fn note_record(hasher: &mut Hasher, key: &[u8], record: &Record) -> usize {
    hasher.bytes(key);
    hasher.bytes(&record.value);
    for word in [record.create_revision, record.mod_revision, record.version] {
        hasher.word(word);
    }
    ELEMENT_BYTES + key.len() + record.value.len()
}

/// A session that keeps more than a slice may hold is taken in without its results.
fn note_session(hasher: &mut Hasher, id: u64, session: &Session) -> usize {
    hasher.word(id);
    for word in [
        session.next,
        session.done_below,
        session.kept_bytes,
        session.used_at_ms,
        session.used_at_index,
        u64::from(session.closed),
    ] {
        hasher.word(word);
    }
    if session.kept_bytes > SLICE_BYTES as u64 {
        return ELEMENT_BYTES;
    }
    let encoded = codec::extend(Vec::new(), session);
    hasher.bytes(&encoded);
    ELEMENT_BYTES + encoded.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::auth::{Principal, Role};
    use super::super::command::{Command, Op, command_crc};
    use super::super::envelope::{Envelope, SessionRef};
    use super::super::limits::StoreLimits;
    use super::super::snapshot::{SnapshotContext, SnapshotReader, SnapshotWriter};
    use super::*;

    fn put(store: &mut Store, key: &str, value: Vec<u8>, session: SessionRef) {
        let op = Op::Put {
            key: Bytes::from(key.to_owned()),
            value: value.into(),
            want_previous: true,
        };
        let command = Command::Op(op).encode();
        let sequence = u64::from(session != SessionRef::None);
        let payload = Envelope {
            principal: Principal::new(Role::Client, "app").borrowed(),
            session,
            sequence,
            done_below: sequence,
            log_time_ms: 0,
            command_crc: command_crc(&command),
            command: &command,
        }
        .encode();
        store.apply(store.applied_index() + 1, &payload);
    }

    /// A store with so many keys, each written in a session of its own.
    fn store(keys: usize) -> Store {
        let mut store = Store::new(StoreLimits::default());
        for key in 0..keys {
            let session = SessionRef::Named(key as u128 + 1);
            put(&mut store, &format!("k{key}"), vec![7; 10], session);
        }
        store
    }

    #[test]
    fn golden_value() {
        assert_eq!(store(20).state_hash(), 0xd223_62d9_40df_f237);
    }

    #[test]
    fn every_value_of_a_small_store_is_seen_though_the_rolling_hash_does_not_see_it() {
        let whole = store(300);
        for key in 0..300 {
            let mut rotten = whole.clone();
            assert!(rotten.rot(format!("k{key}").as_bytes()));
            assert_eq!(rotten.hash(), whole.hash());
            assert_ne!(rotten.state_hash(), whole.state_hash(), "k{key}");
        }
    }

    #[test]
    fn every_value_of_a_large_store_is_seen_in_the_course_of_time() {
        let mut whole = store(5 * SLICE_KEYS);
        let mut rotten = whole.clone();
        assert!(rotten.rot(b"k4711"));
        let mut seen = 0;
        let positions = 200;
        for _ in 0..positions {
            seen += u32::from(rotten.state_hash() != whole.state_hash());
            for store in [&mut whole, &mut rotten] {
                store.skip(store.applied_index() + 1);
            }
        }
        // One in five is expected: 40, with a deviation of 6.
        assert!((20..=60).contains(&seen), "{seen} of {positions}");
    }

    #[test]
    fn every_session_of_a_few_is_seen() {
        let whole = store(SLICE_SESSIONS);
        for id in 1..=SLICE_SESSIONS as u64 {
            let mut rotten = whole.clone();
            let session = rotten.sessions.get_mut(id).unwrap();
            Arc::make_mut(session).kept[0].result.revision ^= 1;
            assert_ne!(rotten.state_hash(), whole.state_hash(), "session {id}");
        }
    }

    /// However large the elements are, and however many: the slice ends soon after its bound.
    #[test]
    fn a_slice_is_bounded_in_keys_and_in_bytes() {
        for (value_bytes, expected) in [(10, SLICE_KEYS), (SLICE_BYTES / 4, 4), (SLICE_BYTES, 1)] {
            let mut map = CowMap::new();
            let value = Bytes::from(vec![1; value_bytes]);
            for key in 0..3_000_u64 {
                map.insert(key, value.clone());
            }
            let mut taken = 0;
            slice(&map, 2_999, SLICE_KEYS, |_, value: &Bytes| {
                taken += 1;
                value.len()
            });
            assert_eq!(taken, expected, "values of {value_bytes} bytes");
        }
    }

    /// Nothing that a snapshot does not carry may be in the hash: n3 starts from a snapshot and must agree with n1 and n2.
    #[test]
    fn a_restored_store_has_the_same_hash() {
        let mut store = store(2 * SLICE_KEYS);
        put(&mut store, "big", vec![3; SLICE_BYTES], SessionRef::None);
        put(&mut store, "big", vec![4; 10], SessionRef::Named(0xb19));
        let context = SnapshotContext {
            term: 1,
            configuration: Bytes::new(),
            configuration_index: 0,
            members: Vec::new(),
            cluster: 1,
            cluster_version: 1,
        };
        let bytes = SnapshotWriter::new(store.clone(), context).flat_map(|block| block.to_vec());
        let bytes: Vec<u8> = bytes.collect();
        let (_, mut restored) = SnapshotReader::read(StoreLimits::default(), &bytes).unwrap();
        for _ in 0..50 {
            assert_eq!(restored.state_hash(), store.state_hash());
            for store in [&mut store, &mut restored] {
                store.skip(store.applied_index() + 1);
            }
        }
    }
}
