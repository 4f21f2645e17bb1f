//! The table itself, and what may become of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MemberEdit, MemberRecord, MemberRefusal, MemberState, MemberUpdate, TEXT_BYTES_MAX};
use crate::kv::hash::Hasher;
use crate::wire::client::{MEMBERS_CEILING, MemberAddress};

/// The table. A clone costs a reference count.
#[derive(Debug, Clone, Default)]
pub struct MemberTable {
    records: Arc<BTreeMap<u64, MemberRecord>>,
    /// Sum of the hashes of all records.
    digest: u64,
    /// Index of the entry that changed it last, or of the snapshot that it came with.
    changed_at: u64,
}

impl MemberTable {
    /// Whether the members never changed: then they are those that the cluster was founded with.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All that ever were members, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &MemberRecord)> {
        self.records.iter().map(|(id, record)| (*id, record))
    }

    /// Those that are members.
    pub fn present(&self) -> impl Iterator<Item = (u64, &MemberRecord)> {
        self.iter()
            .filter(|(_, record)| record.state != MemberState::Removed)
    }

    /// What is known of this id.
    pub fn get(&self, id: u64) -> Option<&MemberRecord> {
        self.records.get(&id)
    }

    /// The member of this name.
    pub fn named(&self, name: &str) -> Option<(u64, &MemberRecord)> {
        self.present().find(|(_, record)| record.name == name)
    }

    /// Whether the node of this id was a member once.
    pub fn is_removed(&self, id: u64) -> bool {
        self.get(id)
            .is_some_and(|record| record.state == MemberState::Removed)
    }

    /// Index of the entry that changed the table last; grows with each change.
    pub fn changed_at(&self) -> u64 {
        self.changed_at
    }

    /// Tells two tables apart. Part of the state hash.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// As [`MemberTable::digest`], from the records that are there.
    pub(crate) fn recount(&self) -> u64 {
        let hashes = self.iter().map(|(id, record)| record_hash(id, record));
        hashes.fold(0, u64::wrapping_add)
    }

    /// The members with their addresses.
    pub fn addresses(&self) -> Vec<MemberAddress> {
        let address = |(id, record): (u64, &MemberRecord)| MemberAddress {
            name: record.name.clone(),
            id,
            address: record.address.clone(),
        };
        self.present().map(address).collect()
    }

    /// What the table would be after this update.
    ///
    /// # Errors
    /// Why the members stay as they are.
    pub fn updated(&self, update: &MemberUpdate) -> Result<MemberTable, MemberRefusal> {
        let mut next = self.clone();
        if next.is_empty() {
            for member in &update.founding {
                next.found(member)?;
            }
        }
        for edit in &update.edits {
            next.edit(edit)?;
        }
        Ok(next)
    }

    /// Applies the update of the entry at `index`.
    pub(crate) fn apply(&mut self, index: u64, update: &MemberUpdate) -> Result<(), MemberRefusal> {
        let next = self.updated(update)?;
        *self = MemberTable {
            changed_at: index,
            ..next
        };
        Ok(())
    }

    /// Takes a record out of a snapshot of `index`; false if it makes no sense there.
    pub(crate) fn restore(&mut self, id: u64, record: MemberRecord, index: u64) -> bool {
        if id == 0
            || self
                .records
                .last_key_value()
                .is_some_and(|(last, _)| *last >= id)
        {
            return false;
        }
        self.put(id, record);
        self.changed_at = index;
        true
    }

    /// Records with an id above this one.
    pub(crate) fn iter_after(&self, id: u64) -> impl Iterator<Item = (u64, &MemberRecord)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.records.range((Excluded(id), Unbounded));
        after.map(|(id, record)| (*id, record))
    }

    fn edit(&mut self, edit: &MemberEdit) -> Result<(), MemberRefusal> {
        match edit {
            MemberEdit::Join { member, replaces } => {
                if let Some(old) = replaces
                    && !self.is_present(*old)
                {
                    return Err(MemberRefusal::Unknown { id: *old });
                }
                self.join(member, *replaces)
            }
            MemberEdit::Address { id, address } => self.change_address(*id, address),
            MemberEdit::State { id, state } => {
                let mut record = self.known(*id)?.clone();
                record.state = record.state.max(*state);
                self.put(*id, record);
                Ok(())
            }
        }
    }

    /// Takes over a member that the cluster was founded with: what it is called was settled then.
    fn found(&mut self, member: &MemberAddress) -> Result<(), MemberRefusal> {
        if member.id == 0 {
            return Err(MemberRefusal::Malformed);
        }
        let record = MemberRecord {
            name: member.name.clone(),
            address: member.address.clone(),
            state: MemberState::Voter,
            replaces: None,
        };
        self.put(member.id, record);
        Ok(())
    }

    fn join(&mut self, member: &MemberAddress, replaces: Option<u64>) -> Result<(), MemberRefusal> {
        let MemberAddress { name, id, address } = member;
        check_text(name)?;
        if *id == 0 {
            return Err(MemberRefusal::Malformed);
        }
        if let Some(record) = self.get(*id) {
            let (id, name) = (*id, record.name.clone());
            return Err(match record.state {
                MemberState::Removed => MemberRefusal::WasRemoved { id, name },
                MemberState::Joining | MemberState::Learner | MemberState::Voter => {
                    MemberRefusal::IsMember { id, name }
                }
            });
        }
        if self.named(name).is_some() {
            return Err(MemberRefusal::NameInUse { name: name.clone() });
        }
        self.check_address(*id, address)?;
        if self.present().count() >= MEMBERS_CEILING {
            return Err(MemberRefusal::TooMany);
        }
        let record = MemberRecord {
            name: name.clone(),
            address: address.clone(),
            state: MemberState::Joining,
            replaces,
        };
        self.put(*id, record);
        Ok(())
    }

    fn change_address(&mut self, id: u64, address: &str) -> Result<(), MemberRefusal> {
        if !self.is_present(id) {
            return Err(MemberRefusal::Unknown { id });
        }
        self.check_address(id, address)?;
        let mut record = self.known(id)?.clone();
        address.clone_into(&mut record.address);
        self.put(id, record);
        Ok(())
    }

    fn check_address(&self, id: u64, address: &str) -> Result<(), MemberRefusal> {
        check_text(address)?;
        let other = self
            .present()
            .find(|(other, record)| *other != id && record.address == address);
        other.map_or(Ok(()), |(_, record)| {
            Err(MemberRefusal::AddressInUse {
                address: address.to_owned(),
                name: record.name.clone(),
            })
        })
    }

    fn is_present(&self, id: u64) -> bool {
        self.get(id)
            .is_some_and(|record| record.state != MemberState::Removed)
    }

    fn known(&self, id: u64) -> Result<&MemberRecord, MemberRefusal> {
        self.get(id).ok_or(MemberRefusal::Unknown { id })
    }

    fn put(&mut self, id: u64, record: MemberRecord) {
        let added = record_hash(id, &record);
        let before = Arc::make_mut(&mut self.records).insert(id, record);
        let removed = before.map_or(0, |record| record_hash(id, &record));
        self.digest = self.digest.wrapping_sub(removed).wrapping_add(added);
    }
}

fn check_text(text: &str) -> Result<(), MemberRefusal> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(MemberRefusal::Malformed);
    }
    Ok(())
}

fn record_hash(id: u64, record: &MemberRecord) -> u64 {
    let mut hasher = Hasher::new(id);
    hasher.bytes(record.name.as_bytes());
    hasher.bytes(record.address.as_bytes());
    hasher.word(record.state as u64);
    hasher.word(record.replaces.unwrap_or(0));
    hasher.finish()
}
