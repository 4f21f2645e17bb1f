//! Reading a snapshot out of bytes that arrive in pieces.

use bytes::Bytes;
use serde::Deserialize;

use super::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockKind, End, FIRST_VERSION, MachineElement,
    PRELUDE_BYTES, SNAPSHOT_MAGIC, SNAPSHOT_VERSION, SnapshotError, SnapshotHeader,
};
use crate::kv::custom::MachineState;
use crate::kv::hash::HASH_ALGORITHM;
use crate::kv::key::Key;
use crate::kv::limits::StoreLimits;
use crate::kv::members::MemberRecord;
use crate::kv::session::Session;
use crate::kv::store::Store;
use crate::kv::transaction::{Data, Record};
use crate::machine::NAME_BYTES_MAX;

/// Builds a store from the bytes of a snapshot.
///
/// Push them in pieces of any size, then [`finish`](SnapshotReader::finish). Memory beside the store itself is one block.
/// After an error the reader is of no more use.
#[derive(Debug)]
pub struct SnapshotReader {
    limits: StoreLimits,
    /// The piece that is not complete yet.
    buffer: Vec<u8>,
    /// Where that piece starts.
    offset: u64,
    /// CRC of all pieces before it.
    crc: crc32fast::Hasher,
    /// What the prelude said.
    version: u32,
    number: u32,
    /// The kind of the last block.
    state: State,
    built: Option<(SnapshotHeader, Store)>,
    /// The state machine whose keys come now.
    machine: Option<String>,
}

/// A [`KeyValue`](crate::kv::command::KeyValue) as it lies in the block: a million of them are not copied twice.
#[derive(Deserialize)]
struct StoredItem<'a> {
    key: &'a [u8],
    value: &'a [u8],
    create_revision: u64,
    mod_revision: u64,
    version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prelude,
    Block { last: Option<BlockKind> },
}

/// A block's header.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u32,
    bytes: u32,
    number: u32,
    crc: u32,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Head> {
        let (words, _) = bytes.get(..BLOCK_HEADER_BYTES)?.as_chunks::<4>();
        let word = |at: usize| u32::from_le_bytes(words[at]);
        Some(Head {
            kind: word(0),
            bytes: word(1),
            number: word(2),
            crc: word(3),
        })
    }
}

impl SnapshotReader {
    /// A reader that has seen nothing yet. The limits are those of the store that comes out.
    pub fn new(limits: StoreLimits) -> SnapshotReader {
        SnapshotReader {
            limits,
            buffer: Vec::new(),
            offset: 0,
            crc: crc32fast::Hasher::new(),
            version: FIRST_VERSION,
            number: 0,
            state: State::Prelude,
            built: None,
            machine: None,
        }
    }

    /// Reads a whole snapshot.
    ///
    /// # Errors
    /// As [`SnapshotReader::push`] and [`SnapshotReader::finish`].
    pub fn read(
        limits: StoreLimits,
        bytes: &[u8],
    ) -> Result<(SnapshotHeader, Store), SnapshotError> {
        let mut reader = SnapshotReader::new(limits);
        reader.push(bytes)?;
        reader.finish()
    }

