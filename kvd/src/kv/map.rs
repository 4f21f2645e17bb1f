//! An ordered map whose clone is an immutable view, made at no cost.
//!
//! A B+ tree of reference-counted nodes. A clone shares the whole tree; a later write copies only the nodes on its way
//! that are still shared. So a snapshot reads a frozen state for as long as it likes while writes go on.
//!
//! ```text
//!                inner  [ g | p ]
//!               /          |        \
//!     leaf a..f       leaf g..o      leaf p..z       separators: the least key that the child on their right may hold
//! ```

use std::borrow::Borrow;
use std::ops::Bound;
use std::sync::Arc;

mod iter;
#[cfg(test)]
mod tests;

pub use iter::Iter;

/// Most elements of a leaf, and most children of an inner node. Larger: shorter trees, but an insertion moves more.
const NODE_MAX: usize = 64;
/// Below this a node is merged with a neighbour if both fit into one.
const NODE_MIN: usize = NODE_MAX / 4;

/// An ordered map with a clone that costs one reference count.
#[derive(Debug, Clone)]
pub struct CowMap<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

#[derive(Debug, Clone)]
enum Node<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
}

/// Keys and values apart: a search touches only keys.
///
/// Invariant: both have the same length, keys ascend strictly. Only the root may be empty.
#[derive(Debug, Clone)]
struct Leaf<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

/// Invariant: `separators.len() + 1 == children.len()`; all keys below `children[i]` are `>= separators[i - 1]` and
/// `< separators[i]`; all children have the same height.
#[derive(Debug, Clone)]
struct Inner<K, V> {
    separators: Vec<K>,
    children: Vec<Arc<Node<K, V>>>,
    /// Keys below this node.
    len: usize,
}

/// The right half of a node that became too large, and the least key that it may hold.
type Split<K, V> = Option<(K, Arc<Node<K, V>>)>;

impl<K, V> Default for CowMap<K, V> {
    fn default() -> CowMap<K, V> {
        CowMap {
            root: Arc::new(Node::Leaf(Leaf {
                keys: Vec::new(),
                values: Vec::new(),
            })),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// An empty map.
    pub fn new() -> CowMap<K, V> {
        CowMap::default()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)],
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| &leaf.values[at]),
            }
        }
    }

    /// The value of a key, to be changed in place.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let mut node = &mut self.root;
        loop {
            match Arc::make_mut(node) {
                Node::Inner(inner) => {
                    let child = inner.child_of(key);
                    node = &mut inner.children[child];
                }
                Node::Leaf(leaf) => return leaf.find(key).ok().map(|at| &mut leaf.values[at]),
            }
        }
    }

    /// Sets a key, and hands back what it held.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (previous, split) = Node::insert(&mut self.root, key, value, true);
        self.grow(split);
        self.len += usize::from(previous.is_none());
        previous
    }

    /// Puts a root above the two halves of the old one.
    fn grow(&mut self, split: Split<K, V>) {
        if let Some((separator, right)) = split {
            let left = std::mem::replace(&mut self.root, right);
            let len = left.len() + self.root.len();
            let children = vec![left, Arc::clone(&self.root)];
            self.root = Arc::new(Node::Inner(Inner {
                separators: vec![separator],
                children,
                len,
            }));
        }
    }

    /// Appends a key above all others, without a search: false, and nothing is changed, if it is not above them.
    pub fn push_last(&mut self, key: K, value: V) -> bool {
        if self.root.last_key().is_some_and(|last| *last >= key) {
            return false;
        }
        let split = Node::push_last(&mut self.root, key, value);
        self.grow(split);
        self.len += 1;
        true
    }

    /// Removes a key, and hands back what it held.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Looked up first: removing nothing must not copy shared nodes.
        self.get(key)?;
        let removed = Node::remove(&mut self.root, key);
        self.len -= 1;
        self.lower_root();
        removed
    }

    /// A root with one child or none is not needed.
    fn lower_root(&mut self) {
        while let Node::Inner(inner) = &*self.root {
            match inner.children.as_slice() {
                [] => *self = CowMap::default(),
                [only] => self.root = Arc::clone(only),
                _ => return,
            }
        }
    }

    /// All elements, in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter::new(&self.root, Bound::<&K>::Unbounded)
    }

    /// The elements from this bound on, in order.
    pub fn iter_from<Q: Ord + ?Sized>(&self, start: Bound<&Q>) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        Iter::new(&self.root, start)
    }

    /// The elements from the one on that so many lie before, in order. Walks one path to get there.
    pub fn iter_at(&self, before: usize) -> Iter<'_, K, V> {
        Iter::at(&self.root, before)
    }

    /// The first element.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// How many keys lie before this bound, taken as the start of a range. Walks one path, not the elements.
    pub fn count_before<Q: Ord + ?Sized>(&self, bound: Bound<&Q>) -> usize
    where
        K: Borrow<Q>,
    {
        let (key, inclusive) = match bound {
            Bound::Unbounded => return 0,
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
        };
        let mut before = 0;
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let child = inner.child_of(key);
                    before += inner.children[..child]
                        .iter()
                        .map(|child| child.len())
                        .sum::<usize>();
                    node = &inner.children[child];
                }
                Node::Leaf(leaf) => {
                    return before
                        + match leaf.find(key) {
                            Ok(at) => at + usize::from(inclusive),
                            Err(at) => at,
                        };
                }
            }
        }
    }
}

