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
                Some(Found::CertificateRejected(_) | Found::NotTrusted(_) | Found::Ended)
            )
        })
    }

    /// Learns from a hello: who is behind the address, and who else is there.
    pub(crate) fn greeted(&mut self, target: &Target, greeting: &Greeting) {
        if let Some(entry) = self.entry_of(&target.address) {
            entry.node = Some(greeting.node.clone());
            entry.found = None;
        }
        self.learn(&greeting.members);
    }

    /// Learns who the members are. What was learnt earlier and is no member any more is forgotten; what the caller has named
    /// stays, behind the members.
    pub(crate) fn learn(&mut self, members: &[MemberAddress]) {
        if self.pinned || members.is_empty() {
            return;
        }
        for member in members {
            match self.place_of(member) {
                Some(place) => self.entries[place].is_now(member),
                None => self.entries.push(Entry::of(member)),
            }
        }
        let is_member = |entry: &Entry| {
            let named = |member: &MemberAddress| entry.node.as_ref() == Some(&member.name);
            entry.node.is_none() || members.iter().any(named)
        };
        self.entries
            .retain(|entry| entry.target.node.is_none() || is_member(entry));
        self.entries.sort_by_key(|entry| !is_member(entry));
    }

    /// The entry of a member: the address that worked before, also if the cluster knows the node by another one; else the
    /// one that the cluster gives.
    fn place_of(&self, member: &MemberAddress) -> Option<usize> {
        let works =
            |entry: &Entry| entry.node.as_ref() == Some(&member.name) && entry.found.is_none();
        let is_given = |entry: &Entry| entry.target.address == member.address;
        let mut entries = self.entries.iter();
        let place = entries.position(works);
        place.or_else(|| self.entries.iter().position(is_given))
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
        match self.place_of(member) {
            Some(place) => Some(self.entries[place].target.clone()),
            None if self.pinned => None,
            None => Some(Entry::of(member).target),
        }
    }
}

impl Entry {
    /// Behind this address is that member now.
    fn is_now(&mut self, member: &MemberAddress) {
        self.node = Some(member.name.clone());
        if let Some(node) = &mut self.target.node {
            // Another node may have come to an address that was learnt.
            node.clone_from(&member.name);
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, address: &str) -> MemberAddress {
        MemberAddress {
            name: name.to_owned(),
            id: 1,
            address: address.to_owned(),
        }
    }

    fn addresses(book: &Book) -> Vec<String> {
        book.targets().into_iter().map(|it| it.address).collect()
    }

    fn dial(address: &str, node: Option<&str>) -> Target {
        Target {
            address: address.to_owned(),
            node: node.map(str::to_owned),
        }
    }

    #[test]
    fn members_come_before_what_the_caller_named_and_former_members_are_forgotten() {
        let mut book = Book::new(&["a".to_owned(), "x".to_owned()], false);
        book.learn(&[member("n1", "a"), member("n2", "b")]);
        assert_eq!(addresses(&book), ["a", "x", "b"]);
        book.learn(&[member("n2", "b"), member("n3", "c")]);
        assert_eq!(addresses(&book), ["x", "b", "c", "a"], "n1 was replaced");
        book.learn(&[member("n3", "c")]);
        assert_eq!(addresses(&book), ["x", "c", "a"], "n2 was removed");
        book.learn(&[]);
        assert_eq!(addresses(&book), ["x", "c", "a"], "nothing was said");
    }

    #[test]
    fn address_that_works_is_kept_and_one_that_failed_gives_way_to_the_one_of_the_table() {
        let mut book = Book::new(&["here".to_owned()], false);
        book.learn(&[]);
        book.entry_of("here").expect("named").node = Some("n1".to_owned());
        let n1 = member("n1", "there");
        book.learn(std::slice::from_ref(&n1));
        assert_eq!(addresses(&book), ["here"]);
        book.note(&dial("here", None), Found::TimedOut);
        book.learn(std::slice::from_ref(&n1));
        assert_eq!(book.target_of(&n1), Some(dial("there", Some("n1"))));
    }

    #[test]
    fn another_node_at_a_known_address_is_dialled_by_its_own_name() {
        let mut book = Book::new(&[], false);
        book.learn(&[member("n1", "a")]);
        book.learn(&[member("n4", "a")]);
        assert_eq!(book.targets(), [dial("a", Some("n4"))]);
    }

    #[test]
    fn pinned_book_learns_nothing() {
        let mut book = Book::new(&["a".to_owned()], true);
        book.learn(&[member("n2", "b")]);
        assert_eq!(addresses(&book), ["a"]);
        assert_eq!(book.target_of(&member("n2", "b")), None);
    }
}