    /// What the first block said, once it was read.
    pub fn header(&self) -> Option<&SnapshotHeader> {
        self.built.as_ref().map(|(header, _)| header)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// These bytes, with those before them, are no snapshot.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            if self.is_complete() {
                return Err(SnapshotError::TrailingBytes {
                    offset: self.offset,
                });
            }
            let wanted = self.piece_bytes()? - self.buffer.len();
            let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.buffer.extend_from_slice(taken);
            bytes = rest;
            if self.buffer.len() == self.piece_bytes()? {
                self.take_piece()?;
            }
        }
        Ok(())
    }

    /// The header and the store.
    ///
    /// # Errors
    /// The bytes ended too early.
    pub fn finish(self) -> Result<(SnapshotHeader, Store), SnapshotError> {
        let complete = self.is_complete();
        let offset = self.offset + self.buffer.len() as u64;
        self.built
            .filter(|_| complete)
            .ok_or(SnapshotError::Truncated { offset })
    }

    fn is_complete(&self) -> bool {
        self.state
            == State::Block {
                last: Some(BlockKind::End),
            }
    }

    /// How long the piece in the buffer is, as far as is known.
    fn piece_bytes(&self) -> Result<usize, SnapshotError> {
        if self.state == State::Prelude {
            return Ok(PRELUDE_BYTES);
        }
        let Some(head) = Head::parse(&self.buffer) else {
            return Ok(BLOCK_HEADER_BYTES);
        };
        if head.bytes as usize > BLOCK_BYTES_MAX {
            let (bytes, limit) = (u64::from(head.bytes), BLOCK_BYTES_MAX as u64);
            return Err(SnapshotError::BlockTooLarge {
                offset: self.offset,
                bytes,
                limit,
            });
        }
        Ok(BLOCK_HEADER_BYTES + head.bytes as usize)
    }

    fn take_piece(&mut self) -> Result<(), SnapshotError> {
        let piece = std::mem::take(&mut self.buffer);
        match self.state {
            State::Prelude => {
                self.version = check_prelude(&piece)?;
                self.state = State::Block { last: None };
            }
            State::Block { last } => {
                let kind = self.take_block(&piece, last)?;
                self.state = State::Block { last: Some(kind) };
            }
        }
        self.crc.update(&piece);
        self.offset += piece.len() as u64;
        self.buffer = piece;
        self.buffer.clear();
        Ok(())
    }

    fn take_block(
        &mut self,
        piece: &[u8],
        last: Option<BlockKind>,
    ) -> Result<BlockKind, SnapshotError> {
        let head = Head::parse(piece).ok_or(SnapshotError::Truncated {
            offset: self.offset,
        })?;
        let content = &piece[BLOCK_HEADER_BYTES..];
        let found = super::block_crc(
            &super::block_head(head.kind, head.bytes, head.number),
            content,
        );
        if found != head.crc {
            return Err(SnapshotError::Checksum {
                offset: self.offset,
                expected: head.crc,
                found,
            });
        }
        let kind = BlockKind::from_number(head.kind)
            .filter(|&kind| head.number == self.number && may_follow(last, kind))
            .filter(|&kind| kind.since() <= self.version)
            .ok_or(SnapshotError::UnexpectedBlock {
                offset: self.offset,
                kind: head.kind,
                number: head.number,
            })?;
        self.number += 1;
        match kind {
            BlockKind::Header => self.take_header(content)?,
            BlockKind::Members => self.take_members(content)?,
            BlockKind::Sessions => self.take_sessions(content)?,
            BlockKind::Machines => self.take_machines(content)?,
            BlockKind::Data => self.take_data(content)?,
            BlockKind::End => self.take_end(content)?,
        }
        Ok(kind)
    }

    fn malformed(&self) -> SnapshotError {
        SnapshotError::Malformed {
            offset: self.offset,
        }
    }

    fn take_header(&mut self, content: &[u8]) -> Result<(), SnapshotError> {
        let (header, rest) = self.element::<SnapshotHeader>(content)?;
        if !rest.is_empty() {
            return Err(self.malformed());
        }
        if header.hash_algorithm != HASH_ALGORITHM {
            return Err(SnapshotError::UnknownHash {
                found: header.hash_algorithm,
                known: HASH_ALGORITHM,
            });
        }
        let store = header.store(self.limits);
        self.built = Some((header, store));
        Ok(())
    }

    fn take_members(&mut self, mut content: &[u8]) -> Result<(), SnapshotError> {
        while !content.is_empty() {
            let ((id, record), rest) = self.element::<(u64, MemberRecord)>(content)?;
            let sound = self
                .built
                .as_mut()
                .is_some_and(|(header, store)| store.members.restore(id, record, header.index));
            if !sound {
                return Err(self.malformed());
            }
            content = rest;
        }
        Ok(())
    }

    fn take_sessions(&mut self, mut content: &[u8]) -> Result<(), SnapshotError> {
        while !content.is_empty() {
            let ((id, session), rest) = self.element::<(u64, Session)>(content)?;
            let sound = self.built.as_mut().is_some_and(|(_, store)| {
                id != 0
                    && session.used_at_index <= store.applied
                    && store.sessions.restore(id, session)
            });
            if !sound {
                return Err(self.malformed());
            }
            content = rest;
        }
        Ok(())
    }

    fn take_machines(&mut self, mut content: &[u8]) -> Result<(), SnapshotError> {
        while !content.is_empty() {
            let (element, rest) = self.element::<MachineElement>(content)?;
            match element {
                MachineElement::Machine { name, version } => self.begin_machine(name, version)?,
                MachineElement::Key(item) => {
                    let record = Record {
                        value: item.value,
                        create_revision: item.create_revision,
                        mod_revision: item.mod_revision,
                        version: item.version,
                    };
                    let state = self.state_of_machine();
                    if !state.is_some_and(|state| state.data.push_last(item.key.into(), record)) {
                        return Err(self.malformed());
                    }
                }
            }
            content = rest;
        }
        Ok(())
    }

    fn state_of_machine(&mut self) -> Option<&mut MachineState> {
        let (_, store) = self.built.as_mut()?;
        store.machines.get_mut(&self.machine.as_ref()?[..])
    }

    fn begin_machine(&mut self, name: String, version: u32) -> Result<(), SnapshotError> {
        let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
            && version > 0
            && self.machine.as_ref().is_none_or(|last| *last < name);
        let Some((_, store)) = self.built.as_mut().filter(|_| sound) else {
            return Err(self.malformed());
        };
        let data = Data::new();
        store
            .machines
            .insert(name.clone(), MachineState { version, data });
        self.machine = Some(name);
        Ok(())
    }

    fn take_data(&mut self, mut content: &[u8]) -> Result<(), SnapshotError> {
        while !content.is_empty() {
            let (item, rest) = self.element::<StoredItem<'_>>(content)?;
            let record = Record {
                value: Bytes::copy_from_slice(item.value),
                create_revision: item.create_revision,
                mod_revision: item.mod_revision,
                version: item.version,
            };
            // Keys ascend, so the tree is built without a search.
            let sound = self
                .built
                .as_mut()
                .is_some_and(|(_, store)| store.data.push_last(Key::from(item.key), record));
            if !sound {
                return Err(self.malformed());
            }
            content = rest;
        }
        Ok(())
    }

    fn take_end(&mut self, content: &[u8]) -> Result<(), SnapshotError> {
        let (end, rest) = self.element::<End>(content)?;
        let found = self.crc.clone().finalize();
        if end.crc != found {
            return Err(SnapshotError::Checksum {
                offset: self.offset,
                expected: end.crc,
                found,
            });
        }
        let whole = self.built.as_ref().is_some_and(|(_, store)| {
            (end.keys, end.sessions) == (store.data.len() as u64, store.sessions.len() as u64)
        });
        if whole && rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    fn element<'a, T: Deserialize<'a>>(
        &self,
        content: &'a [u8],
    ) -> Result<(T, &'a [u8]), SnapshotError> {
        postcard::take_from_bytes(content).map_err(|_| self.malformed())
    }
}

