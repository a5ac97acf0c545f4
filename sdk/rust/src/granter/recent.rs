//! A bounded map that forgets what was put in long ago.

use std::collections::HashMap;
use std::hash::Hash;

/// Entries of one generation. Source: four times what a server takes to be known of one stream
/// before it tells again (farlane-controller, `MAX_TOLD`).
const GENERATION: usize = 32_768;

/// Two generations: whatever is among the last [`GENERATION`] put in is there.
pub(super) struct Recent<K, V> {
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            newer: HashMap::new(),
            older: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V> Recent<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }
    pub fn insert(&mut self, key: K, value: V) {
        if self.newer.len() >= GENERATION {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_oldest_go() {
        let mut recent = Recent::default();
        let all = 3 * GENERATION;
        (0..all).for_each(|n| recent.insert(n, n));
        assert!((all - GENERATION..all).all(|n| recent.get(&n) == Some(&n)));
        assert!(recent.get(&0).is_none());
        assert!(recent.newer.len() + recent.older.len() <= 2 * GENERATION);
    }
}
