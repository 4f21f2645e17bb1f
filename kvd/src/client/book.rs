//! The addresses a client knows, in the order in which it tries them, and what was found at each.

use super::dial::{Greeting, Target};
use super::error::{Finding, Found};
use crate::wire::client::MemberAddress;

/// Addresses and findings.
#[derive(Debug)]
pub(crate) struct Book {
    entries: Vec<Entry>,
    /// Only what the caller has named is ever dialled.
    pinned: bool,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    found: Option<Found>,
    /// Name of the node behind it, once it is known.
    node: Option<String>,
}

impl Book {
    /// The endpoints that the caller has named. With `pinned`, members that are learnt are not dialled.
    pub(crate) fn new(endpoints: &[String], pinned: bool) -> Book {
        let entries = endpoints
            .iter()
            .map(|address| Entry {
                target: Target {
                    address: address.clone(),
                    node: None,
                },
                found: None,
                node: None,
            })
            .collect();
        Book { entries, pinned }
    }

    /// Whom to dial, in order.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.entries
            .iter()
            .map(|entry| entry.target.clone())
            .collect()
    }

    /// Whether there is more than one address to try.
    pub(crate) fn has_alternative(&self) -> bool {
        self.entries.len() > 1
    }

    /// Whether waiting will not help: every address was refused for a reason that stays.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.entries.iter().all(|entry| {
            matches!(
                entry.found,
                Some(Found::CertificateRejected(_) | Found::NotTrusted(_))
            )
        })
    }

    /// Learns from a hello: who is behind the address, and who else is there.
    pub(crate) fn greeted(&mut self, target: &Target, greeting: &Greeting) {
        if let Some(entry) = self.entry_of(&target.address) {
            entry.node = Some(greeting.node.clone());
            entry.found = None;
        }
        if self.pinned {
            return;
        }
        for member in &greeting.members {
            let known = self.entries.iter_mut().find(|entry| {
                entry.target.address == member.address || entry.node.as_ref() == Some(&member.name)
            });
            match known {
                Some(entry) => entry.node = Some(member.name.clone()),
                None => self.entries.push(Entry::of(member)),
            }
        }
    }

    fn entry_of(&mut self, address: &str) -> Option<&mut Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.target.address == address)
    }

    /// Remembers what was found at an address.
    pub(crate) fn note(&mut self, target: &Target, found: Found) {
        if let Some(entry) = self.entry_of(&target.address) {
            entry.found = Some(found);
        }
    }

    /// What was found at each address that did not do.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.entries
            .iter()
            .filter_map(|entry| {
                Some(Finding {
                    endpoint: entry.target.address.clone(),
                    node: entry.node.clone(),
                    found: entry.found.clone()?,
                })
            })
            .collect()
    }

    /// This address is tried after all others.
    pub(crate) fn put_last(&mut self, target: &Target) {
        if let Some(at) = self
            .entries
            .iter()
            .position(|e| e.target.address == target.address)
        {
            let entry = self.entries.remove(at);
            self.entries.push(entry);
        }
    }

    /// The leader's address is tried first. False if it may not be dialled.
    pub(crate) fn prefer(&mut self, leader: &MemberAddress) -> bool {
        let Some(target) = self.target_of(leader) else {
            return false;
        };
        let at = self
            .entries
            .iter()
            .position(|entry| entry.target.address == target.address);
        let entry = match at {
            Some(at) => self.entries.remove(at),
            None => Entry::of(leader),
        };
        self.entries.insert(0, entry);
        true
    }

    /// How to dial a member, if it may be dialled: at the address that worked before, or at the one it gives.
    pub(crate) fn target_of(&self, member: &MemberAddress) -> Option<Target> {
        let known = self.entries.iter().find(|entry| {
            entry.node.as_ref() == Some(&member.name) || entry.target.address == member.address
        });
        match known {
            Some(entry) => Some(entry.target.clone()),
            None if self.pinned => None,
            None => Some(Entry::of(member).target),
        }
    }
}

impl Entry {
    fn of(member: &MemberAddress) -> Entry {
        Entry {
            target: Target {
                address: member.address.clone(),
                node: Some(member.name.clone()),
            },
            found: None,
            node: Some(member.name.clone()),
        }
    }
}
