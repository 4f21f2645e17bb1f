use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Checks every invariant of the tree.
fn check<K: Ord + Clone + std::fmt::Debug, V: Clone>(map: &CowMap<K, V>) {
    fn walk<K: Ord + Clone + std::fmt::Debug, V: Clone>(
        node: &Node<K, V>,
        low: Option<&K>,
        high: Option<&K>,
        root: bool,
    ) -> (usize, usize) {
        match node {
            Node::Leaf(leaf) => {
                assert_eq!(leaf.keys.len(), leaf.values.len());
                assert!(leaf.keys.len() <= NODE_MAX);
                assert!(root || !leaf.keys.is_empty());
                assert!(leaf.keys.is_sorted_by(|a, b| a < b));
                assert!(leaf.keys.iter().all(|key| low.is_none_or(|low| key >= low)));
                assert!(
                    leaf.keys
                        .iter()
                        .all(|key| high.is_none_or(|high| key < high))
                );
                (leaf.keys.len(), 0)
            }
            Node::Inner(inner) => {
                assert_eq!(inner.separators.len() + 1, inner.children.len());
                assert!(inner.children.len() <= NODE_MAX);
                assert!(!root || inner.children.len() > 1);
                let mut len = 0;
                let mut heights = Vec::new();
                for (at, child) in inner.children.iter().enumerate() {
                    let low = if at == 0 {
                        low
                    } else {
                        Some(&inner.separators[at - 1])
                    };
                    let high = inner.separators.get(at).or(high);
                    let (keys, height) = walk(child, low, high, false);
                    len += keys;
                    heights.push(height);
                }
                assert_eq!(len, inner.len);
                assert!(
                    heights.iter().all(|&height| height == heights[0]),
                    "{heights:?}"
                );
                (len, heights[0] + 1)
            }
        }
    }
    assert_eq!(walk(&map.root, None, None, true).0, map.len());
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u16, u32),
    PushLast(u16, u32),
    Remove(u16),
    RemoveRange(u16, u16),
    GetMut(u16, u32),
    Clone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4000_u16, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        6 => (3000..4200_u16, any::<u32>()).prop_map(|(key, value)| Step::PushLast(key, value)),
        6 => (0..4000_u16).prop_map(Step::Remove),
        1 => (0..4000_u16, 0..600_u16).prop_map(|(from, width)| Step::RemoveRange(from, width)),
        3 => (0..4000_u16, any::<u32>()).prop_map(|(key, value)| Step::GetMut(key, value)),
        1 => Just(Step::Clone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn behaves_as_an_ordered_map_and_clones_stay_as_they_were(
        ascending in 0..3000_u16,
        steps in prop::collection::vec(step(), 0..1000),
    ) {
        let mut map = CowMap::new();
        let mut model = BTreeMap::new();
        for key in 0..ascending {
            map.insert(key, 0);
            model.insert(key, 0);
        }
        let mut clones = Vec::new();
        for step in steps {
            match step {
                Step::Insert(key, value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                Step::PushLast(key, value) => {
                    let is_above = model.last_key_value().is_none_or(|(last, _)| *last < key);
                    prop_assert_eq!(map.push_last(key, value), is_above);
                    if is_above {
                        model.insert(key, value);
                    }
                }
                Step::Remove(key) => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                Step::RemoveRange(from, width) => {
                    for key in from..from + width {
                        prop_assert_eq!(map.remove(&key), model.remove(&key));
                    }
                }
                Step::GetMut(key, value) => {
                    prop_assert_eq!(map.get_mut(&key).map(|held| std::mem::replace(held, value)),
                        model.get_mut(&key).map(|held| std::mem::replace(held, value)));
                }
                Step::Clone => clones.push((map.clone(), model.clone())),
            }
        }
        clones.push((map, model));
        for (map, model) in &clones {
            check(map);
            prop_assert!(map.iter().eq(model.iter()));
            for before in (0..model.len() + 2).step_by(61) {
                prop_assert!(map.iter_at(before).eq(model.iter().skip(before)));
            }
            for key in (0..4200).step_by(173) {
                prop_assert_eq!(map.get(&key), model.get(&key));
                for bound in [Bound::Included(&key), Bound::Excluded(&key)] {
                    prop_assert!(map.iter_from(bound).eq(model.range((bound, Bound::Unbounded))));
                    prop_assert_eq!(map.count_before(bound),
                        model.len() - model.range((bound, Bound::Unbounded)).count());
                }
            }
        }
    }
}

#[test]
fn a_map_that_is_emptied_can_be_filled_again() {
    let mut map = CowMap::new();
    for round in 0..3 {
        for key in 0..10_000_u32 {
            map.insert(key, round);
        }
        check(&map);
        for key in (0..10_000).rev() {
            assert_eq!(map.remove(&key), Some(round));
        }
        check(&map);
        assert!(map.is_empty());
        assert_eq!(map.iter().next(), None);
    }
}

#[test]
fn ascending_keys_leave_full_leaves_behind() {
    let (mut map, mut pushed) = (CowMap::new(), CowMap::new());
    for key in 0..100_000_u32 {
        map.insert(key, ());
        assert!(pushed.push_last(key, ()));
        assert!(!pushed.push_last(key, ()), "twice");
    }
    check(&pushed);
    assert!(pushed.iter().eq(map.iter()));
    fn leaves<K, V>(node: &Node<K, V>) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Inner(inner) => inner.children.iter().map(|child| leaves(child)).sum(),
        }
    }
    assert!(
        leaves(&map.root) <= 100_000 / NODE_MAX + 1,
        "{} leaves",
        leaves(&map.root)
    );
    assert_eq!(leaves(&pushed.root), leaves(&map.root));
}