fn may_follow(last: Option<BlockKind>, kind: BlockKind) -> bool {
    match last {
        None => kind == BlockKind::Header,
        Some(BlockKind::Header) => kind.rank() > BlockKind::Header.rank(),
        Some(BlockKind::End) => false,
        Some(
            last @ (BlockKind::Members
            | BlockKind::Sessions
            | BlockKind::Machines
            | BlockKind::Data),
        ) => kind.rank() >= last.rank(),
    }
}

/// Magic first, then the checksum, then the version: a newer version is named only if it is really there.
fn check_prelude(piece: &[u8]) -> Result<u32, SnapshotError> {
    let (words, _) = piece.as_chunks::<4>();
    let [first, second, version, expected] = words else {
        return Err(SnapshotError::Truncated { offset: 0 });
    };
    let mut found = [0; 8];
    found[..4].copy_from_slice(first);
    found[4..].copy_from_slice(second);
    if found != SNAPSHOT_MAGIC {
        return Err(SnapshotError::NotASnapshot { found });
    }
    let (expected, computed) = (u32::from_le_bytes(*expected), crc32fast::hash(&piece[..12]));
    if expected != computed {
        return Err(SnapshotError::Checksum {
            offset: 0,
            expected,
            found: computed,
        });
    }
    match u32::from_le_bytes(*version) {
        version @ FIRST_VERSION..=SNAPSHOT_VERSION => Ok(version),
        found if found > SNAPSHOT_VERSION => Err(SnapshotError::NewerVersion {
            found,
            known: SNAPSHOT_VERSION,
        }),
        _ => Err(SnapshotError::Malformed { offset: 0 }),
    }
}
