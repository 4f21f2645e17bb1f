//! Making the bytes of a snapshot, block by block.

use std::ops::Bound;

use bytes::Bytes;

use super::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, BlockKind, End, FIRST_VERSION, MEMBERS_VERSION,
    MachineElement, SNAPSHOT_VERSION, SnapshotContext, SnapshotHeader,
};
use crate::kv::codec;
use crate::kv::key::Key;
use crate::kv::store::Store;

/// The bytes of a snapshot, in pieces: the prelude, then one block at a time. Written one after the other they are the
/// file. Holds its own view of the store, so writes go on meanwhile.
#[derive(Debug)]
pub struct SnapshotWriter {
    store: Store,
    header: SnapshotHeader,
    next: Next,
    number: u32,
    /// CRC of everything made so far.
    crc: crc32fast::Hasher,
}

/// What comes next.
#[derive(Debug)]
enum Next {
    Prelude,
    Header,
    /// Members with an id above this one.
    Members(u64),
    /// Sessions with an id above this one.
    Sessions(u64),
    /// State machines after this place.
    Machines(Option<MachinePlace>),
    /// Keys after this one.
    Data(Option<Key>),
    End,
    Nothing,
}

/// A state machine, and its last key that was written; none yet: only its name.
type MachinePlace = (String, Option<Key>);

impl SnapshotWriter {
    /// A snapshot of this state. Hand over a clone of the store.
    pub fn new(store: Store, context: SnapshotContext) -> SnapshotWriter {
        let header = SnapshotHeader::new(&store, context);
        SnapshotWriter {
            store,
            header,
            next: Next::Prelude,
            number: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// What the first block says.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    fn block(&mut self, kind: BlockKind, content: &[u8]) -> Bytes {
        let length = u32::try_from(content.len()).expect("a block ends soon after BLOCK_BYTES");
        let head = super::block_head(kind as u32, length, self.number);
        self.number += 1;
        let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + content.len());
        block.extend_from_slice(&head);
        block.extend_from_slice(&super::block_crc(&head, content).to_le_bytes());
        block.extend_from_slice(content);
        self.crc.update(&block);
        block.into()
    }

    fn version(&self) -> u32 {
        if !self.store.machines.is_empty() {
            SNAPSHOT_VERSION
        } else if !self.store.members.is_empty() {
            MEMBERS_VERSION
        } else {
            FIRST_VERSION
        }
    }

    /// Members until the block is full, and the last id in it.
    fn members(&self, after: u64) -> (Vec<u8>, u64) {
        let mut content = Vec::new();
        let mut last = after;
        for (id, record) in self.store.members.iter_after(after) {
            content = codec::extend(content, &(id, record));
            last = id;
            if content.len() >= BLOCK_BYTES {
                break;
            }
        }
        (content, last)
    }

    /// Sessions until the block is full, and the last id in it.
    fn sessions(&self, after: u64) -> (Vec<u8>, u64) {
        let mut content = Vec::new();
        let mut last = after;
        for (id, session) in self.store.sessions.iter_after(after) {
            content = codec::extend(content, &(id, session));
            last = id;
            if content.len() >= BLOCK_BYTES {
                break;
            }
        }
        (content, last)
    }

    /// State machines and their keys until the block is full, and the place that was reached.
    fn machines(&self, after: Option<MachinePlace>) -> (Vec<u8>, Option<MachinePlace>) {
        let start = after
            .as_ref()
            .map_or(Bound::Unbounded, |(name, _)| Bound::Included(name));
        let mut content = Vec::new();
        let mut place = after.clone();
        for (name, state) in self.store.machines.iter_from(start) {
            if place.as_ref().is_none_or(|(begun, _)| begun != name) {
                let machine = MachineElement::Machine {
                    name: name.clone(),
                    version: state.version,
                };
                content = codec::extend(content, &machine);
                place = Some((name.clone(), None));
            }
            let written = place.as_ref().and_then(|(_, key)| key.clone());
            let keys = written.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            for (key, record) in state.data.iter_from(keys) {
                if content.len() >= BLOCK_BYTES {
                    return (content, place);
                }
                let item = record.with_key(key.to_bytes());
                content = codec::extend(content, &MachineElement::Key(item));
                place = Some((name.clone(), Some(key.clone())));
            }
        }
        (content, place)
    }

    /// Keys until the block is full, and the last one in it.
    fn data(&self, after: Option<&Key>) -> (Vec<u8>, Option<Key>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut content = Vec::new();
        let mut last = None;
        for (key, record) in self.store.data.iter_from(start) {
            content = codec::extend(content, &record.with_key(key.to_bytes()));
            last = Some(key);
            if content.len() >= BLOCK_BYTES {
                break;
            }
        }
        (content, last.cloned())
    }

    fn end(&self) -> Vec<u8> {
        let keys = self.store.data.len() as u64;
        let sessions = self.store.sessions.len() as u64;
        codec::extend(
            Vec::new(),
            &End {
                keys,
                sessions,
                crc: self.crc.clone().finalize(),
            },
        )
    }
}

impl Iterator for SnapshotWriter {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Prelude => {
                    self.next = Next::Header;
                    let prelude = super::prelude(self.version());
                    self.crc.update(&prelude);
                    return Some(Bytes::copy_from_slice(&prelude));
                }
                Next::Header => {
                    self.next = Next::Members(0);
                    let content = codec::extend(Vec::new(), &self.header);
                    return Some(self.block(BlockKind::Header, &content));
                }
                Next::Members(after) => {
                    let (content, last) = self.members(after);
                    if content.is_empty() {
                        self.next = Next::Sessions(0);
                        continue;
                    }
                    self.next = Next::Members(last);
                    return Some(self.block(BlockKind::Members, &content));
                }
                Next::Sessions(after) => {
                    let (content, last) = self.sessions(after);
                    if content.is_empty() {
                        self.next = Next::Machines(None);
                        continue;
                    }
                    self.next = Next::Sessions(last);
                    return Some(self.block(BlockKind::Sessions, &content));
                }
                Next::Machines(after) => {
                    let (content, place) = self.machines(after);
                    if content.is_empty() {
                        self.next = Next::Data(None);
                        continue;
                    }
                    self.next = Next::Machines(place);
                    return Some(self.block(BlockKind::Machines, &content));
                }
                Next::Data(after) => {
                    let (content, last) = self.data(after.as_ref());
                    if last.is_none() {
                        self.next = Next::End;
                        continue;
                    }
                    self.next = Next::Data(last);
                    return Some(self.block(BlockKind::Data, &content));
                }
                Next::End => {
                    let content = self.end();
                    return Some(self.block(BlockKind::End, &content));
                }
                Next::Nothing => return None,
            }
        }
    }
}