impl<K, V> Leaf<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.keys.binary_search_by(|held| held.borrow().cmp(key))
    }
}

impl<K, V> Inner<K, V> {
    /// The child that holds this key, if it is here at all.
    fn child_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.separators
            .partition_point(|separator| separator.borrow() <= key)
    }
}

impl<K, V> Node<K, V> {
    /// Keys below this node.
    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.keys.len(),
            Node::Inner(inner) => inner.len,
        }
    }

    /// The greatest key below this node; none in an empty map.
    fn last_key(&self) -> Option<&K> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys.last(),
                Node::Inner(inner) => node = inner.children.last()?,
            }
        }
    }

    /// Elements or children of this node itself.
    fn width(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.keys.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    /// `rightmost`: this node is the last of its level.
    fn insert(this: &mut Arc<Self>, key: K, value: V, rightmost: bool) -> (Option<V>, Split<K, V>) {
        match Arc::make_mut(this) {
            Node::Leaf(leaf) => leaf.insert(key, value, rightmost),
            Node::Inner(inner) => {
                let at = inner.child_of(&key);
                let last = at + 1 == inner.children.len();
                let (previous, split) =
                    Node::insert(&mut inner.children[at], key, value, rightmost && last);
                inner.len += usize::from(previous.is_none());
                (
                    previous,
                    split.and_then(|(separator, right)| {
                        inner.adopt(at, separator, right, rightmost && last)
                    }),
                )
            }
        }
    }

    /// `key` is above all keys below this node, which is the last of its level.
    fn push_last(this: &mut Arc<Self>, key: K, value: V) -> Split<K, V> {
        match Arc::make_mut(this) {
            Node::Leaf(leaf) => {
                leaf.keys.push(key);
                leaf.values.push(value);
                leaf.split(true)
            }
            Node::Inner(inner) => {
                let at = inner.children.len() - 1;
                let split = Node::push_last(&mut inner.children[at], key, value);
                inner.len += 1;
                split.and_then(|(separator, right)| inner.adopt(at, separator, right, true))
            }
        }
    }

    fn remove<Q: Ord + ?Sized>(this: &mut Arc<Self>, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match Arc::make_mut(this) {
            Node::Leaf(leaf) => {
                let at = leaf.find(key).ok()?;
                leaf.keys.remove(at);
                Some(leaf.values.remove(at))
            }
            Node::Inner(inner) => {
                let at = inner.child_of(key);
                let removed = Node::remove(&mut inner.children[at], key)?;
                inner.len -= 1;
                inner.tidy(at);
                Some(removed)
            }
        }
    }

    /// Appends the elements of the right neighbour.
    fn absorb(&mut self, separator: K, right: Self) {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.keys.extend(right.keys);
                left.values.extend(right.values);
            }
            (Node::Inner(left), Node::Inner(right)) => {
                left.separators.push(separator);
                left.separators.extend(right.separators);
                left.children.extend(right.children);
                left.len += right.len;
            }
            (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
                unreachable!("neighbours have the same height")
            }
        }
    }
}

