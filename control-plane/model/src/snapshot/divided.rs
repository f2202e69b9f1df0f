//! A large map of which the next mesh has most parts, too.

use std::{collections::BTreeMap, sync::Arc};

/// How many values a part has when it is made, and twice of which it never has.
const OF_PART: usize = 64;

/// A map in parts, each of which is copied when it is written to, if others have it too: one change of ten thousand values
/// copies some dozens of them. It is read in the order of its keys.
#[derive(Debug, Clone)]
pub struct Divided<K, V>(
    /// None is empty, and all keys of one come before those of the next.
    Arc<Vec<Part<K, V>>>,
);

type Part<K, V> = Arc<BTreeMap<K, V>>;

impl<K, V> Default for Divided<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord, V> Divided<K, V> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.place(key))?.get(key)
    }

    /// All keys with their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flat_map(|part| part.iter())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the very same. Others may be equal all the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What is in parts that `other` does not share, in the order of the keys. All else is in both.
    pub fn beside<'s>(&'s self, other: &Self) -> impl Iterator<Item = (&'s K, &'s V)> + use<'s, K, V> {
        let mut theirs: Vec<usize> = other.0.iter().map(|part| Arc::as_ptr(part).addr()).collect();
        theirs.sort_unstable();
        let own = self.0.iter().filter(move |part| theirs.binary_search(&Arc::as_ptr(part).addr()).is_err());
        own.flat_map(|part| part.iter())
    }

    /// The part that has `key`, if any has it.
    fn place(&self, key: &K) -> usize {
        let after =
            self.0.partition_point(|part| part.first_key_value().is_some_and(|(first, _)| first <= key));
        after.saturating_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> Divided<K, V> {
    /// Gives `key` this value, and returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place(&key);
        let parts = Arc::make_mut(&mut self.0);
        let Some(part) = parts.get_mut(place) else {
            parts.push(Arc::new(BTreeMap::from([(key, value)])));
            return None;
        };
        let part = Arc::make_mut(part);
        let before = part.insert(key, value);
        if part.len() >= 2 * OF_PART {
            let middle = part.keys().nth(OF_PART).cloned();
            let rest = middle.map(|middle| part.split_off(&middle));
            rest.into_iter().for_each(|rest| parts.insert(place + 1, Arc::new(rest)));
        }
        before
    }

    /// Removes `key`, and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key);
        self.get(key)?;
        let parts = Arc::make_mut(&mut self.0);
        let part = Arc::make_mut(parts.get_mut(place)?);
        let before = part.remove(key);
        if part.is_empty() {
            parts.remove(place);
        }
        before
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Divided<K, V> {
    fn eq(&self, other: &Self) -> bool {
        // Of two that were made of one, most parts are shared.
        let is_same = |(one, other): (&Part<K, V>, &Part<K, V>)| Arc::ptr_eq(one, other) || one == other;
        let are_parts_same = || self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(is_same);
        self.is(other) || are_parts_same() || self.iter().eq(other.iter())
    }
}

impl<K: Ord, V: Eq> Eq for Divided<K, V> {}

impl<K: Ord, V> From<BTreeMap<K, V>> for Divided<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        map.into_iter().collect()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Divided<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs = BTreeMap::from_iter(pairs).into_iter().peekable();
        let mut parts = Vec::new();
        while pairs.peek().is_some() {
            parts.push(Arc::new(pairs.by_ref().take(OF_PART).collect()));
        }
        Self(Arc::new(parts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_map_that_it_would_be_in_one_part(
            start in proptest::collection::btree_map(0_u16..600, 0_u8..9, 0..400),
            steps in proptest::collection::vec((0_u16..600, proptest::option::weighted(0.6, 0_u8..9)), 0..300),
        ) {
            let mut map = start.clone();
            let mut divided = Divided::from(start);
            let before = divided.clone();
            let first = map.clone();
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(divided.insert(key, value), map.insert(key, value)),
                    None => prop_assert_eq!(divided.remove(&key), map.remove(&key)),
                }
                prop_assert_eq!(divided.get(&key), map.get(&key));
            }
            prop_assert!(divided.iter().eq(&map));
            prop_assert!(before.iter().eq(&first), "the copy is left as it was");
            prop_assert_eq!(divided.len(), map.len());
            prop_assert_eq!(divided.is_empty(), map.is_empty());
            prop_assert_eq!(&divided, &Divided::from(map.clone()));
            prop_assert!(divided.0.iter().all(|part| !part.is_empty() && part.len() < 2 * OF_PART));

            let others: BTreeMap<_, _> = divided.beside(&before).collect();
            let different = map.iter().filter(|(key, value)| first.get(*key) != Some(*value));
            prop_assert!(different.into_iter().all(|(key, value)| others.get(key) == Some(&value)));
            let gone: BTreeMap<_, _> = before.beside(&divided).collect();
            prop_assert!(first.keys().filter(|key| !map.contains_key(*key)).all(|key| gone.contains_key(key)));
        }
    }

    #[test]
    fn one_change_of_many_copies_few() {
        let before: Divided<u32, u32> = (0..10_000).map(|key| (key, 1)).collect();
        let mut after = before.clone();

        after.insert(5_000, 2);

        assert_eq!(after.beside(&before).count(), OF_PART);
        assert_eq!(before.beside(&after).count(), OF_PART);
        assert_eq!(before.beside(&before.clone()).count(), 0);
    }
}
