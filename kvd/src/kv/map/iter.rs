//! Walking a map in order.

use std::borrow::Borrow;
use std::ops::Bound;

use super::{Inner, Leaf, Node};

/// The elements of a map, in order.
pub struct Iter<'a, K, V> {
    /// Inner nodes on the way down, each with the next child to enter.
    path: Vec<(&'a Inner<K, V>, usize)>,
    leaf: &'a Leaf<K, V>,
    next: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    pub(super) fn new<Q: Ord + ?Sized>(root: &'a Node<K, V>, start: Bound<&Q>) -> Iter<'a, K, V>
    where
        K: Borrow<Q>,
    {
        let mut path = Vec::new();
        let mut node = root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let child = match start {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => inner.child_of(key),
                    };
                    path.push((inner, child + 1));
                    node = &inner.children[child];
                }
                Node::Leaf(leaf) => {
                    let next = match start {
                        Bound::Unbounded => 0,
                        Bound::Included(key) => leaf.find(key).unwrap_or_else(|at| at),
                        Bound::Excluded(key) => leaf.find(key).map_or_else(|at| at, |at| at + 1),
                    };
                    return Iter { path, leaf, next };
                }
            }
        }
    }

    /// Starts behind the first `before` elements.
    pub(super) fn at(root: &'a Node<K, V>, mut before: usize) -> Iter<'a, K, V> {
        let mut path = Vec::new();
        let mut node = root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let mut child = 0;
                    while child + 1 < inner.children.len() && inner.children[child].len() <= before
                    {
                        before -= inner.children[child].len();
                        child += 1;
                    }
                    path.push((inner, child + 1));
                    node = &inner.children[child];
                }
                Node::Leaf(leaf) => {
                    let next = before.min(leaf.keys.len());
                    return Iter { path, leaf, next };
                }
            }
        }
    }

    /// Goes to the next leaf; `false` if there is none.
    fn advance(&mut self) -> bool {
        while let Some((inner, child)) = self.path.last_mut() {
            let Some(mut node) = inner.children.get(*child) else {
                self.path.pop();
                continue;
            };
            *child += 1;
            while let Node::Inner(inner) = &**node {
                self.path.push((inner, 1));
                node = &inner.children[0];
            }
            if let Node::Leaf(leaf) = &**node {
                (self.leaf, self.next) = (leaf, 0);
            }
            return true;
        }
        false
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next == self.leaf.keys.len() {
            if !self.advance() {
                return None;
            }
        }
        let at = self.next;
        self.next += 1;
        Some((&self.leaf.keys[at], &self.leaf.values[at]))
    }
}