/// Where to cut a full node. One that grows at the far right is filled by ascending keys: cut there, the left one stays
/// full instead of being left behind half empty.
fn cut_point(width: usize, grows_at_end: bool) -> usize {
    if grows_at_end { width - 1 } else { width / 2 }
}

impl<K: Ord + Clone, V: Clone> Leaf<K, V> {
    fn insert(&mut self, key: K, value: V, rightmost: bool) -> (Option<V>, Split<K, V>) {
        match self.find(&key) {
            Ok(at) => (Some(std::mem::replace(&mut self.values[at], value)), None),
            Err(at) => {
                let grows_at_end = rightmost && at == self.keys.len();
                self.keys.insert(at, key);
                self.values.insert(at, value);
                (None, self.split(grows_at_end))
            }
        }
    }

    fn split(&mut self, grows_at_end: bool) -> Split<K, V> {
        if self.keys.len() <= NODE_MAX {
            return None;
        }
        let cut = cut_point(self.keys.len(), grows_at_end);
        let right = Leaf {
            keys: self.keys.split_off(cut),
            values: self.values.split_off(cut),
        };
        Some((right.keys[0].clone(), Arc::new(Node::Leaf(right))))
    }
}

impl<K: Ord + Clone, V: Clone> Inner<K, V> {
    /// Takes in the right half of child `at`. `len` counts its keys already.
    fn adopt(
        &mut self,
        at: usize,
        separator: K,
        right: Arc<Node<K, V>>,
        grows_at_end: bool,
    ) -> Split<K, V> {
        self.separators.insert(at, separator);
        self.children.insert(at + 1, right);
        if self.children.len() <= NODE_MAX {
            return None;
        }
        let cut = cut_point(self.children.len(), grows_at_end);
        let children = self.children.split_off(cut);
        let separators = self.separators.split_off(cut);
        let middle = self
            .separators
            .pop()
            .expect("a separator lies between the two halves");
        let len = children.iter().map(|child| child.len()).sum();
        self.len -= len;
        Some((
            middle,
            Arc::new(Node::Inner(Inner {
                separators,
                children,
                len,
            })),
        ))
    }

    /// After a removal below child `at`: drops it if it is empty, merges it with a neighbour if both are small.
    fn tidy(&mut self, at: usize) {
        let width = self.children[at].width();
        if width == 0 {
            self.children.remove(at);
            // The keys that the dropped child could have held now belong to a neighbour, whichever it is.
            if !self.separators.is_empty() {
                self.separators.remove(at.saturating_sub(1));
            }
            return;
        }
        if width >= NODE_MIN {
            return;
        }
        let fits = |left: usize| {
            self.children
                .get(left + 1)
                .is_some_and(|right| self.children[left].width() + right.width() <= NODE_MAX)
        };
        if fits(at) {
            self.merge(at);
        } else if at > 0 && fits(at - 1) {
            self.merge(at - 1);
        }
    }

    /// Merges child `left` with the one on its right.
    fn merge(&mut self, left: usize) {
        let right = Arc::unwrap_or_clone(self.children.remove(left + 1));
        let separator = self.separators.remove(left);
        Arc::make_mut(&mut self.children[left]).absorb(separator, right);
    }
}
